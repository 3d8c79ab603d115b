"""The engine from outside: decisions, providers that misbehave, keys, restarts, starts that cannot be.

Each case asks for a clear error, the engine alive afterwards, and every request in the journal exactly once."""
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import upstream
from bed import WithEngine, config, outcome_of, text_of


class Decisions(WithEngine):
    def setUp(self):
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))

    def test_forbidden_by_a_named_policy(self):
        m = self.engine.call("outlook.send_mail", {"to": ["eve@outside.example"], "subject": "s", "body": "b"},
                             self.token)
        self.assertEqual(outcome_of(m), "refused")
        self.assertIn("inside-only", text_of(m))
        self.assertEqual(self.upstream.requests, [])
        r = [r for kind, r in self.engine.journal() if r.get("call") == m["result"]["_meta"]["dev.sluice/call"]][-1]
        self.assertEqual(r["decisions"][0]["policies"], ["inside-only"])

    def test_another_spelling_of_an_address_is_the_same_address(self):
        m = self.engine.call("outlook.send_mail", {"to": ["Eve@OUTSIDE.example"], "subject": "s", "body": "b"},
                             self.token)
        self.assertEqual(outcome_of(m), "refused")
        self.assertIn("inside-only", text_of(m))
        self.assertEqual(self.upstream.requests, [])

    def test_the_agent_is_decided_for_too(self):
        t = self.engine.token(agent="intern")
        m = self.engine.call("outlook.send_mail", {"to": ["bob@demo.example"], "subject": "s", "body": "b"}, t)
        self.assertIn("no-interns", text_of(m))
        tools = [x["name"] for x in self.engine.rpc("tools/list", token=t)[1]["result"]["tools"]]
        self.assertIn("outlook.list_mail", tools)
        self.assertNotIn("outlook.send_mail", tools)

    def test_every_delegation_is_decided_for(self):
        t = self.engine.token(extra=("--via", "intern"))
        m = self.engine.call("outlook.send_mail", {"to": ["bob@demo.example"], "subject": "s", "body": "b"}, t)
        self.assertIn("no-interns", text_of(m))

    def test_another_tenant_sees_nothing(self):
        t = self.engine.token(tenant="other")
        self.assertEqual(self.engine.rpc("tools/list", token=t)[1]["result"]["tools"], [])
        m = self.engine.call("outlook.list_mail", {}, t)
        self.assertEqual(outcome_of(m), "refused")
        self.assertEqual(self.upstream.requests, [])

    def test_an_agent_cannot_replace_the_account_it_acts_on(self):
        t = self.engine.token(agent="outsider", tenant="other")
        for method, path, body in (("GET", "/v1/accounts", None),
                                   ("POST", "/v1/accounts", {"provider": "outlook", "token": "mine"}),
                                   ("POST", "/v1/connect", {"provider": "outlook"})):
            status, _, raw = self.engine.request(method, path, json.dumps(body) if body else None,
                                                 {"Authorization": "Bearer " + t})
            self.assertEqual(status, 403, raw)
            self.assertIn(b"not permitted", raw)
        status, _, _ = self.engine.request("GET", "/v1/accounts",
                                           headers={"Authorization": "Bearer " + t, "Host": "evil.example"})
        self.assertEqual(status, 403)

    def test_an_account_that_is_missing(self):
        t = self.engine.token(user="nobody@demo.example")
        m = self.engine.call("outlook.list_mail", {}, t)
        self.assertIn("sluice connect outlook", text_of(m))

    def test_the_token_is_added_at_egress(self):
        m = self.engine.call("outlook.list_mail", {}, self.token)
        self.assertEqual(outcome_of(m), "done")
        self.assertIn(b"Authorization: Bearer up-secret-token", self.upstream.requests[-1])
        self.assertNotIn(self.token.encode(), self.upstream.requests[-1])


