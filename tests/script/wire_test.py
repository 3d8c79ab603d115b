"""What reaches the engine's port and is no call: bad bytes, bad tokens, too much of anything, and nobody in particular.

Each case asks for the right status, the engine alive afterwards, and every request in the journal exactly once."""
import base64
import collections
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import upstream
from bed import WithEngine, config, outcome_of, text_of


class BadRequests(WithEngine):
    def raw(self, data, timeout=10):
        with socket.create_connection(("127.0.0.1", self.engine.port), timeout=timeout) as c:
            c.sendall(data)
            got = b""
            while True:
                piece = c.recv(65536)
                if not piece:
                    return got
                got += piece

    def test_malformed_http(self):
        host = b"Host: 127.0.0.1:%d\r\n" % self.engine.port
        cases = {
            b"GARBAGE\r\n\r\n": b"400",
            b"GET / HTTP/1.1\r\n\r\n": b"400",                                              # no Host
            b"POST /mcp HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":
                b"400",
            b"POST /mcp HTTP/1.1\r\n" + host + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello": b"400",
            b"POST /mcp HTTP/1.1\r\n" + host + b"Content-Length: +5\r\n\r\nhello": b"400",
            b"POST /mcp HTTP/1.1\r\n" + host + b"Transfer-Encoding: xchunked\r\n\r\n": b"400",
            b"GET / HTTP/1.1\n" + host + b"\n": b"400",                                     # bare LF
            b"GET / HTTP/1.1\r\n" + host + b"A : b\r\n\r\n": b"400",                        # blank before the colon
            b"GET / HTTP/1.1\r\n" + host + b"X: a\r\n b\r\n\r\n": b"400",                   # folded line
            b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n" + host + b"\r\n": b"4",
        }
        for data, status in cases.items():
            before = self.records()
            got = self.raw(data)
            self.assertRegex(got.split(b"\r\n")[0], rb"^HTTP/1.1 " + status, data[:60])
            self.assertIn(b"Connection: close", got)
            self.assertEqual(self.records_settled(before + 1), before + 1, data[:60])
        self.alive()

    def records_settled(self, want):
        """Refused bytes are recorded without making their sender wait: the record follows within a commit."""
        deadline = time.monotonic() + 5
        while self.records() < want and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return self.records()

    def post(self, body, headers=None):
        h = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
             "Authorization": "Bearer " + self.token}
        h.update(headers or {})
        status, got, raw = self.engine.request("POST", "/mcp", body, h)
        return status, json.loads(raw)

    def test_malformed_json(self):
        for body in ("{", '{"a":1,"a":2}', '{"a":1}x', '["\ud800"]'.encode("utf-8", "surrogatepass"), b'{"a":"\xff"}',
                     "[" * 100000, '{"a":01}', "nul"):
            before = self.records()
            status, m = self.post(body)
            self.assertEqual((status, m["error"]["code"]), (400, -32700), body[:40])
            self.assertNotIn("id", m)
            self.assertEqual(self.records(), before + 1)
        self.alive()

    def test_malformed_rpc(self):
        cases = [({"jsonrpc": "1.0", "id": 1, "method": "tools/list"}, -32600),
                 ({"jsonrpc": "2.0", "id": None, "method": "tools/list"}, -32600),
                 ({"jsonrpc": "2.0", "id": 1}, -32600), ([], -32600), ("x", -32600), (7, -32600),
                 ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}, None)]
        for body, code in cases:
            before = self.records()
            status, m = self.post(json.dumps(body))
            self.assertIn("error", m, body)
            if code:
                self.assertEqual((status, m["error"]["code"]), (400, code), body)
            self.assertEqual(self.records(), before + 1, body)
        self.alive()

    def test_arguments(self):
        for args in ({"a": 2}, {"a": 2, "b": "3"}, {"a": 2, "b": 3, "c": 4}, {"a": 2, "b": 1e9}, {"a": 2, "b": 2.5}):
            m = self.engine.call("add", args, self.token)
            self.assertTrue(m["result"]["isError"])
            self.assertEqual(outcome_of(m), "refused")
            self.assertRegex(text_of(m), "argument", args)
        m = self.engine.call("outlook.send_mail", {"to": ["not an address"], "subject": "s", "body": "b"}, self.token)
        self.assertIn("e-mail", text_of(m))
        m = self.engine.call("outlook.send_mail", {"to": ["a@b.example"], "subject": "two\nlines", "body": "b"},
                             self.token)
        self.assertIn("control", text_of(m))
        self.alive()

    def test_unknown_tool(self):
        m = self.engine.call("no_such_tool", {}, self.token)
        self.assertEqual(m["error"]["code"], -32602)
        self.assertIn("no_such_tool", m["error"]["message"])


