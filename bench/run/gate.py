"""The gate: instructions per call, counted by callgrind, against those in bench/gate.json; 10 % more fail.

What is counted is user code of the engine alone, in a closed loop of one call after another from the same seed, each of
another user than the last, so that a busy machine moves it by less than a hundredth.  Callgrind has no SHA-NI: hashing
weighs more here than it does in time.  `./dev bench --gate --renew` writes the counts anew: for a change that is worth
what it costs, in its commit.
"""
import json
import os
import shutil
import socket
import stat
import subprocess
import threading

import common
import peers
import rounds
import scenario
from common import BENCH, harness, say
from rig import Rig

BASELINE = os.path.join(BENCH, "gate.json")
TOLERANCE, CALLS, WARM, USERS = 0.10, 400, 200, 64
READ, WRITE, MAIL = "bench.read", "bench.write", "outlook.list_mail"
KINDS = {False: {"read": READ, "write": WRITE, "mail": MAIL}, True: {"http2": MAIL}}    # by HTTP/1.1, by HTTP/2
ARGUMENTS = {READ: {"count": 5}, MAIL: {"count": 5}, WRITE: {"subject": "Figures {{n}}", "body": "Here they are."}}


class Broken(Exception):
    """The gate cannot be run or read: why, and what to do."""


# ---- judging -------------------------------------------------------------------------------------------------------

def read_baseline(path=BASELINE):
    """{kind: instructions per call}"""
    try:
        with open(path) as f:
            counts = json.load(f)["instructions"]
        if not counts or not all(isinstance(v, (int, float)) and v > 0 for v in counts.values()):
            raise ValueError("instructions: expected numbers above 0")
    except OSError as e:
        raise Broken("%s: %s: write it with ./dev bench --gate --renew" % (path, e.strerror)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Broken("%s: not a baseline (%s): write it anew with ./dev bench --gate --renew" % (path, e)) from None
    return counts


def judge(baseline, counted):
    """[(kind, was, is, ratio, verdict)]; verdicts: ok, more (fails), less (renew), new, gone (fails)."""
    rows = []
    for kind in sorted(set(baseline) | set(counted)):
        was, now = baseline.get(kind), counted.get(kind)
        if was is None or now is None:
            rows.append((kind, was, now, None, "new" if was is None else "gone"))
            continue
        ratio = now / was
        rows.append((kind, was, now, ratio,
                     "more" if ratio > 1 + TOLERANCE else "less" if ratio < 1 - TOLERANCE else "ok"))
    return rows


def passes(rows):
    return not any(verdict in ("more", "gone") for *_, verdict in rows)


# ---- counting ------------------------------------------------------------------------------------------------------

def wrapper(folder, sluice, port):
    """The program under callgrind, which counts nothing until it is told to, at a port that is known beforehand."""
    path = os.path.join(folder, "sluice")
    with open(path, "w") as f:
        f.write('#!/bin/bash\nexec valgrind --tool=callgrind --fair-sched=yes --instr-atstart=no '
                '--callgrind-out-file=%s/out %s "${@/%%127.0.0.1:0/127.0.0.1:%d}"\n' % (folder, sluice, port))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


class Knocking:
    """Connects again and again while an engine starts and first calls need its other threads.  Valgrind runs one thread
    at a time, and none beside one that waits in io_uring_enter, of which it does not know that it waits: a worker that
    nobody asks holds up the others."""

    def __init__(self, port):
        self.port, self.over = port, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.knock, daemon=True)
        self.thread.start()

    def knock(self):
        while not self.over.wait(0.05):
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", self.port))

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def control(pid, *what):
    subprocess.run(["callgrind_control", *what, str(pid)], check=True, capture_output=True)


