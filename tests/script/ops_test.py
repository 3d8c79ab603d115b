"""What operators look at: health, readiness, metrics, logs."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import upstream
from bed import WithEngine, config, outcome_of

STEPS = "DECODE IDENTIFY RESOLVE ANSWER CHECK DECIDE APPROVE ADMIT INTENT RUN OUTCOME REPLY".split()


class Metrics(WithEngine):
    def scrape(self, headers=None):
        status, got, raw = self.engine.request("GET", "/metrics", headers=headers)
        return status, raw.decode()

    def values(self):
        """{'name{labels}': number} of all samples, and the kinds that `# TYPE` declares."""
        status, text = self.scrape()
        self.assertEqual(status, 200)
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        samples = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, number = line.rsplit(" ", 1)
                self.assertNotIn(name, samples, "a sample is there twice")
                samples[name] = float(number)
                family = re.sub(r"(_bucket|_sum|_count)$", "", name.split("{")[0])
                self.assertTrue(family in kinds or name.split("{")[0] in kinds, name)
        return samples, kinds

    def test_what_calls_leave_behind(self):
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))
        before, _ = self.values()
        for _ in range(3):
            self.assertEqual(outcome_of(self.engine.call("outlook.list_mail", {}, self.token)), "done")
        self.assertEqual(outcome_of(self.engine.call("outlook.send_mail", {
            "to": ["eve@outside.example"], "subject": "s", "body": "b"}, self.token)), "refused")
        self.engine.rpc("tools/list", token=self.token)
        after, kinds = self.values()

        def grown(name):
            return after.get(name, 0) - before.get(name, 0)

        self.assertEqual(grown('sluice_calls_total{tool="outlook.list_mail",outcome="done"}'), 3)
        self.assertEqual(grown('sluice_calls_total{tool="outlook.send_mail",outcome="refused"}'), 1)
        self.assertEqual(grown('sluice_call_errors_total{error="policy_denied"}'), 1)
        self.assertEqual(grown('sluice_exchanges_total{provider="outlook",class="done"}'), 3)
        self.assertEqual(grown('sluice_exchange_seconds_count{provider="outlook"}'), 3)
        self.assertGreaterEqual(grown("sluice_queue_seconds_count"), 3)
        self.assertGreaterEqual(grown("sluice_journal_commits_total"), 1)
        self.assertEqual(grown("sluice_journal_commit_seconds_count"), grown("sluice_journal_commits_total"))
        self.assertIn('sluice_refreshes_total{result="ok"}', after)
        self.assertGreater(after["sluice_memory_resident_bytes"], 0)
        if not re.search("/[at]san/", harness.SLUICE):          # sanitizers bring an allocator of their own
            self.assertGreater(after["sluice_jemalloc_allocated_bytes"], 0)
        self.assertIn("sluice_loop_stalls_total", after)
        self.assertEqual(after["sluice_doubts_total"], 0)
        self.assertEqual(kinds["sluice_step_seconds"], "histogram")
        # a step that ran took time, and the last one is seen too
        for step, times in zip(STEPS, (5, 5, 4, 1, 4, 4, 3, 3, 3, 3, 5, 5)):
            label = '{step="%s"}' % step
            self.assertEqual(grown("sluice_step_seconds_count" + label), times, step)
            self.assertGreater(grown("sluice_step_seconds_sum" + label), 0, step)
            buckets = [v for k, v in after.items() if k.startswith("sluice_step_seconds_bucket") and step in k]
            self.assertEqual(buckets, sorted(buckets), "buckets are cumulative")
            self.assertEqual(buckets[-1], after["sluice_step_seconds_count" + label])

    def test_who_may_read_them(self):
        for headers in ({"Host": "evil.example"}, {"Host": "sluice.example"}, {"X-Forwarded-For": "203.0.113.7"},
                        {"Forwarded": "for=203.0.113.7"}, {"Via": "1.1 proxy"}, {"Origin": "https://evil.example"},
                        {"Host": "localhost.evil.example"}, {"Host": "127.0.0.1.evil.example"}):
            status, text = self.scrape(headers)
            self.assertEqual(status, 403, headers)
            self.assertNotIn("sluice_", text)
        for host in ("localhost", "localhost:%d" % self.engine.port, "127.0.0.1"):
            self.assertEqual(self.scrape({"Host": host})[0], 200, host)


class Health(unittest.TestCase):
    def closed(self, e):
        """Waits until the engine takes no connections any more: then its worker is draining."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", e.port)).close()
            except ConnectionResetError:
                continue                # it stood in the listener's queue when that closed
            except ConnectionRefusedError:
                return
        self.fail("connections are still taken")

    def test_ready_until_it_drains(self):
        held, reached = threading.Event(), threading.Event()

        def slow(c, r):
            reached.set()
            held.wait(20)
            upstream.answer(c, 200, b'{"value":[]}')

        up = upstream.Upstream(slow)
        e = harness.Engine(config=config(up.url), args=["--workers", "1"])
        t = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                  {"Authorization": "Bearer " + t})
        for path in ("/healthz", "/readyz"):
            self.assertEqual(e.request("GET", path)[0], 200, path)
            self.assertEqual(e.request("POST", path)[0], 405, path)
        got = []
        held_call = threading.Thread(target=lambda: got.append(e.call("outlook.list_mail", {}, t)))
        held_call.start()
        self.assertTrue(reached.wait(20))
        with socket.create_connection(("127.0.0.1", e.port)) as c:
            # one request answered, and in the same packet the beginning of one that is finished while the engine drains
            c.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n")
            r = http.client.HTTPResponse(c)
            r.begin()
            self.assertEqual((r.status, r.read()), (200, b"ok\n"))
            e.signal(signal.SIGTERM)
            self.closed(e)
            c.sendall(b"\r\n")
            r = http.client.HTTPResponse(c)
            r.begin()
            self.assertEqual((r.status, r.read()), (503, b"draining\n"))
        held.set()
        held_call.join()
        self.assertEqual(outcome_of(got[0]), "done", "what was under way is finished")
        self.assertEqual(e.wait(), 0)
        up.close()


