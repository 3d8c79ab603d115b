#!/usr/bin/env python3
"""What a call that waits costs in memory.

    memory_bench.py SLUICE PROGRAMS [--only plain|tls|parked] [--calls N] [--waiters N] [--json FILE]

    plain    10,000 calls under way at once, each waiting for its provider; HTTP/1.1 on both sides
    tls      the same, TLS 1.3 to the provider
    parked   100,000 calls waiting for their turn: mailboxes that the provider takes one request at a time for

Memory is the engine's own: what is anonymous and resident (RssAnon: heap and stacks; no file, no socket of the
kernel's), then less before, by the number of calls.  Before is after calls of all users, so that their accounts, tokens
and keys of the limiter are on both sides of the difference.

A call under way has two sockets: where a process may have 20,000 files there are 9,900 calls and not 10,000.  What is
parked has no socket of its own here, for 100,000 connections would need several client addresses and five times the
files: calls come in batches of 100 (protocol revision 2025-03-26); each is a task, an arena, a decision and a record of
its own.
"""
import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "script"))
import harness

AUDIENCE = "http://bench.example/mcp"
BATCH, OLD = 100, "2025-03-26"
HOLD_S = 25                 # how long the provider keeps everybody waiting; a call's own patience is 30 s
CONFIG = """
workers: 1
connectors: [bench]
policies: ["%(dir)s/policy.cedar"]
auth: { audiences: ["%(audience)s"] }
tls: { provider_ca: "%(dir)s/cert.pem" }
drain_seconds: 0
budgets: { calls_in_flight: 150000 }
journal: { segment_mb: 512 }
providers:
  bench: { base_url: "%(url)s", allow_loopback: true, allow_plain_http: true, limits: %(limits)s }
"""


