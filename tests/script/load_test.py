"""5,000 calls in flight at once, and a stop in the middle of them.

The sandbox answers after two seconds and takes four requests at once per mailbox: 1,250 mailboxes make 5,000 calls that
are all under way together.  The second test stops the engine while they are: every call is answered or recorded, and
the files agree."""
import collections
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

CALLS = int(os.environ.get("SLUICE_LOAD_CALLS", "5000"))
WITHIN_MS = int(os.environ.get("SLUICE_LOAD_WITHIN_MS", "6000"))
LOAD = None


def config(provider_url, drain, idle_poll):
    d = harness.scratch()
    with open(os.path.join(d, "policy.cedar"), "w") as f:
        f.write('permit (principal in Tenant::"demo", action in [Action::"outlook", Action::"accounts"], resource);')
    path = os.path.join(d, "sluice.yaml")
    with open(path, "w") as f:
        f.write("""
workers: 2
idle_poll_us: %d
connectors: [outlook]
policies: ["%s/policy.cedar"]
drain_seconds: %d
providers:
  outlook:
    base_url: "%s"
    auth_url: "%s"
    client_id: sandbox-client
    client_secret: env:SANDBOX_SECRET
    allow_loopback: true
    allow_plain_http: true
""" % (idle_poll, d, drain, provider_url, provider_url))
    return path