class Logs(unittest.TestCase):
    def test_json_lines_without_secrets(self):
        up = upstream.Upstream(lambda c, r: upstream.answer(c, 401, b'{"error":{"message":"no"}}'))
        e = harness.Engine(config=config(up.url, "log: { level: debug, format: json }\n"), start=False)
        m = e.wait_line(r'"msg":"listening","address":"([^"]+)","mcp":"([^"]+)"')
        e.address, e.url = m.groups()
        e.port = int(e.address.rsplit(":", 1)[1])
        t = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "up-secret-token"}),
                  {"Authorization": "Bearer " + t})
        e.call("outlook.list_mail", {}, t)
        e.request("POST", "/mcp?access_token=" + t, "{}", {"Content-Type": "application/json"})
        e.request("POST", "/mcp", "secret-in-a-body", {"Authorization": "Bearer " + t})
        self.assertEqual(e.stop(), 0)
        for line in e.lines:
            entry = json.loads(line)
            self.assertTrue({"ts", "level", "msg"} <= set(entry), line)
        secrets = [t, t.split(".")[2], "up-secret-token", "secret-in-a-body"]
        for name in ("root.key", "issuer.key", "journal/signing.key"):
            with open(os.path.join(e.data, name), "rb") as f:
                secrets.append(f.read().strip().decode("latin-1"))
        everything = e.text() + json.dumps([r for _, r in e.journal()])
        for secret in secrets:
            self.assertNotIn(secret, everything)
        up.close()


class Backups(unittest.TestCase):
    """What docs/operating.md says of copies of the data directory."""

    MAIL = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}

    def setUp(self):
        self.held, self.reached = threading.Event(), threading.Event()
        self.addCleanup(self.held.set)

        def graph(c, r):
            if b"slow" in r:
                self.reached.set()
                self.held.wait(60)
                return "close"
            upstream.answer(c, 201 if r.startswith(b"POST /v1.0/me/messages ") else 202, b'{"id":"m1"}')
            return None

        self.up = upstream.Upstream(graph)
        self.addCleanup(self.up.close)
        self.config = config(self.up.url)
        self.copy = os.path.join(harness.scratch(), "copy")

    def start(self, data=None):
        e = harness.Engine(config=self.config, data=data)
        return e, e.token()

    def send(self, e, token, key, **more):
        return outcome_of(e.call("outlook.send_mail", dict(self.MAIL, **more), token, key=key))

    def sent(self):
        return len([r for r in self.up.requests if b"/send " in r])

    def checkpoints(self, e, name):
        path = os.path.join(os.path.dirname(self.copy), name)
        with open(path, "w") as f:
            f.write(harness.run("audit", "checkpoint", "--data", e.data))
        return path

    def connected(self):
        e, token = self.start()
        status, _, raw = e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                                   {"Authorization": "Bearer " + token})
        self.assertEqual(status, 200, raw)
        self.assertEqual(self.send(e, token, "before"), "done")
        return e, token

    def test_a_copy_knows_what_was_before_it_and_nothing_since(self):
        e, _ = self.connected()
        self.assertEqual(e.stop(), 0)
        shutil.copytree(e.data, self.copy)
        early = self.checkpoints(e, "early")
        e, token = self.start(e.data)
        self.assertEqual(self.send(e, token, "since"), "done")
        self.assertEqual(e.stop(), 0)
        late = self.checkpoints(e, "late")
        self.assertEqual(self.sent(), 2)

        e, token = self.start(self.copy)
        self.assertEqual(self.send(e, token, "before"), "done")
        self.assertEqual(self.sent(), 2, "the account and the key are in the copy")
        self.assertEqual(self.send(e, token, "since"), "done")
        self.assertEqual(self.sent(), 3, "executed again")
        self.assertEqual(e.stop(), 0)
        harness.run("audit", "verify", "--data", self.copy, "--checkpoints", early)
        p = harness.run("audit", "verify", "--data", self.copy, "--checkpoints", late, check=False)
        self.assertEqual(p.returncode, 1, p.stdout + p.stderr)
        self.assertIn("a checkpoint kept elsewhere names", p.stdout + p.stderr)

    def test_a_snapshot_of_a_running_engine_is_recovered(self):
        """A process that is stopped writes nothing: its files are what a snapshot of the file system has."""
        e, token = self.connected()
        slow = threading.Thread(target=self.send, args=(e, token, "during"), kwargs={"body": "slow"})
        slow.start()
        self.assertTrue(self.reached.wait(20))
        e.signal(signal.SIGSTOP)
        os.waitpid(e.process.pid, os.WUNTRACED)
        shutil.copytree(e.data, self.copy)
        e.signal(signal.SIGCONT)
        self.held.set()
        slow.join()
        self.assertEqual(e.stop(), 0)

        f, token = self.start(self.copy)
        self.assertEqual(self.send(f, token, "before"), "done")
        self.assertEqual(self.send(f, token, "during", body="slow"), "unknown")
        self.assertEqual(self.sent(), 1)
        self.assertEqual(f.stop(), 0)
        harness.run("audit", "verify", "--data", self.copy)


if __name__ == "__main__":
    harness.main()
