#!/usr/bin/env python3
"""What a call costs in memory that stands in line: 100,000 of them in one engine.

    parked_bench.py SLUICE PROGRAMS [--waiters N] [--json FILE]

Mailboxes that take one request at a time, at a provider that keeps everybody waiting: one call of each is under way,
the others wait for their turn.  Memory is the engine's own (RssAnon: heap and stacks; no file, no socket of the
kernel's), then less before, by the number of calls.  Before is after calls of all users, so that their accounts, tokens
and keys of the limiter are on both sides of the difference.

What is parked has no socket of its own here: 100,000 connections would need several client addresses, and five times
the files that a process commonly may have.  Calls come in batches of 100 (protocol revision 2025-03-26); each is a
task, an arena, a decision and a record of its own.  The scenarios `memory` and `waiters` of `./dev bench` have calls
with connections, as many as there may be files.
"""
import argparse
import atexit
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "run"))
from common import end_in_order, harness

AUDIENCE = "http://bench.example/mcp"
BATCH, OLD = 100, "2025-03-26"
ARRIVE_S, HOLD_S = 12, 25   # all come within, and are kept for so long; a call's own patience is 30 s
# The journal promises each call some 6 KB of room for its records: segments are large enough for all of them.
CONFIG = """
workers: 1
connectors: [bench]
policies: ["%(dir)s/policy.cedar"]
auth: { audiences: ["%(audience)s"] }
drain_seconds: 0
budgets: { calls_in_flight: 150000 }
journal: { segment_mb: 512 }
providers:
  bench: { base_url: "%(url)s", allow_loopback: true, allow_plain_http: true,
           limits: { account_at_once: { concurrency: 1 } } }
"""


class Bed:
    """An engine, its users, and a provider that keeps everybody waiting once it is told to."""

    def __init__(self, programs, users):
        self.programs, self.dir = programs, harness.scratch("sluice-parked-")
        data, tokens = os.path.join(self.dir, "data"), os.path.join(self.dir, "tokens")
        subprocess.run([self.program("bench-populate"), "--data", data, "--users", str(users), "--tenants",
                        str(max(1, users // 100)), "--tokens", tokens, "--tokens-max", str(users), "--audience",
                        AUDIENCE], check=True)
        with open(tokens) as f:
            self.tokens = [line.split()[2] for line in f]
        with open(os.path.join(self.dir, "policy.cedar"), "w") as f:
            f.write("permit (principal, action, resource);")
        self.upstream = harness.Process([self.program("bench-upstream")])
        self.provider = self.upstream.wait_line(r"listening (http://\S+)").group(1)
        path = os.path.join(self.dir, "sluice.yaml")
        with open(path, "w") as f:
            f.write(CONFIG % {"dir": self.dir, "audience": AUDIENCE, "url": self.provider})
        self.engine = harness.Engine(config=path, data=data)

    def program(self, name):
        return os.path.join(self.programs, name)

    def load(self, lines, *args):
        path = os.path.join(self.dir, "requests")
        with open(path, "w") as f:
            f.writelines(lines)
        p = subprocess.Popen([self.program("bench-load"), "--target", self.engine.url, "--requests", path, "--order",
                              "turn", "--json", os.path.join(self.dir, "report.json"), *map(str, args)])
        atexit.register(p.kill)
        return p

    def warm(self):
        """Two calls of every user."""
        n = 2 * len(self.tokens)
        self.load([harness.call_line("bench.read", {}, t) for t in self.tokens], "--count", n).wait()
        with open(os.path.join(self.dir, "report.json")) as f:
            report = json.load(f)
        if report["ok"] != n:
            raise SystemExit("parked_bench: calls fail: %s" % report["reasons"])

    def hold(self):
        urllib.request.urlopen(urllib.request.Request(self.provider + "/delay", b"fixed:%d" % (HOLD_S * 1000000),
                                                      method="PUT"))

    def metric(self, name):
        text = self.engine.request("GET", "/metrics")[2].decode()
        return sum(float(v) for v in re.findall(r"^%s(?:\{[^}]*\})? (\S+)" % name, text, re.M))

    def memory(self):
        """(heap and stacks, heap in use), in bytes."""
        with open("/proc/%d/status" % self.engine.process.pid) as f:
            resident = int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) * 1024
        return resident, self.metric("sluice_jemalloc_allocated_bytes")

    def park(self, lines, wanted):
        """Memory before, and when `wanted` calls stand in line; ends with everything ended."""
        self.warm()
        self.hold()
        before, until = self.memory(), time.monotonic() + HOLD_S
        load = self.load(lines, "--mode", "open", "--arrivals", "even", "--rate", len(lines) / ARRIVE_S, "--seconds",
                         ARRIVE_S + 0.1, "--in-flight", len(lines), "--timeout", 2 * HOLD_S)
        while (n := self.metric("sluice_limit_waiting")) < wanted and load.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        after = self.memory()
        for p in (load, self.engine, self.upstream):
            p.kill()
        load.wait()
        if n < wanted:
            raise SystemExit("parked_bench: only %d of %d calls waited at once\n%s" % (n, wanted, self.engine.text()))
        return {"calls": n, "before": before[0], "after": after[0], "each": (after[0] - before[0]) / n,
                "heap": (after[1] - before[1]) / n}


def batch_line(token):
    """A batch of reads as a line of the requests of bench-load."""
    calls = [{"jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {"name": "bench.read", "arguments": {}}}
             for i in range(BATCH)]
    return json.dumps({"body": json.dumps(calls), "headers": {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": OLD, "Authorization": "Bearer " + token}}) + "\n"


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("sluice")
    p.add_argument("programs")
    p.add_argument("--waiters", type=int, default=100000)
    p.add_argument("--json")
    opt = p.parse_args()
    harness.SLUICE = os.path.abspath(opt.sluice)
    end_in_order()
    users = -(-opt.waiters // (BATCH - 1))
    bed = Bed(os.path.abspath(opt.programs), users)
    r = bed.park([batch_line(t) for t in bed.tokens], users * (BATCH - 1))
    print("%d calls in line: %.1f MiB before, %.1f MiB then, %.2f KiB each (%.2f of them heap in use)" % (
        r["calls"], r["before"] / 2**20, r["after"] / 2**20, r["each"] / 1024, r["heap"] / 1024))
    if opt.json:
        with open(opt.json, "w") as f:
            json.dump(r, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
