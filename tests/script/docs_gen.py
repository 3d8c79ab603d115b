#!/usr/bin/env python3
"""Pages and tables made from the tables in the code: `python3 tests/script/docs_gen.py` writes them.

  docs/errors.md    from engine/base/errors.def
  docs/metrics.md   from engine/base/metrics.def and engine/admin/memory.c
  docs/design.md    the table between <!-- steps --> and <!-- /steps -->, from engine/call/steps.def

`--check` writes nothing, says what is out of date, and exits 1 if anything is.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MADE = "<!-- made by tests/script/docs_gen.py: edit the table it was made of -->\n"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


# ---- the X-macro tables --------------------------------------------------------------------------------------------

def arguments(text, at):
    """The arguments of the macro call whose '(' is at `at`: strings without their quotes, the rest as written."""
    args, now, depth, quoted = [], "", 0, False
    while True:
        ch = text[at]
        if quoted:
            if ch == "\\":
                at += 1
                now += text[at]
            elif ch == '"':
                quoted = False
            else:
                now += ch
        elif ch == '"':
            quoted = True
        elif ch == "," and depth == 1:
            args.append(now.strip())
            now = ""
        else:
            depth += (ch == "(") - (ch == ")")
            if depth == 0:
                return args + [now.strip()]
            if not (ch == "(" and depth == 1):
                now += ch
        at += 1


def rows(path, macro):
    """[(the comment above the group, [arguments])]"""
    text = read(path)
    text = text[text.index("*/") + 2:]
    found, group = [], ""
    for m in re.finditer(r"/\*\s*(.*?)\s*\*/|^%s(?=\()" % macro, text, re.M | re.S):
        if m.group(1) is not None:
            group = m.group(1)
        else:
            found.append((group, [re.sub(r"\s+", " ", a) for a in arguments(text, m.end())]))
    return found


def errors():
    return rows("engine/base/errors.def", "ERR")


def metrics():
    text = read("engine/base/metrics.def")
    return [arguments(text, m.end()) for m in re.finditer(r"^METRIC(?=\()", text, re.M)]


def steps():
    return [args for _, args in rows("engine/call/steps.def", "STEP")]


def table(head, body):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(c.replace("|", "\\|") for c in r) + " |" for r in body]) + "\n"


# ---- pages -----------------------------------------------------------------------------------------------------------

WHO = {"CALLER": "caller", "POLICY": "policy's author", "CAPACITY": "nobody: wait", "UPSTREAM": "provider",
       "US": "operator"}
ERROR_HEAD = ("error", "who can mend it", "again", "HTTP", "JSON-RPC", "outcome", "what the client reads")
RETRY = {"NEVER": "no", "AFTER": "later", "WITH_KEY": "same key only", "INTERNAL": "-"}


def errors_page():
    out = ["# Errors\n", MADE, """
How a call can end other than well. The name is the one in the journal (`error`), in metrics
(`sluice_call_errors_total`) and in replies (`dev.sluice/error`). What to do about each is in
[operating.md](operating.md#errors-and-what-to-do).

- **Who can mend it**: the class of the row.
- **Again**: *no*, the same call fails again; *later*, after `dev.sluice/retryAfterMs` where it is given; *same key
  only*, the recorded outcome is answered again and nothing is executed twice.
- **HTTP, JSON-RPC**: how modern clients are told. JSON-RPC *tool result* is a result with `isError`, which a model may
  read.
- **Outcome**: *refused*, nothing happened; *failed*, the provider says it did not happen; *unknown*, it may have
  happened. A call that has already changed something ends *unknown* whatever the error; one that sent nothing is never
  *unknown*. A repeat that is answered from the record has the recorded outcome, whatever the error.
"""]
    group, body, inner = None, [], []

    def flush():
        if body:
            out.append("\n## %s\n\n" % (group[0].upper() + group[1:]))
            out.append(table(ERROR_HEAD, body))
            body.clear()

    for g, (name, cls, retry, http, rpc, outcome, text) in errors():
        if g != group:
            flush()
            group = g
        if retry == "INTERNAL":
            inner.append(("`%s`" % name.lower(), text))
            continue
        rpc = "tool result" if rpc == "0" else rpc
        body.append(("`%s`" % name.lower(), WHO[cls], RETRY[retry], http, rpc, outcome.lower(), text))
    flush()
    out.append("\n## Inside the engine only\n\n"
               "Results of single operations; each becomes one of the above before a call ends.\n\n")
    out.append(table(("error", "meaning"), inner))
    return "".join(out)


def metrics_page():
    out = ["# Metrics\n", MADE, """
`GET /metrics`, Prometheus text format 0.0.4, answered only to who asks from this machine for this machine. Histograms
are in seconds, buckets from 1 us to 60 s. A label has at most 255 values; what comes after is counted under `other`.

"""]
    body = []
    for name, kind, label, text in metrics():
        labels = "" if label == "NULL" else ", ".join("`%s`" % w for w in label.split("_"))
        body.append(("`sluice_%s`" % name.lower(), kind.lower(), labels, text))
    for name, text in re.findall(r'"([a-z_]+_bytes)", "([^"]+)"', read("engine/admin/memory.c")):
        body.append(("`sluice_%s`" % name, "gauge", "", text))
    out.append(table(("metric", "kind", "labels", "what it counts"), body))
    return "".join(out)


def steps_table():
    body = []
    for name, after, truth in steps():
        before = re.findall(r"AFTER\((\w+)\)", after)
        follows = "any but REPLY" if len(before) > 3 else ", ".join(b for b in before if b != "NONE")
        body.append((name, follows or "-", truth))
    return table(("step", "follows", "what is true on entry"), body)


def pages():
    design = read("docs/design.md")
    made = re.sub(r"(<!-- steps -->\n).*?(<!-- /steps -->)", lambda m: m.group(1) + steps_table() + m.group(2), design,
                  flags=re.S)
    return {"docs/errors.md": errors_page(), "docs/metrics.md": metrics_page(), "docs/design.md": made}


def stale():
    """Paths of what is not as it would be made now."""
    return [p for p, text in pages().items() if not os.path.exists(os.path.join(ROOT, p)) or read(p) != text]


def main():
    old = stale()
    if "--check" in sys.argv[1:]:
        for path in old:
            print("%s is out of date: run python3 tests/script/docs_gen.py" % path)
        return 1 if old else 0
    made = pages()
    for path in old:
        with open(os.path.join(ROOT, path), "w", encoding="utf-8") as f:
            f.write(made[path])
        print("wrote " + path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
