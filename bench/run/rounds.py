"""Running a scenario: every case and system once per round, A-B-C-A-B-C, so that whatever else the machine does hits
all of them; the first of a round once more at its end, which shows what the machine alone makes of a figure.

A cell is one system in one case; its runs are what was measured in each round.
"""
import copy
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import common
import figures
import measure
from rig import ENGINES, Rig
from common import harness, load_cpus, pinned, say

META = {"io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"}}
AGAIN = "'"             # the name of a system measured a second time in a round ends in this


class Failed(Exception):
    """What was measured is not what should have been: no figures."""


# ---- requests ------------------------------------------------------------------------------------------------------

def call_lines(case, tokens, session_of=None):
    """The load's file: each call with each token."""
    lines = []
    for tenant, _, token in tokens:
        hog = case.callers["hog"] if tenant == tokens[0][0] else 1
        for c in case.calls:
            params = {"name": c["tool"], "arguments": c["arguments"]}
            headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
                       "MCP-Protocol-Version": case.load["era"], "Authorization": "Bearer " + token}
            if session_of:
                headers["Mcp-Session-Id"] = session_of[token]
            else:
                params["_meta"] = {**harness.META, **META}
                headers.update({"Mcp-Method": "tools/call", "Mcp-Name": c["tool"]})
            body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
            lines.append(json.dumps({"method": "POST", "path": "/mcp", "headers": headers, "group": tenant,
                                     "weight": c["weight"] * hog, "body": json.dumps(body, separators=(",", ":"))}))
    return lines


def open_session(url, token, era):
    """initialize, as clients of the older revision begin; the session's id."""
    host = url.split("/")[2]
    c = http.client.HTTPConnection(host, timeout=10)
    c.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}}), {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "Authorization": "Bearer " + token})
    r = c.getresponse()
    said = r.read()
    c.close()
    if r.status != 200 or not r.getheader("Mcp-Session-Id"):
        raise Failed("initialize: %d %s" % (r.status, said[:200]))
    return r.getheader("Mcp-Session-Id")


class Requests:
    """The files that the load reads; sessions and fresh tokens are made here, apart from what is measured."""

    def __init__(self, rig, case):
        self.rig, self.case, self.n = rig, case, 0
        self.fresh, self.used = [], {}
        self.same = None if case.callers["fresh"] or case.load["era"] != harness.MODERN else self.write(rig.tokens)

    def write(self, tokens, session_of=None):
        self.n += 1
        path = os.path.join(self.rig.folder, "requests-%d-%d" % (id(self), self.n))
        with open(path, "w") as f:
            f.write("\n".join(call_lines(self.case, tokens, session_of)) + "\n")
        return path

    def next(self, system):
        if self.same:
            return self.same
        if self.case.callers["fresh"]:
            return self.never_seen(system)
        tokens = self.rig.tokens
        session_of = None
        if self.case.load["era"] != harness.MODERN and system.name in ENGINES:
            session_of = {token: open_session(system.url, token, self.case.load["era"]) for _, _, token in tokens}
        return self.write(tokens, session_of)

    def never_seen(self, system):
        """A file of tokens that this system has not seen; every system gets the same."""
        turn = self.used.get(system.name, 0)
        self.used[system.name] = turn + 1
        if turn == len(self.fresh):
            users = [self.rig.tokens[i % len(self.rig.tokens)] for i in range(self.case.callers["fresh"])]
            made = self.rig.mint([u for _, u, _ in users], self.rig.tokens[0][0])
            self.fresh.append(self.write([[t, u, token] for (t, u, _), token in zip(users, made)]))
        return self.fresh[turn]


# ---- one run -------------------------------------------------------------------------------------------------------

