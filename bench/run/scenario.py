"""Scenarios: what is offered to whom, as TOML files in bench/scenarios.

SECTIONS is the format: every key there is, what may stand there, what it is when left out.  A key that is not there, a
value that does not fit, a file without `shows`: one error that names file and key.  A scenario has cases; each case is
the scenario with some keys replaced.  Cases that differ in `load` and `events` only, or in what they call of the same
providers, share what runs.
"""
import copy
import os
import re
import tomllib

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scenarios")
SYSTEMS = ("direct", "nginx", "haproxy", "lua", "typescript", "floor", "sluice", "tuned")
DELAY = re.compile(r"none|fixed:\d+|lognormal:\d+:\d+")
FAIL = re.compile(r"|\d+:\d{3}(:\d+)?")
RATE = re.compile(r"\d+(\.\d+)?x?")
PHASE = re.compile(r"\d+(\.\d+)?x?:\d+(\.\d+)?")


class Wrong(Exception):
    """A scenario that cannot be run: file, key, and what would do."""


# ---- what may stand where: each answers None, or what is expected --------------------------------------------------

def whole(low, high):
    def check(v):
        if isinstance(v, bool) or not isinstance(v, int) or not low <= v <= high:
            return "a whole number from %d to %d" % (low, high)
    return check


def number(low, high):
    def check(v):
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not low <= v <= high:
            return "a number from %g to %g" % (low, high)
    return check


def one_of(*words):
    def check(v):
        if v not in words:
            return "one of " + ", ".join(words)
    return check


def fits(pattern, example):
    def check(v):
        if not isinstance(v, str) or not pattern.fullmatch(v):
            return "text like " + example
    return check


def text(v):
    if not isinstance(v, str) or not v:
        return "text"


def flag(v):
    if not isinstance(v, bool):
        return "true or false"


def table(v):
    if not isinstance(v, dict):
        return "a table"


def rate(v):
    if isinstance(v, bool) or not (isinstance(v, (int, float)) and v > 0 or isinstance(v, str) and RATE.fullmatch(v)):
        return 'requests per second, or a part of the capacity like "0.5x"'


def phases(v):
    if not isinstance(v, list) or not all(isinstance(p, str) and PHASE.fullmatch(p) for p in v):
        return 'a list of RATE:SECONDS like ["0.5x:2", "10x:3"]'


def systems(v):
    if not isinstance(v, list) or not v or any(s not in SYSTEMS for s in v):
        return "a list of " + ", ".join(SYSTEMS)


SECTIONS = {        # section: {key: (what may stand there, what it is when left out, what it means)}
    "": {
        "shows": (text, None, "what the scenario shows, in a sentence or two"),
        "headline": (flag, False, "run when `./dev bench` is given no name"),
        "rounds": (whole(1, 100), 100, "at most so many, where figures are not of time"),
        "systems": (systems, ["sluice"], "who is measured, in the order of a round"),
    },
    "load": {
        "mode": (one_of("closed", "open"), "closed", "the next request when one is answered, or by a schedule"),
        "in_flight": (whole(1, 200000), 64, "closed: kept under way; open: the most there may be"),
        "connections": (whole(0, 200000), 0, "of the load; 0: as many as in_flight"),
        "rate": (rate, "0.5x", "open: per second, or a part of what the engine can do in a closed loop"),
        "phases": (phases, [], "open: rates one after another, in place of rate and seconds"),
        "arrivals": (one_of("poisson", "even"), "poisson", "open: how requests are spread"),
        "seconds": (number(0.1, 3600), 3, "counted in each round"),
        "warmup": (number(0, 600), 1, "before counting, in each round"),
        "visit": (flag, False, "every token calls once before the warm-up, so that none is met for the first time"),
        "timeout": (whole(1, 600), 30, "seconds until a request counts as failed"),
        "era": (one_of("2026-07-28", "2025-11-25"), "2026-07-28", "the protocol's revision; the older one in sessions"),
    },
    "callers": {
        "tenants": (whole(1, 10000), 1, "users are spread over them evenly"),
        "users": (whole(1, 1000000), 256, "each with an account (a mailbox) of its own"),
        "agents": (whole(1, 64), 1, "who act for them"),
        "tokens": (whole(1, 100000), 256, "of as many users the load knows tokens"),
        "fresh": (whole(0, 200000), 0, "so many tokens per round, each used once while they last; 0: the same again"),
        "hog": (number(1, 100000), 1, "how often the first tenant calls where each other one calls once"),
        "expired": (flag, False, "accounts' access tokens have to be refreshed before the first use"),
    },
    "upstream": {
        "delay": (fits(DELAY, "none, fixed:MICROSECONDS, lognormal:P50:P99"), "none", "before each answer"),
        "fail": (fits(FAIL, "PERMILLE:STATUS or PERMILLE:STATUS:RETRY_AFTER"), "", "by chance"),
        "payload": (whole(16, 4000000), 1400, "bytes of an answer's body"),
        "expires_in": (whole(1, 86400), 3600, "seconds that a refreshed token is good for"),
        "tls": (flag, False, "TLS 1.3 between the systems and the upstream"),
    },
    "engine": {
        "workers": (whole(1, 64), 1, "worker threads"),
        "idle_poll_us": (whole(0, 10000), 0, "as in the configuration"),
        "http2": (flag, True, "offered to an upstream with TLS"),
        "plain_http2": (flag, False, "spoken to one without TLS"),
        "policies": (whole(4, 100000), 10, "in force"),
        "limits": (table, {}, "replaces limits of the providers: { NAME = { amount = 10 } }"),
        "budgets": (table, {}, "as in the configuration"),
        "journal": (table, {}, "as in the configuration"),
        "overload": (table, {}, "as in the configuration"),
    },
    "calls": {      # a list of these
        "tool": (text, None, "which tool is called"),
        "arguments": (table, {}, "with what; {{n}} and {{r:K}} in texts are replaced in each request"),
        "weight": (number(0.001, 1000000), 1, "how often, beside the others"),
    },
    "events": {     # a list of these
        "at": (number(0, 3600), None, "seconds after counting began"),
        "signal": (one_of("HUP"), "HUP", "sent to the engine"),
    },
}
LISTS = ("calls", "events")


