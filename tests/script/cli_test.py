#!/usr/bin/env python3
"""The command line as people and clients use it: every verb, against a real engine and sandbox."""
import base64
import glob
import html
import http.server
import json
import os
import re
import socket
import subprocess
import threading
import time
import unittest
import urllib.parse
import urllib.request

import harness
from harness import Bridge, META, Engine, Process, ROOT, run, scratch
from upstream import Upstream, answer

VERBS = "serve tour call tools token connect delegate policy audit limits stdio sandbox completion version".split()
ALICE = ["--tenant", "demo", "--as", "alice@demo.example", "--agent", "demo-agent"]
A_MAIL = ["outlook.send_mail", "--arg", "to=bob@demo.example", "--arg", "subject=x", "--arg", "body=y"]
DEMO = os.path.join(ROOT, "docs", "demo")
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}


def sluice(*args, **kw):
    """The finished process: its exit code and both outputs are looked at."""
    return run(*args, check=False, **kw)


class Sandbox(Process):
    def __init__(self, *args):
        super().__init__([harness.SLUICE, "sandbox", "--listen", "127.0.0.1:0", *args])
        self.url = self.wait_line(r"^(http://127\.0\.0\.1:\d+)$").group(1)

    def stats(self):
        with urllib.request.urlopen(self.url + "/sandbox/stats") as r:
            return json.load(r)

    def faults(self, **kw):
        rq = urllib.request.Request(self.url + "/sandbox/faults", json.dumps(kw).encode())
        rq.add_header("Content-Type", "application/json")
        urllib.request.urlopen(rq).close()


def config_for(sandbox):
    path = os.path.join(scratch(), "sluice.yaml")
    with open(path, "w") as f:
        f.write("""
policies: [%s]
workers: 2
providers:
  outlook:
    base_url: %s
    auth_url: %s
    client_id: sandbox-client
    client_secret: env:SANDBOX_SECRET
    allow_loopback: true
    allow_plain_http: true
""" % (DEMO, sandbox.url, sandbox.url))
    return path