def load_command(rig, case, system, requests, capacity=None, seconds=None, warmup=None):
    """The generator's command line; rates in parts of the capacity are put in."""
    def rate(r):
        return float(r[:-1]) * capacity if isinstance(r, str) and r.endswith("x") else float(r)

    o = case.load
    command = [rig.program("bench-load"), "--target", system.url, "--requests", requests, "--mode", o["mode"],
               "--in-flight", str(o["in_flight"]), "--connections", str(o["connections"] or o["in_flight"]),
               "--warmup", str(o["warmup"] if warmup is None else warmup), "--timeout", str(o["timeout"]),
               "--arrivals", o["arrivals"]]
    if case.callers["fresh"]:
        command += ["--order", "turn"]
    if o["visit"]:
        command += ["--visit"]
    if o["mode"] == "open" and o["phases"]:
        parts = [p.split(":") for p in o["phases"]]
        return command + ["--phases", ",".join("%g:%s" % (rate(r), s) for r, s in parts)]
    if o["mode"] == "open":
        command += ["--rate", "%g" % rate(o["rate"])]
    return command + ["--seconds", str(seconds or o["seconds"])]


class Watch:
    """Reads a system at the edges of counting, and its memory in between."""

    def __init__(self, system, folder, many):
        self.many = many                # only then the engine is asked in between: its answer costs it CPU, too
        self.system, self.start, self.end = system, os.path.join(folder, "start"), os.path.join(folder, "counted")
        for path in (self.start, self.end):
            if os.path.exists(path):
                os.unlink(path)
        self.samples = []               # (memory, calls in flight; None where the system does not say)

    def metrics(self):
        return measure.scrape(self.system.metrics) if hasattr(self.system, "metrics") else None

    def run(self, load, events=()):
        """Until the load has ended."""
        while load.poll() is None and not os.path.exists(self.start):
            time.sleep(0.002)
        # The CPU first: what is asked of a busy engine comes late, after a stall later than a short run has ended.
        self.cpu_before, self.before, began = measure.cpu(self.system.pid), self.metrics(), time.monotonic()
        due, sample = sorted(events, key=lambda e: e["at"]), 0.0
        while load.poll() is None and not os.path.exists(self.end):
            now = time.monotonic() - began
            if due and now >= due[0]["at"]:
                os.kill(self.system.pid, getattr(signal, "SIG" + due.pop(0)["signal"]))
            if now >= sample:
                held = self.many and self.metrics()
                self.samples.append((measure.memory(self.system.pid), held["sluice_calls_in_flight"] if held else None))
                sample = now + 0.5
            time.sleep(0.002)
        self.cpu_after = measure.cpu(self.system.pid)
        self.after = self.metrics()


def run_once(rig, case, system, requests, capacity=None, seconds=None, warmup=None):
    """One load against one system: its figures. seconds, warmup: in place of the scenario's."""
    got, watch = offer(rig, case, system, requests, capacity, seconds, warmup)
    return figures_of(got, watch, system.idle, system)