class BadUpstreams(WithEngine):
    # its provider is ill all the time: limits_test.py is about what follows from that
    EXTRA = "budgets: { breaker_least: 0, repeats_percent: 1000 }\n"

    MAIL = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}

    def fast(self, tool, args, ms=1500):
        """A call with a deadline of its own, so that a hanging provider does not hold the test."""
        return self.engine.rpc("tools/call", {"name": tool, "arguments": args}, self.token, tool,
                               meta={"dev.sluice/timeoutMs": ms})[1]

    def expect(self, tool, args, outcome, words=None, ms=20000):
        m = self.fast(tool, args, ms)
        self.assertTrue(m["result"]["isError"], m)
        self.assertEqual(outcome_of(m), outcome, m)
        if words:
            self.assertRegex(text_of(m), words)
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))
        self.alive()

    def test_garbage(self):
        self.behave(lambda c, r: (c.sendall(b"\x00\x01garbage\r\n\r\n"), "close")[1])
        self.expect("outlook.list_mail", {}, "failed")

    def test_no_json(self):
        self.behave(lambda c, r: upstream.answer(c, 200, b"<html>hello</html>"))
        self.expect("outlook.list_mail", {}, "failed", "no JSON")

    def test_ten_gigabytes(self):
        def pour(c, r):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10737418240\r\n\r\n")
            block = b"x" * (1 << 20)
            try:
                for _ in range(10240):
                    c.sendall(block)
            except OSError:
                pass
            return "close"
        self.behave(pour)
        self.expect("outlook.list_mail", {}, "failed", "larger than allowed")

    def test_ten_gigabytes_in_chunks(self):
        def pour(c, r):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            block = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
            try:
                for _ in range(10240):
                    c.sendall(block)
            except OSError:
                pass
            return "close"
        self.behave(pour)
        self.expect("outlook.list_mail", {}, "failed", "larger than allowed")

    def test_hanging_read(self):
        held = threading.Event()
        self.behave(lambda c, r: held.wait(20))
        self.expect("outlook.list_mail", {}, "refused",
                    "did not answer|could not be reached", 1500)       # a read: nothing happened
        held.set()

    def test_hanging_before_anything_was_changed_is_failed(self):
        """What hangs is the making of a draft, which nobody sees: no mail was sent."""
        held = threading.Event()
        self.behave(lambda c, r: held.wait(20))
        m = self.fast("outlook.send_mail", self.MAIL)
        held.set()
        self.assertEqual((outcome_of(m), text_of(m)), ("failed", "it was looked into: it did not happen"), m)
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))

    def test_a_write_whose_answer_is_bad_is_unknown_says_so_and_keeps_its_key(self):
        held = threading.Event()

        def pour(c):
            c.sendall(b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(10240):
                    c.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
            except OSError:
                pass
            return "close"

        def garbage(c):
            c.sendall(b"\x00\x01garbage\r\n\r\n")
            return "close"

        def half(c):
            c.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 50\r\n\r\n{")
            return "close"

        def both(c):
            c.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                      b"2\r\n{}\r\n0\r\n\r\n")
            return "close"

        for name, last, error in (("garbage", garbage, "upstream_garbled"),
                                  ("no JSON", lambda c: upstream.answer(c, 201, b"<html>"), "upstream_garbled"),
                                  ("two lengths", both, "upstream_garbled"),
                                  ("ten gigabytes", pour, "upstream_too_large"),
                                  ("half an answer", half, "outcome_unknown"),
                                  ("none", lambda c: "close", "outcome_unknown"),
                                  ("hanging", lambda c: held.wait(20), "outcome_unknown")):
            seen = self.booking(last)
            for _ in range(2):
                m = self.engine.rpc("tools/call", {"name": "outlook.book_meeting", "arguments": {
                    "attendees": ["bob@demo.example"], "minutes": 30, "subject": "s"}}, self.token,
                    "outlook.book_meeting", meta={"dev.sluice/timeoutMs": 1500 if name == "hanging" else 20000,
                                                  "dev.sluice/idempotencyKey": name})[1]
                self.assertEqual(outcome_of(m), "unknown", (name, m))
                self.assertIn("happened", text_of(m), name)
                if "dev.sluice/replayOf" not in m["result"]["_meta"]:
                    self.assertEqual(m["result"]["_meta"]["dev.sluice/error"], error, (name, m))
            self.assertEqual(len(seen), 1, name)
        held.set()
        self.alive()

    def test_an_answer_that_gets_lost_is_unknown_and_not_sent_again(self):
        sent = []

        def lose(c, r):
            if r.startswith(b"POST /v1.0/me/events"):
                sent.append(r)
                return "close"
            if b"getSchedule" in r:
                ask = json.loads(r.split(b"\r\n\r\n", 1)[1])
                upstream.answer(c, 200, json.dumps({"value": [{"scheduleId": s, "availabilityView": "0" * 400}
                                                              for s in ask["schedules"]]}).encode())
            else:
                upstream.answer(c, 200, b'{"value":[]}')
            return None
        self.behave(lose)
        args = {"attendees": ["bob@demo.example"], "minutes": 30, "subject": "s"}
        m = self.engine.call("outlook.book_meeting", args, self.token, key="lost-1")
        self.assertEqual(outcome_of(m), "unknown", m)
        self.assertEqual(len(sent), 1)
        again = self.engine.call("outlook.book_meeting", args, self.token, key="lost-1")
        self.assertEqual(outcome_of(again), "unknown")
        self.assertEqual(len(sent), 1, "a repeat with the same key is answered, not executed")

    def booking(self, last):
        """A provider that lets a meeting be looked up and answers the booking with `last`; the bookings it saw."""
        seen = []

        def graph(c, r):
            if r.startswith(b"POST /v1.0/me/events"):
                seen.append(r)
                return last(c)
            if b"getSchedule" in r:
                ask = json.loads(r.split(b"\r\n\r\n", 1)[1])
                upstream.answer(c, 200, json.dumps({"value": [{"scheduleId": s, "availabilityView": "0" * 400}
                                                              for s in ask["schedules"]]}).encode())
            else:
                upstream.answer(c, 404, b'{"error":{"message":"not now"}}')
            return None
        self.behave(graph)
        return seen

    def test_a_status_that_proves_nothing_is_unknown_and_keeps_its_key(self):
        args = {"attendees": ["bob@demo.example"], "minutes": 30, "subject": "s"}
        for status in (303, 408, 500, 502, 504, 507, 520, 524, 529):
            seen = self.booking(lambda c, s=status: upstream.answer(c, s, b"[]"))
            for _ in range(2):
                m = self.engine.call("outlook.book_meeting", args, self.token, key="proves-nothing-%d" % status)
                self.assertEqual(outcome_of(m), "unknown", (status, m))
                self.assertNotIn("did not happen", text_of(m))
                self.assertNotIn("dev.sluice/retryAfterMs", m["result"]["_meta"])
            self.assertEqual(len(seen), 1, status)

    def test_an_error_that_fills_the_memory_is_still_unknown(self):
        seen = self.booking(lambda c: upstream.answer(c, 500, b"[" + b"1," * 1500000 + b"1]"))
        args = {"attendees": ["bob@demo.example"], "minutes": 30, "subject": "s"}
        for _ in range(2):
            m = self.engine.call("outlook.book_meeting", args, self.token, key="fills-memory")
            self.assertEqual(outcome_of(m), "unknown", m)
        self.assertEqual(len(seen), 1)

    def test_half_done_says_so_and_gives_no_hint_to_repeat(self):
        def graph(c, r):
            if b"/send " in r:
                upstream.answer(c, 429, b"{}", b"Retry-After: 60\r\n")
            else:
                upstream.answer(c, 201, b'{"id":"d1","isDraft":true}')
        self.behave(graph)
        token = self.engine.token(user="half@demo.example")     # whose mailbox alone is asked to wait a minute
        self.connect(token)
        m = self.engine.rpc("tools/call", {"name": "outlook.send_mail", "arguments": self.MAIL}, token,
                            "outlook.send_mail",
                            meta={"dev.sluice/timeoutMs": 1500})[1]
        self.assertEqual(outcome_of(m), "unknown", m)
        self.assertEqual(m["result"]["_meta"]["dev.sluice/error"], "outcome_unknown")
        self.assertNotIn("dev.sluice/retryAfterMs", m["result"]["_meta"])
        self.assertIn("do not repeat", text_of(m))

    def test_errors_of_the_provider(self):
        wrong = b'{"error":{"code":"Nope","message":"no\\u0007t this"}}'
        for status, error in ((400, "upstream_refused"), (403, "upstream_refused"), (404, "upstream_refused"),
                              (409, "upstream_conflict"), (412, "upstream_conflict")):
            self.behave(lambda c, r, s=status: upstream.answer(c, s, wrong))
            m = self.fast("outlook.list_mail", {})
            self.assertEqual(outcome_of(m), "failed", m)
            self.assertEqual(m["result"]["_meta"]["dev.sluice/error"], error)
            self.assertIn(str(status), text_of(m))
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))

    def test_a_limit_is_waited_for(self):
        answers = [lambda c: upstream.answer(c, 429, b"{}", b"Retry-After: 1\r\n"),
                   lambda c: upstream.answer(c, 200, b'{"value":[]}')]
        self.behave(lambda c, r: answers.pop(0)(c))
        m = self.engine.call("outlook.list_mail", {}, self.token)
        self.assertEqual(outcome_of(m), "done", m)

    def test_refused_connection(self):
        bound = socket.socket()                 # but never listening: nobody else can be there
        bound.bind(("127.0.0.1", 0))
        e = harness.Engine(config=config("http://127.0.0.1:%d" % bound.getsockname()[1]))
        t = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                  {"Authorization": "Bearer " + t})
        m = e.rpc("tools/call", {"name": "outlook.list_mail", "arguments": {}}, t, "outlook.list_mail",
                  meta={"dev.sluice/timeoutMs": 1500})[1]
        self.assertEqual(outcome_of(m), "refused", m)
        m = e.rpc("tools/call", {"name": "outlook.send_mail", "arguments": self.MAIL}, t, "outlook.send_mail",
                  meta={"dev.sluice/timeoutMs": 1500})[1]
        self.assertEqual(outcome_of(m), "refused", m)
        self.assertEqual(e.stop(), 0)
        bound.close()

    def test_redirects_are_not_followed(self):
        self.behave(lambda c, r: upstream.answer(c, 302, b"{}", b"Location: http://127.0.0.1:1/\r\n"))
        self.expect("outlook.list_mail", {}, "failed")


