"""What the engine must show: each row a figure of the results, what it may be at most, and what is aimed at.

A row's figure is a function of {scenario: result}; None where its scenario was not run, or a peer was left out.
"""
import figures
import rounds


REFUSING = ("overload",)    # scenarios that ask for more than there is room for
UNWELL_MOST = 0.01          # of a cell's calls may fail, or be refused where refusals are not what is measured
LATE_MOST = 0.001           # of what was due may not have been sent: it would have waited longest, and a p99 is of 0.01


class Unfit(Exception):
    """A row's scenario was run, and what came of it is not what the row is about: why."""


def cell(results, scenario, case, system):
    """The first of a scenario's cells that is meant; Unfit when too many of its calls were not done."""
    for c in results.get(scenario, {}).get("cells", ()):
        if c["case"] == case and c["system"] == system:
            unwell = c["failed"] + (0 if scenario in REFUSING else c["refused"])
            calls = c["ok"] + c["refused"] + c["failed"]
            if unwell > UNWELL_MOST * calls:
                raise Unfit("%s: %d of %d calls were not done" % (system, unwell, calls))
            return c
    return None


def timed(results, *which):
    """A cell whose latencies are of all that was due; Unfit when too much of it never went out."""
    c = cell(results, *which)
    due = c and c["ok"] + c["refused"] + c["failed"] + c["late"]
    if c and c["late"] > LATE_MOST * due:
        raise Unfit("%s: %d of %d calls were due and not sent, so many were under way" % (which[-1], c["late"], due))
    return c


def ratio(results, a, b, figure="cpu_us"):
    """Of two cells, (scenario, case, system) each: of a figure, round by round."""
    x, y = cell(results, *a), cell(results, *b)
    if not x or not y:
        return None
    r = figures.ratios(x[figure + "_rounds"], y[figure + "_rounds"])
    return r if r and r["median"] else None         # nothing came back while counting: no figure


def added(results, quantile, scenario="latency", case=""):
    """What the engine adds to a latency beyond what nginx adds."""
    x, y = timed(results, scenario, case, "sluice"), timed(results, scenario, case, "nginx")
    if not x or not y:
        return None
    return figures.spread([a - b for a, b in zip(x[quantile + "_rounds"], y[quantile + "_rounds"])])


def write_extra(results, quantile):
    x, y = timed(results, "write", "write", "sluice"), timed(results, "write", "read", "sluice")
    if not x or not y:
        return None
    return figures.spread([a - b for a, b in zip(x[quantile + "_rounds"], y[quantile + "_rounds"])])


def per_call_kb(results, scenario, case):
    c = cell(results, scenario, case, "sluice")
    if not c:
        return None
    return {k: v / 1024 if k != "n" else v for k, v in c["memory_each"].items()}


def by_factor(c, timeline):
    """{factor of the capacity: ok answers per second}, the first second of each phase left out."""
    found, at = {}, 0.0
    for p in c["phases"]:
        factor, seconds = p.split(":")
        rows = [r for r in timeline if at + 1 <= r["t"] < at + float(seconds)]
        found.setdefault(factor, []).extend(r["ok"] for r in rows)
        at += float(seconds)
    return found


def goodput(results):
    """At ten times the capacity, of the best that any phase reached, in per cent."""
    c = timed(results, "overload", "places", "sluice")
    if not c:
        return None
    parts = []
    for timeline in c["timelines"]:
        of = {f: figures.median(v) for f, v in by_factor(c, timeline).items() if v}
        if of.get("10x") is not None and max(of.values()):
            parts.append(100 * of["10x"] / max(of.values()))
    return figures.spread(parts)


def refusals_ms(results, system="sluice"):
    """Of what was due while ten times the capacity was offered."""
    c = timed(results, "overload", "places", system)
    s = c and c["phases_refused_p99"][[p.split(":")[0] for p in c["phases"]].index("10x")]
    return s and {k: v / 1000 if k != "n" else v for k, v in s.items()}


def parked_kb(results):
    each = results.get("parked", {}).get("each")
    return each and figures.spread([each / 1024])


def soak_growth(results):
    c = cell(results, "soak", "", "sluice")
    s = c and c["memory_drift"]
    return s and {k: v / 1048576 if k != "n" else v for k, v in s.items()}