def instructions(folder):
    """Of the newest dump, which is removed."""
    total = None
    for name in os.listdir(folder):
        if name.startswith("out."):
            with open(os.path.join(folder, name)) as f:
                found = [line.split()[1] for line in f if line.startswith("totals:")]
            os.unlink(os.path.join(folder, name))
            total = int(found[0]) if found else total
    return total


def offer(rig, system, requests, calls, in_flight=1):
    p = subprocess.run([rig.program("bench-load"), "--target", system.url, "--requests", requests, "--in-flight",
                        str(in_flight), "--count", str(calls), "--timeout", "120", "--order", "turn", "--seed", "1"],
                       capture_output=True, text=True)
    if p.returncode or json.loads(p.stdout)["ok"] != calls:
        raise Broken("the gate's calls were not all answered: %s%s" % (p.stdout[:300], p.stderr[-300:]))


def count(o):
    """{kind: instructions per call}"""
    for program in ("valgrind", "callgrind_control"):
        if not shutil.which(program):
            raise Broken("%s is not installed: ./dev bench --gate installs it" % program)
    counted = {}
    for http2, kinds in KINDS.items():
        counted.update(count_kinds(o, kinds, http2))
    return counted


def count_kinds(o, kinds, http2):
    folder = harness.scratch("sluice-gate-")
    sluice = os.path.join(o.build, "sluice")
    port = peers.free_port()
    harness.SLUICE = wrapper(folder, sluice, port)
    parts = {s: scenario.check("the gate", s, {}) for s in scenario.SECTIONS if s and s not in scenario.LISTS}
    parts["callers"].update(users=USERS, tokens=USERS)
    parts["engine"]["plain_http2"] = http2
    parts["calls"], parts["events"] = [{"tool": t, "arguments": {}, "weight": 1} for t in kinds.values()], []
    with Knocking(port):
        rig = Rig(scenario.Case("gate", parts), ["sluice"], o, pinning=False)
    counted = {}
    try:
        system = rig.systems["sluice"]
        for kind, tool in kinds.items():
            case = scenario.Case(kind, dict(parts, calls=[{"tool": tool, "arguments": ARGUMENTS[tool], "weight": 1}]))
            requests = rounds.Requests(rig, case).next(system)
            with Knocking(port):
                offer(rig, system, requests, WARM, USERS)     # the first call of each waits for a helper thread
            control(system.pid, "--instr=on")
            control(system.pid, "--zero")
            offer(rig, system, requests, CALLS)
            control(system.pid, "--instr=off")
            control(system.pid, "--dump")
            total = instructions(folder)
            if total is None:
                raise Broken("callgrind wrote no counts to %s" % folder)
            counted[kind] = round(total / CALLS)
            say("  %-6s %8d instructions per call" % (kind, counted[kind]))
    finally:
        rig.systems["sluice"].process.kill()        # an orderly end takes minutes under callgrind
        rig.stop()
        harness.SLUICE = sluice
    return counted


def main(o):
    common.raise_limits()
    say("counting instructions of %d calls of each kind" % CALLS)
    try:
        counted = count(o)
        if o.renew:
            with open(BASELINE, "w") as f:
                json.dump({"about": "instructions per call by callgrind; ./dev bench --gate --renew writes it",
                           "instructions": counted}, f, indent=2)
                f.write("\n")
            say("written: %s" % BASELINE)
            return 0
        rows = judge(read_baseline(), counted)
    except Broken as e:
        say("bench: %s" % e)
        return 1
    for kind, was, now, ratio, verdict in rows:
        print("%-6s %10s -> %10s  %s  %s" % (kind, was or "-", now or "-", "%.3fx" % ratio if ratio else " " * 6,
                                             verdict))
    if not passes(rows):
        print("the gate: a call costs over %d %% more than %s says" % (100 * TOLERANCE, os.path.relpath(BASELINE)))
        return 1
    if any(verdict in ("less", "new") for *_, verdict in rows):
        print("the gate: cheaper than before, or new: keep it so with ./dev bench --gate --renew")
    return 0