class WithoutAnEngine(unittest.TestCase):
    def test_help_of_every_verb(self):
        listed = sluice("--help")
        self.assertEqual(listed.returncode, 0)
        self.assertEqual(re.findall(r"^  (\w+) ", listed.stdout, re.M), VERBS)
        for verb in VERBS:
            for option in ("--help", "-h"):
                p = sluice(verb, option)
                self.assertEqual((p.returncode, p.stderr), (0, ""), verb)
                self.assertTrue(p.stdout.startswith("Usage: sluice " + verb), verb)

    def test_wrong_command_lines(self):
        for args, says in (("nonsense", 'no verb "nonsense"'),
                           ("", "Usage: sluice VERB"),
                           ("call --nonsense", "unknown option --nonsense"),
                           ("call", "which tool"), ("call x --key caf\udce9", "--key takes UTF-8"),
                           ("call x --as", "--as needs a value"),
                           ("serve --workers many", "--workers"), ("serve word", "unexpected"),
                           ("token", "--as USER"),
                           ("token --as a --ttl 25h", "--ttl"),
                           ("tools --agent a", "--as USER"),
                           ("tools --token=", "--token is empty"),
                           ("tools --url ftp://x", "no URL"),
                           ("policy", "policy check"),
                           ("audit burn", "audit verify"), ("audit verify --expect-key 12", "64 hex"),
                           ("audit tail -n x", "whole number"),
                           ("completion fish", "bash"),
                           ("connect", "which provider")):
            p = sluice(*args.split(), env={"SLUICE_TOKEN": "", "SLUICE_URL": ""}, cwd=scratch())
            self.assertEqual(p.returncode, 2, args)
            self.assertIn(says, p.stderr, args)
            self.assertEqual(p.stdout, "", args)

    def test_version(self):
        out = run("version")
        self.assertRegex(out, r"(?s)^sluice \d+\.\d+\.\d+\n.*libcurl \d.*OpenSSL \d.*SQLite \d")
        self.assertEqual(out, run("--version"))

    def test_completion(self):
        script = run("completion", "bash")
        self.assertEqual(subprocess.run(["bash", "-n"], input=script, text=True).returncode, 0)
        ask = script + '\nCOMP_WORDS=(sluice %s); COMP_CWORD=%d; _sluice; echo "${COMPREPLY[@]}"\n'

        def offered(words, at):
            return subprocess.run(["bash", "-c", ask % (words, at)], capture_output=True, text=True,
                                  cwd=scratch()).stdout.split()
        for words, at, expected in (("", 1, " ".join(VERBS)),
                                    ("to", 1, "tour tools token"),
                                    ("call --a", 2, "--arg --args --as --agent"),
                                    ("audit ver", 2, "verify"),
                                    ("policy --dat", 2, "--data"),
                                    ("serve --no", 2, "--no-auth")):
            self.assertEqual(sorted(offered(words, at)), sorted(expected.split()), words)
        for verb in ("audit", "policy", "limits"):          # all words that the help teaches
            words = re.findall("sluice %s ([a-z]+)" % verb, run(verb, "--help"))
            self.assertLessEqual(set(words), set(offered(verb + " ''", 2)), verb)
        self.assertIn("#compdef sluice", run("completion", "zsh"))

    def test_output_that_is_not_taken(self):
        """Nothing is said to be done whose result went nowhere; a reader who has seen enough is another matter."""
        for verb in ("version", "completion bash", "policy schema"):
            command = [harness.SLUICE, *verb.split()]
            with open("/dev/full", "w") as full:
                p = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(p.returncode, 1, verb)
            self.assertIn("not everything could be written", p.stderr)
            p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            p.stdout.close()
            self.assertEqual(p.stderr.read(), "")
            p.stderr.close()
            self.assertEqual(p.wait(), 0, verb)

    def test_what_a_server_says_is_not_typed_into_the_terminal(self):
        class Evil(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.dumps({"jsonrpc": "2.0", "id": 1, "message": "\x1b[2Jgone",
                                   "error": {"code": -32000, "message": "\x1b]0;title\x07\x9b2Jgone"}},
                                  ensure_ascii=False).encode()
                self.send_response(400)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

            def log_message(self, *args):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            at = ["--url", "http://127.0.0.1:%d/mcp" % server.server_port, "--token", "t"]
            for verb in (["tools"], ["call", "x.y"], ["call", "x.y", "--json"], ["connect", "--list"],
                         ["delegate", "--list"], ["limits", "top", "--once"]):
                p = sluice(*verb, *at)
                self.assertNotEqual(p.returncode, 0, verb)
                self.assertIn("gone", p.stdout + p.stderr, verb)
                for c in "\x1b\x07\x9b":
                    self.assertNotIn(c, p.stdout + p.stderr, verb)
            server.shutdown()

    def test_check_refuses_what_a_start_refuses(self):
        path = os.path.join(scratch(), "sluice.yaml")
        for text, says in (("public_url: http://x/y", "scheme and host only"),
                           ("public_url: mcp.example.com", "https://"),
                           ("vault: {root_key: abc}", "env:NAME"),
                           ("journal: {segment_mb: 1000000}", "segment_mb"),
                           ("tls: {cert: a.pem}", "tls.key")):
            with open(path, "w") as f:
                f.write(text + "\n")
            p = sluice("serve", "--check", "--config", path)
            self.assertEqual((p.returncode, p.stdout), (1, ""), text)
            self.assertIn(says, p.stderr, text)

    def test_policy_check(self):
        self.assertRegex(run("policy", "check", DEMO), r"^7 policies: 6 permit, 1 forbid; version [0-9a-f]{12}\n$")
        bad = os.path.join(scratch(), "bad.cedar")
        with open(bad, "w") as f:
            f.write("permit (principal, action, resource);\npermit (principal, acton, resource);\n")
        p = sluice("policy", "check", DEMO, bad)
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr, r"bad\.cedar:2:\d+: ")
        self.assertEqual(sluice("policy", "check", "/nowhere").returncode, 1)

    def test_policy_authorize(self):
        files = {"p.cedar": 'permit(principal in Team::"t", action == Action::"view", resource) '
                            'when { context.n < 9 };\n'
                            '@id("mine") permit(principal == ?principal, action, resource is Doc in ?resource);\n'
                            '@id("no") forbid(principal, action, resource) when { resource.secret };\n',
                 "p.json": json.dumps({"staticPolicies": {"every": {
                     "effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"},
                     "resource": {"op": "All"}, "conditions": []}}}),
                 "e.json": json.dumps([{"uid": {"type": "User", "id": "ann"}, "attrs": {},
                                        "parents": [{"type": "Team", "id": "t"}]},
                                       {"uid": {"type": "Doc", "id": "d"}, "attrs": {"secret": False},
                                        "parents": [{"type": "Box", "id": "b"}]},
                                       {"uid": {"type": "Doc", "id": "s"}, "attrs": {"secret": True}, "parents": []}]),
                 "k.json": json.dumps([{"template_id": "mine", "link_id": "bobs", "args": {
                     "?principal": 'User::"bob"', "?resource": 'Box::"b"'}}]),
                 "none.json": "", "c.json": '{"n": 1}', "c9.json": '{"n": 9}', "s.cedarschema":
                 'entity Team, Box; entity User in [Team]; entity Doc in [Box] { secret: Bool };\n'
                 'action view, edit appliesTo { principal: User, resource: Doc, context: { n: Long } };\n',
                 "r.json": json.dumps({"principal": 'User::"ann"', "action": 'Action::"view"',
                                       "resource": 'Doc::"d"', "context": {"n": 1}}),
                 "bad.cedar": "permit(principal, action);"}
        at = scratch()
        for name, text in files.items():
            with open(os.path.join(at, name), "w") as f:
                f.write(text)

        def ask(*args, policies="p.cedar", stdin=None):
            p = sluice("policy", "authorize", *(["-p", policies] if policies else []), "--entities", "e.json", *args,
                       cwd=at, input=stdin)
            return p.returncode, p.stdout, p.stderr

        ann, bob = ["-l", 'User::"ann"', "-a", 'Action::"view"'], ["-l", 'User::"bob"', "-a", 'Action::"edit"']
        d, n1 = ["-r", 'Doc::"d"'], ["-c", "c.json"]
        self.assertEqual(ask(*ann, *d, *n1)[:2], (0, "ALLOW\n"))
        self.assertEqual(ask("--request-json", "r.json")[:2], (0, "ALLOW\n"))
        self.assertEqual(ask(*ann, *d, "-c", "c9.json")[:2], (2, "DENY\n"))
        self.assertEqual(ask(*bob, *d)[:2], (2, "DENY\n"))
        self.assertEqual(ask(*bob, *d, "-k", "none.json")[:2], (2, "DENY\n"))
        self.assertEqual(ask(*bob, *d, "-k", "k.json")[:2], (0, "ALLOW\n"))
        self.assertEqual(ask(*bob, *d, "-k", "k.json", "-v")[1],
                         "ALLOW\n\nnote: this decision was due to the following policies:\n  bobs\n\n")
        self.assertEqual(ask(*ann, "-r", 'Doc::"s"', *n1, "--verbose")[1],
                         "DENY\n\nnote: this decision was due to the following policies:\n  no\n\n")
        rc, out, err = ask(*ann, *d)
        self.assertEqual((rc, out[:6]), (2, "DENY\n\n"), err)
        self.assertIn("error while evaluating policy `policy0`", out)
        self.assertEqual(ask(*ann, *d, *n1, "--schema", "s.cedarschema")[:2], (0, "ALLOW\n"))
        self.assertEqual(ask(*ann, *d, policies="p.json")[:2], (0, "ALLOW\n"))
        self.assertEqual(ask(*ann, *d, "--policy-format", "json", policies="p.json")[:2], (0, "ALLOW\n"))
        self.assertEqual(ask(*ann, *d, policies=None, stdin="")[:2], (2, "DENY\n"))
        for args, says in (((*ann, *d, "--schema", "s.cedarschema"), "n"), ((*ann, *n1), "no resource is given"),
                           ((*ann, "-r", "Doc::d", *n1), "resource:1:"), ((*ann, *d, "-c", "nowhere"), "nowhere"),
                           ((*ann, "--request-json", "r.json"), "--request-json"),
                           ((*ann, *d, "--policy-format", "yaml"), "cedar or json"),
                           ((*ann, *d, "--unknown"), "unknown option")):
            rc, out, err = ask(*args)
            self.assertEqual((rc, out), (1, ""), args)
            self.assertIn(says, err)
        rc, out, err = ask(*ann, *d, policies="bad.cedar")
        self.assertEqual((rc, out), (1, ""))
        self.assertIn("bad.cedar:1:25: ", err)

    def test_policy_test(self):
        files = {"p.cedar": 'permit(principal is User, action, resource) when { principal.level > 2 };\n'
                            'forbid(principal, action, resource) when { context.n + 1 > 9223372036854775806 };\n',
                 "s.cedarschema": 'entity User { level: Long }; entity Doc;\n'
                                  'action view appliesTo { principal: User, resource: Doc, context: { n: Long } };\n',
                 "e.json": json.dumps([{"uid": {"type": "User", "id": "a"}, "attrs": {"level": 3}, "parents": []}])}
        request = {"description": "r", "principal": {"type": "User", "id": "a"},
                   "action": {"type": "Action", "id": "view"}, "resource": {"type": "Doc", "id": "d"},
                   "context": {"n": 1}, "decision": "allow", "reason": ["policy0"], "errors": []}
        overflow = dict(request, context={"n": 9223372036854775807}, errors=["policy1"])
        case = {"policies": "p.cedar", "entities": "e.json", "schema": "s.cedarschema", "shouldValidate": True,
                "requests": [request, overflow]}
        wrong = dict(case, shouldValidate=False, requests=[dict(request, decision="deny"), dict(request, reason=[]),
                                                           dict(overflow, errors=[]), dict(request, context={})])
        root = os.path.join(scratch(), "cases")
        os.mkdir(root)
        for name, text in dict(files, **{"good.json": json.dumps(case), "wrong.json": json.dumps(wrong),
                                         "lost.json": json.dumps(dict(case, schema="nowhere"))}).items():
            with open(os.path.join(root, name), "w") as f:
                f.write(text)
        self.assertEqual(run("policy", "test", "--root", root, os.path.join(root, "good.json")),
                         "2 decisions, 0 wrong; 1 validations, 0 wrong\n")
        slot = {"op": "==", "slot": "?principal"}
        template = {"effect": "permit", "principal": slot, "action": {"op": "All"}, "resource": {"op": "All"},
                    "conditions": []}
        policies = {"staticPolicies": {}, "templates": {"t": template}, "templateLinks": [
            {"templateId": "t", "newId": "link", "values": {"?principal": {"type": "User", "id": "a"}}}]}
        in_json = dict(case, policies="p.json", policyFormat="json", requests=[dict(request, reason=["link"])])
        for name, value in (("p.json", policies), ("json.json", in_json)):
            with open(os.path.join(root, name), "w") as f:
                json.dump(value, f)
        self.assertEqual(run("policy", "test", "--root", root, "json.json"),
                         "1 decisions, 0 wrong; 1 validations, 0 wrong\n")
        p = sluice("policy", "test", "--root", root, "good.json", "wrong.json", "lost.json")
        self.assertEqual(p.returncode, 1)
        self.assertEqual(p.stdout.splitlines()[-1], "8 decisions, 6 wrong; 3 validations, 2 wrong")
        for says in ("expected deny", "by other policies", "other policies failed", "`n` is missing", "nowhere"):
            self.assertIn(says, p.stderr)
        self.assertEqual(sluice("policy", "test").returncode, 2)

    def test_wrong_configuration(self):
        path = os.path.join(scratch(), "wrong.yaml")
        with open(path, "w") as f:
            f.write("workers: 2\njournal:\n  segment_md: 64\n")
        for args in (["--check"], []):
            p = sluice("serve", "--config", path, *args)
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr, r'wrong\.yaml:3:3: unknown key "segment_md"')

    def test_port_taken(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            p = sluice("serve", "--listen", "127.0.0.1:%d" % s.getsockname()[1], "--data", os.path.join(scratch(), "d"))
        self.assertEqual(p.returncode, 1)
        self.assertIn("another process has this port", p.stderr)

    def test_no_engine(self):
        with socket.socket() as s:          # bound and not listening: nobody else gets it
            s.bind(("127.0.0.1", 0))
            url = "http://127.0.0.1:%d/mcp" % s.getsockname()[1]
            for args in (["call", "x.y"], ["tools"], ["connect", "outlook"]):
                p = sluice(*args, "--url", url, env={"SLUICE_TOKEN": "t"})
                self.assertEqual(p.returncode, 1, args)
                self.assertIn("could not be asked", p.stderr)
            p = sluice("stdio", "--url", url, env={"SLUICE_TOKEN": "t"},
                       input='{"jsonrpc":"2.0","id":"x","method":"initialize"}\n'
                             '{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        answer = json.loads(p.stdout)       # one line, and nothing for the notification
        self.assertEqual((p.returncode, answer["id"]), (0, "x"))
        self.assertIn("cannot be reached", answer["error"]["message"])
        self.assertIn("cannot be reached", p.stderr)

    def test_no_key(self):
        p = sluice("token", "--as", "a", "--data", os.path.join(scratch(), "none"))
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("--data", p.stderr)

    def test_tour(self):
        data = os.path.join(scratch(), "tour")
        p = sluice("tour", "--once", "--listen", "127.0.0.1:0", "--data", data)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        for says in ("12 of 12 done", "mail-stays-inside", "reading-agent", "never more than 4 at once", "1 mail sent",
                     "Verified:", "Everything went"):
            self.assertIn(says, p.stdout)
        again = sluice("tour", "--once", "--listen", "127.0.0.1:0", "--data", data)
        self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
        self.assertFalse(os.path.exists(os.path.join(data, "endpoint")))
        self.assertEqual(sluice("audit", "verify", "--data", data).returncode, 0)

    def test_tour_serves_until_told(self):
        data = os.path.join(scratch(), "tour")
        tour = Process([harness.SLUICE, "tour", "--listen", "127.0.0.1:0", "--data", data])
        token = tour.wait_line(r"^export SLUICE_TOKEN=(\S+)$").group(1)
        tour.wait_line(r"audit tail --follow")
        self.assertIn("outlook.send_mail", run("tools", "--data", data, env={"SLUICE_TOKEN": token}))
        with open(os.path.join(data, "demo-policies", "1-people.cedar"), "w") as f:
            f.write("// nobody\n")
        tour.signal(harness.signal.SIGHUP)
        tour.wait_line("read again")
        self.assertEqual(run("tools", "--data", data, env={"SLUICE_TOKEN": token}), "")
        tour.signal(harness.signal.SIGINT)
        self.assertEqual(tour.wait(), 0)


class WithAnEngine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sandbox = Sandbox()
        cls.engine = Engine(config_for(cls.sandbox), env={"SANDBOX_SECRET": "sandbox-secret"})
        cls.at = ["--data", cls.engine.data]
        run("connect", "outlook", "--sandbox-login", *ALICE, *cls.at)

    @classmethod
    def tearDownClass(cls):
        code = cls.engine.stop()
        assert code == 0, cls.engine.text()

    def call(self, tool, *args, who=ALICE):
        return sluice("call", tool, *args, *who, *self.at)

    def mail(self, *args, to=("--arg", "to=bob@demo.example"), who=ALICE):
        return self.call("outlook.send_mail", *to, "--arg", "subject=Hello", "--arg", "body=Lunch?", *args, who=who)

    # ---- call ----

    def test_done(self):
        p = self.call("outlook.list_mail", "--arg", "count=2", "--arg", "unread_only=true")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertRegex(p.stdout, r"(?m)^messages:\nid +subject +from ")
        self.assertRegex(p.stderr, r"^done  \(call_\w+\)\n$")
        p = self.call("outlook.list_mail", "--args", '{"count": 1}', "--json")
        self.assertEqual(len(json.loads(p.stdout)["structuredContent"]["messages"]), 1)

    def test_refused(self):
        before = self.sandbox.stats()["mails_sent"]
        other = ALICE[:4] + ["--agent", "other"]
        nobody = ["--tenant", "demo", "--as", "nobody@demo.example", "--agent", "demo-agent"]
        for p, says in ((self.mail(to=("--arg", "to=rival@elsewhere.example")),
                         'policy "mail-stays-inside" forbids the user alice@demo.example'),
                        (self.mail(to=("--args", '{"to":["bob@demo.example"]}'), who=other),
                         "no policy lets the agent other"),
                        (self.call("no.such_tool", "--arg", "a=1"), "unknown tool"),
                        (self.call("outlook.list_mail", "--arg", "count=51"), "argument /count"),
                        (self.call("outlook.list_mail", who=nobody), "connect one with")):
            self.assertEqual(p.returncode, 3, p.stderr)
            self.assertIn(says, p.stderr)
            self.assertEqual(p.stdout, "")
        self.assertEqual(self.sandbox.stats()["mails_sent"], before)

    def test_failed(self):
        """The provider says no: it did not happen."""
        provider = Upstream(lambda c, r: answer(c, 400, b'{"error":{"code":"ErrorInvalidRecipients","message":"No."}}'))
        engine = Engine(config_for(provider), env={"SANDBOX_SECRET": "sandbox-secret"})
        run("connect", "outlook", "--token-file", "-", *ALICE[:-1], "cli", "--data", engine.data, input="brought")
        p = sluice("call", *A_MAIL, *ALICE, "--data", engine.data)
        self.assertEqual(p.returncode, 4, p.stderr)
        self.assertRegex(p.stderr, r"^failed: ")
        self.assertEqual(engine.stop(), 0)
        provider.close()

    def test_unknown(self):
        """The provider dies with the request in its hands: nobody can say whether the mail was sent."""
        sandbox = Sandbox()
        engine = Engine(config_for(sandbox), env={"SANDBOX_SECRET": "sandbox-secret"})
        run("connect", "outlook", "--sandbox-login", *ALICE, "--data", engine.data)
        sandbox.faults(delay_ms=1000)
        done = []
        t = threading.Thread(target=lambda: done.append(sluice("call", *A_MAIL, *ALICE, "--data", engine.data)))
        t.start()
        while sandbox.stats()["requests"] < 2:      # the draft, then the sending of it
            time.sleep(0.01)
        sandbox.kill()
        t.join()
        self.assertEqual(done[0].returncode, 5, done[0].stderr)
        self.assertRegex(done[0].stderr, r"^unknown: ")
        self.assertEqual(engine.stop(), 0)

    def test_wrong_arguments(self):
        for args, says in (("--arg count=x", "count takes a whole number"),
                           ("--arg cuont=1", "it takes: count, unread_only"),
                           ("--arg count", "key=value"),
                           ("--args []", "JSON object"),
                           ("--arg count=1 --arg count=2", "given twice")):
            p = self.call("outlook.list_mail", *args.split())
            self.assertEqual(p.returncode, 2, p.stderr)
            self.assertIn(says, p.stderr)

    def test_key(self):
        before = self.sandbox.stats()["mails_sent"]
        first, second = self.mail("--key", "k-1"), self.mail("--key", "k-1")
        self.assertEqual((first.returncode, second.returncode), (0, 0), first.stderr + second.stderr)
        self.assertEqual(first.stdout, second.stdout)
        self.assertIn("the recorded outcome of " + re.search(r"call_\w+", first.stderr).group(), second.stderr)
        self.assertEqual(self.sandbox.stats()["mails_sent"], before + 1)
        self.assertEqual(self.mail("--key", "k-1", to=("--arg", "to=carol@demo.example")).returncode, 3)

    # ---- tools, token ----

    def test_tools(self):
        p = run("tools", *ALICE, *self.at)
        self.assertRegex(p, r"(?m)^outlook\.send_mail +writes +to \[cc\] subject body ")
        only_reads = run("tools", *ALICE[:4], "--agent", "other", *self.at)
        self.assertNotIn("send_mail", only_reads)
        self.assertIn("list_mail", only_reads)
        self.assertIn("list of string", run("tools", "outlook.send_mail", *ALICE, *self.at))
        self.assertIn("inputSchema", json.loads(run("tools", "--json", *ALICE, *self.at))[0])
        stranger = sluice("tools", "--tenant", "other", "--as", "x", "--agent", "demo-agent", *self.at)
        self.assertEqual((stranger.returncode, stranger.stdout), (0, ""))

    def test_token(self):
        token = run("token", "--tenant", "demo", "--as", "alice@demo.example", "--agent", "a", "--via", "b",
                    "--via", "c", "--ttl", "5m", "--scope", "x y", *self.at).strip()
        head, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
        self.assertEqual(head["alg"], "EdDSA")
        self.assertEqual(claims["sub"], "alice@demo.example")
        act = claims["act"]
        self.assertEqual((act["sub"], act["act"]["sub"], act["act"]["act"]["sub"]), ("a", "b", "c"))
        self.assertEqual((claims["exp"] - claims["iat"], claims["scope"]), (300, "x y"))
        self.assertIn(self.engine.url, claims["aud"])

    def test_tokens_for_many(self):
        path = os.path.join(scratch(), "users")
        with open(path, "w") as f:
            f.write("alice@demo.example\n\nbob@demo.example\n")
        tokens = run("token", "--users-file", path, "--tenant", "demo", "--agent", "demo-agent", *self.at).split()
        self.assertEqual(len(tokens), 2)
        self.assertIn("send_mail", run("tools", *self.at, env={"SLUICE_TOKEN": tokens[1]}))

    def test_bad_token(self):
        p = sluice("tools", "--token", "nonsense", *self.at)
        self.assertEqual(p.returncode, 3)
        self.assertIn("three parts", p.stderr)
        p = sluice("tools", *self.at, env={"SLUICE_TOKEN": ""})
        self.assertEqual(p.returncode, 3)
        self.assertIn("--as USER", p.stderr)

    # ---- connect ----

    def test_accounts(self):
        who = ["--tenant", "demo", "--as", "dave@demo.example", "--agent", "demo-agent"]
        url = run("connect", "outlook", *who, *self.at).strip()
        base = self.engine.url[:-len("/mcp")]
        self.assertTrue(url.startswith(base + "/connect/start?state="), url)
        run("connect", "outlook", "--sandbox-login", *who, *self.at)
        accounts = json.loads(run("connect", "--list", "--json", *who, *self.at))
        self.assertEqual([(a["provider"], a["label"], a["status"]) for a in accounts],
                         [("outlook", "dave@demo.example", "connected")])
        self.assertRegex(run("connect", "--list", *who, *self.at), r"(?m)^outlook +dave@demo\.example +connected ")
        self.assertEqual(sluice("connect", "--disconnect", accounts[0]["id"], *ALICE, *self.at).returncode, 3)
        p = sluice("connect", "--disconnect", accounts[0]["id"], *who, *self.at)
        self.assertEqual(p.returncode, 3)
        self.assertIn("not permitted", p.stderr, "only the command line's own agent takes accounts away")
        who[-1] = "cli"
        self.assertEqual(sluice("connect", "--disconnect", "../x", *ALICE, *self.at).returncode, 2)
        self.assertIn("forgotten", run("connect", "--disconnect", accounts[0]["id"], *who, *self.at))
        self.assertEqual(json.loads(run("connect", "--list", "--json", *who, *self.at)), [])
        p = sluice("connect", "nothing", *who, *self.at)
        self.assertEqual(p.returncode, 3)
        self.assertIn("no provider", p.stderr)

    def test_the_button_works_in_a_browser(self):
        """Under no-referrer browsers send a page's form with "Origin: null" (Fetch, "append a request Origin header"),
        and form-action would hold for the provider that the answer leads to."""
        url = run("connect", "outlook", *ALICE, *self.at).strip()
        base = self.engine.url[:-len("/mcp")]
        status, headers, page = self.engine.request("GET", url[len(base):])
        self.assertEqual((status, headers["referrer-policy"]), (200, "same-origin"))
        self.assertNotIn("form-action", headers["content-security-policy"])
        form = urllib.parse.urlencode(re.findall(r'name="([^"]*)" value="([^"]*)"', html.unescape(page.decode())))
        for origin, status in (("null", 403), ("https://evil.example", 403), (base, 303)):
            got, headers, _ = self.engine.request("POST", "/connect/start", form,
                                                  {"Content-Type": "application/x-www-form-urlencoded",
                                                   "Origin": origin})
            self.assertEqual(got, status, origin)
            self.assertEqual("set-cookie" in headers, status == 303)
        self.assertTrue(headers["location"].startswith(self.sandbox.url))

    def test_token_file(self):
        who = ["--tenant", "demo", "--as", "erin@demo.example", "--agent", "cli"]
        out = run("connect", "github", "--token-file", "-", *who, *self.at, input="ghp_brought\n")
        self.assertIn("connected: acct_", out)
        self.assertRegex(run("connect", "--list", *who, *self.at), r"(?m)^github +erin@demo\.example +connected ")
        p = sluice("connect", "github", "--token-file", "/nowhere", *who, *self.at)
        self.assertEqual(p.returncode, 1)

    def test_a_crowd(self):
        path = os.path.join(scratch(), "users")
        with open(path, "w") as f:
            f.writelines("user%d@demo.example\n" % i for i in range(40))
        before = self.sandbox.stats()["mailboxes"]
        out = run("connect", "outlook", "--sandbox-login", "--users-file", path, "--tenant", "demo", "--agent",
                  "demo-agent", *self.at)
        self.assertEqual(out, "connected 40 accounts\n")
        self.assertGreaterEqual(self.sandbox.stats()["mailboxes"], before + 40)
        who = ["--tenant", "demo", "--as", "user39@demo.example", "--agent", "demo-agent"]
        self.assertEqual(self.call("outlook.list_mail", who=who).returncode, 0)

    # ---- audit ----

    def test_audit(self):
        call = re.search(r"call_\w+", self.mail().stderr).group()
        shown = run("audit", "show", call, *self.at)
        self.assertRegex(shown, r"(?s)intent.*outcome")
        self.assertNotIn("Lunch?", shown)
        lines = run("audit", "tail", "-n", "3", *self.at).splitlines()
        self.assertEqual(len(lines), 3)
        place = re.match(r"\S+ (\d+:\d+) ", lines[-1]).group(1)
        self.assertIn(place, run("audit", "show", place, *self.at))
        self.assertEqual(sluice("audit", "show", "call_nothing", *self.at).returncode, 1)
        p = run("audit", "verify", *self.at)
        self.assertIn("an engine is writing", p)
        key = re.search(r"^key ([0-9a-f]{64})", p, re.M).group(1)
        run("audit", "verify", "--expect-key", key, *self.at)
        self.assertEqual(sluice("audit", "verify", "--expect-key", "00" * 32, *self.at).returncode, 1)
        self.assertEqual(sluice("audit", "verify", "--data", "/nowhere").returncode, 1)

    def test_follow(self):
        p = Process([harness.SLUICE, "audit", "tail", "-n", "0", "--follow", *self.at])
        for _ in range(100):                # until it has begun to follow: what came before is not shown
            call = re.search(r"call_\w+", self.call("outlook.list_mail").stderr).group()
            try:
                p.wait_line(call, timeout=1)
                break
            except AssertionError:
                continue
        else:
            self.fail("nothing was followed:\n" + p.text())
        p.kill()

    def test_tampering_is_found(self):
        engine = Engine()
        run("tools", "--as", "x", "--data", engine.data)
        self.assertEqual(engine.stop(), 0)
        checkpoints = run("audit", "checkpoint", "--data", engine.data)
        self.assertRegex(checkpoints, r"^sluice-checkpoint 1 ")
        kept = os.path.join(scratch(), "checkpoints")
        with open(kept, "w") as f:
            f.write(checkpoints)
        run("audit", "verify", "--checkpoints", kept, "--data", engine.data)
        segment = sorted(glob.glob(os.path.join(engine.data, "journal", "*", "*.seg")))[0]
        with open(segment, "r+b") as f:
            f.seek(4096 + 100)
            byte = f.read(1)
            f.seek(4096 + 100)
            f.write(bytes([byte[0] ^ 1]))
        p = sluice("audit", "verify", "--data", engine.data)
        self.assertEqual(p.returncode, 1)
        self.assertIn(os.path.basename(segment), p.stdout)
        self.assertIn("NOT VERIFIED", p.stdout)

    # ---- stdio ----

    def bridge(self, *extra, who=ALICE):
        return Bridge([harness.SLUICE, "stdio", *who, *self.at, *extra])

    def test_stdio_modern(self):
        b = self.bridge()
        b.ask(1, "server/discover", {"_meta": META})
        self.assertEqual(b.take()["result"]["supportedVersions"], ["2026-07-28"])
        for i in range(10):
            b.ask("c%d" % i, "tools/call", {"name": "outlook.list_mail", "arguments": {"count": 1}, "_meta": META})
        answers = {m["id"]: m for m in (b.take() for _ in range(10))}
        self.assertEqual(sorted(answers), ["c%d" % i for i in range(10)])
        self.assertTrue(all(m["result"]["_meta"]["dev.sluice/outcome"] == "done" for m in answers.values()))
        b.raw("this is no JSON\n")
        self.assertEqual(b.take()["error"]["code"], -32700)
        b.ask(2, "nonsense", {"_meta": META})
        m = b.take()
        self.assertEqual((m["id"], m["error"]["code"]), (2, -32601))
        self.assertEqual(b.end(), 0)
        self.assertEqual(b.rest(), [])

    def test_stdio_modern_cancel(self):
        """A cancelled request is closed, gets no answer, and the bridge goes on."""
        b = self.bridge()
        b.ask(7, "subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": META})
        self.assertEqual(b.take()["method"], "notifications/subscriptions/acknowledged")
        b.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7, "_meta": META}})
        b.ask(8, "tools/list", {"_meta": META})
        self.assertEqual(b.take()["id"], 8)
        self.assertEqual(b.end(), 0)
        self.assertEqual(b.rest(), [])

    def test_stdio_legacy(self):
        b = self.bridge()
        client = {"name": "t", "version": "1"}
        b.ask(0, "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        # sent at once: the bridge keeps the order
        b.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        b.ask(1, "ping")
        b.ask(2, "tools/call", {"name": "outlook.list_mail", "arguments": {"count": 1}})
        self.assertEqual(b.take()["result"]["protocolVersion"], "2025-06-18")
        answers = {m["id"]: m for m in (b.take(), b.take())}
        self.assertEqual(answers[1]["result"], {})
        self.assertEqual(answers[2]["result"]["_meta"]["dev.sluice/outcome"], "done")
        self.assertNotIn("resultType", answers[2]["result"])
        self.assertEqual(b.end(), 0)
        self.assertEqual(b.rest(), [])

    def test_stdio_ends_with_its_input(self):
        b = self.bridge()
        self.assertEqual(b.end(timeout=3), 0)
        b = self.bridge()                   # even when something is open for good
        b.ask(7, "subscriptions/listen", {"notifications": {"toolsListChanged": True}, "_meta": META})
        b.take()
        self.assertEqual(b.end(timeout=5), 0)
        # what came before the end is answered, and a last line needs no line end
        p = sluice("stdio", *ALICE, *self.at, input=json.dumps(LIST))
        self.assertEqual(json.loads(p.stdout)["id"], 1)

    def test_stdio_is_as_good_as_its_token(self):
        p = sluice("stdio", *self.at, env={"SLUICE_TOKEN": "nonsense"}, input=json.dumps(LIST) + "\n")
        m = json.loads(p.stdout)
        self.assertEqual((m["id"], m["error"]["data"]["dev.sluice/error"]), (1, "token_malformed"))


class WithFixtures(unittest.TestCase):
    """What only the tools of the conformance suite do: ask, report progress, mirror an argument."""

    @classmethod
    def setUpClass(cls):
        cls.engine = Engine(os.path.join(ROOT, "tests", "conformance", "sluice.yaml"))

    @classmethod
    def tearDownClass(cls):
        assert cls.engine.stop() == 0, cls.engine.text()

    def bridge(self):
        return Bridge([harness.SLUICE, "stdio", "--url", self.engine.url], env=dict(os.environ, SLUICE_TOKEN=""))

    def test_the_server_asks_a_legacy_client(self):
        b = self.bridge()
        b.ask(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
                                "clientInfo": {"name": "t", "version": "1"}})
        b.take()
        b.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        b.ask("e", "tools/call", {"name": "test_elicitation", "arguments": {"message": "Who?"}})
        question = b.take()
        self.assertEqual((question["method"], question["params"]["message"]), ("elicitation/create", "Who?"))
        b.ask("p", "ping")                  # the question does not hold anything else back
        self.assertEqual(b.take()["id"], "p")
        b.send({"jsonrpc": "2.0", "id": question["id"],
                "result": {"action": "accept", "content": {"username": "u", "email": "u@x.example"}}})
        answer = b.take()
        self.assertEqual(answer["id"], "e")
        self.assertIn("u@x.example", json.dumps(answer["result"]["content"]))
        self.assertEqual(b.end(), 0)

    def test_a_legacy_client_outlives_its_session(self):
        """The engine is started anew: what the client says goes on in a session that the bridge begins."""
        config = os.path.join(ROOT, "tests", "conformance", "sluice.yaml")
        first = Engine(config)
        b = Bridge([harness.SLUICE, "stdio", "--url", first.url], env=dict(os.environ, SLUICE_TOKEN=""))
        b.ask(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {},
                                "clientInfo": {"name": "t", "version": "1"}})
        b.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        b.ask(1, "ping")
        self.assertEqual([b.take()["id"], b.take()["id"]], [0, 1])
        self.assertEqual(first.stop(), 0)
        b.ask(2, "ping")
        self.assertIn("cannot be reached", b.take()["error"]["message"])
        second = Engine(config, data=first.data, args=["--listen", first.address])
        for i in range(3, 8):
            b.ask(i, "ping")
        answers = [b.take() for _ in range(3, 8)]
        self.assertEqual(sorted(m["id"] for m in answers), [3, 4, 5, 6, 7])
        self.assertTrue(all(m["result"] == {} for m in answers), answers)
        heard = False                       # the stream of the server's own messages is there again
        for i in range(1000):
            b.ask("a%d" % i, "tools/call", {"name": "test_trigger_tool_change", "arguments": {}})
            m = b.take()
            while m.get("id") != "a%d" % i:
                heard |= m["method"] == "notifications/tools/list_changed"
                m = b.take()
            if heard:
                break
        self.assertTrue(heard)
        self.assertEqual(b.end(), 0)
        self.assertEqual(second.stop(), 0)

    def test_progress(self):
        b = self.bridge()
        meta = dict(META, progressToken="pt")
        b.ask(1, "tools/call", {"name": "test_tool_with_progress", "arguments": {}, "_meta": meta})
        told = [b.take() for _ in range(4)]
        self.assertEqual([m.get("method") for m in told], ["notifications/progress"] * 3 + [None])
        self.assertEqual([m["params"]["progressToken"] for m in told[:3]], ["pt"] * 3)
        self.assertEqual(told[3]["id"], 1)
        self.assertEqual(b.end(), 0)

    def test_a_mirrored_argument(self):
        """Of a tool that was never listed, plain and encoded."""
        for region in ("eu", "Zürich "):
            b = self.bridge()
            b.ask(1, "tools/call", {"name": "test_x_mcp_header", "arguments": {"region": region}, "_meta": META})
            self.assertNotIn("error", b.take())
            self.assertEqual(b.end(), 0)
            p = sluice("call", "test_x_mcp_header", "--arg", "region=" + region, "--url", self.engine.url,
                       env={"SLUICE_TOKEN": ""})
            self.assertEqual(p.returncode, 0, p.stderr)

    def test_a_mirrored_argument_of_an_engine_that_comes_later(self):
        config = os.path.join(ROOT, "tests", "conformance", "sluice.yaml")
        first = Engine(config)
        self.assertEqual(first.stop(), 0)
        b = Bridge([harness.SLUICE, "stdio", "--url", first.url], env=dict(os.environ, SLUICE_TOKEN=""))
        call = {"name": "test_x_mcp_header", "arguments": {"region": "eu"}, "_meta": META}
        b.ask(1, "tools/call", call)
        self.assertIn("cannot be reached", b.take()["error"]["message"])
        second = Engine(config, data=first.data, args=["--listen", first.address])
        b.ask(2, "tools/call", call)
        self.assertNotIn("error", b.take())
        self.assertEqual(b.end(), 0)
        self.assertEqual(second.stop(), 0)


if __name__ == "__main__":
    harness.main()
