"""What the tests of a running engine share: a configuration, and an engine whose provider each test makes behave."""
import collections
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
import upstream

POLICY = """
@id("tenant-reads") permit (principal in Tenant::"demo", action in Action::"reads", resource);
@id("tenant-accounts") permit (principal in Tenant::"demo", action in Action::"accounts", resource);
@id("tenant-writes") permit (principal in Tenant::"demo", action in Action::"writes", resource);
@id("inside-only") forbid (principal, action == Action::"outlook.send_mail", resource)
  when { context.args.to.contains("eve@outside.example") };
@id("no-interns") forbid (principal == Agent::"intern", action in Action::"writes", resource);
"""


def config(provider_url, extra="", policy=POLICY, workers=2, segment_mb=4, providers=("outlook",)):
    """A configuration file: the providers at `provider_url`, the fixtures, the policies above."""
    d = harness.scratch()
    with open(os.path.join(d, "policy.cedar"), "w") as f:
        f.write(policy)
    path = os.path.join(d, "sluice.yaml")
    with open(path, "w") as f:
        f.write("""
listen: 127.0.0.1:7411
workers: %d
connectors: [%s, conformance]
policies: ["%s/policy.cedar"]
journal: { segment_mb: %d }
drain_seconds: 3
providers:
%s%s""" % (workers, ", ".join(providers), d, segment_mb, "".join("""\
  %s:
    base_url: "%s"
    allow_loopback: true
    allow_plain_http: true
""" % (p, provider_url) for p in providers), extra))
    return path


def outcome_of(message):
    return message["result"]["_meta"]["dev.sluice/outcome"]


def text_of(message):
    return message["result"]["content"][0]["text"]


class WithEngine(unittest.TestCase):
    """One engine per class, with an upstream whose behaviour each test sets."""

    PROVIDERS = ("outlook",)
    EXTRA = ""                  # further configuration: of the last provider, then of the engine
    POLICY = POLICY

    @classmethod
    def setUpClass(cls):
        cls.upstream = upstream.Upstream()
        cls.config = config(cls.upstream.url, cls.EXTRA, cls.POLICY, providers=cls.PROVIDERS)
        cls.engine = harness.Engine(config=cls.config)
        cls.token = cls.engine.token()
        cls.connect(cls.token)

    @classmethod
    def connect(cls, token, label="alice@demo.example"):
        for provider in cls.PROVIDERS:
            status, _, raw = cls.engine.request(
                "POST", "/v1/accounts", json.dumps({"provider": provider, "label": label, "token": "up-secret-token"}),
                {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
            assert status == 200, raw

    @classmethod
    def tearDownClass(cls):
        assert cls.engine.stop() == 0, cls.engine.text()
        harness.run("audit", "verify", "--data", cls.engine.data)
        cls.upstream.close()
        ended = collections.Counter(r["call"] for kind, r in cls.engine.journal() if kind in ("outcome", "request"))
        begun = collections.Counter(r["call"] for kind, r in cls.engine.journal() if kind == "intent")
        assert all(n == 1 for n in ended.values()), "a request is recorded twice"
        assert all(n == 1 and ended[call] == 1 for call, n in begun.items()), "an intent without its outcome"
        assert "up-secret-token" not in cls.engine.text()

    def records(self):
        return len([1 for kind, _ in self.engine.journal() if kind in ("outcome", "request")])

    def alive(self):
        m = self.engine.call("add", {"a": 2, "b": 3}, self.token)
        self.assertEqual(m["result"]["structuredContent"]["sum"], 5)

    def behave(self, function):
        self.upstream.behave = function
        self.upstream.requests.clear()