class OddAnswers(WithEngine):
    """Answers that are legal and easily misread: what is told of them has to be so."""
    PROVIDERS = ("outlook", "github", "gmail", "slack")
    EXTRA = "    limits: { tier_2: { amount: 6000 } }\n"         # pages of channels come at once

    def of(self, user):
        """A token of a user whose accounts nothing else uses: pauses are theirs alone."""
        token = self.engine.token(user=user + "@demo.example")
        self.connect(token, user + "@demo.example")
        return token

    def ask(self, tool, args, token=None):
        """The outcome, the error, the words, how long to wait."""
        m = self.engine.rpc("tools/call", {"name": tool, "arguments": args}, token or self.token, tool,
                            meta={"dev.sluice/timeoutMs": 10000})[1]["result"]
        meta = m["_meta"]
        return (meta["dev.sluice/outcome"], meta.get("dev.sluice/error"), m["content"][0]["text"],
                meta.get("dev.sluice/retryAfterMs", 0))

    # ---- GitHub: limits that only the message names ----

    ISSUE = {"repository": "acme/web", "title": "t"}
    SECONDARY = "You have exceeded a secondary rate limit%s. Please wait a few minutes before you try again."
    CREATION = " and have been temporarily blocked from content creation"

    def github(self, status, message, head=b""):
        """Reads go well, writes are answered so."""
        def behave(c, r):
            if r.startswith(b"GET "):
                body = b"[]" if b"/pulls" in r else b'{"full_name":"acme/web","login":"alice"}'
                return upstream.answer(c, 200, body, b"X-RateLimit-Remaining: 14\r\n")
            return upstream.answer(c, status, json.dumps({"message": message}).encode(),
                                   b"X-RateLimit-Remaining: 14\r\n" + head)
        self.behave(behave)

    def test_a_limit_that_only_the_message_names_is_one(self):
        for status in (403, 429):
            token = self.of("secondary%d" % status)
            self.github(status, self.SECONDARY % "")
            outcome, error, words, wait = self.ask("github.create_issue", self.ISSUE, token)
            self.assertEqual((outcome, error), ("failed", "upstream_limited"), words)
            self.assertIn("secondary rate limit", words)
            self.assertTrue(50000 < wait <= 60000, wait)
            self.upstream.requests.clear()
            for tool, args in (("github.create_issue", self.ISSUE),
                               ("github.list_review_requests", {"repository": "acme/web"})):
                outcome, error, words, wait = self.ask(tool, args, token)
                self.assertEqual((outcome, error), ("refused", "rate_limited"), words)
                self.assertGreater(wait, 40000)
            self.assertEqual(self.upstream.requests, [], "nothing more goes out")

    def test_a_limit_of_what_is_created_stops_no_reads(self):
        token = self.of("creation")
        self.github(403, self.SECONDARY % self.CREATION)
        self.assertEqual(self.ask("github.create_issue", self.ISSUE, token)[1], "upstream_limited")
        self.upstream.requests.clear()
        self.assertEqual(self.ask("github.create_issue", self.ISSUE, token)[1], "rate_limited")
        self.assertEqual([r for r in self.upstream.requests if r.startswith(b"POST")], [])
        self.assertEqual(self.ask("github.list_review_requests", {"repository": "acme/web"}, token)[0], "done")

    def test_what_else_is_forbidden_is_a_refusal(self):
        self.github(403, "Resource not accessible by integration")
        self.assertEqual(self.ask("github.create_issue", self.ISSUE)[:2], ("failed", "upstream_refused"))

    def test_labels_that_were_not_all_seen(self):
        def behave(c, r):
            if b"/labels" in r:
                return upstream.answer(c, 200, json.dumps([{"name": "label"}] * size).encode())
            return upstream.answer(c, 200, b'{"full_name":"acme/web"}')
        for size, words in ((99, 'acme/web has no label "gone"'),
                            (100, 'acme/web has no label "gone" among its first 1000')):
            self.behave(behave)
            self.assertEqual(self.ask("github.create_issue", dict(self.ISSUE, labels=["gone"]))[:3],
                             ("refused", "no_result", words))

    # ---- Gmail: the moment is followed by words ----

    def test_a_moment_with_words_behind_it(self):
        for tail in ("", " (Mail sending)", " (Forwarding rules)"):
            at = time.strftime("%Y-%m-%dT%H:%M:%S.247Z", time.gmtime(time.time() + 900))
            self.behave(lambda c, r: upstream.answer(c, 429, json.dumps({"error": {
                "code": 429, "message": "User-rate limit exceeded.  Retry after " + at + tail,
                "errors": [{"domain": "usageLimits", "reason": "rateLimitExceeded"}]}}).encode()))
            outcome, error, words, wait = self.ask("gmail.search", {"words": "x"}, self.of("mail%d" % len(tail)))
            self.assertEqual((outcome, error, len(self.upstream.requests)), ("failed", "upstream_limited", 1), words)
            self.assertGreater(wait, 800000)

    # ---- Slack: many channels ----

    def slack(self, channels, live=1):
        """So many channels, as large as Slack's, ch-0 and so on; of each `live` one, the others are archived."""
        more = {"is_channel": True, "topic": {"value": "t" * 250, "creator": "U061F7AUR", "last_set": 1678229664},
                "purpose": {"value": "p" * 250, "creator": "U061F7AUR", "last_set": 1678229664},
                "shared_team_ids": ["T061EG9RZ"], "previous_names": ["was"], "created": 1449252889,
                "flags": {"is_%d" % i: False for i in range(25)}}

        def behave(c, r):
            if b"conversations.list" not in r.split(b"\r\n")[0]:
                return upstream.answer(c, 200, b'{"ok":true,"channel":"C","ts":"1.2"}')
            asked = dict(f.split(b"=") for f in r.split(b"\r\n\r\n", 1)[1].split(b"&"))
            limit, first = int(asked[b"limit"]), int(asked.get(b"cursor", 0))
            self.assertLess(limit, 1000)
            page = [dict(more, id="C%d" % i, name="ch-%d" % i) for i in range(first, min(first + limit, channels))
                    if i % live == 0]
            return upstream.answer(c, 200, json.dumps({"ok": True, "channels": page, "response_metadata": {
                "next_cursor": str(first + limit) if first + limit < channels else ""}}).encode())
        self.behave(behave)

    def test_a_channel_behind_thousands(self):
        self.slack(4900)
        outcome, error, words, _ = self.ask("slack.post_message", {"channel": "ch-4899", "text": "hi"})
        self.assertEqual((outcome, error), ("done", None), words)
        self.assertIn(b'"channel":"C4899"', self.upstream.requests[-1])

    def test_no_such_channel_is_said_only_where_all_were_seen(self):
        for channels, live, asked, words in ((4900, 1, 5, 'no channel called "gone" that the app can see'),
                                             (20000, 1, 5, 'no channel called "gone" among the first 4995 that'),
                                             (20000, 999, 8, 'no channel called "gone" among the first 8 that')):
            self.slack(channels, live)
            outcome, error, said, wait = self.ask("slack.post_message", {"channel": "gone", "text": "hi"})
            self.assertEqual((outcome, error, wait), ("refused", "no_result", 0), said)
            self.assertIn(words, said)
            self.assertEqual(len(self.upstream.requests), asked)

    def test_a_person_without_an_address_is_not_somebody_elses(self):
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"ok":true,"user":{"id":"U1","profile":{}}}'))
        self.assertEqual(self.ask("slack.message_user", {"email": "bob@demo.example", "text": "hi"})[:3],
                         ("refused", "no_result",
                          "the workspace does not confirm that bob@demo.example is the address of whom it found"))

    # ---- Outlook: calendars that cannot be seen ----

    def schedule(self, *schedules):
        body = json.dumps({"value": schedules} if schedules else {}).encode()
        self.behave(lambda c, r: upstream.answer(c, 200, body))

    def test_a_calendar_that_cannot_be_seen_is_not_busy(self):
        me = {"scheduleId": "alice@demo.example", "availabilityView": "0" * 336, "error": None}
        wrong = {"message": "unable to resolve e-mail address", "responseCode": "ErrorMailRecipientNotFound"}
        args = {"attendees": ["carol@partner.example"], "minutes": 30}
        for her in ({"error": wrong}, {}, {"availabilityView": ""}, {"availabilityView": "0" * 336, "error": wrong}):
            self.schedule(me, dict(her, scheduleId="carol@partner.example"))
            for tool, more in (("outlook.find_free_slot", {}), ("outlook.book_meeting", {"subject": "s"})):
                self.assertEqual(self.ask(tool, dict(args, **more))[:3],
                                 ("refused", "no_result", "the calendar of carol@partner.example cannot be seen"))
        for schedules in ((), (me,)):
            self.schedule(*schedules)
            self.assertEqual(self.ask("outlook.find_free_slot", args)[:2], ("failed", "upstream_garbled"))
        self.schedule(me, dict(me, scheduleId="carol@partner.example"))
        self.assertEqual(self.ask("outlook.find_free_slot", args)[0], "done")
        self.schedule(me)
        self.assertEqual(self.ask("outlook.find_free_slot", dict(args, attendees=["alice@demo.example"]))[0], "done",
                         "the user is asked about once")

    def test_when_nobody_is_free_it_says_from_when(self):
        self.schedule({"scheduleId": "alice@demo.example", "availabilityView": "0" * 336},
                      {"scheduleId": "bob@demo.example", "availabilityView": "2" * 336})
        self.assertEqual(self.ask("outlook.find_free_slot", {"attendees": ["bob@demo.example"], "minutes": 30,
                                                             "after": "2030-01-07T09:10:00Z"})[1:3],
                         ("no_result", "no time in the 7 days from 2030-01-07T09:30:00Z is free for everybody"))

    def test_only_a_message_that_is_said_to_be_no_draft_was_sent(self):
        for found, outcome in ((b"{}", "unknown"), (b'{"isDraft":true}', "unknown"), (b'{"isDraft":false}', "done")):
            def behave(c, r):
                if b"/send " in r:
                    return "close"
                return upstream.answer(c, 201 if r.startswith(b"POST") else 200,
                                       b'{"id":"d1"}' if r.startswith(b"POST") else found)
            self.behave(behave)
            self.assertEqual(self.ask("outlook.send_mail", {"to": ["b@demo.example"], "subject": "s", "body": "b"})[0],
                             outcome, found)

    def test_unread_mail_is_asked_for_as_graph_takes_it(self):
        self.behave(lambda c, r: upstream.answer(c, 200, b'{"value":[]}'))
        self.assertEqual(self.ask("outlook.list_mail", {"unread_only": True})[0], "done")
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.upstream.requests[-1].split(b" ")[1].decode()).query)
        self.assertEqual(query["$orderby"], ["receivedDateTime desc"])
        self.assertEqual(query["$filter"], ["receivedDateTime ge 1900-01-01T00:00:00Z and isRead eq false"])


