"""Results for people: a table in the terminal, and one HTML file that needs nothing else."""
import html
import json

import figures
import plots
import targets

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #30373d; max-width: 860px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2.2em; border-top: 1px solid #d5dade; padding-top: 1em; }
h3 { font-size: 1em; margin: 1.4em 0 .3em; }
table { border-collapse: collapse; margin: .6em 0; font-size: 13px; }
th, td { text-align: right; padding: .25em .7em; border-bottom: 1px solid #e6eaed; }
th:first-child, td:first-child { text-align: left; }
.aim { color: #0b6e4f; } .met { color: #5b7db1; } .missed { color: #b5473c; font-weight: bold; }
p.shows { max-width: 46em; } .quiet { color: #6a737a; font-size: 13px; } svg { max-width: 100%; height: auto; }
"""


def label(c):
    return (c["case"] + " " if c["case"] else "") + c["system"]


def plus_minus(s, digits=1):
    if not s:
        return ""
    return "%.*f (%.*f..%.*f)" % (digits, s["median"], digits, s["least"], digits, s["most"])


def columns(c):
    """[(heading, text)] of a cell."""
    calls = c["syscalls"]
    row = [("", label(c)), ("CPU us/call", plus_minus(c["cpu_us"], 2)),
           ("user", "%.1f" % c["user_us"]["median"]), ("system", "%.1f" % c["system_us"]["median"]),
           ("calls/s", "%.0f" % c["rate_ok"]["median"]),
           ("p50 us", plus_minus(c["p50"], 0)), ("p99 us", plus_minus(c["p99"], 0)),
           ("p99.9 us", "%.0f" % c["p999"]["median"]),
           ("syscalls", "%.1f" % calls["per_call"] if calls else ""),
           ("bytes in/out", "%.0f/%.0f" % (c["bytes_in"]["median"], c["bytes_out"]["median"])),
           ("memory MB", "%.1f" % (c["memory_pss"]["median"] / 1048576)),
           *((n, str(c[n]) if c[n] else "") for n in ("refused", "failed", "late"))]
    return row


def noise_in_words(result):
    """How far the system measured twice was from itself, of each figure in the case where that is most."""
    cases = targets.noise(result)
    found = []
    for figure, words in COMPARED[:3]:
        s = max((n[figure] for n in cases.values() if n[figure]), key=lambda s: s["median"], default=None)
        if s:
            found.append("%s %.1f %% (%.1f %%)" % (words.split()[0], 100 * s["median"], 100 * s["most"]))
    if not found:
        return "noise floor: unknown"
    twice = next(c for c in result["cells"] if c["system"].endswith("'"))
    return ("noise floor: %s against itself in the same round, median of %d (worst)%s: %s; the same CPU loop: %.1f %% "
            "from least to most" % (twice["system"].rstrip("'"), twice["rounds"], ", the largest of %d cases" %
                                    len(cases) if len(cases) > 1 else "", ", ".join(found),
                                    100 * figures.width(result["cpu_loop_s"])))


def table(name, result):
    """Of one scenario, for a terminal."""
    rows = [columns(c) for c in result["cells"]]
    used = [i for i in range(len(rows[0])) if any(r[i][1] for r in rows)]
    wide = [max(len(r[i][1]) for r in rows + [[(h, h) for h, _ in rows[0]]]) for i in used]
    out = ["", name + ": " + result["shows"]]

    def line(cells):
        return "  " + "  ".join(t.ljust(w) if k == 0 else t.rjust(w) for k, (t, w) in enumerate(zip(cells, wide)))
    out.append(line([rows[0][i][0] for i in used]))
    out += [line([r[i][1] for i in used]) for r in rows]
    out.append("  " + noise_in_words(result))
    for who, why in result["left_out"].items():
        out.append("  left out: %s: %s" % (who, why))
    for c in result["cells"]:
        if c["failed"]:
            out.append("  %s failed: %s" % (label(c), c["reasons"]))
    return "\n".join(out)


def tables(data):
    out = [table(name, r) for name, r in data["scenarios"].items() if "cells" in r]
    rows = targets.judged(data["scenarios"])
    if rows:
        n = data["rounds"]
        out.append("\nwhat must be shown: median (least..most of the rounds), at most, aim")
        for what, s, unit, most, aim, verdict in rows:
            bounds = ", ".join(targets.bound_in_words(b, unit) for b in (most, aim) if b is not None)
            out.append("  %-6s  %-74s %26s   %s" % (verdict, what, targets.in_words(s, unit, n), bounds))
    return "\n".join(out)


# ---- HTML ----------------------------------------------------------------------------------------------------------

def html_table(headings, rows):
    out = ["<table><tr>", *("<th>%s</th>" % html.escape(h) for h in headings), "</tr>"]
    for row in rows:
        out += ["<tr>", *("<td>%s</td>" % html.escape(t) for t in row), "</tr>"]
    return "".join(out) + "</table>"


def section(name, result):
    cells = result["cells"]
    shown = [c for c in cells if not c["system"].endswith("'")]
    several = len({c["case"] for c in cells}) > 1
    fill = {id(c): plots.colour("" if several and len({x["system"] for x in shown}) == 1 else c["system"], i)
            for i, c in enumerate(cells)}
    out = ["<h2 id='%s'>%s</h2><p class='shows'>%s</p>" % (name, name, html.escape(result["shows"]))]
    out.append("<h3>CPU per call, microseconds; whiskers from the least to the most of the rounds</h3>")
    out.append(plots.bars([(label(c), c["cpu_us"], fill[id(c)]) for c in cells], "us"))
    if several and len({c["system"] for c in shown}) > 1:       # one colour per system is not enough here
        fill = {id(c): plots.MORE[i % len(plots.MORE)] for i, c in enumerate(shown)}
    out.append("<h3>Latency by percentile, of all rounds</h3>")
    out.append(plots.distributions([(label(c), c["buckets"], fill[id(c)]) for c in shown]))
    for c in shown:
        if c["timelines"]:
            out.append("<h3>%s: per second</h3>" % html.escape(label(c)))
            out.append(plots.timeline(c["timelines"][-1], c["phases"]))
    staged = [c for c in shown if c.get("stages")]
    if staged:
        out.append("<h3>Inside the engine, %s: mean time in each step, waiting included</h3>" %
                   html.escape(label(staged[0])))
        out.append(plots.stages(staged[0]["stages"]))
    used = [i for i in range(len(columns(cells[0]))) if any(columns(c)[i][1] for c in cells)]
    out.append(html_table([columns(cells[0])[i][0] for i in used], [[columns(c)[i][1] for i in used] for c in cells]))
    out.append("<p class='quiet'>%s</p>" % html.escape(noise_in_words(result)))
    for who, why in result["left_out"].items():
        out.append("<p class='quiet'>left out: %s: %s</p>" % (html.escape(who), html.escape(why)))
    return "\n".join(out)


def page(data):
    busy = data["machine"]["load_before"]
    out = ["<!doctype html><html lang='en'><meta charset='utf-8'><title>sluice: bench</title><style>%s</style>" % STYLE,
           "<h1>sluice: what a governed call costs</h1>",
           "<p class='quiet'>%s%s</p>" % (html.escape(machine_in_words(data)), "; the machine was busy with other work "
                                          "when it began (load %.1f)" % busy if busy > 1 else "")]
    rows = targets.judged(data["scenarios"])
    if rows:
        out.append("<table><tr><th>what must be shown</th><th>measured</th><th>at most</th><th>aim</th><th></th></tr>")
        for what, s, unit, most, aim, verdict in rows:
            out.append("<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td class='%s'>%s</td></tr>" % (
                html.escape(what), targets.in_words(s, unit, data["rounds"]), targets.bound_in_words(most, unit),
                targets.bound_in_words(aim, unit), verdict, verdict))
        out.append("</table>")
    out += [section(name, r) for name, r in data["scenarios"].items() if "cells" in r]
    return "\n".join(out) + "</html>\n"


# ---- two runs ------------------------------------------------------------------------------------------------------

COMPARED = (("cpu_us", "CPU us/call"), ("p50", "p50 us"), ("p99", "p99 us"), ("memory_anonymous", "memory"))


def against_yardstick(result, c, figure):
    """A cell's rounds; its CPU in parts of the yardstick's, where there is one: the day's machine cancels."""
    yard = next((y for y in result["cells"] if y["system"] == "nginx" and y["case"] == c["case"]), None)
    if figure != "cpu_us" or not yard or c["system"].startswith("nginx"):
        return c.get(figure + "_rounds"), ""
    return figures.by_round(c["cpu_us_rounds"], yard["cpu_us_rounds"]), " / nginx"


def compare(old, new):
    """Lines that say what has changed by more than noise."""
    out = []
    for key in ("cpu", "kernel", "cpus"):
        if old["machine"][key] != new["machine"][key]:
            out.append("note: another machine: %s was %s, is %s: compare ratios only" %
                       (key, old["machine"][key], new["machine"][key]))
    both = [n for n in old["scenarios"] if n in new["scenarios"] and "cells" in old["scenarios"][n]]
    if not both:
        return out + ["nothing to compare: no scenario is in both"]
    for name in both:
        a, b = old["scenarios"][name], new["scenarios"][name]
        noises = [targets.noise(a), targets.noise(b)]
        out.append(name)
        for x in a["cells"]:
            y = next((c for c in b["cells"] if (c["case"], c["system"]) == (x["case"], x["system"])), None)
            if not y or x["system"].endswith("'"):
                continue
            for figure, words in COMPARED:
                (p, of), (q, _) = against_yardstick(a, x, figure), against_yardstick(b, y, figure)
                found = [n.get(x["case"], {}).get(figure) for n in noises]
                noise = max(s["median"] for s in found) if all(found) else None
                r, verdict = figures.beyond_noise(p, q, noise)
                if r is not None:
                    out.append("  %-24s %-20s %10.2f -> %10.2f   %5.2fx  %-12s  noise %s" %
                               (label(x), words + of, figures.median(p), figures.median(q), r, verdict,
                                "unknown" if noise is None else "%.1f %%" % (100 * noise)))
    return out


MARKS = "<!-- measured: ./dev bench headline --docs -->", "<!-- end -->"


def machine_in_words(data):
    m = data["machine"]
    return "%s, %s processors, %s GB, %s, Linux %s, nginx %s, HAProxy %s, OpenSSL %s; commit %s; %s; %d rounds" % (
        m["cpu"], m["cpus"], m["memory_gb"], m["system"], m["kernel"], m["nginx"], m["haproxy"], m["openssl"],
        data["commit"], data["when"], data["rounds"])


def into_docs(data, path):
    """Puts the table between the marks of docs/performance.md."""
    with open(path) as f:
        before, rest = f.read().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    noises = ["| %s | %s |" % (name, noise_in_words(r).split(": ", 1)[1])
              for name, r in data["scenarios"].items() if "cells" in r]
    body = [machine_in_words(data) + ".", "", targets.markdown(data["scenarios"], data["rounds"]), "",
            "The scenario `read`, per call; CPU in microseconds:", "", systems_table(data["scenarios"].get("read")), "",
            "| scenario | noise floor |", "|---|---|", *noises]
    with open(path, "w") as f:
        f.write(before + MARKS[0] + "\n" + "\n".join(body) + "\n" + MARKS[1] + after)


def systems_table(result):
    """What each system of the scenario `read` costs."""
    lines = ["| system | CPU | of it user | syscalls | bytes in / out | memory, MB |", "|---|---|---|---|---|---|"]
    for c in result["cells"] if result else ():
        lines.append("| `%s` | %s | %.1f | %s | %.0f / %.0f | %.1f |" % (
            c["system"], plus_minus(c["cpu_us"]), c["user_us"]["median"],
            "%.1f" % c["syscalls"]["per_call"] if c["syscalls"] else "", c["bytes_in"]["median"],
            c["bytes_out"]["median"], c["memory_pss"]["median"] / 1048576))
    return "\n".join(lines)


def write(data, folder):
    """(path of the JSON, path of the HTML)"""
    import os
    os.makedirs(folder, exist_ok=True)
    paths = os.path.join(folder, "results.json"), os.path.join(folder, "report.html")
    with open(paths[0], "w") as f:
        json.dump(data, f)
    with open(paths[1], "w") as f:
        f.write(page(data))
    return paths
