"""Calls of many tenants in one turn of a worker, which take their steps together: each stays its own.

The engine is stopped while a burst of requests is written, one of each tenant, so that a single turn finds them all.
They part at different steps (a signature that is wrong, a tool that is not known, arguments that do not fit, a
policy's no, answers of the provider's), and each has words in it that no other has.  The provider looks at the
credential that came with them, the client at the answer, and the journal at the end says whose they were."""
import http.client
import json
import os
import signal
import sys
import unittest
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bed
import harness
import upstream

TENANTS = ["tenant%02d" % i for i in range(48)]
BURSTS = 14
POLICY = """
@id("all") permit (principal, action, resource);
@id("no-interns") forbid (principal == Agent::"intern", action, resource);
"""
GRANT = "credential-of-"


class Provider:
    """Answers from what it was asked; notes what was asked with another tenant's credential."""

    def __init__(self):
        self.wrong, self.asked = [], 0

    def behave(self, c, request):
        head, body = request.decode().split("\r\n\r\n", 1)
        line, *lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (h.split(":", 1) for h in lines)}
        tenant = headers["authorization"].split(" ", 1)[1].removeprefix(GRANT)
        words = urllib.parse.unquote_plus(line) + body
        self.asked += 1
        if any(t in words for t in TENANTS if t != tenant):
            self.wrong.append((tenant, words))
        if line.startswith("POST"):         # a draft, and that it be sent
            sent = "/send" in line
            upstream.answer(c, 202 if sent else 201, b"" if sent else json.dumps({"id": "m-" + tenant}).encode())
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(line.split(" ")[1]).query)
        subject = "%s found %s" % (tenant, query.get("$search", ["all"])[0].strip('"'))
        upstream.answer(c, 200, json.dumps({"value": [
            {"id": "m-" + tenant, "subject": subject, "receivedDateTime": "2026-11-01T10:00:00Z", "isRead": True,
             "bodyPreview": tenant, "from": {"emailAddress": {"name": tenant, "address": "x@%s.example" % tenant}}}]
        }).encode())


class Sender:
    """A tenant's connection."""

    def __init__(self, engine, tenant):
        self.tenant, self.engine = tenant, engine
        self.token = engine.token(user="u@%s.example" % tenant, tenant=tenant)
        self.intern = engine.token(user="u@%s.example" % tenant, agent="intern", tenant=tenant)

    def connect(self):
        """Answers the port that records will name."""
        self.connection = http.client.HTTPConnection("127.0.0.1", self.engine.port, timeout=60)
        self.connection.connect()
        return self.connection.sock.getsockname()[1]

    def send(self, kind, words):
        tool, args, token = {
            "list": ("outlook.list_mail", {"count": 3}, self.token),
            "search": ("outlook.search_mail", {"words": words}, self.token),
            "send": ("outlook.send_mail", {"to": ["x@%s.example" % self.tenant], "subject": words, "body": words},
                     self.token),
            "unsigned": ("outlook.list_mail", {}, self.token[:-8] + "AAAAAAAA"),
            "unknown": ("outlook." + self.tenant, {}, self.token),
            "unfit": ("outlook.list_mail", {"count": words}, self.token),
            "denied": ("outlook.search_mail", {"words": words}, self.intern),
        }[kind]
        line = json.loads(harness.call_line(tool, args, token))
        self.connection.request("POST", "/mcp", line["body"], line["headers"])


KINDS = {       # and what the answer says
    "list": "found all", "search": "found", "send": "done", "unsigned": "token_signature", "unknown": "tool_unknown",
    "unfit": "args_invalid", "denied": "policy_denied",
}


class Tenants(unittest.TestCase):
    def test_calls_of_a_turn_stay_their_own(self):
        provider = Provider()
        at = upstream.Upstream(provider.behave)
        engine = harness.Engine(config=bed.config(at.url, policy=POLICY, workers=1))
        senders = [Sender(engine, t) for t in TENANTS]
        for s in senders:
            status, _, raw = engine.request("POST", "/v1/accounts", json.dumps(
                {"provider": "outlook", "label": "u@%s.example" % s.tenant, "token": GRANT + s.tenant}),
                {"Authorization": "Bearer " + s.token, "Content-Type": "application/json"})
            self.assertEqual(status, 200, raw)
        ports = {s.connect(): s.tenant for s in senders}
        seen = {k: 0 for k in KINDS}
        for burst in range(BURSTS):
            kinds = [list(KINDS)[(i * 5 + burst) % len(KINDS)] for i in range(len(senders))]
            engine.signal(signal.SIGSTOP)
            for s, kind in zip(senders, kinds):
                s.send(kind, "%s in burst %d" % (s.tenant, burst))
            engine.signal(signal.SIGCONT)
            for s, kind in zip(senders, kinds):
                seen[kind] += 1
                self.check(s.tenant, kind, burst, s.connection.getresponse().read().decode())
        self.assertEqual(provider.wrong, [])
        self.assertEqual(provider.asked, seen["list"] + seen["search"] + 2 * seen["send"])
        self.assertEqual(engine.stop(), 0, engine.text())
        harness.run("audit", "verify", "--data", engine.data)
        self.records(engine, ports, sum(n for kind, n in seen.items() if kind != "unsigned"))
        for s in senders:
            s.connection.close()
        at.close()

    def check(self, tenant, kind, burst, body):
        self.assertIn(KINDS[kind], body)
        self.assertEqual([t for t in TENANTS if t in body and t != tenant], [], body)
        if kind in ("list", "search"):
            self.assertIn("%s found" % tenant, body)
        if kind == "search":
            self.assertIn("%s in burst %d" % (tenant, burst), body)

    def records(self, engine, ports, calls):
        """Each has one end (who is not known to anybody may go unrecorded when there are many); a record speaks of the
        tenant whose connection it came on, and of no other."""
        ended = 0
        for kind, r in engine.journal():
            port = int(r.get("peer", ":0").rsplit(":", 1)[1])
            if port in ports:
                self.assertEqual(r.get("tenant", ports[port]), ports[port])
                self.assertEqual([t for t in TENANTS if t in json.dumps(r) and t != ports[port]], [], r)
                self.assertEqual(r.get("account", "u@%s.example" % ports[port]), "u@%s.example" % ports[port])
            ended += kind == "outcome"
        self.assertEqual(ended, calls)


if __name__ == "__main__":
    harness.main()