class Keys(WithEngine):
    def test_the_same_key_executes_once_even_at_the_same_time(self):
        def graph(c, r):
            if r.startswith(b"POST /v1.0/me/messages "):
                upstream.answer(c, 201, b'{"id":"m1"}')
            else:
                upstream.answer(c, 202, b"")
        self.behave(graph)
        args = {"to": ["bob@demo.example"], "subject": "once", "body": "b"}
        got = []
        def send():
            got.append(self.engine.call("outlook.send_mail", args, self.token, key="k1"))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([outcome_of(m) for m in got], ["done"] * 8)
        self.assertEqual({json.dumps(m["result"]["structuredContent"]) for m in got}, {'{"message_id": "m1"}'})
        self.assertEqual(len([r for r in self.upstream.requests if b"/send " in r]), 1)

    def test_other_arguments_with_the_same_key_are_refused(self):
        self.behave(lambda c, r: upstream.answer(c, 201, b'{"id":"m2"}'))
        a = self.engine.call("outlook.send_mail", {"to": ["bob@demo.example"], "subject": "x", "body": "b"}, self.token,
                             key="k2")
        b = self.engine.call("outlook.send_mail", {"to": ["bob@demo.example"], "subject": "y", "body": "b"}, self.token,
                             key="k2")
        self.assertEqual((outcome_of(a), outcome_of(b)), ("done", "refused"))