def cpu(a, b):
    return lambda r: ratio(r, a, b)


READ, TLS = ("read", "", "sluice"), ("read-tls", "", "sluice")
HTTP2, TLS_HTTP1 = ("read-http2", "", "sluice"), ("read-tls-http1", "", "sluice")
TUNED, TUNED_TLS = ("read", "", "tuned"), ("read-tls", "", "tuned")
ROWS = (        # what, figure, unit, at most (negative: at least), aim; None: for comparison
    ("CPU per governed read, plain upstream, everything on, vs nginx bare proxy",
     cpu(READ, ("read", "", "nginx")), "x", 1.2, 0.9),
    ("the same, plain upstream that speaks HTTP/2, vs nginx by HTTP/1.1",
     cpu(HTTP2, ("read-http2", "", "nginx")), "x", 1.2, 0.9),
    ("the same, TLS upstream that offers HTTP/2, vs nginx by HTTP/1.1",
     cpu(TLS, ("read-tls", "", "nginx")), "x", 1.1, 0.8),
    ("the same, TLS upstream, both by HTTP/1.1", cpu(TLS_HTTP1, ("read-tls-http1", "", "nginx")), "x", 1.1, 0.8),
    ("plain upstream, the program built by ./dev build tuned", cpu(TUNED, ("read", "", "nginx")), "x", 1.2, 0.9),
    ("TLS upstream, the program built by ./dev build tuned", cpu(TUNED_TLS, ("read-tls", "", "nginx")), "x", 1.1, 0.8),
    ("plain upstream that speaks HTTP/2, the program built by ./dev build tuned",
     cpu(("read-http2", "", "tuned"), ("read-http2", "", "nginx")), "x", 1.2, 0.9),
    ("vs official TypeScript SDK server, same tool", cpu(READ, ("read", "", "typescript")), "x", 1 / 20, 1 / 30),
    ("added p50 at half of the engine's saturation, beyond nginx's own", lambda r: added(r, "p50"), "us", 20, 5),
    ("added p99 at half of the engine's saturation, beyond nginx's own", lambda r: added(r, "p99"), "us", 200, 120),
    ("the same p50, workers look before they sleep", lambda r: added(r, "p50", "latency-tuned", "poll"), "us", 20, 5),
    ("the same p50, and reads are answered before their record is on disk",
     lambda r: added(r, "p50", "latency-tuned", "both"), "us", 20, 5),
    ("the same p99, and reads are answered before their record is on disk",
     lambda r: added(r, "p99", "latency-tuned", "both"), "us", 200, 120),
    ("governed write with durable intent, beyond a read: extra p50", lambda r: write_extra(r, "p50"), "us", 300, 130),
    ("governed write with durable intent, beyond a read: extra p99", lambda r: write_extra(r, "p99"), "us", 800, 250),
    ("user memory per call in flight, plain", lambda r: per_call_kb(r, "memory", "plain"), "KB", 16, 8),
    ("user memory per call in flight, TLS", lambda r: per_call_kb(r, "memory", "tls"), "KB", 60, 24),
    ("100,000 waiters parked on a limit: memory each", parked_kb, "KB", 8, 2),
    ("CPU per call, 100 to 10,000 in flight to one host",
     cpu(("in-flight", "10000", "sluice"), ("in-flight", "100", "sluice")), "x", 1.1, 1.03),
    ("the same over TLS, by HTTP/2",
     cpu(("in-flight-tls", "10000", "sluice"), ("in-flight-tls", "100", "sluice")), "x", 1.1, 1.03),
    ("100 to 10,000 in flight, nginx's own",
     cpu(("in-flight", "10000", "nginx"), ("in-flight", "100", "nginx")), "x", None, None),
    ("1 to 2 workers, CPU per call", cpu(("workers", "2", "sluice"), ("workers", "1", "sluice")), "x", 1.05, 1.03),
    ("the same, as many calls under way for each worker",
     cpu(("workers", "2 of 128", "sluice"), ("workers", "1", "sluice")), "x", 1.05, 1.03),
    ("1 to 2 workers, nginx's own", cpu(("workers", "2", "nginx"), ("workers", "1", "nginx")), "x", None, None),
    ("1 to 2 workers, nginx's own, as many for each",
     cpu(("workers", "2 of 128", "nginx"), ("workers", "1", "nginx")), "x", None, None),
    ("256 to 100,000 accounts, CPU per call",
     cpu(("accounts", "100000", "sluice"), ("accounts", "256", "sluice")), "x", 1.15, 1.05),
    ("1 to 1,000,000 accounts, CPU per call",
     cpu(("million", "1000000", "sluice"), ("million", "1", "sluice")), "x", 1.15, 1.05),
    ("10 to 10,000 policies, CPU per call",
     cpu(("policies", "10000", "sluice"), ("policies", "10", "sluice")), "x", 1.1, 1.05),
    ("1 to 10,000 tenants, CPU per call",
     cpu(("tenants", "10000", "sluice"), ("tenants", "1", "sluice")), "x", 1.1, 1.05),
    ("offered 10x capacity: goodput, of peak", goodput, "%", -90, -95),
    ("offered 10x capacity: p99 of refusals meanwhile", refusals_ms, "ms", 5, 2),
    ("the same, nginx's own where it may pass on as many", lambda r: refusals_ms(r, "nginx"), "ms", None, None),
    ("the same, nginx measured once more in each round",
     lambda r: refusals_ms(r, "nginx" + rounds.AGAIN), "ms", None, None),
    ("80 % load for as long as the soak ran: memory at its end beyond that of its second fifth", soak_growth, "MB",
     1, 0.25),
)


