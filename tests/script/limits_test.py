"""The limiter's place in the engine: throttles in every encoding, providers that keep failing, repeats."""
import email.utils
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bed
import harness
import upstream
from bed import WithEngine, outcome_of, text_of

EMPTY = b'{"value":[]}'


def error_of(message):
    return message["result"]["_meta"].get("dev.sluice/error")


def metric(engine, name):
    """The sum of a metric's cells."""
    text = engine.request("GET", "/metrics")[2].decode()
    return sum(int(float(v)) for v in re.findall(r"^sluice_%s(?:\{[^}]*\})? (\S+)$" % name, text, re.M))


class Throttles(WithEngine):
    def wait_for(self, moment):
        """How long the engine stayed away after a 429 whose Retry-After is `moment` of the provider's second."""
        at = []

        def behave(c, r):
            at.append(time.monotonic())
            if len(at) == 1:
                now = int(time.time())
                head = "Date: %s\r\nRetry-After: %s\r\n" % (email.utils.formatdate(now, usegmt=True), moment(now))
                return upstream.answer(c, 429, b"{}", head.encode())
            return upstream.answer(c, 200, EMPTY)
        self.behave(behave)
        m = self.engine.call("outlook.list_mail", {}, self.token)
        self.assertEqual(outcome_of(m), "done", m)
        return at[1] - at[0]

    def test_a_wait_is_understood_in_all_five_encodings(self):
        forms = {"seconds": lambda now: "1",
                 "seconds since 1970": lambda now: str(now + 1),
                 "milliseconds since 1970": lambda now: str(now * 1000 + 1000),
                 "RFC 3339": lambda now: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 1)),
                 "a date of HTTP": lambda now: email.utils.formatdate(now + 1, usegmt=True)}
        for name, moment in forms.items():
            with self.subTest(name):
                waited = self.wait_for(moment)
                self.assertGreaterEqual(waited, 0.99)
                self.assertLess(waited, 10)

    def test_a_throttle_stops_its_mailbox_and_no_other(self):
        bob = self.engine.token(user="bob@demo.example")
        self.connect(bob, "bob@demo.example")
        self.behave(lambda c, r: upstream.answer(c, 429, b"{}", b"Retry-After: 20\r\n"))
        before = metric(self.engine, "throttles_total")
        m = self.engine.rpc("tools/call", {"name": "outlook.list_mail", "arguments": {}}, bob, "outlook.list_mail",
                            meta={"dev.sluice/timeoutMs": 2000})[1]
        self.assertEqual(error_of(m), "upstream_limited", m)
        self.assertGreater(m["result"]["_meta"]["dev.sluice/retryAfterMs"], 15000)
        self.assertEqual(metric(self.engine, "throttles_total"), before + 1)
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        m = self.engine.rpc("tools/call", {"name": "outlook.list_mail", "arguments": {}}, bob, "outlook.list_mail",
                            meta={"dev.sluice/timeoutMs": 2000})[1]
        self.assertEqual(error_of(m), "rate_limited", m)        # not asked at all, and told when
        self.assertGreater(m["result"]["_meta"]["dev.sluice/retryAfterMs"], 10000)
        self.assertEqual(self.upstream.requests, [])
        self.assertEqual(outcome_of(self.engine.call("outlook.list_mail", {}, self.token)), "done")


class Unwell(WithEngine):
    POLICY = bed.POLICY + 'permit (principal in Tenant::"other", action, resource);\n'

    def list_mail(self, token=None):
        return self.engine.call("outlook.list_mail", {}, token or self.token)

    def test_a_provider_that_keeps_failing_is_left_alone_and_found_well_again(self):
        other = self.engine.token(user="carol@other.example", tenant="other")
        self.connect(other, "carol@other.example")
        self.behave(lambda c, r: upstream.answer(c, 500, b"{}"))
        for _ in range(20):
            m = self.list_mail()
            if error_of(m) == "upstream_unwell":
                break
        self.assertEqual(error_of(m), "upstream_unwell", m)
        self.assertEqual(outcome_of(m), "refused")
        wait = m["result"]["_meta"]["dev.sluice/retryAfterMs"]
        self.assertIn("outlook keeps failing", text_of(m))
        self.assertLessEqual(wait, 60001)
        self.assertEqual(metric(self.engine, "breaker_opened_total"), 1)
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        self.assertEqual(outcome_of(self.list_mail(other)), "done", "another tenant's circuit is its own")
        self.assertEqual(len(self.upstream.requests), 1)
        deadline = time.monotonic() + 20
        while outcome_of(self.list_mail()) != "done":
            self.assertLess(time.monotonic(), deadline, "it never was asked again")
            time.sleep(0.05)                                    # the circuit's own time has to pass
        for _ in range(20):
            self.assertEqual(outcome_of(self.list_mail()), "done")


