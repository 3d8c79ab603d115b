"""What script tests share: a real engine as a process, HTTP without a client library, journals read back.

A test names the program as its first argument: `python3 some_test.py build/release/sluice`.  Nothing here sleeps to
wait: the engine says when it listens, and ends when it is told.
"""
import atexit
import glob
import http.client
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLUICE = os.environ.get("SLUICE", os.path.join(ROOT, "build", "release", "sluice"))
MODERN = "2026-07-28"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")        # some programs colour their lines without a terminal, where CI is set
META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


def scratch(prefix="sluice-test-"):
    """A directory that goes when the test ends."""
    path = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, path, True)
    return path


class Process:
    """A program whose stderr is read line by line, from start to end."""

    def __init__(self, args, env=None, cwd=ROOT):
        self.lines = []
        self.seen = threading.Condition()
        self.ended = False
        self.process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd,
                                        env=dict(os.environ, **(env or {})))
        self.readers = [threading.Thread(target=self._read, args=(s,), daemon=True)
                        for s in (self.process.stderr, self.process.stdout)]
        for r in self.readers:
            r.start()
        atexit.register(self.kill)

    def _read(self, stream):
        for line in stream:
            with self.seen:
                self.lines.append(COLOURS.sub("", line.rstrip("\n")))
                self.seen.notify_all()
        with self.seen:
            self.ended = True
            self.seen.notify_all()

    def wait_line(self, pattern, timeout=60):
        """The match of the first line, old or new, that fits."""
        at = 0
        with self.seen:
            while True:
                for line in self.lines[at:]:
                    m = re.search(pattern, line)
                    if m:
                        return m
                at = len(self.lines)
                if self.ended or not self.seen.wait(timeout):
                    raise AssertionError("no line like %r; what came:\n%s" % (pattern, "\n".join(self.lines)))

    def text(self):
        with self.seen:
            return "\n".join(self.lines)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=60):
        code = self.process.wait(timeout)
        for r in self.readers:
            r.join(5)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Bridge:
    """`sluice stdio`, as a client that started it: a line each way."""

    def __init__(self, command, env=None):
        pipe = subprocess.PIPE
        self.p = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)

    def raw(self, text):
        self.p.stdin.write(text)
        self.p.stdin.flush()

    def send(self, message):
        self.raw(json.dumps(message) + "\n")

    def ask(self, id, method, params=None):
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})

    def take(self):
        line = self.p.stdout.readline()
        if not line:
            raise AssertionError("the bridge ended: " + self.p.stderr.read())
        return json.loads(line)

    def end(self, timeout=10):
        self.p.stdin.close()
        code = self.p.wait(timeout)
        self.left = self.p.stdout.read().splitlines()
        self.p.stdout.close()
        self.p.stderr.close()
        return code

    def rest(self):
        return self.left


class Engine(Process):
    """`sluice serve` on a free port, with a data directory of its own."""

    def __init__(self, config=None, data=None, args=(), env=None, start=True, program=None):
        self.data = data or os.path.join(scratch(), "data")
        command = [program or SLUICE, "serve", "--listen", "127.0.0.1:0", "--data", self.data]
        if config:
            command += ["--config", config]
        super().__init__(command + list(args), env)
        if start:
            m = self.wait_line(r'msg="?listening"? address="?([0-9.:\[\]]+)"? mcp="?([^" ]+)')
            self.address, self.url = m.group(1), m.group(2)
            self.port = int(self.address.rsplit(":", 1)[1])

    def stop(self, number=signal.SIGTERM):
        """Drains; answers the exit code."""
        self.signal(number)
        return self.wait()

    def token(self, user="alice@demo.example", agent="test-agent", tenant="demo", extra=()):
        return run("token", "--as", user, "--agent", agent, "--tenant", tenant, "--data", self.data, "--audience",
                   self.url, *extra).strip()

    # ---- HTTP ----

    def request(self, method, path, body=None, headers=None, timeout=30):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        finally:
            c.close()

    def rpc(self, method, params=None, token=None, name=None, id=1, headers=None, meta=None):
        """One modern request; answers (status, message)."""
        p = dict(params or {})
        p["_meta"] = dict(META, **(meta or {}))
        h = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
             "MCP-Protocol-Version": MODERN,
             "Mcp-Method": method}
        if name:
            h["Mcp-Name"] = name
        if token:
            h["Authorization"] = "Bearer " + token
        h.update(headers or {})
        status, got, raw = self.request("POST", "/mcp",
                                        json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": p}), h)
        return status, last_message(got, raw)

    def call(self, tool, args=None, token=None, key=None, **kw):
        """tools/call; answers the message."""
        meta = {"dev.sluice/idempotencyKey": key} if key else None
        return self.rpc("tools/call", {"name": tool, "arguments": args or {}}, token, tool, meta=meta, **kw)[1]

    # ---- journal ----

    def journal(self):
        """All records, parsed by the independent reader."""
        return read_journal(os.path.join(self.data, "journal"))


def last_message(headers, raw):
    if headers.get("content-type", "").startswith("text/event-stream"):
        data = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
        return json.loads(data[-1])
    return json.loads(raw) if raw else None


TYPES = {1: "open", 2: "close", 3: "recovered", 4: "checkpoint", 5: "roll", 6: "intent", 7: "outcome", 8: "request",
         9: "admin"}


def read_journal(directory):
    """[(type, payload)] of every record, lanes merged by time; the bytes are described in engine/journal/format.h."""
    records = []
    for lane in sorted(glob.glob(os.path.join(directory, "lane-*"))):
        for path in sorted(glob.glob(os.path.join(lane, "*.seg"))):
            with open(path, "rb") as f:
                raw = f.read()
            at = 4096
            while True:
                if raw[at:at + 1] == b"\0":            # the next batch begins at the next block
                    at += -at % 512
                if raw[at:at + 4] != b"\x1eSL\x1f":
                    break
                length, kind = struct.unpack_from("<IB", raw, at + 8)
                time_ms, = struct.unpack_from("<q", raw, at + 24)
                records.append((time_ms, TYPES[kind], json.loads(raw[at + 72:at + 72 + length])))
                at += (72 + length + 7) & ~7
    return [(kind, payload) for _, kind, payload in sorted(records, key=lambda r: r[0])]     # a lane keeps its order


def run(*args, check=True, env=None, input=None, cwd=ROOT):
    """A verb of the program; answers its stdout."""
    p = subprocess.run([SLUICE, *args], capture_output=True, text=True, cwd=cwd, input=input,
                       env=dict(os.environ, **(env or {})), timeout=120)
    if check and p.returncode:
        raise AssertionError("sluice %s: exit %d\n%s%s" % (" ".join(args), p.returncode, p.stdout, p.stderr))
    return p.stdout if check else p


def call_line(tool, args, token, key=None, **more):
    """A tools/call as a line of the requests of bench-load (bench/gen/requests.h)."""
    meta = dict(META, **({"dev.sluice/idempotencyKey": key} if key else {}))
    body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "tools/call",
                       "params": {"name": tool, "arguments": args, "_meta": meta}}, separators=(",", ":"))
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
               "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool,
               "Authorization": "Bearer " + token}
    return json.dumps(dict(more, headers=headers, body=body)) + "\n"


def main():
    """unittest.main for tests whose first argument is the program."""
    global SLUICE
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-") and os.path.exists(sys.argv[1]):
        SLUICE = os.path.abspath(sys.argv.pop(1))
        os.environ["SLUICE"] = SLUICE
    unittest.main(module=sys.modules["__main__"], verbosity=2)