class Restarts(unittest.TestCase):
    def test_keys_and_open_intents_survive_kill_9(self):
        held, reached = threading.Event(), threading.Event()

        def graph(c, r):
            if r.startswith(b"POST /v1.0/me/messages ") and b"slow" in r:
                reached.set()
                held.wait(30)
                return "close"
            upstream.answer(c, 201 if r.startswith(b"POST /v1.0/me/messages ") else 202, b'{"id":"m1"}')
            return None
        up = upstream.Upstream(graph)
        path = config(up.url)
        e = harness.Engine(config=path)
        token = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                  {"Authorization": "Bearer " + token})
        args = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}
        slow = dict(args, body="slow")
        self.assertEqual(outcome_of(e.call("outlook.send_mail", args, token, key="before")), "done")

        def doomed():
            try:
                e.call("outlook.send_mail", slow, token, key="during")
            except (OSError, ValueError, Exception):
                pass
        t = threading.Thread(target=doomed)
        t.start()
        self.assertTrue(reached.wait(10))
        e.signal(signal.SIGKILL)
        e.wait()
        t.join()
        held.set()
        sent = len([r for r in up.requests if b"/send " in r])
        f = harness.Engine(config=path, data=e.data)
        token = f.token()
        again = f.call("outlook.send_mail", args, token, key="before")
        self.assertEqual(outcome_of(again), "done")
        self.assertEqual(again["result"]["structuredContent"], {"message_id": "m1"})
        lost = f.call("outlook.send_mail", slow, token, key="during")
        self.assertEqual(outcome_of(lost), "unknown", lost)
        self.assertEqual(len([r for r in up.requests if b"/send " in r]), sent, "nothing is executed again")
        self.assertEqual(f.stop(), 0)
        harness.run("audit", "verify", "--data", f.data)
        recovered = [r for k, r in f.journal() if k == "outcome" and r.get("recovered")]
        self.assertEqual([r["outcome"] for r in recovered], ["unknown"])
        up.close()

    def test_what_is_done_stays_done_when_its_result_cannot_be_read_any_more(self):
        up = upstream.Upstream(lambda c, r: upstream.answer(c, 201, b'{"id":"m1"}'))
        path, data, metas = config(up.url), None, []
        args = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}
        for _ in range(2):
            e = harness.Engine(config=path, data=data)
            token, data = e.token(), e.data
            e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                      {"Authorization": "Bearer " + token})
            metas.append(e.call("outlook.send_mail", args, token, key="k")["result"]["_meta"])
            if len(metas) == 1:
                self.assertEqual(e.stop(), 0)
                with sqlite3.connect(os.path.join(data, "sluice.db")) as db:
                    db.execute("DELETE FROM keys")          # its tenant's
        self.assertEqual([m["dev.sluice/outcome"] for m in metas], ["done"] * 2)
        self.assertEqual(metas[1]["dev.sluice/error"], "no_result")
        self.assertEqual(metas[1]["dev.sluice/replayOf"], metas[0]["dev.sluice/call"])
        p = harness.run("call", "outlook.send_mail", "--args", json.dumps(args), "--key", "k", "--url", e.url, "--data",
                        data, "--tenant", "demo", "--as", "alice@demo.example", "--agent", "test-agent", check=False)
        self.assertEqual((p.returncode, p.stdout), (0, ""), p.stderr)
        self.assertIn("done: this call was made before", p.stderr)
        self.assertEqual(e.stop(), 0)
        self.assertEqual(len([r for r in up.requests if b"/send " in r]), 1)
        ends = [(r["outcome"], r["error"]) for k, r in e.journal() if k == "outcome" and "replay_of" in r]
        self.assertEqual(ends, [("done", "no_result")] * 2)

    def test_what_the_limiter_would_refuse_is_an_error_and_no_abort(self):
        path = config("http://127.0.0.1:1")
        with open(path) as f:
            good = f.read()
        e = harness.Engine(config=path)
        for bad, words in (("{ amount: 100, window_ms: 0 }", "needs a window_ms|window_ms"),
                           ("{ amount: 5, window_ms: 40000000000 }", "400 days"),
                           ("{ concurrency: 4294967296 }", "concurrency at most")):
            with open(path, "w") as f:
                f.write(good + "    limits: { mailbox_concurrency: %s }\n" % bad)
            p = harness.run("serve", "--check", "--config", path, check=False)
            self.assertEqual(p.returncode, 1, bad)
            self.assertRegex(p.stderr, words)
            e.signal(signal.SIGHUP)
            e.wait_line("the new configuration was not taken.*" + words.split("|")[0])
        with open(path, "w") as f:
            f.write(good + "tls: { cert: /nonexistent.pem, key: /nonexistent.pem }\n")
        e.signal(signal.SIGHUP)
        e.wait_line("TLS cannot be switched on")
        self.assertEqual(e.stop(), 0)

    def test_a_budget_that_a_reload_brings_takes_effect(self):
        path = config("http://127.0.0.1:1")
        e = harness.Engine(config=path)
        t = e.token()
        self.assertEqual([outcome_of(e.call("add", {"a": 1, "b": 1}, t)) for _ in range(3)], ["done"] * 3)
        with open(path, "a") as f:
            f.write("budgets: { tenant: { per_minute: 1 } }\n")
        e.signal(signal.SIGHUP)
        e.wait_line('msg="?reloaded')
        got = [outcome_of(e.rpc("tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}}, t, "add",
                                meta={"dev.sluice/timeoutMs": 1000})[1]) for _ in range(2)]
        self.assertEqual(got, ["done", "refused"])
        self.assertEqual(e.stop(), 0)

    def test_reload_takes_new_policies_and_keeps_old_ones_when_they_are_wrong(self):
        path = config("http://127.0.0.1:1")
        policy = os.path.join(os.path.dirname(path), "policy.cedar")
        e = harness.Engine(config=path)
        t = e.token()
        self.assertEqual(outcome_of(e.call("add", {"a": 1, "b": 1}, t)), "done")
        with open(policy, "w") as f:
            f.write("permit (principal, action, resource")
        e.signal(signal.SIGHUP)
        e.wait_line("the new configuration was not taken.*policy.cedar:1:")
        self.assertEqual(outcome_of(e.call("add", {"a": 1, "b": 1}, t)), "done")
        with open(policy, "w") as f:
            f.write('@id("nothing") forbid (principal, action, resource);')
        e.signal(signal.SIGHUP)
        e.wait_line('msg="?reloaded')
        self.assertIn("nothing", text_of(e.call("add", {"a": 1, "b": 1}, t)))
        self.assertEqual(e.stop(), 0)