class Repeats(WithEngine):
    EXTRA = "budgets: { breaker_least: 0 }\n"

    def test_repeats_are_a_tenth_of_what_is_asked(self):
        calls = 60
        self.behave(lambda c, r: upstream.answer(c, 503, b"{}", b"Retry-After: 0\r\n"))
        for _ in range(calls):
            self.assertEqual(error_of(self.engine.call("outlook.list_mail", {}, self.token)), "upstream_down")
        asked = len(self.upstream.requests)
        self.assertGreater(asked, calls)
        self.assertLessEqual(asked, calls + calls // 10 + 10)
        self.assertEqual(metric(self.engine, "retries_total"), asked - calls)
        self.assertGreater(metric(self.engine, "retries_refused_total"), 0)
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))


class Budgets(WithEngine):
    EXTRA = "budgets: { agent: { writes_per_hour: 2 }, user: { per_minute: 1000 } }\n"
    MAIL = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}

    def send(self, token, key=None):
        meta = dict({"dev.sluice/timeoutMs": 2000}, **({"dev.sluice/idempotencyKey": key} if key else {}))
        return self.engine.rpc("tools/call", {"name": "outlook.send_mail", "arguments": self.MAIL}, token,
                               "outlook.send_mail", meta=meta)[1]

    def test_writes_of_an_agent_are_counted_and_reads_are_not(self):
        self.behave(lambda c, r: upstream.answer(c, 202 if b"/send " in r else 201, b'{"id":"d1","isDraft":false}'))
        if time.time() % 3600 > 3590:
            time.sleep(11)                                      # not over the end of an hour
        self.assertEqual(outcome_of(self.send(self.token, "k1")), "done")
        for _ in range(3):                                      # from the record: nothing is counted
            self.assertEqual(outcome_of(self.send(self.token, "k1")), "done")
        self.assertEqual(outcome_of(self.send(self.token)), "done")
        m = self.send(self.token)
        self.assertEqual(error_of(m), "rate_limited", m)
        self.assertIn("used up: the agent's budget of writes; there is room again at", text_of(m))
        self.assertLessEqual(m["result"]["_meta"]["dev.sluice/retryAfterMs"], 3600000)
        self.assertEqual(metric(self.engine, "budget_refused_total"), 1)
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        self.assertEqual(outcome_of(self.engine.call("outlook.list_mail", {}, self.token)), "done")
        other = self.engine.token(agent="another")
        self.behave(lambda c, r: upstream.answer(c, 202 if b"/send " in r else 201, b'{"id":"d1","isDraft":false}'))
        self.assertEqual(outcome_of(self.send(other)), "done", "another agent's budget is its own")


