#!/usr/bin/env python3
"""bench/run: measures governed calls beside what else could stand between agents and providers.

`./dev bench` is how people start it; bench/README.md and docs/performance.md say what it does and how to read it.
"""
import argparse
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common
import gate
import measure
import report
import rounds
import scenario
from common import ROOT, say

HEADLINE = {"rounds": 5, "seconds": 1.0, "warmup": 0.4}         # about twenty minutes


def options():
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("names", nargs="*", help="scenarios (--list); `headline`: those of docs/performance.md's table\n"
                                            "in a short form; `compare OLD NEW`: two files of results;\n"
                                            "none: the headline scenarios in full")
    p.add_argument("--list", action="store_true", help="the scenarios, and what each shows")
    p.add_argument("--gate", action="store_true", help="counts instructions and compares with bench/gate.json")
    p.add_argument("--renew", action="store_true", help="with --gate: writes bench/gate.json anew")
    p.add_argument("--rounds", type=int, help="5 by default: fewer show no spread")
    p.add_argument("--seconds", type=float, help="counted per round, for scenarios that name at most 3")
    p.add_argument("--systems", help="only these: " + ",".join(scenario.SYSTEMS))
    p.add_argument("--cases", help="only these cases, by name")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--data", help="where engines keep their data: a directory on the disk that is to be measured")
    p.add_argument("--out", default=os.path.join(ROOT, "build", "bench"), help="where results go (build/bench)")
    p.add_argument("--build", default=os.path.join(ROOT, "build", "release"), help="where programs are (build/release)")
    p.add_argument("--programs", help="where the load and the upstream are (BUILD/bench)")
    p.add_argument("--docs", action="store_true", help="with headline: puts the table into docs/performance.md")
    p.add_argument("--no-syscalls", action="store_true", help="without the runs under strace")
    o = p.parse_args()
    o.systems = o.systems.split(",") if o.systems else []
    o.cases = o.cases.split(",") if o.cases else []
    o.programs, o.warmup = o.programs or os.path.join(o.build, "bench"), None
    for s in o.systems:
        if s not in scenario.SYSTEMS:
            p.error("--systems: there is no %s; there are %s" % (s, ", ".join(scenario.SYSTEMS)))
    if o.rounds is not None and o.rounds < 1:
        p.error("--rounds: at least 1")
    return o


def commit():
    try:
        p = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
        return p.stdout.strip() or "unknown"
    except OSError:             # an archive of the project, on a machine without git
        return "unknown"


def chosen(o, known):
    if not o.names:
        return [s for s in known.values() if s.headline]
    if o.names == ["headline"]:
        o.rounds, o.seconds = o.rounds or HEADLINE["rounds"], o.seconds or HEADLINE["seconds"]
        o.warmup = HEADLINE["warmup"]
        return [s for s in known.values() if s.headline]
    for n in o.names:
        if n not in known:
            raise scenario.Wrong("there is no scenario %s; there are %s" % (n, ", ".join(known)))
    return [known[n] for n in o.names]


def run(o, known):
    picked = chosen(o, known)
    o.rounds = o.rounds or 5
    common.raise_limits()
    common.harness.SLUICE = os.path.join(o.build, "sluice")
    data = {"machine": measure.machine(), "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "commit": commit(), "rounds": o.rounds, "command": sys.argv[1:], "scenarios": {}}
    if common.on_memory(o.data or common.harness.tempfile.gettempdir()):
        say("note: data is kept in memory there, so commits cost nothing: --data DIR names a directory on a disk")
    for i, s in enumerate(picked):
        say("[%d/%d] %s: %s" % (i + 1, len(picked), s.name, s.shows))
        data["scenarios"][s.name] = rounds.run_scenario(s, o)
        paths = report.write(data, o.out)           # what is there by now, should somebody lose patience
    if o.names == ["headline"]:
        data["scenarios"]["parked"] = parked(o)
        paths = report.write(data, o.out)
    print(report.tables(data))
    if o.docs:
        report.into_docs(data, os.path.join(ROOT, "docs", "performance.md"))
    say("results: %s\nreport:  %s" % paths)


def parked(o):
    """What ./dev bench parked says: {"each": bytes, ...}; nothing if it does not end well."""
    say("[parked] what a call holds that stands in line, 100,000 of them in one engine")
    path = os.path.join(o.out, "parked.json")
    command = [sys.executable, os.path.join(common.BENCH, "parked_bench.py"), common.harness.SLUICE, o.programs]
    p = subprocess.Popen(command + ["--json", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = p.communicate()[0]
    finally:
        p.terminate()                       # it ends what it started
        p.wait()
    say("  " + said.strip()[-300:])
    if p.returncode:
        return {}
    with open(path) as f:
        return json.load(f)


def compare(names):
    if len(names) != 2:
        raise scenario.Wrong("compare OLD NEW: two files of results")
    both = []
    for path in names:
        try:
            with open(path) as f:
                both.append(json.load(f))
            both[-1]["scenarios"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise scenario.Wrong("%s: not a file of results: %s" % (path, e)) from None
    print("\n".join(report.compare(*both)))


def main():
    o = options()
    common.end_in_order()
    try:
        if o.names[:1] == ["compare"]:
            compare(o.names[1:])
        elif o.gate:
            return gate.main(o)
        else:
            known = scenario.all_of()
            if o.list:
                for s in known.values():
                    print("%-16s %s%s" % (s.name, "[headline] " if s.headline else "", s.shows))
                return 0
            run(o, known)
    except (scenario.Wrong, rounds.Failed) as e:
        say("bench: %s" % e)
        return 1
    except BrokenPipeError:                 # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        say("\nbench: interrupted; what was measured before is in %s" % o.out)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