class Load(unittest.TestCase):
    def setUp(self):
        self.sandbox = harness.Process([harness.SLUICE, "sandbox", "--listen", "127.0.0.1:0"])
        self.provider = "http://" + self.sandbox.wait_line(r"(127\.0\.0\.1:\d+)").group(1)
        drain = 1 if "drain_time" in self.id() else 10
        looks = 50 if "sigterm" in self.id() else 0             # workers that look for work before they sleep, too
        self.engine = harness.Engine(config=config(self.provider, drain, looks),
                                     env={"SANDBOX_SECRET": "sandbox-secret"})
        users = ["user%d@demo.example" % i for i in range(CALLS // 4)]
        self.users = os.path.join(harness.scratch(), "users")
        with open(self.users, "w") as f:
            f.write("\n".join(users) + "\n")
        harness.run("connect", "outlook", "--sandbox-login", "--users-file", self.users, "--agent", "load", "--tenant",
                    "demo", "--url",
                    self.engine.url, "--data", self.engine.data)
        self.tokens = os.path.join(harness.scratch(), "tokens")
        with open(self.tokens, "w") as f:
            f.write(harness.run("token", "--users-file", self.users, "--agent", "load", "--tenant", "demo",
                                "--audience", self.engine.url, "--data",
                                self.engine.data, "--ttl", "1h"))
        self.control({"delay_ms": 2000})

    def tearDown(self):
        self.sandbox.signal(signal.SIGTERM)
        self.sandbox.wait()

    def ask_sandbox(self, method, path, body=None):
        c = http.client.HTTPConnection(self.provider[7:], timeout=30)
        try:
            c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def control(self, faults):
        self.assertEqual(self.ask_sandbox("POST", "/sandbox/faults", faults), {})

    def stats(self):
        return self.ask_sandbox("GET", "/sandbox/stats")

    def memory(self):
        with open("/proc/%d/status" % self.engine.process.pid) as f:
            text = f.read()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)), int(re.search(r"VmHWM:\s+(\d+)", text).group(1))

    def load(self, tool, arguments, *args):
        requests = os.path.join(harness.scratch(), "requests")
        with open(self.tokens) as f:
            tokens = f.read().split()
        with open(requests, "w") as f:
            f.writelines(harness.call_line(tool, arguments, tokens[i % len(tokens)]) for i in range(CALLS))
        return [LOAD, "--target", self.engine.url, "--requests", requests, "--order", "turn", "--count", str(CALLS),
                "--in-flight", str(CALLS), "--timeout", "60", *args]

    def test_all_at_once(self):
        before, _ = self.memory()
        p = subprocess.run(self.load("outlook.list_mail", {}), capture_output=True, text=True, timeout=120)
        _, peak = self.memory()
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        told = json.loads(p.stdout)
        self.assertEqual(told["ok"], CALLS, told["reasons"])
        stats = self.stats()
        print("\nfigures: %d calls in %.0f ms, p50 %.1f ms, p99 %.1f ms; engine memory: %d KiB before, %d KiB at its "
              "peak: %.1f KiB per call in flight; at the provider %d at once" %
              (CALLS, told["seconds"] * 1e3, told["latency_us"]["p50"] / 1e3, told["latency_us"]["p99"] / 1e3, before,
               peak, (peak - before) / CALLS, stats["in_flight_max"]))
        self.assertEqual(stats["limited"], 0, "no mailbox was asked for more than four at once")
        self.assertEqual(stats["mailbox_in_flight_max"], 4)
        self.assertGreater(stats["in_flight_max"], CALLS * 9 // 10, "they were under way together")
        self.assertLessEqual(told["seconds"] * 1e3, WITHIN_MS)
        self.assertEqual(self.engine.stop(), 0, self.engine.text())
        harness.run("audit", "verify", "--data", self.engine.data)
        done = collections.Counter(r["outcome"] for k, r in self.engine.journal() if k == "outcome")
        self.assertEqual(done["done"], CALLS)

    def stop_in_the_middle(self, number):
        out = os.path.join(harness.scratch(), "outcomes")
        p = subprocess.Popen(self.load("outlook.send_mail", {"to": ["bob@demo.example"], "subject": "s", "body": "b"},
                                       "--answers", out),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while self.stats()["in_flight_max"] < CALLS // 2:       # they are on their way
            threading.Event().wait(0.05)
        self.engine.signal(number)
        code = self.engine.wait(60)
        p.communicate(timeout=120)
        harness.run("audit", "verify", "--data", self.engine.data)
        told = {}
        with open(out) as f:
            for line in f:
                answer = json.loads(line)
                message = json.loads(answer["message"] or "{}")
                meta = message.get("result", {}).get("_meta") or message.get("error", {}).get("data") or {}
                if "dev.sluice/call" in meta:
                    told[meta["dev.sluice/call"]] = meta.get("dev.sluice/outcome", "-")
        intents = [r["call"] for k, r in self.engine.journal() if k == "intent"]
        ended = collections.Counter(r["call"] for k, r in self.engine.journal() if k in ("outcome", "request"))
        outcomes = {r["call"]: r["outcome"] for k, r in self.engine.journal() if k == "outcome"}
        self.told = len(told)
        print("\nfigures: stopped with %d calls begun: %s; %d clients were told" %
              (len(intents), dict(collections.Counter(outcomes.values())), len(told)))
        for call, outcome in told.items():      # a JSON-RPC error names no outcome: it says that nothing happened
            self.assertEqual(outcomes.get(call, outcome), "refused" if outcome == "-" and call in outcomes else outcome,
                             "what was said is what is on record")
        return code, intents, ended, outcomes

    def test_sigterm_in_the_middle(self):
        code, intents, ended, outcomes = self.stop_in_the_middle(signal.SIGTERM)
        self.assertEqual(code, 0, self.engine.text())
        self.assertTrue(all(ended[call] == 1 for call in intents), "every call that began has one outcome on record")
        sent = self.stats()["mails_sent"]
        self.assertGreaterEqual(sent, sum(1 for o in outcomes.values() if o == "done"))
        self.assertEqual(self.stats()["limited"], 0)

    def test_a_drain_time_that_is_too_short(self):
        self.control({"delay_ms": 8000})
        code, intents, ended, outcomes = self.stop_in_the_middle(signal.SIGTERM)
        self.assertEqual(code, 0, self.engine.text())
        self.assertTrue(all(ended[call] == 1 for call in intents), "every call that began has one outcome on record")
        self.assertGreater(sum(1 for o in outcomes.values() if o == "unknown"), 0,
                           "what was cut after its bytes left is unknown")
        self.assertGreater(self.told, CALLS * 9 // 10, "clients of calls that were cut are told so")
        self.assertEqual(sum(1 for o in outcomes.values() if o == "done"), 0)


if __name__ == "__main__":
    if len(sys.argv) > 2 and os.path.exists(sys.argv[2]):
        LOAD = os.path.abspath(sys.argv.pop(2))
    harness.main()