class OfPolicies(WithEngine):
    """Budgets that permits carry, and those of tools. The windows in use are a minute's bucket and a day."""
    EXTRA = "budgets: { tools: { add: { per_minute: 2 } } }\n"
    POLICY = """
@id("five-a-day") @budget("calls/day=5") permit (principal, action == Action::"outlook.list_mail", resource);
@id("two-mails") @budget("writes/min=2, calls/day=100")
  permit (principal, action == Action::"outlook.send_mail", resource);
@id("free") permit (principal == Agent::"free", action == Action::"outlook.list_mail", resource);
@id("free-user") permit (principal == User::"alice@demo.example", action == Action::"outlook.list_mail", resource)
  when { context.agent == "free" };
@id("rest") permit (principal, action in Action::"accounts", resource);
@id("sums") permit (principal, action == Action::"add", resource);
"""

    def ask(self, tool, args, token, key=None):
        meta = dict({"dev.sluice/timeoutMs": 1000}, **({"dev.sluice/idempotencyKey": key} if key else {}))
        return self.engine.rpc("tools/call", {"name": tool, "arguments": args}, token, tool, meta=meta)[1]

    def setUp(self):
        self.behave(lambda c, r: upstream.answer(c, 202 if b"/send " in r else 201 if r[:4] == b"POST" else 200,
                                                 b'{"id":"d1","isDraft":false,"value":[]}'))
        if time.time() % 86400 > 86390:
            time.sleep(11)                                      # not over the end of a day

    def test_a_permit_permits_so_many(self):
        token = self.engine.token(agent="reader")
        for _ in range(5):
            self.assertEqual(outcome_of(self.ask("outlook.list_mail", {}, token)), "done")
        m = self.ask("outlook.list_mail", {}, token)
        meta = m["result"]["_meta"]
        self.assertEqual((error_of(m), meta["dev.sluice/outcome"]), ("rate_limited", "refused"), m)
        self.assertRegex(text_of(m), r'^used up: policy "five-a-day", which permits 5 calls per day to this user and '
                                     r"agent; there is room again at \d{4}-\d\d-\d\dT00:00:0\d.\d{3}Z$")
        left = 86400 - time.time() % 86400
        self.assertLess(abs(meta["dev.sluice/retryAfterMs"] / 1000 - left), 10)
        kept = [r for kind, r in self.engine.journal() if kind == "outcome" and r["call"] == meta["dev.sluice/call"]]
        self.assertEqual((kept[0]["error"], kept[0]["why"]), ("rate_limited", text_of(m)))
        other = self.engine.token(agent="another")
        self.assertEqual(outcome_of(self.ask("outlook.list_mail", {}, other)), "done", "another agent's is its own")
        bob = self.engine.token(user="bob@demo.example", agent="reader")
        self.connect(bob, "bob@demo.example")
        self.assertEqual(outcome_of(self.ask("outlook.list_mail", {}, bob)), "done", "and another user's")

    def test_a_permit_without_a_budget_sets_free(self):
        token = self.engine.token(agent="free")
        for _ in range(8):
            self.assertEqual(outcome_of(self.ask("outlook.list_mail", {}, token)), "done")

    def test_only_what_it_counts_and_what_was_begun(self):
        token = self.engine.token(agent="writer")
        mail = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}
        for _ in range(4):                                      # from the record: nothing is counted
            self.assertEqual(outcome_of(self.ask("outlook.send_mail", mail, token, "k1")), "done")
        self.assertEqual(outcome_of(self.ask("outlook.send_mail", mail, token)), "done")
        m = self.ask("outlook.send_mail", mail, token)
        self.assertIn('used up: policy "two-mails", which permits 2 writes per min', text_of(m))
        self.assertLessEqual(m["result"]["_meta"]["dev.sluice/retryAfterMs"], 30001)
        self.assertGreater(metric(self.engine, "budget_refused_total"), 0)

    def test_a_tool_has_a_budget_of_its_own(self):
        one, other = self.engine.token(agent="a1"), self.engine.token(user="bob@demo.example", agent="a2")
        self.assertEqual(outcome_of(self.ask("add", {"a": 1, "b": 1}, one)), "done")
        self.assertEqual(outcome_of(self.ask("add", {"a": 1, "b": 1}, other)), "done")
        m = self.ask("add", {"a": 1, "b": 1}, one)
        self.assertEqual(error_of(m), "rate_limited", m)
        self.assertIn("used up: the tenant's budget of calls of add; there is room again at 20", text_of(m))
        third = self.engine.token(user="c@third.example", tenant="third", agent="a1")
        self.assertEqual(outcome_of(self.ask("add", {"a": 1, "b": 1}, third)), "done", "another tenant's is its own")