def offer(rig, case, system, requests, capacity=None, seconds=None, warmup=None):
    """(what the load says, the watch over the system meanwhile)"""
    report = os.path.join(rig.folder, "report.json")
    if not hasattr(system, "idle"):
        system.idle = measure.memory(system.pid)        # later it keeps what it once had
    watch = Watch(system, rig.folder, case.load["in_flight"] >= 1000 and case.load["mode"] == "closed")
    command = load_command(rig, case, system, requests.next(system), capacity, seconds, warmup)
    command += ["--json", report, "--start-file", watch.start, "--counted-file", watch.end,
                "--seed", str(rig.opt.seed)]
    load = subprocess.Popen(pinned(load_cpus(), command), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = []
    reader = threading.Thread(target=lambda: said.extend(load.stderr), daemon=True)
    reader.start()
    try:
        watch.run(load, case.events if system.name in ENGINES else ())
        load.wait()
    finally:
        load.kill()
        load.wait()
    reader.join(5)
    if load.returncode:
        raise Failed("bench-load against %s: %s" % (system.name, "".join(said).strip()[-500:]))
    with open(report) as f:
        return json.load(f), watch


def figures_of(got, watch, idle, system):
    """Of a run in which calls were done: what refusing or failing all of them costs is no call's cost."""
    if not got["ok"] and not got["rate_ok"]:
        raise Failed("%s: no call was done: %d refused, %d failed, %d late: %s" %
                     (system.name, got["refused"], got["failed"], got["late"], got["reasons"] or "nothing came back"))
    n = max(got["answered"], 1)
    user, kernel = [(b - a) * 1e6 / n for a, b in zip(watch.cpu_before, watch.cpu_after)]
    run = {k: got[k] for k in ("offered", "sent", "ok", "refused", "failed", "late", "answered", "reasons", "rate_ok",
                               "seconds", "latency_us", "refused_us", "phases", "groups", "timeline")}
    run.update(cpu_us=user + kernel, user_us=user, system_us=kernel, bytes_in=got["bytes_in"] / n,
               bytes_out=got["bytes_out"] / n, load_cpu_us=got["cpu_s"] * 1e6 / n, memory_idle=idle)
    run["memory_most"], run["in_flight_then"] = max(watch.samples, key=lambda s: (s[1] or 0, s[0]["pss"]),
                                                    default=(idle, None))
    run["memory_drift"] = figures.drift([s[0]["anonymous"] for s in watch.samples])
    if watch.before is not None:
        run["stages"] = measure.stages(watch.before, watch.after)
        run["tokens_verified"] = delta(watch, "sluice_tokens_verified_total")
        run["commits"] = delta(watch, "sluice_journal_commits_total")
        run["allocated"] = watch.after.get("sluice_jemalloc_allocated_bytes")
        if run["rate_ok"] and measure.done_calls(watch.after) == measure.done_calls(watch.before):
            raise Failed("%s: the load counted %.0f good answers per second, the engine none" %
                         (system.name, run["rate_ok"]))
    return run


def delta(watch, series):
    return watch.after.get(series, 0) - watch.before.get(series, 0)


def syscalls_per_call(rig, case, system, requests):
    """In a run of its own, for looking slows what is looked at; calls are counted at the upstream meanwhile."""
    command = [rig.program("bench-load"), "--target", system.url, "--requests", requests.next(system), "--in-flight",
               str(min(case.load["in_flight"], 64)), "--seconds", "60", "--json", os.devnull]
    load = subprocess.Popen(pinned(load_cpus(), command), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.3)                     # connections are open by then; what comes later is a call's own
        s = measure.Syscalls(system.pid, os.path.join(rig.folder, "strace"))
        before = rig.upstream_stats()["requests"]
        time.sleep(0.7)
        n = rig.upstream_stats()["requests"] - before
        s.end()
    finally:
        load.terminate()
        load.wait()
    if s.calls is None or n <= 0:
        return None
    return {"per_call": s.calls / n,
            "names": {k: v / n for k, v in sorted(s.names.items(), key=lambda x: -x[1])[:8] if v / n >= 0.01}}


# ---- a scenario ----------------------------------------------------------------------------------------------------

class Cell:
    def __init__(self, rig, case, name, requests, capacity):
        self.rig, self.case, self.name, self.requests, self.capacity = rig, case, name, requests, capacity
        self.system = rig.systems[name.rstrip(AGAIN)]
        self.runs, self.syscalls = [], None

    def label(self):
        return (self.case.name + " " if self.case.name else "") + self.name


def needs_capacity(case):
    o = case.load
    rates = [p.split(":")[0] for p in o["phases"]] or [str(o["rate"])]
    return o["mode"] == "open" and any(r.endswith("x") for r in rates)


def closed(case):
    """The same calls in a closed loop."""
    probe = copy.copy(case)
    probe.load = dict(case.load, mode="closed", in_flight=64, connections=0, phases=[])
    probe.events = []
    return probe


def capacity_of(rig, case):
    """What the engine can do in a closed loop, per second: rates like "0.5x" are parts of it, for every system."""
    system = rig.systems.get("sluice") or next(iter(rig.systems.values()))
    probe = closed(case)
    requests = Requests(rig, probe)
    return figures.median([run_once(rig, probe, system, requests, seconds=1, warmup=0.5)["rate_ok"] for _ in range(3)])


def fit(case):
    """No more under way than there may be open files: a system in between has two for each connection."""
    if case.load["connections"]:
        return                              # what is under way beyond them waits in the load
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1000) // 2
    if case.load["in_flight"] > most:
        say("  %s: %d in flight in place of %d: more files may not be open here (ulimit -Hn)" %
            (case.name, most, case.load["in_flight"]))
        case.load["in_flight"] = most