# ---- reading -------------------------------------------------------------------------------------------------------

class Case:
    """One way of running a scenario: .load, .callers, .upstream, .engine are dicts; .calls, .events are lists."""

    def __init__(self, name, parts):
        self.name = name
        self.load, self.callers, self.upstream, self.engine = (parts[s] for s in
                                                               ("load", "callers", "upstream", "engine"))
        self.calls, self.events = parts["calls"], parts["events"]

    def providers(self):
        """Whose tools are called: the engine has these connectors, users have accounts there, and no others."""
        return sorted({c["tool"].split(".")[0] for c in self.calls})

    def rig(self):
        """Equal for cases that can share what runs."""
        return repr((self.callers, self.upstream, self.engine, self.providers()))


class Scenario:
    def __init__(self, name, path, raw):
        self.name, self.path = name, path
        top = check(path, "", {k: v for k, v in raw.items() if k not in SECTIONS and k != "cases"})
        self.shows, self.headline = " ".join(top["shows"].split()), top["headline"]
        self.systems, self.rounds = top["systems"], top["rounds"]
        base = {s: raw[s] for s in raw if s in SECTIONS}
        cases = raw.get("cases", [{"name": ""}])
        if not isinstance(cases, list) or not cases or not all(isinstance(c, dict) for c in cases):
            raise Wrong("%s: cases: expected [[cases]], each with a name and what it replaces" % path)
        self.cases = [self.case(c, base) for c in cases]
        names = [c.name for c in self.cases]
        for n in names:
            if names.count(n) > 1:
                raise Wrong('%s: cases.name: "%s" is there twice' % (path, n))

    def case(self, changes, base):
        name = changes.get("name")
        if not isinstance(name, str):
            raise Wrong("%s: cases.name: expected text" % self.path)
        parts = copy.deepcopy(base)
        for section, values in changes.items():
            if section == "name":
                continue
            if section not in SECTIONS or section == "":
                raise Wrong("%s: cases.%s: there is no such section; there are %s" %
                            (self.path, section, ", ".join(s for s in SECTIONS if s)))
            if section in LISTS:
                parts[section] = values
            elif isinstance(values, dict) and isinstance(parts.get(section, {}), dict):
                parts[section] = {**parts.get(section, {}), **values}
            else:
                raise Wrong("%s: cases.%s: expected a table" % (self.path, section))
        done = {s: check(self.path, s, parts.get(s, {})) for s in SECTIONS if s and s not in LISTS}
        for s in LISTS:
            rows = parts.get(s, [])
            if not isinstance(rows, list):
                raise Wrong("%s: %s: expected [[%s]]" % (self.path, s, s))
            done[s] = [check(self.path, s, row) for row in rows]
        if not done["calls"]:
            raise Wrong("%s: calls: expected at least one [[calls]] with a tool" % self.path)
        if done["load"]["phases"] and done["load"]["mode"] != "open":
            raise Wrong('%s: load.phases: needs mode = "open"' % self.path)
        if done["callers"]["tokens"] > done["callers"]["users"]:
            done["callers"]["tokens"] = done["callers"]["users"]
        return Case(name, done)


def check(path, section, values):
    """The section with what was left out; Wrong, naming the key, when something does not fit."""
    known = SECTIONS[section]
    if not isinstance(values, dict):
        raise Wrong("%s: %s: expected a table" % (path, section))
    for key, value in values.items():
        at = section + "." + key if section else key
        if key not in known:
            where = "in [%s]" % section if section else "at the top"
            raise Wrong("%s: %s: there is no such key; %s there may be %s" %
                        (path, at, where, ", ".join(list(known) + ([] if section else list(SECTIONS)[1:] + ["cases"]))))
        expected = known[key][0](value)
        if expected:
            raise Wrong("%s: %s: %r does not do: expected %s" % (path, at, value, expected))
    for key, (_, default, _) in known.items():
        if key not in values and default is None:
            raise Wrong("%s: %s: is missing" % (path, section + "." + key if section else key))
    return {key: copy.deepcopy(values.get(key, row[1])) for key, row in known.items()}


def load(path):
    name = os.path.basename(path).removesuffix(".toml")
    try:
        with open(path, "rb") as f:
            return Scenario(name, path, tomllib.load(f))
    except tomllib.TOMLDecodeError as e:
        raise Wrong("%s: %s" % (path, e)) from None
    except OSError as e:
        raise Wrong("%s: %s" % (path, e.strerror)) from None


def all_of(folder=FOLDER):
    """{name: Scenario}, by name."""
    found = [load(os.path.join(folder, f)) for f in sorted(os.listdir(folder)) if f.endswith(".toml")]
    return {s.name: s for s in found}