class Starts(unittest.TestCase):
    """What stops a start says where, why and what to do; exit code 1."""

    def fails(self, args, words, env=None, code=1):
        p = harness.run("serve", *args, check=False, env=env)
        self.assertEqual(p.returncode, code, p.stderr)
        self.assertRegex(p.stderr, words)

    def file(self, text, name="sluice.yaml"):
        path = os.path.join(harness.scratch(), name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def data(self):
        return os.path.join(harness.scratch(), "data")

    def test_unknown_configuration_key(self):
        self.fails(["--config", self.file("listen: 127.0.0.1:0\nlisten_on: x\n")],
                   r'sluice\.yaml:2:1: unknown key "listen_on"; known here: listen')

    def test_wrong_values(self):
        self.fails(["--config", self.file("workers: many\n")], r"sluice\.yaml:1:10: expected a whole number")
        self.fails(["--config", self.file("a: [\n")], r"sluice\.yaml:2:1")
        self.fails(["--config", self.file("workers: 1\nworkers: 2\n")], "given twice")
        self.fails(["--config", self.file("providers:\n  outlook:\n    client_secret: hunter2\n")],
                   "3:20: secrets are not written here")
        self.fails(["--config", self.file("connectors: [nosuch]\n"), "--data", self.data(), "--listen", "127.0.0.1:0"],
                   'no connector called "nosuch"')
        self.fails(["--config", "/nonexistent.yaml"], "cannot read the configuration /nonexistent.yaml")

    def test_listening_beyond_loopback_needs_tls_and_an_issuer(self):
        self.fails(["--listen", "0.0.0.0:0", "--data", self.data()], "needs TLS")
        self.fails(["--listen", "0.0.0.0:0", "--no-auth", "--data", self.data()], "loopback only")

    def test_addresses(self):
        for wrong in ("127.0.0.1", "300.1.1.1:80", "127.0.0.1:http", ":80", "example.com:80", "[::1",
                      "127.0.0.1:70000"):
            self.fails(["--listen", wrong, "--data", self.data()], "no address to listen on: write IP:PORT")

    def test_the_root_key_is_where_the_configuration_says(self):
        """Also when the command line names another data directory: never beside what it protects unless told so."""
        key = os.path.join(harness.scratch(), "elsewhere.key")
        e = harness.Engine(config=self.file("vault: { root_key: \"file:%s\" }\n" % key), data=self.data())
        self.assertTrue(os.path.exists(key))
        self.assertNotIn("root.key", os.listdir(e.data))
        self.assertEqual(e.stop(), 0)
        self.fails(["--config", self.file("vault: { root_key: \"env:NOT_SET\" }\n"), "--data", self.data(),
                    "--listen", "127.0.0.1:0"], "NOT_SET .*is not set")
        self.fails(["--config", self.file("vault: { root_key: \"file:/nonexistent/root.key\" }\n"), "--data",
                    self.data(), "--listen", "127.0.0.1:0"], "/nonexistent/root.key.*No such file")

    def test_a_data_directory_that_cannot_be(self):
        self.fails(["--config", self.file("workers: 1\n"), "--data", "/proc/nothing", "--listen", "127.0.0.1:0"],
                   "data directory /proc/nothing: .+")

    def test_a_key_file_that_others_can_read(self):
        data = self.data()
        os.makedirs(data)
        for name in ("root.key", "issuer.key"):
            path = os.path.join(data, name)
            with open(path, "w") as f:
                f.write("00" * 32)
            os.chmod(path, 0o644)
            self.fails(["--data", data, "--listen", "127.0.0.1:0"], name + r" can be read by others.*chmod 600")
            os.chmod(path, 0o600)

    def test_unreadable_key_file(self):
        data = self.data()
        os.makedirs(data)
        with open(os.path.join(data, "root.key"), "w") as f:
            f.write("not a key")
        os.chmod(os.path.join(data, "root.key"), 0o600)
        self.fails(["--data", data, "--listen", "127.0.0.1:0"], r"root\.key")
        os.remove(os.path.join(data, "root.key"))
        os.mkdir(os.path.join(data, "root.key"))
        self.fails(["--data", data, "--listen", "127.0.0.1:0"], r"root\.key")

    def test_taken_port(self):
        e = harness.Engine(args=["--no-auth"])
        self.fails(["--listen", e.address, "--data", self.data()], "another process has this port")
        self.fails(["--listen", "127.0.0.1:0", "--data", e.data], "lock|another process|in use")
        self.assertEqual(e.stop(), 0)

    def test_bad_policy(self):
        policy = self.file("permit (principal, action, resource) when { 1 + };", "p.cedar")
        self.fails(["--policies", policy, "--listen", "127.0.0.1:0", "--data", self.data()], r"p\.cedar:1:4\d")

    def test_read_only_journal(self):
        data = self.data()
        e = harness.Engine(data=data, args=["--no-auth"])
        self.assertEqual(e.stop(), 0)
        mount = os.path.join(data, "journal")
        if subprocess.run(["mount", "--bind", mount, mount], capture_output=True).returncode or \
           subprocess.run(["mount", "-o", "remount,ro,bind", mount], capture_output=True).returncode:
            self.skipTest("needs the right to mount")
        try:
            self.fails(["--listen", "127.0.0.1:0", "--data", data], "journal.*[Rr]ead-only")
        finally:
            subprocess.run(["umount", mount], check=True)

    def test_full_journal(self):
        data = self.data()
        os.makedirs(os.path.join(data, "journal"))
        mount = os.path.join(data, "journal")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=17m", "tmpfs", mount], capture_output=True).returncode:
            self.skipTest("needs the right to mount")
        try:
            path = config("http://127.0.0.1:1")
            e = harness.Engine(config=path, data=data, args=["--workers", "1"])
            t = e.token()
            self.assertEqual(outcome_of(e.call("add", {"a": 1, "b": 1}, t)), "done")
            with open(os.path.join(mount, "ballast"), "wb") as f:
                try:
                    while f.write(b"x" * 65536) and not f.flush():
                        pass
                except OSError:
                    pass
            done, refused = 0, None
            for i in range(30000):
                status, m = e.rpc("tools/call", {"name": "test_simple_text", "arguments": {}}, t, "test_simple_text")
                if "error" in m:
                    refused = (status, m["error"])
                    break
                done += 1
            self.assertIsNotNone(refused, "the journal never became full")
            self.assertEqual(refused[0], 503)
            self.assertIn("recorded", refused[1]["message"])
            os.remove(os.path.join(mount, "ballast"))
            deadline = time.monotonic() + 20
            while "error" in e.rpc("tools/call", {"name": "test_simple_text", "arguments": {}}, t,
                                   "test_simple_text")[1]:
                self.assertLess(time.monotonic(), deadline, "calls go on once space returned, without a restart")
            self.assertEqual(e.stop(), 0)
            harness.run("audit", "verify", "--data", data)
            ended = [r for k, r in e.journal() if k == "outcome" and r.get("outcome") == "done"]
            self.assertGreaterEqual(len(ended), done, "what was acknowledged is there")
        finally:
            subprocess.run(["umount", "-l", mount], check=True)


if __name__ == "__main__":
    harness.main()
