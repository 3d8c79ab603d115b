"""Reloads under load: two policy sets and their entities take turns, broken ones between them, while callers go on.

Each answer must be what one of the sets says about that caller, whole: decision, deciding policies, the digests on
record. What is asked between two reloads must be answered by the set that is in force then.
"""
import os
import signal
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness
from policy_engine_test import Policies, allowed, entity

CALLERS = ("alice", "bob", "carol")

# Names of policies tell the sets apart; who is banned is in the entities, and so are carol's two lives.
A = """
@id("a-users") permit (principal is User in Tenant::"demo", action, resource);
@id("a-agents") permit (principal is Agent in Tenant::"demo", action in Action::"reads", resource);
@id("a-banned") forbid (principal in Group::"banned", action, resource);
"""
B = """
@id("b-users") permit (principal is User, action == Action::"add", resource);
@id("b-agents") permit (principal is Agent, action, resource) when { context.args.a >= 0 };
@id("b-bob") forbid (principal == User::"bob", action == Action::"add", resource);
@id("b-banned") forbid (principal in Group::"banned", action, resource) when { context.user != "alice" };
"""
FREE, BANNED = [entity("User", "carol")], [entity("User", "carol", parents=[("Group", "banned")])]

# (policies, entities): what each set decides about a caller's two sides, by name.
STEPS = {
    "A free": (A, FREE, {c: ("allow", [["a-users"], ["a-agents"]]) for c in CALLERS}),
    "A banned": (A, BANNED, {"alice": ("allow", [["a-users"], ["a-agents"]]), "bob": ("allow", [["a-users"],
                             ["a-agents"]]), "carol": ("deny", [["a-banned"], ["a-agents"]])}),
    "B free": (B, FREE, {"alice": ("allow", [["b-users"], ["b-agents"]]), "bob": ("deny", [["b-bob"], ["b-agents"]]),
                         "carol": ("allow", [["b-users"], ["b-agents"]])}),
    "B banned": (B, BANNED, {"alice": ("allow", [["b-users"], ["b-agents"]]), "bob": ("deny", [["b-bob"],
                             ["b-agents"]]), "carol": ("deny", [["b-banned"], ["b-agents"]])}),
    "empty directory": (None, FREE, {c: ("deny", [[], []]) for c in CALLERS}),
}
BROKEN = (('permit (principal, action, resource);\n forbid (principal, acton, resource);', None, r"a\.cedar:2:\d+: "),
          (None, '[\n {"uid": }]', r"people\.json: 2:\d+: "))


class Caller(threading.Thread):
    """Calls and lists as one user until told to stop; keeps every answer."""

    def __init__(self, engine, user):
        super().__init__()
        self.engine, self.user = engine, user
        self.token = engine.token(user=user)
        self.calls, self.lists, self.failed = [], [], []
        self.over = threading.Event()

    def run(self):
        try:
            while not self.over.is_set():
                self.calls.append(self.engine.call("add", {"a": 1, "b": 2}, self.token))
                status, m = self.engine.rpc("tools/list", token=self.token)
                self.lists.append((status, frozenset(t["name"] for t in m["result"]["tools"])))
        except Exception as e:
            self.failed.append(repr(e))


def call_id(message):
    about = message.get("result") or message["error"]
    return (about.get("_meta") or about["data"])["dev.sluice/call"]


class ReloadsUnderLoad(unittest.TestCase):
    def setUp(self):
        self.files = Policies("http://127.0.0.1:1")
        self.files.put(A)
        self.files.entities(FREE)
        self.engine = harness.Engine(config=self.files.config)
        self.tokens = {c: self.engine.token(user=c) for c in CALLERS}
        self.expected = {}              # (policy digest, entities digest) -> step
        self.lists = {c: set() for c in CALLERS}
        self.sequence = []              # (call, step): what was asked between two reloads

    def reload(self, policies, entities, word='msg="reloaded"'):
        self.files.entities(entities)
        if policies is None:
            os.unlink(os.path.join(self.files.dir, "policies", "a.cedar"))
        else:
            self.files.put(policies)
        before = self.engine.text().count(word)
        self.engine.signal(signal.SIGHUP)
        with self.engine.seen:
            while "\n".join(self.engine.lines).count(word) == before:
                self.assertTrue(self.engine.seen.wait(30), "no reload:\n" + "\n".join(self.engine.lines[-20:]))

    def ask(self, user):
        return self.engine.call("add", {"a": 1, "b": 2}, self.tokens[user])

    def listed(self, user):
        m = self.engine.rpc("tools/list", token=self.tokens[user])[1]
        return frozenset(t["name"] for t in m["result"]["tools"])

    def in_force(self, step, learn):
        """What is asked now is decided by this step and no other."""
        for user in CALLERS:
            m = self.ask(user)
            self.assertEqual(allowed(m), STEPS[step][2][user][0] == "allow", (step, user, m))
            shown = self.listed(user)
            self.assertEqual("add" in shown, allowed(m), (step, user))
            if learn:
                self.lists[user].add(shown)
            self.assertIn(shown, self.lists[user])
            self.sequence.append((call_id(m), step))

    def broken(self, step):
        policies, entities, _ = STEPS[step]
        for bad_policies, bad_entities, place in BROKEN:
            self.reload(bad_policies or policies, bad_entities or entities, "the new configuration was not taken")
            said = [line for line in self.engine.text().splitlines() if "was not taken" in line][-1]
            self.assertRegex(said, place)
            self.in_force(step, False)

    def check_record(self, r, user):
        """One record: its digests are those of a step that was in force, and everything else is that step's."""
        step = self.expected.get((r["policy"], r["entities"]))
        self.assertIsNotNone(step, "digests of no set that was ever in force: %r" % r)
        decision, policies = STEPS[step][2][user]
        self.assertEqual([d["policies"] for d in r["decisions"]], policies, (step, user, r))
        effects = [d["effect"] for d in r["decisions"]]
        self.assertEqual("allow" if set(effects) == {"allow"} else "deny", decision, (step, user, r))
        return step, decision

    def check_answers(self, callers):
        records = {r["call"]: r for _, r in self.engine.journal() if "decisions" in r}
        seen = set()
        for call, step in self.sequence:
            r = records[call]
            self.expected.setdefault((r["policy"], r["entities"]), step)
            self.assertEqual(self.check_record(r, r["user"])[0], step)
        self.assertEqual(len(self.expected), len(STEPS))
        for c in callers:
            self.assertEqual(c.failed, [])
            for m in c.calls:
                step, decision = self.check_record(records[call_id(m)], c.user)
                self.assertEqual(allowed(m), decision == "allow", (step, m))
                seen.add(step)
            for status, shown in c.lists:
                self.assertEqual(status, 200)
                self.assertIn(shown, self.lists[c.user], "a list that no set shows " + c.user)
        return seen

    def test_every_answer_is_whole_of_one_set(self):
        callers = [Caller(self.engine, u) for u in CALLERS]
        for c in callers:
            c.start()
        try:
            for turn in range(5):
                for step, (policies, entities, _) in STEPS.items():
                    self.reload(policies, entities)
                    self.in_force(step, turn == 0)
                    if turn % 2 and policies:
                        self.broken(step)
        finally:
            for c in callers:
                c.over.set()
                c.join()
        self.assertEqual(self.check_answers(callers), set(STEPS), "the load did not meet every set")
        self.assertEqual(self.engine.stop(), 0)
        harness.run("audit", "verify", "--data", self.engine.data)


if __name__ == "__main__":
    harness.main()