def warm(rig, case, requests):
    """Connections, caches, pools; and compilers, where there are any at run time."""
    for name, system in rig.systems.items():
        if requests.same and len(rig.tokens) > 256:         # each token once: checking them is another scenario's
            subprocess.run(pinned(load_cpus(), [
                rig.program("bench-load"), "--target", system.url, "--requests", requests.same, "--order", "turn",
                "--count", str(len(rig.tokens) * len(case.calls)), "--json", os.devnull]), check=True)
        probe = closed(case)
        probe.load["in_flight"] = min(case.load["in_flight"], 64)
        offer(rig, probe, system, requests, seconds=0.2, warmup=8 if name == "typescript" else 0.5)


def cells_of(scenario, opt, rigs):
    """A cell per case and system; what has to run is put into `rigs`. Answers (cells, {system: why it is left out})."""
    cells, left_out = [], {}
    wanted = [s for s in scenario.systems if not opt.systems or s in opt.systems]
    for case in scenario.cases:
        if opt.cases and case.name not in opt.cases:
            continue
        fit(case)
        if case.rig() not in rigs:
            say("  setting up: %s%d users, %s" % (case.name + ": " if case.name else "", case.callers["users"],
                                                  ", ".join(wanted)))
            rigs[case.rig()] = Rig(case, wanted, opt)
        rig = rigs[case.rig()]
        left_out.update(rig.left_out)
        names = [s for s in wanted if s in rig.systems]
        if not names:
            raise Failed("%s: none of %s can run here" % (scenario.name, ", ".join(wanted)))
        requests = Requests(rig, case)
        warm(rig, case, requests)
        capacity = capacity_of(rig, case) if needs_capacity(case) else None
        again = "nginx" if "nginx" in names else names[0]
        twice = [again + AGAIN] if min(opt.rounds, scenario.rounds) > 1 else []     # else the noise has no measure
        cells += [Cell(rig, case, n, requests, capacity) for n in names + twice]
    return cells, left_out


def show(scenario, n, rounds, c, run):
    tty = sys.stderr.isatty()
    say("%s  round %d/%d  %-22s %8.2f us of CPU  %8.0f/s  p50 %6.0f us  p99 %7.0f us  %s" % (
        "\r\033[K" if tty else "", n + 1, rounds, c.label(), run["cpu_us"], run["rate_ok"], run["latency_us"]["p50"],
        run["latency_us"]["p99"], "  ".join("%d %s" % (run[k], k) for k in ("refused", "failed", "late") if run[k])),
        end="" if tty else "\n")


def run_rounds(scenario, cells, opt):
    """Fills the cells; answers the times of the loop that is always the same."""
    loops, rounds = [], min(opt.rounds, scenario.rounds)
    for n in range(rounds):
        os.sched_setaffinity(0, common.subject_cpus(1))
        loops.append(measure.cpu_loop())
        os.sched_setaffinity(0, load_cpus())
        for c in cells:
            short = c.case.load["seconds"] <= 3
            run = run_once(c.rig, c.case, c.system, c.requests, c.capacity, opt.seconds if short else None,
                           opt.warmup if short and c.case.load["warmup"] <= 1 else None)
            c.runs.append(run)
            show(scenario, n, rounds, c, run)
    if sys.stderr.isatty():
        say("\r\033[K", end="")
    return loops


