"""Policy in a running engine: who is asked about, with which facts, what is on record, and what a reload changes."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bed
import harness
import upstream


class Policies:
    """A directory of policies and one of entities, and a configuration that names them."""

    def __init__(self, provider_url, extra=""):
        self.dir = harness.scratch()
        for name in ("policies", "entities"):
            os.makedirs(os.path.join(self.dir, name))
        self.config = os.path.join(self.dir, "sluice.yaml")
        with open(self.config, "w") as f:
            f.write("""
listen: 127.0.0.1:7411
workers: 2
connectors: [outlook, conformance]
policies: [{0}/policies]
entities: [{0}/entities]
journal: {{ segment_mb: 4 }}
drain_seconds: 3
providers:
  outlook: {{ base_url: "{1}", allow_loopback: true, allow_plain_http: true }}
{2}""".format(self.dir, provider_url, extra))

    def put(self, text, name="a.cedar"):
        with open(os.path.join(self.dir, "policies", name), "w") as f:
            f.write(text)

    def entities(self, value, name="people.json"):
        with open(os.path.join(self.dir, "entities", name), "w") as f:
            f.write(value if isinstance(value, str) else json.dumps(value))


def entity(kind, name, attrs=None, parents=()):
    return {"uid": {"type": kind, "id": name}, "attrs": attrs or {},
            "parents": [{"type": t, "id": i} for t, i in parents]}


def allowed(message):
    if "error" in message:
        return False
    return not message["result"].get("isError")


def why(message):
    return message["error"]["message"] if "error" in message else message["result"]["content"][0]["text"]


class WithPolicies(unittest.TestCase):
    """One engine per class; each test writes its policies and reloads."""
    EXTRA = ""

    @classmethod
    def setUpClass(cls):
        cls.upstream = upstream.Upstream()
        cls.files = Policies(cls.upstream.url, cls.EXTRA)
        cls.engine = harness.Engine(config=cls.files.config)
        cls.reloads = 0

    @classmethod
    def tearDownClass(cls):
        assert cls.engine.stop() == 0, cls.engine.text()
        harness.run("audit", "verify", "--data", cls.engine.data)
        cls.upstream.close()

    def reload(self, policies=None, entities=None, taken=True):
        if policies is not None:
            self.files.put(policies)
        if entities is not None:
            self.files.entities(entities)
        word = 'msg="reloaded"' if taken else "the new configuration was not taken"
        before = self.engine.text().count(word)
        self.engine.signal(signal.SIGHUP)
        with self.engine.seen:
            while "\n".join(self.engine.lines).count(word) == before:
                assert self.engine.seen.wait(15), "no reload:\n" + "\n".join(self.engine.lines)

    def add(self, **who):
        return self.engine.call("add", {"a": 1, "b": 2}, self.engine.token(**who))

    def tools(self, **who):
        status, m = self.engine.rpc("tools/list", token=self.engine.token(**who))
        self.assertEqual(status, 200, m)
        return {t["name"] for t in m["result"]["tools"]}

    def record_of(self, message):
        call = (message.get("result") or message.get("error"))
        call = (call.get("_meta") or call.get("data"))["dev.sluice/call"]
        return [r for kind, r in self.engine.journal() if r.get("call") == call and "decisions" in r][0]


BOTH = """
@id("users") permit (principal is User in Tenant::"demo", action, resource);
@id("agents") permit (principal is Agent in Tenant::"demo", action, resource);
"""


class Facts(WithPolicies):
    def test_groups_of_the_token_and_of_the_entities_file(self):
        self.reload("""
            @id("finance") permit (principal in Group::"finance", action, resource);
            @id("agents") permit (principal in Group::"robots", action, resource)
              when { context.delegator in Group::"finance" && context.actor == principal };
            """, [entity("Agent", "desk", parents=[("Group", "robots")]),
                  entity("Group", "payroll", parents=[("Group", "finance")])])
        self.assertFalse(allowed(self.add(agent="desk")))
        self.assertTrue(allowed(self.add(agent="desk", extra=("--group", "finance"))))
        self.assertTrue(allowed(self.add(agent="desk", extra=("--group", "other", "--group", "payroll"))))
        self.assertFalse(allowed(self.add(agent="other", extra=("--group", "finance"))))
        m = self.add(agent="desk", extra=("--group", "payroll"))
        r = self.record_of(m)
        self.assertEqual(r["groups"], ["payroll"])
        self.assertEqual([d["policies"] for d in r["decisions"]], [["finance"], ["agents"]])

    def test_attributes_and_an_entity_of_another_tenant(self):
        self.reload("""
            permit (principal is User, action, resource) when { principal has level && principal.level >= 3 };
            permit (principal is Agent, action, resource);
            """, [entity("User", "alice@demo.example", {"level": 3}),
                  entity("User", "bob", {"level": 9}, [("Tenant", "other")]),
                  entity("User", "carol", {"level": 9}, [("Tenant", "demo")])])
        self.assertTrue(allowed(self.add()))
        self.assertTrue(allowed(self.add(user="carol")))
        self.assertFalse(allowed(self.add(user="bob")), "the file speaks of another tenant's bob")
        self.assertTrue(allowed(self.add(user="bob", tenant="other")))

    def test_nobody_gets_into_another_tenant_by_a_group(self):
        groups = ["finance", "acme-staff", "companies", "payroll", "crew", "night", "all", "both"]
        above = [("Tenant", "demo"), ("Tenant", "acme")] + [("Group", g) for g in groups]
        self.reload("".join('@id("%s") permit (principal in %s::"%s", action, resource);' % (name, kind, name)
                            for kind, name in above),
                    [entity("Tenant", "acme", parents=[("Group", "companies")]),
                     entity("Group", "finance", parents=[("Tenant", "acme"), ("Group", "acme-staff")]),
                     entity("Group", "payroll", parents=[("Group", "finance")]),
                     entity("Group", "night", parents=[("Group", "all")]),
                     entity("Group", "crew", parents=[("Tenant", "demo"), ("Group", "night")]),
                     entity("Group", "both", parents=[("Tenant", t) for t in ("demo", "acme")] +
                                                     [("Group", g) for g in ("finance", "night")]),
                     entity("User", "carol", parents=[("Group", "both"), ("Group", "finance")]),
                     entity("Agent", "desk", parents=[("Group", "finance")]),
                     entity("Agent", "front", parents=[("Tenant", "demo"), ("Tenant", "acme")])])

        def sides(tenant, *groups, **who):
            r = self.record_of(self.add(tenant=tenant, extra=sum((("--group", g) for g in groups), ()), **who))
            self.assertEqual([d["policies"][0] for d in r["decisions"]], [tenant] * 2)
            return [set(d["policies"][1:]) for d in r["decisions"]]

        acme = {"finance", "acme-staff", "companies"}
        self.assertEqual(sides("demo", "finance"), [{"finance"}, set()])
        self.assertEqual(sides("demo", "payroll"), [{"payroll"}, set()])
        self.assertEqual(sides("demo", "crew"), [{"crew", "night", "all"}, set()])
        self.assertEqual(sides("demo", "both"), [{"both", "finance", "night", "all"}, set()])
        self.assertEqual(sides("demo", user="carol", agent="desk"), [{"both", "finance", "night", "all"}, set()])
        self.assertEqual(sides("demo", "finance", "crew", user="carol", agent="front"),
                         [{"both", "finance", "crew", "night", "all"}, set()])
        self.assertEqual(sides("acme", "finance"), [acme, {"companies"}])
        self.assertEqual(sides("acme", "payroll"), [acme | {"payroll"}, {"companies"}])
        self.assertEqual(sides("acme", "crew"), [{"crew", "companies"}, {"companies"}])
        self.assertEqual(sides("acme", user="carol", agent="desk"), [acme | {"both", "night", "all"}, acme])
        self.assertEqual(sides("acme", "both", agent="front"), [acme | {"both", "night", "all"}, {"companies"}])

        self.reload("""
            @id("acme-people") permit (principal is User in Tenant::"acme", action, resource);
            @id("agents") permit (principal is Agent, action, resource);
            """)
        stranger = {"extra": ("--group", "finance", "--group", "both")}
        m = self.add(**stranger)
        self.assertFalse(allowed(m))
        self.assertEqual(self.tools(**stranger), set())
        self.assertIn(": DENY\nno policy", harness.run("policy", "explain", "--call", self.record_of(m)["call"],
                                                       "--config", self.files.config, "--data", self.engine.data))
        self.assertTrue(allowed(self.add(tenant="acme")))

    def test_a_group_of_tools_is_made_in_the_entities_file(self):
        self.reload('permit (principal, action in Action::"harmless", resource);',
                    [entity("Action", "add", parents=[("Action", "harmless")])])
        self.assertTrue(allowed(self.add()))
        self.assertEqual(self.tools(), {"add"})

    def test_every_side_is_on_record_also_after_a_denial(self):
        self.reload(BOTH + """
            @id("not-bob") forbid (principal == User::"bob", action, resource);
            @id("typo") permit (principal is Agent, action, resource) when { principal.nothing };
            """, [])
        m = self.add(user="bob", agent="desk", extra=("--via", "front"))
        self.assertIn('"not-bob" forbids the user bob', why(m))
        r = self.record_of(m)
        self.assertEqual([(d["side"], d["who"], d["effect"], d["policies"]) for d in r["decisions"]],
                         [("user", "bob", "deny", ["not-bob"]), ("agent", "desk", "allow", ["agents"]),
                          ("delegate", "front", "allow", ["agents"])])
        self.assertEqual(r["decisions"][1]["errors"],
                         [{"policy": "typo", "why": "the attribute does not exist", "line": 6,
                           "column": r["decisions"][1]["errors"][0]["column"]}])
        self.assertRegex(r["policy"], "^[0-9a-f]{64}$")
        self.assertRegex(r["entities"], "^[0-9a-f]{64}$")
        self.assertEqual(r["resource_type"], r["resource"].split("::")[0])
        shown = harness.run("audit", "show", r["call"], "--data", self.engine.data)
        for word in ("not-bob", "typo", "the attribute does not exist", r["policy"]):
            self.assertIn(word, shown)


    def test_a_forbid_that_failed_is_named_among_many_failures(self):
        self.reload(BOTH + "".join('@id("p%d") permit (principal, action, resource) when { principal.nothing };\n' % i
                                   for i in range(20)) +
                    '@id("guard") forbid (principal is User, action, resource) when { principal.nothing };')
        m = self.add()
        self.assertIn('policy "guard" could not be evaluated', why(m))
        user, agent = self.record_of(m)["decisions"]
        self.assertEqual([e["policy"] for e in user["errors"]], ["guard"] + ["p%d" % i for i in range(15)])
        self.assertEqual([e["policy"] for e in agent["errors"]], ["p%d" % i for i in range(16)])
        self.assertEqual((user["errors_more"], agent["errors_more"]), (5, 4))


class Replay(WithPolicies):
    """Recorded calls are decided again beside the running engine, from its journal."""
    SOME = BOTH + """
        @id("small") forbid (principal is User, action == Action::"add", resource) when { context.args.a > 100 };
        @id("desks") forbid (principal == Agent::"closed", action, resource);
        """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls("reload").reload(cls.SOME, [])
        cls.calls = [cls.engine.call("add", {"a": a, "b": 2}, cls.engine.token(**who)) for a, who in (
            (1, {}), (101, {}), (1, {"agent": "closed"}), (50, {"agent": "desk", "extra": ("--via", "front")}),
            (7, {"user": "bob", "extra": ("--group", "night")}))]

    def candidate(self, text):
        path = os.path.join(harness.scratch(), "candidate.cedar")
        with open(path, "w") as f:
            f.write(text)
        return path

    def policy(self, *args):
        p = subprocess.run([harness.SLUICE, "policy"] + list(args) + ["--config", self.files.config, "--data",
                           self.engine.data], capture_output=True, text=True, timeout=60)
        return p.returncode, p.stdout, p.stderr

    def id_of(self, i):
        return self.record_of(self.calls[i])["call"]

    def test_the_same_policies_decide_the_same(self):
        self.assertEqual([allowed(m) for m in self.calls], [True, False, False, True, True])
        rc, out, err = self.policy("replay", "--policies", os.path.join(self.files.dir, "policies"))
        self.assertEqual((rc, out, err), (0, "5 calls replayed, 0 flips, 0 not replayable\n", ""))

    def test_each_flip_is_named_with_what_decided_before_and_after(self):
        rc, out, _ = self.policy("replay", "--policies", self.candidate(BOTH + """
            @id("smaller") forbid (principal is User, action == Action::"add", resource) when { context.args.a > 40 };
            @id("nights") forbid (principal in Group::"night", action, resource);
            @id("fronts") forbid (principal == Agent::"front", action, resource) when { context.side == "delegate" };
            @id("ask") @approval("boss") permit (principal, action, resource);
            """))
        self.assertEqual(rc, 2)
        lines = out.splitlines()
        self.assertEqual(lines[-1], "5 calls replayed, 3 flips, 0 not replayable")
        flips = {l.split()[1]: l for l in lines[:-1]}
        self.assertEqual(set(flips), {self.id_of(2), self.id_of(3), self.id_of(4)})
        self.assertIn("closed for alice@demo.example of demo: deny (users, desks) -> allow (", flips[self.id_of(2)])
        self.assertRegex(flips[self.id_of(3)],
                         r"allow \(users, agents, agents\) -> deny \(smaller, agents, ask, fronts\)")
        self.assertIn("-> deny (nights, ", flips[self.id_of(4)])

    def test_approvals_flip_too(self):
        rc, out, _ = self.policy("replay", "--policies", self.candidate(
            '@approval("boss") permit (principal, action, resource);'))
        self.assertEqual((rc, out.splitlines()[-1]), (2, "5 calls replayed, 5 flips, 0 not replayable"))
        self.assertEqual(out.count("-> needs_approval ("), 5)

    def test_a_recorded_call_is_explained_side_by_side(self):
        rc, out, err = self.policy("explain", "--call", self.id_of(1))
        self.assertEqual((rc, err), (0, ""))
        self.assertIn("=== user alice@demo.example: DENY\ndecided by \"small\"\n", out)
        self.assertIn("when context.args.a > 100  ->  true\n        context.args.a  ->  101\n    => forbids\n", out)
        self.assertIn("=== agent ", out)
        self.assertNotIn("other policies", out)
        rc, out, _ = self.policy("explain", "--call", self.id_of(0), "--policies", self.candidate(BOTH))
        self.assertIn("it was decided by other policies", out)

    def test_a_forbid_that_fails_is_shown_to_refuse(self):
        rc, out, _ = self.policy("explain", "--call", self.id_of(0), "--policies", self.candidate(BOTH + """
            @id("guard") forbid (principal is User, action, resource) when { context.args.zz > 1 };
            """))
        self.assertEqual(rc, 0)
        self.assertIn("=== user alice@demo.example: DENY\n1 forbid failed to evaluate, which refuses", out)
        self.assertIn("=> fails, which refuses, as it forbids: the attribute does not exist", out)

    def test_what_cannot_be_asked_again_is_counted_and_said(self):
        rc, out, err = self.policy("replay", "--policies", "/nowhere")
        self.assertEqual((rc, out), (1, ""))
        self.assertIn("/nowhere", err)
        rc, _, err = self.policy("explain", "--call", "call_00000000000000000000000000")
        self.assertEqual(rc, 1)
        self.assertIn("no decided call", err)
        rc, out, err = self.policy("replay", "--since", "soon", "--policies", self.candidate(BOTH))
        self.assertEqual(rc, 1)
        copy = os.path.join(harness.scratch(), "copy")
        shutil.copytree(self.engine.data, copy)
        with contextlib.closing(sqlite3.connect(os.path.join(copy, "sluice.db"))) as db, db:
            db.execute("DELETE FROM keys")
        p = subprocess.run([harness.SLUICE, "policy", "replay", "--config", self.files.config, "--data", copy,
                            "--policies", self.candidate(BOTH)], capture_output=True, text=True, timeout=60)
        self.assertEqual((p.returncode, p.stdout), (0, "0 calls replayed, 0 flips, 5 not replayable "
                                                    "(its tenant's key is gone: 5)\n"))


class Questions(WithPolicies):
    """Everything that calls ask fits the schema that is made for it: the recorded questions are checked by it."""

    def explained(self, message):
        return harness.run("policy", "explain", "--call", self.record_of(message)["call"], "--config",
                           self.files.config, "--data", self.engine.data)

    def test_each_fits_but_for_arguments_without_a_type(self):
        self.reload(BOTH, [entity("User", "alice@demo.example", {"level": 3, "odd": [1, "x"]},
                                  [("Group", "staff")]), entity("Agent", "desk", {}, [("Group", "robots")]),
                           entity("Action", "add", {}, [("Action", "sums")])])
        harness.run("delegate", "desk", "--for", "1d", "--only", "reads", "--as", "alice@demo.example", "--tenant",
                    "demo", "--agent", "desk", "--data", self.engine.data)
        mail = {"to": ["bob@demo.example"], "subject": "s", "body": "b"}
        token = self.engine.token(agent="desk", extra=("--via", "front", "--group", "night"))
        for tool, args in (("add", {"a": 1, "b": 2}), ("test_simple_text", {}), ("test_x_mcp_header", {"query": "x"}),
                           ("json_schema_2020_12_tool", {"name": "n", "email": "a@b.c", "contactMethod": "email"}),
                           ("outlook.send_mail", mail), ("outlook.send_mail", dict(mail, cc=["c@demo.example"])),
                           ("outlook.list_mail", {"count": 3, "unread_only": True}), ("outlook.list_mail", {}),
                           ("outlook.book_meeting", {"attendees": ["b@demo.example"], "minutes": 30, "subject": "s",
                                                     "after": "2026-11-20T09:00:00Z"})):
            with self.subTest(tool):
                out = self.explained(self.engine.call(tool, args, token))
                self.assertEqual(out.count("=== delegate front: ALLOW"), 1, out)
                self.assertNotIn("more than `policy schema` says", out)
        out = self.explained(self.engine.call("json_schema_2020_12_tool", {"email": "a@b.c", "address": {
            "city": "x"}}, token))
        self.assertEqual(out.count("more than `policy schema` says"), 3, out)
        self.assertIn("address", out)


class Candidates(WithPolicies):
    """Shadow mode: a candidate set beside the live one."""

    @classmethod
    def setUpClass(cls):
        cls.shadow = harness.scratch()
        cls.EXTRA = "shadow_policies: [%s]" % cls.shadow
        super().setUpClass()

    def candidate(self, text):
        with open(os.path.join(self.shadow, "next.cedar"), "w") as f:
            f.write(text)

    def counted(self, answer):
        text = self.engine.request("GET", "/metrics")[2].decode()
        m = re.search(r'^sluice_policy_candidate_total\{answer="%s"\} (\d+)$' % answer, text, re.M)
        return int(m.group(1)) if m else 0

    def test_flips_are_counted_and_recorded_and_never_obeyed(self):
        self.candidate('@id("nobody") forbid (principal == User::"bob", action, resource);\n' + BOTH)
        self.reload(BOTH, [])
        same = self.counted("same")
        m = self.add()
        self.assertTrue(allowed(m))
        self.assertNotIn("candidate", self.record_of(m))
        self.assertEqual(self.counted("same"), same + 1)
        m = self.add(user="bob")
        self.assertTrue(allowed(m), why(m))
        r = self.record_of(m)
        self.assertEqual([d["effect"] for d in r["decisions"]], ["allow", "allow"])
        self.assertEqual((r["candidate"]["decision"], r["candidate"]["policies"]), ("deny", ["nobody", "agents"]))
        self.assertRegex(r["candidate"]["policy"], "^[0-9a-f]{64}$")
        self.assertNotEqual(r["candidate"]["policy"], r["policy"])
        self.assertEqual(self.counted("allow_to_deny"), 1)

        listed = self.flips()
        self.assertEqual(listed[0], 2)
        self.assertRegex("\n".join(listed[1]), r"Z  %s  add  test-agent for bob of demo: allow \(users, agents\) -> "
                         r"deny \(nobody, agents\)\n" % r["call"])
        self.assertEqual(self.flips("--since", "soon")[0], 1)
        self.assertEqual(self.flips("--data", "/nowhere")[0], 1)

    def flips(self, *args):
        p = subprocess.run([harness.SLUICE, "policy", "flips", "--config", self.files.config]
                           + list(args or ("--data", self.engine.data)), capture_output=True, text=True, timeout=60)
        return p.returncode, p.stdout.splitlines()

    def test_a_candidate_that_would_allow_more_lets_nothing_through(self):
        self.candidate("permit (principal, action, resource);")
        self.reload('@id("none") forbid (principal, action, resource);', [])
        m = self.add()
        self.assertFalse(allowed(m))
        r = self.record_of(m)
        self.assertEqual(r["candidate"]["decision"], "allow")
        self.assertTrue([x for x in self.flips()[1] if r["call"] in x and x.split(": ")[1].startswith("deny (none, ")])
        self.assertEqual(self.counted("deny_to_allow"), 1)
        self.assertEqual(self.tools(), set())
        self.candidate('@approval("boss") permit (principal, action, resource);')
        self.reload(BOTH)
        self.assertTrue(allowed(self.add()))
        self.assertEqual(self.counted("allow_to_needs_approval"), 1)

    def test_a_broken_candidate_is_said_and_changes_nothing(self):
        self.candidate("permit (principal, action);")
        self.reload(BOTH, [])
        self.assertRegex(self.engine.text(), r"candidate policies were not taken.*next\.cedar:1:\d+: ")
        m = self.add()
        self.assertTrue(allowed(m))
        self.assertNotIn("candidate", self.record_of(m))

    def test_a_candidate_that_runs_out_of_memory_fails_alone(self):
        many = ", ".join("[%d, context.args.a]" % i for i in range(3000))
        self.candidate("\n".join("permit (principal, action, resource) when { [%s].contains(context) };" % many
                                 for _ in range(8)))
        self.reload(BOTH, [])
        failed = self.counted("failed")
        m = self.add()
        self.assertTrue(allowed(m), m)
        self.assertNotIn("candidate", self.record_of(m))
        self.assertEqual(self.counted("failed"), failed + 1)


class Validated(WithPolicies):
    """Policies are checked when they are loaded, by the schema of what they can be asked."""
    TYPO = BOTH + '''@id("typo") forbid (principal, action == Action::"add", resource) when { context.args.aa > 1 };'''

    def test_findings_are_told_and_the_set_is_taken(self):
        self.reload(self.TYPO, [])
        self.assertRegex(self.engine.text(), r"a policy does not validate.*a\.cedar:4:\d+.*typo.*no attribute `aa`")
        self.assertFalse(allowed(self.add()))       # a forbid that fails refuses

    def test_strictly_the_set_is_refused_and_the_running_one_stays(self):
        self.reload(BOTH, [])
        with open(self.files.config, "a") as f:
            f.write("policy_validation: strict\n")
        self.reload(self.TYPO, taken=False)
        self.assertRegex(self.engine.text().splitlines()[-1],
                         r'a\.cedar:4:\d+: policy \\?"typo\\?": .*no attribute `aa`')
        self.assertTrue(allowed(self.add()))
        self.reload(BOTH + 'permit (principal, action == Action::"ad", resource);', taken=False)
        self.assertRegex(self.engine.text().splitlines()[-1], r'a\.cedar:4:30: .*no action `Action::\\?"ad')
        self.reload(BOTH + 'permit (principal is Group, action == Action::"add", resource);', taken=False)
        self.assertRegex(self.engine.text().splitlines()[-1], r"a\.cedar:4:1: .*no action that the head allows")
        self.assertTrue(allowed(self.add()))
        self.reload(BOTH)
        self.assertTrue(allowed(self.add()))


class Reloads(WithPolicies):
    def test_what_is_broken_changes_nothing_and_names_its_place(self):
        self.reload(BOTH, [])
        for policies, entities, place in (
                ("permit (principal, action, resource);\n  permit (principle, action, resource);", None,
                 r"a\.cedar:2:11: "),
                (BOTH, '[\n {"uid": }]', r"people\.json: 2:10: "),
                (BOTH, [entity("Group", "a", parents=[("Group", "b")]), entity("Group", "b", parents=[("Group", "a")])],
                 "above itself")):
            self.reload(policies, entities, taken=False)
            self.assertRegex(self.engine.text().splitlines()[-1], place)
            self.assertTrue(allowed(self.add()))
        self.reload(BOTH, [])

    def test_an_empty_directory_denies_everything(self):
        self.reload("", [])
        self.assertFalse(allowed(self.add()))
        self.assertIn("default deny", why(self.add()))
        self.assertEqual(self.tools(), set())


class Delegations(WithPolicies):
    EXTRA = "delegation: { required: true }\n"

    def delegate(self, *args, check=True):
        return harness.run("delegate", *args, "--as", "alice@demo.example", "--tenant", "demo", "--agent", "cli",
                           "--data", self.engine.data, check=check)

    def test_an_agent_does_what_the_user_has_recorded(self):
        self.reload(BOTH, [])
        m = self.add(agent="desk")
        self.assertIn("has recorded no delegation of add to the agent desk", why(m))
        self.assertEqual(self.record_of(m)["delegation_required"], True)
        self.assertEqual(self.tools(agent="desk"), set())
        out = harness.run("policy", "explain", "--call", self.record_of(m)["call"], "--config", self.files.config,
                          "--data", self.engine.data)
        self.assertIn("=== delegation to desk: DENY\nthe user had recorded none that covers add\n", out)

        refused = self.delegate("desk", "--only", "no_such_tool", check=False)
        self.assertEqual(refused.returncode, 3, refused.stderr)
        self.assertIn("neither a tool nor a group of tools", refused.stderr)
        self.delegate("desk", "--only", "reads", "--for", "1h")
        m = self.add(agent="desk")
        self.assertTrue(allowed(m), m)
        on_record = self.record_of(m)["delegations"]
        self.assertEqual([(d["agent"], d["covers"], d["actions"]) for d in on_record], [("desk", True, ["reads"])])
        self.assertIn("outlook.list_mail", self.tools(agent="desk"))
        self.assertNotIn("outlook.send_mail", self.tools(agent="desk"))
        self.assertIn("recorded no delegation", why(self.add(agent="desk", extra=("--via", "front"))))
        self.assertIn("recorded no delegation", why(self.add(agent="desk", user="bob")))

        listed = json.loads(self.delegate("--list", "--json"))
        self.assertEqual([(d["agent"], d["actions"], d["status"]) for d in listed], [("desk", ["reads"], "in force")])
        self.delegate("desk")
        first, listed = listed, json.loads(self.delegate("--list", "--json"))
        self.delegate("--revoke", listed[0]["id"])
        self.assertFalse(allowed(self.add(agent="desk")))
        self.assertEqual(json.loads(self.delegate("--list", "--json")), [])
        self.are_on_record(first[0]["id"], listed[0]["id"])

    def test_as_many_as_may_be_are_listed_and_revoked(self):
        names = ["%s %d" % ("x" * 120, i) for i in range(64)]
        self.reload(BOTH, [entity("Action", "add", parents=[("Action", n) for n in names])])
        connection = http.client.HTTPConnection(*self.engine.address.split(":"))
        headers = {"Authorization": "Bearer " + self.engine.token(user="carol@demo.example")}

        def ask(method, path, body=None):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        for i in range(256):
            status, m = ask("POST", "/v1/delegations", json.dumps({"agent": ("%d " % i).ljust(255, "x"),
                                                                   "actions": names}))
            self.assertEqual(status, 200, m)
        status, m = ask("POST", "/v1/delegations", '{"agent": "desk"}')
        self.assertEqual((status, m["error"]), (400, "rpc_params"), m)
        self.assertIn("256 delegations", m["message"])
        status, m = ask("POST", "/v1/delegations", json.dumps({"agent": "desk", "actions": ["add"] * 65}))
        self.assertEqual((status, m["message"]), (400, "actions: at most 64"))
        status, m = ask("GET", "/v1/delegations")
        self.assertEqual((status, len(m["delegations"])), (200, 256))
        out = harness.run("delegate", "--list", "--as", "carol@demo.example", "--tenant", "demo", "--agent", "cli",
                          "--data", self.engine.data)
        self.assertEqual((out.count(" dlg_"), out.count("everything")), (256, 0))
        self.assertEqual(ask("DELETE", "/v1/delegations/" + m["delegations"][7]["id"]), (200, {"revoked": True}))
        self.assertEqual(ask("DELETE", "/v1/delegations/" + m["delegations"][7]["id"])[0], 404)
        self.assertEqual(ask("POST", "/v1/delegations", '{"agent": "desk"}')[0], 200)
        connection.close()

    def test_a_body_that_fills_the_memory_is_told_what_is_wrong(self):
        status, _, raw = self.engine.request("POST", "/v1/delegations", '{"actions": [%s0]}' % ("0," * 1000000),
                                             {"Authorization": "Bearer " + self.engine.token()})
        self.assertEqual((status, json.loads(raw)["error"]), (400, "json_malformed"))

    def are_on_record(self, first, second):
        """A change is announced before it is made; what is delegated is said, and until when."""
        of = {}
        for kind, r in self.engine.journal():
            if kind == "admin" and r["event"].startswith("delegation_") and r["user"] == "alice@demo.example":
                self.assertEqual(r["delegate"], "desk")
                self.assertEqual("actions" in r, "everything" not in r)
                ahead = r.get("expires", 0) > time.time() * 1000
                said = of.setdefault(r["call"], [r["event"], r.get("actions"), ahead])
                said.append((r["outcome"], r.get("delegation"), r.get("replaces")))
        self.assertEqual(list(of.values()),
                         [["delegation_record", ["reads"], True, ("begun", None, None), ("done", first, None)],
                          ["delegation_record", None, False, ("begun", None, None), ("done", second, first)],
                          ["delegation_revoke", None, False, ("begun", second, None), ("done", second, None)]])


class FullJournal(unittest.TestCase):
    """What cannot be recorded is not changed."""

    def manage(self, method, what, body=None):
        status, _, raw = self.engine.request(method, "/v1/" + what, json.dumps(body) if body else None,
                                             {"Authorization": "Bearer " + self.token})
        return status, json.loads(raw)

    def test_nothing_is_changed_that_is_not_on_record(self):
        data = os.path.join(harness.scratch(), "data")
        mount = os.path.join(data, "journal")
        os.makedirs(mount)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", mount], capture_output=True).returncode:
            self.skipTest("needs the right to mount")
        try:
            path = bed.config("http://127.0.0.1:1", policy="permit (principal, action, resource);", workers=1)
            self.engine = harness.Engine(config=path, data=data)
            self.token = self.engine.token()
            while "error" not in self.engine.rpc("tools/call", {"name": "test_simple_text", "arguments": {}},
                                                 self.token, "test_simple_text")[1]:
                pass
            while self.manage("GET", "delegations")[0] == 200:      # which need less room than calls
                pass
            for what, body in (("delegations", {"agent": "desk"}),
                               ("accounts", {"provider": "outlook", "token": "mine"})):
                status, m = self.manage("POST", what, body)
                self.assertEqual((status, m["error"]), (503, "journal_unwritable"), what)
            self.assertEqual(self.engine.stop(), 0)
            with sqlite3.connect(os.path.join(data, "sluice.db")) as db:
                for table in ("delegations", "accounts"):
                    self.assertEqual(db.execute("SELECT count(*) FROM " + table).fetchone(), (0,))
            harness.run("audit", "verify", "--data", data)
        finally:
            subprocess.run(["umount", "-l", mount], check=True)


class DelegationsAreFacts(WithPolicies):
    def test_policies_see_them_and_they_outlive_the_engine(self):
        self.reload("""
            permit (principal is User, action, resource);
            permit (principal is Agent, action in Action::"delegations", resource);
            permit (principal is Agent, action, resource)
              when { context has delegation && context.delegation.covers && context.delegation has expires };
            """, [])
        self.assertFalse(allowed(self.add(agent="desk")))
        harness.run("delegate", "desk", "--for", "1d", "--as", "alice@demo.example", "--tenant", "demo", "--agent",
                    "cli", "--data", self.engine.data)
        self.assertTrue(allowed(self.add(agent="desk")))
        self.engine.stop()
        type(self).engine = harness.Engine(config=self.files.config, data=self.engine.data)
        self.assertTrue(allowed(self.add(agent="desk")))
        self.assertFalse(allowed(self.add(agent="desk", user="bob")))
        self.assertFalse(allowed(self.add(agent="desk", tenant="other")))


if __name__ == "__main__":
    harness.main()