class Bed:
    """An engine, its users, and a provider that keeps everybody waiting once it is told to."""

    def __init__(self, programs, users, tls=False, limits=None):
        self.programs, self.dir = programs, harness.scratch("sluice-memory-")
        data, tokens = os.path.join(self.dir, "data"), os.path.join(self.dir, "tokens")
        subprocess.run([self.program("bench-populate"), "--data", data, "--users", str(users), "--tenants",
                        str(max(1, users // 100)), "--tokens", tokens, "--tokens-max", str(users), "--audience",
                        AUDIENCE], check=True)
        with open(tokens) as f:
            self.tokens = [line.split()[2] for line in f]
        with open(os.path.join(self.dir, "policy.cedar"), "w") as f:
            f.write("permit (principal, action, resource);")
        url = self.start_upstream(tls)
        path = os.path.join(self.dir, "sluice.yaml")
        with open(path, "w") as f:
            f.write(CONFIG % {"dir": self.dir, "audience": AUDIENCE, "url": url, "limits": json.dumps(limits or {})})
        self.engine = harness.Engine(config=path, data=data)

    def program(self, name):
        return os.path.join(self.programs, name)

    def start_upstream(self, tls):
        cert, key = os.path.join(self.dir, "cert.pem"), os.path.join(self.dir, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        self.upstream = harness.Process([self.program("bench-upstream"), "--tls-port", "0", "--cert", cert, "--key",
                                         key])
        self.control = "http://127.0.0.1:" + self.upstream.wait_line(r"listening http://\S+:(\d+)").group(1)
        tls_port = self.upstream.wait_line(r"listening https://\S+:(\d+)").group(1)
        return "https://localhost:" + tls_port if tls else self.control

    def load(self, lines, *args):
        path = os.path.join(self.dir, "requests")
        with open(path, "w") as f:
            f.writelines(lines)
        return subprocess.Popen([self.program("bench-load"), "--target", self.engine.url, "--requests", path,
                                 "--order", "turn", "--json", os.path.join(self.dir, "report.json"), *map(str, args)])

    def warm(self):
        """A call of every user, twice."""
        n = len(self.tokens)
        p = self.load([harness.call_line("bench.read", {}, t) for t in self.tokens], "--count", 2 * n, "--in-flight",
                      min(n, 64))
        if p.wait() or self.report()["ok"] != 2 * n:
            raise SystemExit("memory_bench: calls fail: %s" % self.report()["reasons"])

    def report(self):
        with open(os.path.join(self.dir, "report.json")) as f:
            return json.load(f)

    def hold(self):
        urllib.request.urlopen(urllib.request.Request(self.control + "/delay", b"fixed:%d" % (HOLD_S * 1000000),
                                                      method="PUT"))

    def at_provider(self):
        return json.load(urllib.request.urlopen(self.control + "/stats"))["at_once"]

    def metric(self, name):
        return sum(float(v) for v in re.findall(r"^%s(?:\{[^}]*\})? (\S+)" % name, self.request("/metrics"), re.M))

    def request(self, path):
        return self.engine.request("GET", path)[2].decode()

    def memory(self):
        with open("/proc/%d/status" % self.engine.process.pid) as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024

    def fill(self, lines, wanted, count):
        """Memory before, and when `wanted` calls wait, which come within 12 s; ends with everything ended."""
        self.warm()
        self.hold()
        before, until = self.memory(), time.monotonic() + HOLD_S
        heap = self.metric("sluice_jemalloc_allocated_bytes")
        load = self.load(lines, "--mode", "open", "--arrivals", "even", "--rate", len(lines) / 12, "--seconds", 12.1,
                         "--in-flight", len(lines), "--timeout", 2 * HOLD_S)
        while (n := count()) < wanted and load.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        after, heap = self.memory(), self.metric("sluice_jemalloc_allocated_bytes") - heap
        self.ended = re.findall(r"^sluice_calls_total.*", self.request("/metrics"), re.M)
        load.kill()
        load.wait()
        self.engine.kill()
        self.upstream.kill()
        if n < wanted:
            raise SystemExit("memory_bench: only %d of %d calls waited at once; what became of the others:\n%s\n%s" % (
                n, wanted, self.ended, self.engine.text()))
        return {"calls": n, "before": before, "after": after, "each": (after - before) / n, "heap": heap / n}


def under_way(opt, tls):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    n = min(opt.calls, (files - 200) // 2)
    bed = Bed(opt.programs, 1000, tls)
    lines = [harness.call_line("bench.read", {}, bed.tokens[i % 1000]) for i in range(n)]
    return bed.fill(lines, n, bed.at_provider)


def parked(opt):
    """A batch per user, whose calls but one wait for each other."""
    users = max(1, opt.waiters // (BATCH - 1))
    bed = Bed(opt.programs, users, limits={"account_at_once": {"concurrency": 1}})
    lines = []
    for token in bed.tokens:
        batch = [{"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {"name": "bench.read", "arguments": {}}}
                 for i in range(BATCH)]
        lines.append(json.dumps({"body": json.dumps(batch), "headers": {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": OLD, "Authorization": "Bearer " + token}}) + "\n")
    return bed.fill(lines, users * (BATCH - 1), lambda: bed.metric("sluice_limit_waiting"))


CASES = {"plain": lambda opt: under_way(opt, False), "tls": lambda opt: under_way(opt, True), "parked": parked}


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("sluice")
    p.add_argument("programs")
    p.add_argument("--only", choices=CASES, action="append")
    p.add_argument("--calls", type=int, default=10000)
    p.add_argument("--waiters", type=int, default=100000)
    p.add_argument("--json")
    opt = p.parse_args()
    harness.SLUICE, opt.programs = os.path.abspath(opt.sluice), os.path.abspath(opt.programs)
    results = {}
    for name in opt.only or CASES:
        r = results[name] = CASES[name](opt)
        print("%-7s %6d calls: %7.1f MiB before, %7.1f MiB then, %6.2f KiB each (%.2f of them heap in use)" % (
            name, r["calls"], r["before"] / 2**20, r["after"] / 2**20, r["each"] / 1024, r["heap"] / 1024), flush=True)
    if opt.json:
        with open(opt.json, "w") as f:
            json.dump(results, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