def run_scenario(scenario, opt):
    """The result of a scenario, as it is written to the file of results."""
    began, rigs = time.monotonic(), {}
    try:
        cells, left_out = cells_of(scenario, opt, rigs)
        for name, why in left_out.items():
            say("  skipped: %s: %s" % (name, why))
        loops = run_rounds(scenario, cells, opt)
        if not opt.no_syscalls:
            for c in cells:
                if not c.name.endswith(AGAIN) and c.case.load["in_flight"] <= 1000:
                    c.syscalls = syscalls_per_call(c.rig, c.case, c.system, c.requests)
        stats = [r.upstream_stats() for r in rigs.values()]
    finally:
        for r in rigs.values():
            r.stop()
    return {"shows": scenario.shows, "left_out": left_out, "took_s": round(time.monotonic() - began, 1),
            "cpu_loop_s": figures.spread(loops), "upstream": stats, "cells": [summary(c) for c in cells]}


def summary(c):
    """Medians and spreads of a cell's runs, its histogram, and one timeline."""
    runs = c.runs

    def of(get):
        return figures.spread([get(r) for r in runs])
    memory = [(r["memory_most"]["anonymous"] - r["memory_idle"]["anonymous"]) for r in runs]
    each = [m / (r["in_flight_then"] or c.case.load["in_flight"]) for m, r in zip(memory, runs)]
    result = {
        "case": c.case.name, "system": c.name, "capacity": c.capacity, "in_flight": c.case.load["in_flight"],
        "mode": c.case.load["mode"], "phases": c.case.load["phases"], "tls": c.case.upstream["tls"],
        "rounds": len(runs),
        "cpu_us": of(lambda r: r["cpu_us"]), "user_us": of(lambda r: r["user_us"]),
        "system_us": of(lambda r: r["system_us"]), "rate_ok": of(lambda r: r["rate_ok"]),
        "load_cpu_us": of(lambda r: r["load_cpu_us"]), "bytes_in": of(lambda r: r["bytes_in"]),
        "bytes_out": of(lambda r: r["bytes_out"]), "memory_growth": figures.spread(memory),
        "memory_drift": of(lambda r: r["memory_drift"]),
        "memory_each": figures.spread(each), "in_flight_then": of(lambda r: r["in_flight_then"]),
        "memory_pss": of(lambda r: r["memory_most"]["pss"]),
        "memory_anonymous": of(lambda r: r["memory_most"]["anonymous"]),
        "ok": sum(r["ok"] for r in runs), "refused": sum(r["refused"] for r in runs),
        "failed": sum(r["failed"] for r in runs), "late": sum(r["late"] for r in runs), "reasons": reasons(runs),
        "cpu_us_rounds": [r["cpu_us"] for r in runs], "syscalls": c.syscalls,
        "memory_anonymous_rounds": [r["memory_most"]["anonymous"] for r in runs],
        "buckets": figures.merge_buckets([r["latency_us"]["buckets"] for r in runs]),
        "timelines": [r["timeline"] for r in runs] if c.case.load["phases"] else [],
        "groups": runs[-1]["groups"] if 1 < len(runs[-1]["groups"]) <= 64 else {},
    }
    for q in ("p50", "p90", "p99", "p999", "max", "mean"):
        result[q] = of(lambda r, q=q: r["latency_us"][q])
        result[q + "_rounds"] = [r["latency_us"][q] for r in runs]
    for q in ("p50", "p99", "max"):
        result["refused_" + q] = of(lambda r, q=q: r["refused_us"][q] if r["refused"] else None)
    result["phases_refused_p99"] = [of(lambda r, i=i: r["phases"][i]["refused_us"]["p99"] if
                                       r["phases"][i]["refused"] else None) for i in range(len(runs[0]["phases"]))]
    if runs and "stages" in runs[0]:
        result["stages"] = stage_means(runs)
        result["commits_per_call"] = of(lambda r: r["commits"] / max(r["answered"], 1))
        result["tokens_verified"] = of(lambda r: r["tokens_verified"])
    return result


def reasons(runs):
    total = {}
    for r in runs:
        for name, n in r["reasons"].items():
            total[name] = total.get(name, 0) + n
    return total


def stage_means(runs):
    """[[step, calls, microseconds]] over all rounds."""
    total = {}
    for r in runs:
        for step, n, mean in r["stages"]:
            old = total.get(step, (0, 0.0))
            total[step] = (old[0] + n, old[1] + n * mean)
    return [[step, n, s / n] for step, (n, s) in total.items()]