class Reloads(WithEngine):
    """A reload that brings other budgets forgets nothing of those that were there."""
    EXTRA = "budgets: { tools: { add: { per_hour: 1 } } }\n"
    POLICY = """
@id("one-a-day") @budget("calls/day=1") permit (principal, action == Action::"outlook.list_mail", resource);
@id("rest") permit (principal, action in Action::"accounts", resource);
@id("sums") permit (principal, action == Action::"add", resource);
"""
    MORE = """
@id("other") @budget("calls/min=30, writes/hour=5")
  permit (principal == Agent::"nobody", action == Action::"outlook.list_mail", resource);
"""

    def ask(self, tool, args):
        return self.engine.rpc("tools/call", {"name": tool, "arguments": args}, self.token, tool,
                               meta={"dev.sluice/timeoutMs": 1000})[1]

    def test_used_up_stays_used_up(self):
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        if time.time() % 3600 > 3580:
            time.sleep(21)                                      # not over the end of an hour
        asks = (("outlook.list_mail", {}), ("add", {"a": 1, "b": 2}))
        for ask in asks:
            self.assertEqual(outcome_of(self.ask(*ask)), "done")
            self.assertEqual(error_of(self.ask(*ask)), "rate_limited")
        with open(os.path.join(os.path.dirname(self.config), "policy.cedar"), "w") as f:
            f.write(self.MORE + self.POLICY)
        with open(self.config) as f:
            text = f.read()
        with open(self.config, "w") as f:
            f.write(text.replace("tools: { add:", "tools: { outlook.list_mail: { per_minute: 100 }, add:"))
        self.engine.signal(signal.SIGHUP)
        self.engine.wait_line('msg="?reloaded')
        for ask in asks:
            self.assertEqual(error_of(self.ask(*ask)), "rate_limited")


