"""Installs the pinned npm packages into build/npm, once; without Node or without network it says so in one line.

Answers 0 in any case: tests that need the packages look for build/npm/ready and skip themselves (exit 77) without it.
"""
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TO = os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "npm")
READY = os.path.join(TO, "ready")


def wanted():
    with open(os.path.join(HERE, "package-lock.json"), "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def main():
    if os.path.exists(READY) and open(READY).read() == wanted():
        return
    if not shutil.which("npm"):
        print("skipped: there is no npm, so real clients and the conformance suite are not run")
        return
    shutil.rmtree(TO, True)
    os.makedirs(TO)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(HERE, name), TO)
    p = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], cwd=TO,
                       capture_output=True, text=True)
    if p.returncode:
        lines = [line for line in p.stderr.splitlines() if "code" in line or "network" in line] or p.stderr.splitlines()
        print("skipped: npm could not install the pinned packages (%s): no test with real clients is run"
              % (lines[0] if lines else "no reason given"))
        return
    with open(READY, "w") as f:
        f.write(wanted())


def need():
    """For tests: the directory, or exit 77 with one line."""
    if not os.path.exists(READY):
        print("skipped: the pinned npm packages are not installed")
        sys.exit(77)
    return TO


if __name__ == "__main__":
    main()
