"""`./dev build tuned` from a copy of the sources: a program that counts is built and put under a load, and what is
built by its counts does what the program does. A tuned build without counts is refused."""
import glob
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness

FOLDERS = ("bench", "cmake", "connectors", "docs", "engine", "ratelimit", "tests")
FILES = ("CMakeLists.txt", "CMakePresets.json", "dev")


class Tuned(unittest.TestCase):
    def setUp(self):
        self.folder = harness.scratch()
        for name in FOLDERS:
            shutil.copytree(os.path.join(harness.ROOT, name), os.path.join(self.folder, name),
                            ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        for name in FILES:
            shutil.copy2(os.path.join(harness.ROOT, name), self.folder)

    def test_it_is_built_by_what_the_load_did(self):
        p = subprocess.run(["cmake", "--preset", "tuned"], cwd=self.folder, capture_output=True, text=True)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("build/profile: ./dev build tuned", p.stderr)

        p = subprocess.run(["./dev", "build", "tuned", "sluice"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stdout[-2000:] + p.stderr[-2000:])
        counted = {os.path.basename(f).split("#CMakeFiles#")[0] for f in
                   glob.glob(os.path.join(self.folder, "build", "profile", "*.gcda"))}
        for room in ("base", "loop", "json", "http", "fetch", "journal", "policy", "identity", "vault", "call", "mcp"):
            self.assertIn("engine#" + room, counted)
        # what the load never came to lies apart from what it did: only counts tell GCC so much of that
        self.assertGreater(self.parts_apart(os.path.join(self.folder, "build", "tuned", "sluice")),
                           self.parts_apart(harness.SLUICE) * 1.2)

        engine = harness.Engine(program=os.path.join(self.folder, "build", "tuned", "sluice"))
        answer = engine.rpc("server/discover", token=engine.token())
        self.assertEqual(answer[0], 200, answer)
        self.assertEqual(engine.stop(), 0)

    @staticmethod
    def parts_apart(program):
        p = subprocess.run(["nm", program], capture_output=True, text=True, check=True)
        return sum(line.rstrip().endswith(".cold") for line in p.stdout.splitlines())


if __name__ == "__main__":
    harness.main()
