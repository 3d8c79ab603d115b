"""TLS, client certificates, issuers other than the engine's own, secrets of providers, a kernel that forbids io_uring,
and a limit of file sizes: each with real files, real certificates (made by openssl) and a real engine."""
import base64
import ctypes
import http.client
import http.server
import json
import os
import re
import resource
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import upstream

POLICY = 'permit (principal in Tenant::"acme", action in Action::"conformance", resource);'


def openssl(*args, input=None):
    return subprocess.run(["openssl", *args], input=input, capture_output=True, check=True).stdout


def certificate(d, name, ca=None, subject=None):
    """A key and a certificate in d; signed by `ca`, else by itself. Answers (cert, key)."""
    cert, key = os.path.join(d, name + ".pem"), os.path.join(d, name + ".key")
    extra = ["-CA", ca[0], "-CAkey", ca[1]] if ca else []
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            subject or "/CN=" + name,
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", cert, *extra)
    return cert, key


def written(d, name, text):
    path = os.path.join(d, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Tls(unittest.TestCase):
    def setUp(self):
        self.d = harness.scratch()
        self.cert, self.key = certificate(self.d, "server")
        self.ca = certificate(self.d, "ca")

    def config(self, client=""):
        written(self.d, "p.cedar", 'permit (principal, action in Action::"conformance", resource);')
        return written(self.d, "sluice.yaml", """
workers: 1
connectors: [conformance]
policies: ["%s/p.cedar"]
auth: { none: true }
tls: { cert: "%s", key: "%s"%s }
""" % (self.d, self.cert, self.key, client))

    def context(self, client=None):
        c = ssl.create_default_context(cafile=self.cert)
        if client:
            c.load_cert_chain(*client)
        return c

    def call(self, engine, context):
        c = http.client.HTTPSConnection("127.0.0.1", engine.port, timeout=20, context=context)
        try:
            c.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
                "name": "add", "arguments": {"a": 2, "b": 3}, "_meta": harness.META}}),
                {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                 "MCP-Protocol-Version": harness.MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "add"})
            return json.loads(c.getresponse().read())["result"]["structuredContent"]["sum"]
        finally:
            c.close()

    def test_calls_over_tls_and_certificates_that_are_renewed(self):
        e = harness.Engine(config=self.config())
        self.assertTrue(e.url.startswith("https://"))
        self.assertEqual(self.call(e, self.context()), 5)
        old = self.context()
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=renewed",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.key, "-out", self.cert)
        e.signal(signal.SIGHUP)
        e.wait_line('msg="?reloaded')
        self.assertEqual(self.call(e, self.context()), 5)
        with self.assertRaises(ssl.SSLError):
            self.call(e, old)
        self.assertEqual(e.stop(), 0)

    def forms(self):
        """The key as OpenSSL calculates with it, and as the lines of its file."""
        text = openssl("pkey", "-in", self.key, "-noout", "-text").decode()
        number = bytes.fromhex(re.sub(r"[:\s]", "", re.search(r"priv:([\s\da-f:]+)pub:", text).group(1)))[-32:]
        with open(self.key, "rb") as f:
            return number[::-1], [line for line in f.read().split(b"\n") if len(line) == 64]

    def in_memory(self, pid, what):
        """Which of these byte strings the process has in its memory."""
        found = set()
        with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
            for line in maps:
                begin, end = (int(x, 16) for x in line.split()[0].split("-"))
                try:
                    memory.seek(begin)
                    held = memory.read(end - begin)
                except (OSError, OverflowError):
                    continue                # a guard page, memfd_secret's, or the kernel's
                found |= {w for w in what if w in held}
        return found

    def test_a_key_that_was_replaced_leaves_the_memory(self):
        if re.search("/[at]san/", harness.SLUICE):
            self.skipTest("sanitizers keep what was freed, and map terabytes")
        old, old_file = self.forms()
        e = harness.Engine(config=self.config())
        try:
            self.assertEqual(self.in_memory(e.process.pid, [old]), {old})
        except PermissionError:
            self.skipTest("needs the right to read the memory of another process")
        certificate(self.d, "server")
        new, new_file = self.forms()
        e.signal(signal.SIGHUP)
        e.wait_line('msg="?reloaded')
        self.assertEqual(self.in_memory(e.process.pid, [old, new, *old_file, *new_file]), {new})
        self.assertEqual(e.stop(), 0)

    def test_client_certificates(self):
        e = harness.Engine(config=self.config(', client_ca: "%s", client_required: true' % self.ca[0]))
        self.assertEqual(self.call(e, self.context(certificate(self.d, "agent", self.ca))), 5)
        for client in (None, certificate(self.d, "stranger")):
            with self.assertRaises((ssl.SSLError, OSError)):
                self.call(e, self.context(client))
        self.assertEqual(e.stop(), 0)

    def test_files_that_are_no_certificates(self):
        with open(self.cert, "w") as f:
            f.write("nonsense")
        p = harness.run("serve", "--config", self.config(), "--data", os.path.join(self.d, "data"), "--listen",
                        "127.0.0.1:0", check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("server.pem", p.stderr)


class Issuers(unittest.TestCase):
    """Tokens of an issuer of somebody else's: RS256, its keys from a file and from a URL."""

    @classmethod
    def setUpClass(cls):
        cls.d = harness.scratch()
        cls.key = os.path.join(cls.d, "rsa.pem")
        openssl("genrsa", "-out", cls.key, "2048")
        modulus = bytes.fromhex(openssl("rsa", "-in", cls.key, "-noout", "-modulus").decode().strip().split("=")[1])
        cls.jwks = json.dumps({"keys": [{"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256", "n": b64(modulus),
                                         "e": "AQAB"}]})
        written(cls.d, "p.cedar", POLICY)

    def token(self, audience, **claims):
        now = int(time.time())
        head = {"alg": "RS256", "typ": "at+jwt", "kid": "k1"}
        body = dict({"iss": "https://issuer.example", "aud": audience, "sub": "ann", "client_id": "planner",
                     "jti": "t-%d" % now, "iat": now, "exp": now + 300,
                     "act": {"sub": "planner"}}, **claims)
        signed = "%s.%s" % (b64(json.dumps(head).encode()), b64(json.dumps(body).encode()))
        return signed + "." + b64(openssl("dgst", "-sha256", "-sign", self.key, input=signed.encode()))

    def engine(self, jwks):
        return harness.Engine(config=written(self.d, "sluice.yaml", """
workers: 2
drain_seconds: 1
connectors: [conformance]
policies: ["%s/p.cedar"]
auth:
  local_issuer: false
  issuers:
    - { issuer: "https://issuer.example", algorithm: RS256, jwks: "%s", tenant: acme }
""" % (self.d, jwks)))

    def check(self, e):
        m = e.call("add", {"a": 2, "b": 3}, self.token(e.url))
        self.assertEqual(m["result"]["structuredContent"]["sum"], 5)
        record = [r for kind, r in e.journal() if kind == "intent"][-1]
        self.assertEqual((record["tenant"], record["user"], record["agent"], record["issuer"]),
                         ("acme", "ann", "planner", "https://issuer.example"))
        for wrong in ({"exp": 1}, {"aud": "https://else.example"}, {"iss": "https://other.example"}, {"sub": ""}):
            status, _ = e.rpc("tools/list", token=self.token(e.url, **wrong))
            self.assertEqual(status, 401, wrong)
        self.assertEqual(e.stop(), 0)

    def test_keys_from_a_file(self):
        self.check(self.engine("file:" + written(self.d, "jwks.json", self.jwks)))

    def test_keys_from_a_url(self):
        jwks = self.jwks.encode()

        class Keys(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(jwks)))
                self.end_headers()
                self.wfile.write(jwks)

            def log_message(self, *args):
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.check(self.engine("http://127.0.0.1:%d/jwks" % server.server_port))
        server.shutdown()
        server.server_close()

    def test_keys_that_cannot_be_read(self):
        p = harness.run("serve", "--config", written(self.d, "bad.yaml", """
auth: { issuers: [ { issuer: "https://i.example", algorithm: RS256, jwks: "file:/nonexistent.json", tenant: acme } ] }
"""), "--data", os.path.join(self.d, "data"), "--listen", "127.0.0.1:0", check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn("/nonexistent.json", p.stderr)

    def test_a_batch_whose_keys_never_come_is_on_record(self):
        asked, cut = threading.Event(), threading.Event()

        def never(c, r):
            asked.set()
            cut.wait(30)
            return "close"
        keys = upstream.Upstream(never)
        e = self.engine(keys.url + "/jwks")
        token = self.token(e.url)

        def ask():
            try:
                e.request("POST", "/mcp", '[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]',
                          {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                           "Authorization": "Bearer " + token})
            except (OSError, http.client.HTTPException):
                cut.set()
        client = threading.Thread(target=ask)
        client.start()
        self.assertTrue(asked.wait(20))
        self.assertEqual(e.stop(), 0)
        client.join()
        keys.close()
        self.assertTrue(cut.is_set())
        self.assertNotIn("could not be recorded", e.text())
        self.assertEqual(len([r for k, r in e.journal() if k == "request"]), 1)


class Secrets(unittest.TestCase):
    FILE = """providers:
  outlook: { client_id: a, client_secret: env:OUTLOOK_SECRET }
  github: { client_id: b, client_secret: "credential:github-secret" }
"""

    def test_they_are_read_by_who_uses_them(self):
        """The engine reads them, and says where the file names one that is not there; other verbs take the same file
        without them."""
        d = harness.scratch()
        secret = written(d, "github-secret", "s3cret\n")
        path = written(d, "sluice.yaml", self.FILE)
        env = {"OUTLOOK_SECRET": "s3cret", "CREDENTIALS_DIRECTORY": d}
        self.assertIn("acceptable", harness.run("serve", "--check", "--config", path, env=env))
        e = harness.Engine(config=path, env=env)
        for verb in ("token --as a --agent b --data", "tools --as a --agent b --data", "audit tail --data"):
            harness.run(*verb.split(), e.data, "--config", path)
        for verb in ("policy schema", "policy check docs/demo", "limits show"):
            harness.run(*verb.split(), "--config", path)
        e.signal(signal.SIGHUP)
        e.wait_line('msg="?reloaded')
        os.remove(secret)
        e.signal(signal.SIGHUP)
        e.wait_line(r"the new configuration was not taken.*sluice\.yaml:3:42: cannot read .*github-secret")
        self.assertEqual(e.stop(), 0)
        harness.run("audit", "verify", "--data", e.data, "--config", path)

    def test_what_is_missing_stops_a_start_and_its_check(self):
        d = harness.scratch()
        path = written(d, "sluice.yaml", self.FILE)
        for args in ([], ["--check"]):
            for env, says in (({}, r"sluice\.yaml:2:43: the environment variable OUTLOOK_SECRET is not set"),
                              ({"OUTLOOK_SECRET": "s"}, r"sluice\.yaml:3:42: CREDENTIALS_DIRECTORY is not set")):
                p = harness.run("serve", "--config", path, "--listen", "127.0.0.1:0", "--data",
                                os.path.join(d, "data"), *args, env=env, check=False)
                self.assertEqual(p.returncode, 1)
                self.assertRegex(p.stderr, says)
        for ref in ("credential:", "hunter2"):          # is no reference to a secret: every verb says so
            path = written(d, "sluice.yaml", 'providers: { github: { client_secret: "%s" } }\n' % ref)
            p = harness.run("policy", "schema", "--config", path, check=False)
            self.assertRegex(p.stderr, r"sluice\.yaml:1:39: secrets are not written here")

class NoRing(unittest.TestCase):
    """What a container's default profile does: io_uring_setup answers EPERM."""

    def test_start_says_what_is_missing_and_what_to_do(self):
        def forbid():
            # BPF: load the system call's number; io_uring_setup (425) answers EPERM, everything else runs
            program = b"".join(struct.pack("<HBBI", *i)
                               for i in ((0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | 1),
                                                                   (0x06, 0, 0, 0x7fff0000)))
            code = ctypes.create_string_buffer(program, len(program))
            filter = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0):
                os._exit(99)

        p = subprocess.run([harness.SLUICE, "serve", "--no-auth", "--listen", "127.0.0.1:0", "--data",
                            os.path.join(harness.scratch(), "data")],
                           capture_output=True, text=True, timeout=60, preexec_fn=forbid)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn("io_uring is not permitted here", p.stderr)
        self.assertIn("kernel.io_uring_disabled", p.stderr)


class FileSizes(unittest.TestCase):
    def test_a_limit_is_an_error_with_a_name(self):
        """`ulimit -f` does not end the process by a signal."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        p = subprocess.run([harness.SLUICE, "serve", "--no-auth", "--listen", "127.0.0.1:0", "--data",
                            os.path.join(harness.scratch(), "data")],
                           capture_output=True, text=True, timeout=60, preexec_fn=limit)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr, "journal.*File too large")


if __name__ == "__main__":
    harness.main()
