"""`sluice policy`: what it says of policies before anybody loads them."""
import json
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

DEMO = os.path.join(harness.ROOT, "docs", "demo")
PEER = os.path.join(harness.ROOT, "tests", "fuzz", "cedar", "peer.mjs")
NPM = os.path.join(harness.ROOT, "build", "npm")
PACKAGES = os.path.join(NPM, "node_modules")


def read(path):
    with open(path) as f:
        return f.read()


def policy(*args, stdin=None):
    return subprocess.run([harness.SLUICE, "policy"] + list(args), input=stdin, capture_output=True, text=True,
                          timeout=60)


class Written(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.scratch()
        cls.schema = cls.write("made.cedarschema", policy("schema").stdout)

    @classmethod
    def write(cls, name, text):
        path = os.path.join(cls.dir, name)
        with open(path, "w") as f:
            f.write(text if isinstance(text, str) else json.dumps(text))
        return path


class Check(Written):
    def test_the_demo_policies_fit_the_schema_that_is_made_for_them(self):
        p = policy("check", "--schema", self.schema, "--deny-warnings", DEMO)
        self.assertEqual((p.returncode, p.stderr), (0, ""), p.stdout)
        self.assertRegex(p.stdout, r"^\d+ policies: ")

    def test_the_reference_implementation_reads_the_schema_and_finds_the_same(self):
        if not os.path.exists(os.path.join(NPM, "ready")):
            self.skipTest("skipped: no npm packages, so no reference implementation")
        texts = [read(os.path.join(DEMO, n)) for n in sorted(os.listdir(DEMO)) if n.endswith(".cedar")]
        wrong = 'permit(principal, action == Action::"outlook.send_mail", resource) when { context.args.tu == "x" };'
        case = {"policies": {"staticPolicies": "\n".join(texts)}, "schema": read(self.schema), "validate": True,
                "entities": [], "requests": []}
        bad = dict(case, policies={"staticPolicies": wrong})
        p = subprocess.run(["node", PEER, PACKAGES], input=json.dumps(case) + "\n" + json.dumps(bad) + "\n",
                           capture_output=True, text=True, timeout=120)
        good, bad = [json.loads(line) for line in p.stdout.splitlines()]
        self.assertTrue(good["schema"], good)
        self.assertEqual((good["invalid"], good["impossible"]), ([], []), good)
        self.assertEqual(bad["invalid"], ["policy0"])

    def test_findings_have_their_place_and_decide_the_exit_code(self):
        bad = self.write("bad.cedar", 'permit(principal, action == Action::"outlook.send_mial", resource);\n')
        p = policy("check", bad)
        self.assertEqual(p.returncode, 0, p.stdout)         # nobody asked for more than lint
        p = policy("check", "--schema", self.schema, bad)
        self.assertEqual(p.returncode, 1)
        self.assertIn("%s:1:29: error: policy " % bad, p.stdout)
        self.assertIn("no action `Action::\"outlook.send_mial\"`", p.stdout)
        self.assertRegex(p.stdout, r"\n2 errors, 1 warning\n$")

    def test_a_policy_without_effect_is_a_warning_unless_those_are_denied(self):
        idle = self.write("idle.cedar", '@id("all") permit(principal, action, resource);\n'
                          '@id("some") permit(principal is User, action, resource);\n')
        p = policy("check", idle)
        self.assertEqual(p.returncode, 0)
        self.assertIn('%s:2:1: warning: policy "some": changes nothing: "all" does the same' % idle, p.stdout)
        self.assertEqual(policy("check", "--deny-warnings", idle).returncode, 1)

    def test_the_configuration_gives_the_schema_and_its_entities_their_attributes(self):
        people = self.write("people.json", [{"uid": {"type": "User", "id": "a"}, "attrs": {"level": 3},
                                             "parents": []}])
        config = self.write("sluice.yaml", "connectors: [outlook]\nentities: [%s]\npolicies: [/nowhere]\n" % people)
        level = self.write("level.cedar", "permit(principal is User, action, resource)\n"
                           "when { principal has level && principal.level > 2 };\n")
        self.assertEqual(policy("check", "--config", config, level).returncode, 0)
        unsure = self.write("unsure.cedar", "permit(principal is User, action, resource) when { principal.level > 2 };")
        p = policy("check", "--config", config, unsure)
        self.assertEqual(p.returncode, 1)
        self.assertIn("ask with `has` first", p.stdout)
        p = policy("check", "--schema", self.schema, level)     # without the entities there is no such attribute
        self.assertIn("[impossible]", p.stdout)

    def test_an_argument_without_a_type_can_be_asked_for_and_not_be_used(self):
        config = self.write("fixture.yaml", "connectors: [conformance]\n")
        asks = self.write("asks.cedar", 'forbid(principal, action == Action::"json_schema_2020_12_tool", resource)\n'
                          'when { context.args has address || context.args has phone };\n')
        p = policy("check", "--config", config, "--deny-warnings", asks)
        self.assertEqual(p.returncode, 0, p.stdout)
        uses = self.write("uses.cedar", 'forbid(principal, action == Action::"json_schema_2020_12_tool", resource)\n'
                          'when { context.args has address && context.args.address == "x" };\n')
        p = policy("check", "--config", config, uses)
        self.assertEqual(p.returncode, 1)
        self.assertIn("Untyped", p.stdout)
        made = self.write("fixture.cedarschema", policy("schema", "--config", config).stdout)
        self.assertEqual(policy("check", "--schema", made, "--deny-warnings", asks).returncode, 0)

    def test_entities_that_no_schema_can_have(self):
        for types, says in ((["Org::String"], "a type Org::String"),
                            (["Org::Tenant", "Org::X"], "`Org::Tenant` would hide `Tenant`")):
            people = self.write("strange.json", [{"uid": {"type": t, "id": "a"}, "attrs": {}, "parents": []}
                                                 for t in types])
            config = self.write("strange.yaml", "entities: [%s]\npolicies: [%s]\n" % (people, DEMO))
            p = policy("check", "--config", config, DEMO)
            self.assertEqual(p.returncode, 1)
            self.assertIn(says, p.stderr)
            for strict in (False, True):
                strange = self.write("strict.yaml", read(config) + "policy_validation: strict\n" * strict)
                p = subprocess.run([harness.SLUICE, "serve", "--check", "--config", strange], capture_output=True,
                                   text=True)
                self.assertEqual(p.returncode, int(strict), p.stderr)
                self.assertIn("the policies cannot be validated", p.stderr)
                self.assertIn(says, p.stderr)

    def test_what_cannot_be_read_is_said(self):
        for args in (["check"], ["check", "--schema", "a", "--config", "b", DEMO], ["frobnicate"], []):
            p = policy(*args)
            self.assertEqual(p.returncode, 2, args)
            self.assertIn("write: sluice policy", p.stderr)
        torn = self.write("torn.cedarschema", "entity User in;")
        p = policy("check", "--schema", torn, DEMO)
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("torn.cedarschema:1:15", p.stderr)
        half = self.write("half.cedar", "permit(principal")
        self.assertIn("half.cedar:1:17", policy("check", half).stderr)


class Explain(Written):
    def ask(self, *more):
        policies = self.write("p.cedar", '@id("few") permit(principal in Group::"sales", action, resource)\n'
                              "when { context.args.count <= 50 };\n")
        entities = self.write("e.json", [{"uid": {"type": "User", "id": "alice"}, "attrs": {},
                                          "parents": [{"type": "Group", "id": "sales"}]}])
        context = self.write("c.json", {"args": {"count": 200}})
        return policy("explain", "--policies", policies, "--entities", entities, "--principal", 'User::"alice"',
                      "--action", 'Action::"outlook.list_mail"', "--resource", 'Mailbox::"a"', "--context", context,
                      *more)

    def test_every_condition_is_shown_with_its_value(self):
        p = self.ask()
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertTrue(p.stdout.startswith("DENY\nno policy permits it"), p.stdout)
        self.assertIn('principal in Group::"sales"  ->  yes, it is User::"alice"', p.stdout)
        self.assertIn("when context.args.count <= 50  ->  false\n        context.args.count  ->  200\n", p.stdout)
        self.assertIn("=> does not apply", p.stdout)

    def test_names_cannot_play_with_the_terminal(self):
        wild = self.write("wild.cedar", '@id("\\u{1b}[31m\\n=> permits") permit(principal, action, resource)\n'
                          'when { 1 + true == 2 };')
        none = self.write("none.json", [])
        ask = ["--policies", wild, "--entities", none, "--principal", 'User::"a"', "--action", 'Action::"b"',
               "--resource", 'Box::"c"']
        for p in (policy("check", wild), policy("explain", *ask), policy("authorize", "--verbose", *ask)):
            self.assertNotIn("\x1b", p.stdout + p.stderr)
            self.assertNotIn("\n=> permits", p.stdout)
            self.assertIn("[31m", p.stdout, p.stderr)

    def test_a_question_that_is_not_whole_is_an_error(self):
        p = policy("explain", "--policies", self.schema)
        self.assertEqual(p.returncode, 1)
        self.assertIn("write: sluice policy explain", p.stderr)


if __name__ == "__main__":
    harness.main()