class Waits(WithEngine):
    """A client that asked for progress is told of a wait, on its stream, in either era; it never holds anything up."""
    EXTRA = ("    limits: { mailbox_requests: { amount: 20, window_ms: 58000 } }\n"
             "budgets: { tools: { add: { per_minute: 20 } } }\n")

    def stream(self, tool, args, legacy=False, session=None, token=None):
        """Sends a call; answers the socket and a function that gives one message of its stream after another."""
        meta = {"progressToken": "p-1"} if legacy else dict(harness.META, progressToken="p-1")
        head = ("POST /mcp HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
                "Accept: application/json, text/event-stream\r\n" % (self.engine.address, token or self.token))
        if session:
            head += "Mcp-Session-Id: %s\r\nMCP-Protocol-Version: 2025-06-18\r\n" % session
        if not legacy:
            head += "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: %s\r\n" % tool
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                           "params": {"name": tool, "arguments": args, "_meta": meta}})
        s = socket.create_connection(("127.0.0.1", self.engine.port), 30)
        s.sendall((head + "Content-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
        f = s.makefile("rb")

        def message():
            for line in f:
                if line.startswith(b"data: {"):
                    return json.loads(line[6:])
                if line.startswith(b"{"):           # no stream after all: the answer alone
                    return json.loads(line)
            raise AssertionError("the stream ended")
        return s, message

    def told(self, words, tool, args, **kw):
        """The progress told before the answer, which is awaited."""
        began = time.monotonic()
        s, message = self.stream(tool, args, **kw)
        first = message()
        self.assertEqual(first.get("method"), "notifications/progress", first)
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(first["params"]["progressToken"], "p-1")
        self.assertRegex(first["params"]["message"], words)
        seen = [first]
        while "method" in seen[-1]:
            seen.append(message())
        s.close()
        values = [m["params"]["progress"] for m in seen[:-1]]
        self.assertEqual(values, sorted(set(values)), "progress has to grow")
        self.assertEqual(outcome_of(seen[-1]), "done", seen[-1])
        return seen

    def use_up(self, token):
        """All of the tool's budget: the next call has to wait three seconds."""
        for _ in range(40):
            m = self.engine.rpc("tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}}, token, "add",
                                meta={"dev.sluice/timeoutMs": 100})[1]
            if error_of(m) == "rate_limited":
                return
        self.fail("the budget has no end")

    def test_a_wait_for_a_budget_is_told(self):
        self.use_up(self.token)
        self.told(r"^waiting for the tenant's budget of calls of add, about [23] s$", "add", {"a": 1, "b": 2})

    def test_a_legacy_client_is_told_too(self):
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize",
                 "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                            "clientInfo": {"name": "t", "version": "1"}}}
        status, got, raw = self.engine.request(
            "POST", "/mcp", json.dumps(hello),
            {"Authorization": "Bearer " + self.token, "Content-Type": "application/json",
             "Accept": "application/json, text/event-stream"})
        self.assertEqual(status, 200, raw)
        self.use_up(self.token)
        self.told("^waiting for the tenant's budget of calls of add, about [23] s$", "add", {"a": 1, "b": 2},
                  legacy=True, session=got["mcp-session-id"])

    def test_a_wait_for_a_provider_is_told_again_and_again(self):
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        bob = self.engine.token(user="bob@demo.example")
        self.connect(bob, "bob@demo.example")
        calls = [threading.Thread(target=self.engine.call, args=("outlook.list_mail", {}, bob)) for _ in range(3)]
        for t in calls:
            t.start()                               # one at once, then one each three seconds: six for the third
        deadline = time.monotonic() + 20
        while metric(self.engine, "limit_waiting") < 2:
            self.assertLess(time.monotonic(), deadline)
        seen = self.told(r"^waiting for the limit mailbox_requests of outlook, about \d+ s$", "outlook.list_mail", {},
                         token=bob)
        self.assertGreaterEqual(len(seen), 3)       # two notifications at least, five seconds apart, and the answer
        self.assertLessEqual(len(seen), 5)
        for t in calls:
            t.join()

    def test_a_client_that_does_not_read_holds_nothing(self):
        self.use_up(self.token)
        s = self.stream("add", {"a": 1, "b": 2})[0]
        deadline = time.monotonic() + 20
        while metric(self.engine, "limit_waiting") < 1:
            self.assertLess(time.monotonic(), deadline)
        while metric(self.engine, "limit_waiting") > 0 or metric(self.engine, "calls_in_flight") > 0:
            self.assertLess(time.monotonic(), deadline)     # nothing was read: granted, answered, gone all the same
        kept = [r for kind, r in self.engine.journal() if kind == "outcome" and r.get("tool", "add") == "add"]
        self.assertEqual(kept[-1]["outcome"], "done")
        s.close()


class Restarts(WithEngine):
    EXTRA = "    limits: { mailbox_requests: { amount: 6, window_ms: 3600000 } }\n"

    def ask(self):
        token = self.engine.token()                 # its audience is the engine's address
        return self.engine.rpc("tools/call", {"name": "outlook.list_mail", "arguments": {}}, token,
                               "outlook.list_mail", meta={"dev.sluice/timeoutMs": 1000})[1]

    def restart(self, number):
        self.engine.signal(number)
        self.engine.wait()
        type(self).engine = harness.Engine(config=self.config, data=self.engine.data)

    def test_a_restart_does_not_forget_what_was_used(self):
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        self.assertEqual(outcome_of(self.ask()), "done")
        self.assertEqual(error_of(self.ask()), "rate_limited")
        self.restart(signal.SIGTERM)
        kept = os.path.join(self.engine.data, "limits")
        self.assertEqual(os.stat(kept).st_mode & 0o777, 0o600)
        self.assertEqual(error_of(self.ask()), "rate_limited")
        self.engine.signal(signal.SIGHUP)
        self.engine.wait_line('msg="?reloaded')
        self.assertEqual(error_of(self.ask()), "rate_limited")
        with open(kept, "r+b") as f:                # damaged: taken as far as it is whole, and the engine starts
            f.truncate(os.path.getsize(kept) - 5)
        self.restart(signal.SIGKILL)
        self.engine.wait_line("limits are damaged")
        self.assertEqual(error_of(self.ask()), "rate_limited")
        self.engine.signal(signal.SIGKILL)
        self.engine.wait()
        with open(kept, "wb") as f:
            f.write(b"something else altogether, not from here and long enough to be looked at" * 3)
        type(self).engine = harness.Engine(config=self.config, data=self.engine.data)
        self.engine.wait_line("limits are of another version")
        self.assertEqual(outcome_of(self.ask()), "done")


class RestartsOfAll(Restarts):
    """The same of a limit that all tenants share: its key is no tenant's, and the snapshot's."""
    EXTRA = "    limits: { app_requests: { amount: 6, window_ms: 3600000 } }\n"


class Spaced(unittest.TestCase):
    """An amount of 100 in which a request costs 20: that requests are 1 ms apart, too, makes them no cheaper."""

    def test_a_spacing_beside_an_amount_leaves_the_costs_alone(self):
        up = upstream.Upstream(lambda c, r: upstream.answer(c, 200, b'{"units":20}'))
        d = harness.scratch()
        with open(os.path.join(d, "policy.cedar"), "w") as f:
            f.write("permit (principal, action, resource);")
        with open(os.path.join(d, "sluice.yaml"), "w") as f:
            f.write('workers: 1\nconnectors: [units]\npolicies: ["%s/policy.cedar"]\nproviders:\n  units:\n'
                    '    base_url: "%s"\n    allow_loopback: true\n    allow_plain_http: true\n'
                    '    limits: { user_units: { amount: 100, window_ms: 3600000, spacing_ms: 1 } }\n' % (d, up.url))
        e = harness.Engine(config=os.path.join(d, "sluice.yaml"))
        token = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "units", "token": "x"}),
                  {"Authorization": "Bearer " + token})
        ends = [error_of(e.rpc("tools/call", {"name": "units.get", "arguments": {}}, token, "units.get",
                               meta={"dev.sluice/timeoutMs": 1000})[1]) for _ in range(6)]
        self.assertIn("rate_limited", ends)
        self.assertLessEqual(20 * len(up.requests), 100)
        self.assertEqual(e.stop(), 0)
        up.close()