def judged(results):
    """[(what, spread, unit, at most, aim, verdict)] of the rows whose scenarios were run; Unfit in a spread's place."""
    rows = []
    for what, figure, unit, most, aim in ROWS:
        try:
            s = figure(results)
        except Unfit as e:
            rows.append((what, e, unit, most, aim, "unfit"))
            continue
        if s is None:
            continue
        verdict = ""
        if most is not None:
            def good(bound, s=s):
                return s["median"] >= -bound if bound < 0 else s["median"] <= bound
            verdict = "aim" if good(aim) else "met" if good(most) else "missed"
        rows.append((what, s, unit, most, aim, verdict))
    return rows


def in_words(s, unit, n=None):
    """A figure as people read it: the median, from where to where the rounds went, and how many they were if not `n`;
    or why there is none."""
    if isinstance(s, Unfit):
        return "no figure: %s" % s
    of = "" if n in (None, s["n"]) else ", %d round%s" % (s["n"], "" if s["n"] == 1 else "s")
    small = unit == "x" and s["median"] < 0.2
    if small:
        return "1/%.0f (1/%.0f..1/%.0f)%s" % (1 / s["median"], 1 / s["least"], 1 / s["most"], of)
    digits = 2 if unit == "x" else 1 if unit in ("KB", "ms", "MB", "%") else 0
    form = "%%.%df" % digits
    return (form + "%s (" + form + ".." + form + ")%s") % (s["median"], " " + unit if unit != "x" else "x", s["least"],
                                                           s["most"], of)


def bound_in_words(bound, unit):
    if bound is None:
        return ""
    if unit == "x" and bound < 0.2:
        return "1/%.0f" % (1 / bound)
    return "%s%g%s" % ("at least " if bound < 0 else "", abs(bound), "x" if unit == "x" else " " + unit)


def markdown(results, n):
    """The table, as docs/performance.md has it under a heading that names `n` rounds."""
    lines = ["| metric | measured: median (least..most of the rounds) | at most | aim | |", "|---|---|---|---|---|"]
    for what, s, unit, most, aim, verdict in judged(results):
        lines.append("| %s | %s | %s | %s | %s |" % (what, in_words(s, unit, n), bound_in_words(most, unit),
                                                    bound_in_words(aim, unit), verdict))
    return "\n".join(lines)


NOISY = ("cpu_us", "p50", "p99", "memory_anonymous")


def noise(result):
    """Of a scenario: {case: {figure: how far the system measured twice in each round was from itself}}."""
    found = {}
    for c in result["cells"]:
        if c["system"].endswith(rounds.AGAIN):
            first = next(f for f in result["cells"] if (f["case"], f["system"] + rounds.AGAIN) ==
                         (c["case"], c["system"]))
            found[c["case"]] = {f: figures.apart(c.get(f + "_rounds", []), first.get(f + "_rounds", []))
                                for f in NOISY}
    return found