class Refusals(WithEngine):
    """What the wire itself is refused for: the status the client sees, and the error that is in the journal."""

    JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

    def errors(self):
        return collections.Counter(r["error"] for kind, r in self.engine.journal()
                                   if kind == "request" and "error" in r)

    def refused(self, error, status, method="POST", path="/mcp", body="{}", headers=None, token=True):
        before = self.errors()
        h = dict(self.JSON, **(headers or {}))
        if token:
            h["Authorization"] = "Bearer " + self.token
        got, headers, raw = self.engine.request(method, path, body, h)
        self.assertEqual(got, status, raw)
        self.recorded(before, error)
        return headers, raw

    def recorded(self, before, error):
        """Refused bytes are recorded without making their sender wait: the record follows within a commit."""
        deadline = time.monotonic() + 5
        while self.errors() == before and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        self.assertEqual(self.errors() - before, collections.Counter({error: 1}))

    def test_nothing_is_served_there(self):
        self.refused("http_not_found", 404, "GET", "/nothing", None, token=False)
        self.refused("http_not_found", 404, "GET", "/v1/nothing", None)

    def test_a_body_that_is_too_large(self):
        self.refused("http_too_large", 413, body=b" " * (5 << 20))
        self.alive()

    def test_a_message_with_too_much_in_it(self):
        self.refused("http_too_large", 413, body="[" + "0," * 900000 + "0]")
        self.alive()

    def test_a_request_that_does_not_arrive(self):
        before = self.errors()
        with socket.create_connection(("127.0.0.1", self.engine.port), timeout=30) as c:
            c.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            self.assertRegex(c.makefile("rb").read(), rb"^HTTP/1.1 408 ")
        self.recorded(before, "http_timeout")

    def test_methods_and_media(self):
        headers, _ = self.refused("http_method", 405, "GET", body=None)
        self.assertIn("POST", headers["allow"])
        self.refused("http_media_type", 415, headers={"Content-Type": "text/plain"})
        self.refused("http_not_acceptable", 406, headers={"Accept": "text/html"})

    def test_dns_rebinding(self):
        self.refused("http_forbidden_origin", 403, headers={"Origin": "https://evil.example"})
        self.refused("http_forbidden_origin", 403, headers={"Host": "evil.example"})

    def test_a_session_that_never_was(self):
        self.refused("session_unknown", 404, headers={"Mcp-Session-Id": "never-was"},
                     body=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
        self.refused("session_unknown", 404, "GET", body=None, headers={"Mcp-Session-Id": "never-was"})

    def test_names_that_are_unknown(self):
        for method, params, name, error, code in (
                ("tools/nothing", {}, None, "rpc_method_unknown", -32601),
                ("prompts/get", {"name": "nothing"}, "nothing", "prompt_unknown", -32602),
                ("resources/read", {"uri": "test://nothing"}, "test://nothing", "resource_unknown", -32602)):
            before = self.errors()
            _, m = self.engine.rpc(method, params, self.token, name)
            self.assertEqual((m["error"]["code"], m["error"]["data"]["dev.sluice/error"]), (code, error))
            self.recorded(before, error)


class Overload(unittest.TestCase):
    def test_what_there_is_no_room_for_is_refused_and_what_runs_is_not_touched(self):
        begun, go_on = threading.Event(), threading.Event()

        def hold(c, r):
            begun.set()
            go_on.wait(30)
            upstream.answer(c, 200, b'{"value":[]}')

        up = upstream.Upstream(hold)
        e = harness.Engine(config=config(up.url, "budgets: { calls_in_flight: 1 }\n", workers=1))
        t = e.token()
        e.request("POST", "/v1/accounts", json.dumps({"provider": "outlook", "token": "x"}),
                  {"Authorization": "Bearer " + t})
        got = []
        held = threading.Thread(target=lambda: got.append(e.call("outlook.list_mail", {}, t)))
        held.start()
        self.assertTrue(begun.wait(30))
        status, m = e.rpc("tools/call", {"name": "add", "arguments": {"a": 1, "b": 1}}, t, "add")
        self.assertEqual((status, m["error"]["data"]["dev.sluice/error"]), (503, "overloaded"), m)
        go_on.set()
        held.join()
        self.assertEqual(outcome_of(got[0]), "done", got)
        self.assertEqual(outcome_of(e.call("add", {"a": 1, "b": 1}, t)), "done")
        self.assertEqual(e.stop(), 0)
        up.close()


class Floods(unittest.TestCase):
    def flood(self, e, n):
        """n requests of nobody, each refused."""
        with socket.create_connection(("127.0.0.1", e.port), timeout=20) as c:
            request = (b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                       b"Content-Length: 2\r\n\r\n{}")
            for _ in range(n // 50):
                c.sendall(request * 50)
                got = b""
                while got.count(b"HTTP/1.1 401") < 50:
                    got += c.recv(1 << 20)

    def test_refusals_of_nobody_are_counted_when_their_second_is_over(self):
        """Whatever comes after them: nothing here, until the process is killed."""
        e = harness.Engine(args=["--workers", "1"])
        began, n = time.time(), 1000
        self.flood(e, n)
        over, deadline = time.time(), time.monotonic() + 30
        while sum(r.get("requests", 1) for k, r in e.journal() if k == "request") < n:
            self.assertLess(time.monotonic(), deadline, "the count is not on record")
            self.assertEqual(e.request("GET", "/healthz")[0], 200)      # this is not recorded, and no refusal
        e.signal(signal.SIGKILL)
        e.wait()
        records = [r for kind, r in e.journal() if kind == "request"]
        self.assertEqual(sum(r.get("requests", 1) for r in records), n)
        for r in records:
            if "requests" in r:                 # seconds are the loop's: one of them began before the flood
                self.assertTrue(began - 1.1 <= r["time"] / 1000 <= over + 0.1, (began, r, over))

    def test_refusals_of_nobody_are_counted_and_do_not_fill_the_journal(self):
        e = harness.Engine(args=["--workers", "1"])
        n = 1000
        self.flood(e, n)
        self.assertEqual(e.stop(), 0)
        records = [r for kind, r in e.journal() if kind == "request"]
        self.assertEqual(sum(r.get("requests", 1) for r in records), n, "every request is accounted for once")
        self.assertLess(len(records), n)
        harness.run("audit", "verify", "--data", e.data)


    def test_bodies_that_together_are_too_large_are_refused_and_small_ones_are_not(self):
        """256 MB of them per worker: strangers may send much, each less than one is allowed."""
        e = harness.Engine(args=["--workers", "1"])
        begun, refused = [], 0
        for _ in range(80):
            c = socket.create_connection(("127.0.0.1", e.port), timeout=30)
            begun.append(c)
            c.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4194304\r\n\r\n" + b"x" * 4194303)
        deadline = time.monotonic() + 20
        while not refused and time.monotonic() < deadline:
            for c in select.select(begun, [], [], 1)[0]:
                self.assertRegex(c.recv(100), rb"^HTTP/1.1 503 ")
                refused += 1
                begun.remove(c)
                c.close()
        self.assertGreater(refused, 0)
        self.assertEqual(e.rpc("tools/list", token=e.token())[0], 200)
        for c in begun:
            c.close()
        self.assertEqual(e.stop(), 0, e.text())
        told = [r for kind, r in e.journal() if kind == "request" and r.get("error") == "overloaded"]
        self.assertGreaterEqual(sum(r.get("requests", 1) for r in told), refused)


class BadTokens(WithEngine):
    """Each kind of bad token: 401, the challenge, and the one error it is refused for, in the reply and on record."""

    def refused(self, token, error):
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                   "MCP-Protocol-Version": harness.MODERN,
                   "Mcp-Method": "tools/list"}
        if token is not None:
            headers["Authorization"] = "Bearer " + token
        status, got, raw = self.engine.request("POST", "/mcp",
                                               json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list",
                                                           "params": {"_meta": harness.META}}), headers)
        self.assertEqual(status, 401, raw)
        challenge = got["www-authenticate"]
        where = r'http://127\.0\.0\.1:%d/\.well-known/oauth-protected-resource/mcp' % self.engine.port
        self.assertRegex(challenge, '^Bearer .*resource_metadata="%s"' % where)
        self.assertEqual('error="invalid_token"' in challenge, token is not None, challenge)
        self.assertEqual(json.loads(raw)["error"]["data"]["dev.sluice/error"], error, raw)
        deadline = time.monotonic() + 5
        while error not in [r.get("error") for k, r in self.engine.journal() if k == "request"]:
            self.assertLess(time.monotonic(), deadline, "it is not on record")
            threading.Event().wait(0.01)

    @staticmethod
    def part(obj):
        return base64.urlsafe_b64encode(json.dumps(obj).encode()).rstrip(b"=").decode()

    def pieces(self):
        head, payload, sig = self.token.split(".")
        return *(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, payload)), sig

    def test_none(self):
        self.refused(None, "token_missing")

    def test_garbage(self):
        self.refused("abc", "token_malformed")

    def signed(self, head=None, **claims):
        """A token with other claims, signed as the local issuer signs: only what it says can be wrong with it."""
        with open(os.path.join(self.engine.data, "issuer.key")) as f:
            seed = bytes.fromhex(f.read().strip())
        d = harness.scratch()
        old_head, payload, _ = self.pieces()
        payload.update(claims)
        text = "%s.%s" % (self.part(head or old_head), self.part({k: v for k, v in payload.items() if v is not None}))
        for name, content in (("key.der", bytes.fromhex("302e020100300506032b657004220420") + seed),
                              ("text", text.encode())):
            with open(os.path.join(d, name), "wb") as f:
                f.write(content)
        sig = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-in", d + "/text", "-inkey", d + "/key.der",
                              "-keyform", "DER"], capture_output=True, check=True).stdout
        return text + "." + base64.urlsafe_b64encode(sig).rstrip(b"=").decode()

    def test_signed_as_the_issuer_signs(self):
        """What the tests below change is all that is wrong with their tokens."""
        status, m = self.engine.rpc("tools/list", token=self.signed())
        self.assertEqual(status, 200, m)

    def test_expired(self):
        now = int(time.time())
        self.refused(self.signed(iat=now - 600, exp=now - 31), "token_expired")

    def test_not_valid_yet(self):
        now = int(time.time())
        self.refused(self.signed(nbf=now + 60), "token_expired")
        self.refused(self.signed(iat=now + 60, exp=now + 120), "token_expired")

    def test_clocks_may_differ_a_little(self):
        now = int(time.time())
        self.assertEqual(self.engine.rpc("tools/list", token=self.signed(iat=now - 60, exp=now - 5))[0], 200)
        self.assertEqual(self.engine.rpc("tools/list", token=self.signed(iat=now + 20, exp=now + 60))[0], 200)

    def test_claims_that_are_missing_or_wrong(self):
        now = int(time.time())
        for claims in ({"exp": None}, {"iat": None}, {"sub": None}, {"aud": None}, {"iss": None}, {"jti": None},
                       {"client_id": None}, {"tenant": None}, {"tenant": "../x"}, {"sub": "a\nb"}, {"exp": "soon"},
                       {"exp": now + 10 ** 9}, {"act": {"sub": ""}}, {"act": "agent"}, {"cnf": {"jkt": "x"}},
                       {"client_id": "one", "azp": "another"}):
            self.refused(self.signed(**claims), "token_claims")

    def test_headers_that_ask_for_more(self):
        head, _, _ = self.pieces()
        self.refused(self.signed(dict(head, crit=["exp"])), "token_malformed")
        self.refused(self.signed(dict(head, b64=False)), "token_malformed")
        self.refused(self.signed(dict(head, typ="id_token+jwt")), "token_claims")
        self.refused(self.signed(dict(head, typ="JWT")), "token_claims")
        # where a key might be found is never looked at: what counts is the issuer's own set
        self.assertEqual(self.engine.rpc("tools/list", token=self.signed(dict(head, jku="http://127.0.0.1:1/keys")))[0],
                         200)
        self.refused(self.signed(dict(head, kid="../../issuer.key")), "token_untrusted")
        self.refused(self.signed({k: v for k, v in head.items() if k != "kid"}), "token_untrusted")

    def test_too_long(self):
        """A field line of the request has 8 KB, and a token no more than that."""
        status, _, raw = self.engine.request("GET", "/mcp", headers={"Authorization": "Bearer " + "a" * 9000})
        self.assertEqual((status, raw), (431, b"a field line is too long\n"))
        self.alive()

    def test_wrong_audience(self):
        t = harness.run("token", "--as", "alice@demo.example", "--agent", "test-agent", "--tenant", "demo", "--data",
                        self.engine.data,
                        "--audience", "https://elsewhere.example/mcp").strip()
        self.refused(t, "token_audience")

    def test_alg_none(self):
        head, payload, _ = self.pieces()
        head["alg"] = "none"
        self.refused("%s.%s." % (self.part(head), self.part(payload)), "token_algorithm")

    def test_alg_confusion(self):
        head, payload, sig = self.pieces()
        head["alg"] = "HS256"
        self.refused("%s.%s.%s" % (self.part(head), self.part(payload), sig), "token_algorithm")

    def test_unknown_kid(self):
        head, payload, sig = self.pieces()
        head["kid"] = "somebody-else"
        self.refused("%s.%s.%s" % (self.part(head), self.part(payload), sig), "token_untrusted")

    def test_altered_claims(self):
        head, payload, sig = self.pieces()
        payload["sub"] = "root@demo.example"
        self.refused("%s.%s.%s" % (self.part(head), self.part(payload), sig), "token_signature")

    def test_other_issuer(self):
        head, payload, sig = self.pieces()
        payload["iss"] = "https://evil.example"
        self.refused("%s.%s.%s" % (self.part(head), self.part(payload), sig), "token_untrusted")

    def test_in_the_query(self):
        status, _, _ = self.engine.request("POST", "/mcp?access_token=" + self.token, "{}",
                                           {"Content-Type": "application/json"})
        self.assertIn(status, (400, 401))

    def test_metadata_needs_no_token(self):
        for path in ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"):
            status, _, raw = self.engine.request("GET", path)
            self.assertEqual(status, 200)
            self.assertEqual(json.loads(raw)["resource"], self.engine.url)


if __name__ == "__main__":
    harness.main()