class Looking(WithEngine):
    POLICY = bed.POLICY + """permit (principal in Tenant::"demo", action == Action::"limits.list", resource);
permit (principal in Tenant::"other", action, resource);
"""

    def top(self, *who, code=0):
        p = harness.run("limits", "top", "--once", "--json", "--url", self.engine.url, "--data", self.engine.data, *who,
                        check=False)
        self.assertEqual(p.returncode, code, p.stderr)
        return json.loads(p.stdout) if code == 0 else p.stderr

    def test_who_waits_is_seen_by_its_own_tenant_alone(self):
        go = threading.Event()
        self.behave(lambda c, r: (go.wait(20), upstream.answer(c, 200, EMPTY))[1])
        calls = [threading.Thread(target=self.engine.call, args=("outlook.list_mail", {}, self.token))
                 for _ in range(6)]
        for t in calls:
            t.start()
        deadline = time.monotonic() + 20
        waiting = 0
        while waiting != 2:                         # four are under way, two stand in line
            self.assertLess(time.monotonic(), deadline)
            keys = {k["key"].rsplit("|", 1)[1]: k for k in self.top("--tenant", "demo", "--as", "alice@demo.example")}
            waiting = keys.get("mailbox_concurrency", {}).get("waiting", 0)
        self.assertEqual((keys["mailbox_concurrency"]["in_flight"], keys["mailbox_concurrency"]["at_once"]), (4, 4))
        self.assertEqual(self.top("--tenant", "other", "--as", "carol@other.example"), [])
        go.set()
        for t in calls:
            t.join()

    def test_the_operator_sees_all_and_nobody_else_does(self):
        self.behave(lambda c, r: upstream.answer(c, 200, EMPTY))
        for _ in range(80):                         # what is granted often has a name to be shown by
            self.assertEqual(outcome_of(self.engine.call("outlook.list_mail", {}, self.token)), "done")
        keys = self.top("--all")
        mine = [k for k in keys if k["tenant"] == "demo" and k["key"].endswith("|mailbox_requests")]
        self.assertEqual(len(mine), 1, keys)
        self.assertGreaterEqual(mine[0]["granted"], 80)
        p = harness.run("limits", "top", "--once", "--all", "--url", self.engine.url, "--data", self.engine.data)
        self.assertRegex(p.splitlines()[0], r"^\d+ keys, \d+ waiting, \d+ throttled since the engine started$")
        self.assertRegex(p, r"mailbox_requests .* demo\b")
        for scope in ((), ("--scope", "sluice.operators"), ("--scope", "operator")):
            token = self.engine.token(extra=scope)
            status, _, raw = self.engine.request("GET", "/v1/limits/all", None, {"Authorization": "Bearer " + token})
            self.assertEqual((status, b"are for the operator" in raw), (403, True), raw)
        self.assertEqual(self.engine.request("GET", "/v1/limits/all")[0], 401)

    def test_it_goes_on_until_it_is_told_to_stop(self):
        try:
            master, slave = pty.openpty()
        except OSError:
            self.skipTest("skipped: this machine gives no terminals")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 200, 0, 0))
        p = subprocess.Popen([harness.SLUICE, "limits", "top", "--all", "--url", self.engine.url, "--data",
                              self.engine.data], stdout=slave, stderr=slave)
        os.close(slave)
        seen = b""
        while seen.count(b"\x1b[H\x1b[J") < 3:      # cleared and written again
            seen += os.read(master, 4096)
        p.send_signal(signal.SIGINT)
        p.wait(20)
        os.close(master)
        frame = seen.split(b"\x1b[H\x1b[J")[2].decode()
        self.assertIn("GRANTED/S", frame)
        self.assertLessEqual(frame.count("\n"), 5)      # as many rows as fit

    def test_policy_says_who_may_look(self):
        self.assertIn("not permitted", self.top("--tenant", "third", "--as", "x@third.example", code=3))

    def test_declared_configured_and_where_from(self):
        path = os.path.join(harness.scratch(), "sluice.yaml")
        with open(path, "w") as f:
            f.write('connectors: [gmail]\nproviders:\n  gmail:\n    limits: { user_units: { amount: 15000 } }\n'
                    '    costs: { "GET /gmail/v1/users/me/messages/{}": 5 }\n')
        shown = harness.run("limits", "show", "gmail", "--config", path)
        self.assertRegex(shown, r"user_units +account +6000 units in 60000 ms +15000 units in 60000 ms +configuration")
        self.assertRegex(shown, r"user_concurrency +account +10 at once +10 at once +connector +hearsay")
        self.assertRegex(shown, r"GET /gmail/v1/users/me/messages/\{\} +5 +configuration")
        p = harness.run("limits", "show", "nope", "--config", path, check=False)
        self.assertEqual((p.returncode, "no provider \"nope\"" in p.stderr), (1, True), p.stderr)
        self.assertEqual(harness.run("limits", check=False).returncode, 2)


class Configuration(unittest.TestCase):
    def refused(self, text, words):
        path = os.path.join(harness.scratch(), "sluice.yaml")
        with open(path, "w") as f:
            f.write("connectors: [gmail, slack]\nauth: { none: true }\npolicies: []\nproviders:\n" + text)
        p = harness.run("serve", "--listen", "127.0.0.1:0", "--config", path, "--data", harness.scratch(), check=False)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn(words, p.stderr)

    def test_names_that_the_connector_does_not_have(self):
        self.refused("  gmail: { limits: { nope: { amount: 1 } } }\n", 'provider gmail has no limit called "nope"')
        self.refused('  gmail: { costs: { "GET /nope": 1 } }\n', 'provider gmail declares no cost for "GET /nope"')

    def test_budgets_of_tools_that_are_none(self):
        self.refused("  gmail: {}\nbudgets: { tools: { nope: { per_minute: 1 } } }\n",
                     'budgets.tools: there is no tool "nope" here')
        self.refused("  gmail: {}\nbudgets: { tools: { gmail.search: { per_hours: 1 } } }\n",
                     'unknown key "per_hours"')
        self.refused("  gmail: {}\nbudgets: { tools: { gmail.search: { per_minute: 999999999999 } } }\n",
                     "per_minute and per_hour are at most")

    def test_amounts_that_no_request_fits(self):
        self.refused("  gmail: { limits: { user_units: { amount: 99 } } }\n",
                     "an amount of 99 never lets a request that costs 100 through")
        self.refused('  gmail: { costs: { "POST /gmail/v1/users/me/messages/send": 7000 } }\n',
                     "an amount of 6000 never lets a request that costs 7000 through")
        self.refused("  slack: { limits: { channel_posts: { spacing_ms: 99999999999 } } }\n",
                     "spacing_ms at most")

    def test_bounds_of_the_limiter(self):
        self.refused("  gmail: { limits: { user_units: { amount: 100, window_ms: 15552000000 } } }\n",
                     "limit user_units: window_ms is too long for an amount of 100 with requests that cost 100: "
                     "window_ms * 100 / (amount - 100 + 1) is at most 10^12")
        self.refused("  gmail: { limits: { user_concurrency: { concurrency: 8388608 } } }\n",
                     "concurrency at most 8388607")
        self.refused("  gmail: {}\nbudgets: { agent: { at_once: 8388608 } }\n", "at_once at most 8388607")


if __name__ == "__main__":
    harness.main()
