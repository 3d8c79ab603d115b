#!/usr/bin/env python3
"""The rules of the house, checked: `python3 tests/script/house.py`; exit 0 when they hold.

Where a rule came after the code, RATCHETS lists who does not keep it yet and by how much: a listed one may shrink and
must not grow, and whatever is not listed keeps the rule.  `--ratchets` prints the lists as they would be now, for
pasting when something has shrunk.

Needs Python's standard library only; reads files that git tracks, or all files where there is no git.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FUNCTION_LINES_MAX, FILE_LINES_MAX, LINE_MAX = 70, 800, 120
SEEDS_MAX = 60
CODE = (".c", ".h", ".S", ".def", ".py", ".mjs", ".cmake", "CMakeLists.txt", ".yaml", "dev")
SHIPPED = ("engine/", "connectors/", "ratelimit/")

RATCHETS = {        # name or path: how much there is now
    "function": {"tests/unit/fetch_pure_test.c:test_networks": 72, "tests/unit/fetch_pure_test.c:test_origins": 90},
    "file": {
        "tests/unit/identity_test.c": 824, "tests/unit/policy_test.c": 832, "tests/unit/schema_test.c": 844,
    },
}

# functions that may be longer than others, and why: one switch over all of something reads better than its pieces
EXEMPT_FUNCTIONS = {
    "engine/policy/eval.c:run": "the interpreter's loop: a case per instruction, most of them one line",
}

# names, where they must not be called, where they may all the same, why
BANNED = (
    (("strcpy", "strcat", "sprintf", "vsprintf", "gets"), SHIPPED, (), "has no bound: use buf_ or snprintf"),
    (("system", "popen"), SHIPPED, (), "a shell has no place here"),
    (("fork", "vfork", "execve", "execv", "execvp", "execl", "execlp", "posix_spawn", "posix_spawnp"), SHIPPED,
     ("engine/cli/",), "the engine starts no programs"),
    (("time", "gettimeofday", "clock_gettime", "localtime", "ftime"), SHIPPED,
     ("engine/loop/world_real.c", "engine/base/log.c", "engine/cli/"),
     "time comes from the world: loop_now(), loop_wall_ms()"),
    (("printf", "puts", "putchar", "vprintf"), SHIPPED, ("engine/cli/",),
     "only the command line writes to stdout: use LOG_"),
)

FORBIDDEN_TEXT = (
    (re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b"), "a note about work not done: do it, or open an issue"),
    (re.compile(r"(?<![\w.*/<-])/(?:home|root|Users|work|mnt|media)/[\w.]"), "a path of somebody's machine"),
    (re.compile(r"\bregistry\.(?:npmjs|yarnpkg|hub)\b|\bartifac" r"tory\b|\bpypi\.(?:org|python)\b", re.I),
     "a package registry's host: versions are pinned here, where they come from is not"),
)


# ---- files ---------------------------------------------------------------------------------------------------------

def tracked():
    try:
        out = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True).stdout.decode()
        names = [n for n in out.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
    if not names:
        for d, dirs, files in os.walk(ROOT):
            dirs[:] = set(dirs) - {".git", "build", "node_modules", "sluice-data", ".cache", "__pycache__"}
            names += [os.path.relpath(os.path.join(d, f), ROOT) for f in files]
    return sorted(n for n in names if os.path.isfile(os.path.join(ROOT, n)))


def read_all():
    """{path: text} of what is text; seeds and generated locks are data."""
    texts = {}
    for name in tracked():
        if "/seeds/" in name or name.endswith(("package-lock.json", "LICENSE")):
            continue
        with open(os.path.join(ROOT, name), "rb") as f:
            raw = f.read()
        if b"\0" not in raw:
            texts[name] = raw.decode("utf-8", "replace")
    return texts


# ---- C, as far as the rules need it ----------------------------------------------------------------------------------

NOT_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
ELSE_PART = re.compile(r"^[ \t]*#[ \t]*el(?:se|if)\b.*?(?=^[ \t]*#[ \t]*endif)", re.M | re.S)


def lines_only(m):
    s = m.group()
    return "\n" * s.count("\n") or ('""' if s[0] == '"' else " ")


def bare(text):
    """Without comments, contents of strings, and directives; lines stay where they are."""
    return DIRECTIVE.sub(lambda m: "\n" * m.group().count("\n"), NOT_CODE.sub(lines_only, text))


def function_name(head):
    """The name in `static int f(void)`, or the first word in `TOOL(name, ...)`; None: not a function."""
    head = head.rstrip()
    while head.endswith(")"):
        at, depth = len(head), 0
        while at and (depth or at == len(head)):
            at -= 1
            depth += (head[at] == ")") - (head[at] == "(")
        m = re.search(r"(\w+)\s*$", head[:at])
        if not m:
            return None
        if m.group(1) != "__attribute__":
            first = re.match(r"\(\s*(\w+)", head[at:])
            return first.group(1) if m.group(1).isupper() and first else m.group(1)
        head = head[:m.start()].rstrip()
    return None


def functions(code):
    """[(name, lines from the opening to the closing brace)]; None when braces do not balance."""
    found, depth, parens, start, at = [], 0, 0, 0, 0
    for m in re.finditer(r"[(){};]", code):
        ch = m.group()
        if ch in "()" and not depth:
            parens += 1 if ch == "(" else -1
        elif parens:                        # TOOL(name, .args = FIELDS({ ... })): braces within are no body
            continue
        elif ch == "{":
            if depth == 0:
                name, start = function_name(code[at:m.start()]), m.start()
            depth += 1
        elif ch == "}":
            depth -= 1
            if depth < 0:
                return None
            if depth == 0:
                if name:
                    found.append((name, code.count("\n", start, m.start()) + 1))
                at = m.end()
        elif ch == ";" and depth == 0:
            at = m.end()
    return found if depth == 0 and parens == 0 else None


# ---- rules: each yields (ratchet or None, key, amount, message) ------------------------------------------------------

def rule_functions(texts, codes):
    for path, code in codes.items():
        found = functions(code)
        if found is None:
            found = functions(bare(ELSE_PART.sub(lambda m: "\n" * m.group().count("\n"), texts[path])))
        if found is None:
            yield None, path, 0, "%s: its braces do not balance, so its functions cannot be measured" % path
        for name, n in found or ():
            if n > FUNCTION_LINES_MAX and path + ":" + name not in EXEMPT_FUNCTIONS:
                yield ("function", path + ":" + name, n,
                       "%s: %s() has %d lines, %d are allowed" % (path, name, n, FUNCTION_LINES_MAX))


def rule_file_length(texts, codes):
    for path, text in texts.items():
        n = text.count("\n")
        if path.endswith((".c", ".h", ".py", ".mjs")) and n > FILE_LINES_MAX:
            yield "file", path, n, "%s: %d lines, %d are allowed" % (path, n, FILE_LINES_MAX)


def rule_line_length(texts, codes):
    for path, text in texts.items():
        if path.endswith(CODE):
            long = [i for i, line in enumerate(text.split("\n"), 1) if len(line) > LINE_MAX]
            if long:
                yield (None, path, 0,
                       "%s: %d lines are longer than %d, the first is %d" % (path, len(long), LINE_MAX, long[0]))


def rule_banned(texts, codes):
    patterns = [(re.compile(r"(?<![\w.>])(?:%s)\s*\(" % "|".join(names)), where, but, why)
                for names, where, but, why in BANNED]
    for path, code in codes.items():
        for pattern, where, but, why in patterns:
            if path.startswith(where) and not path.startswith(but or ("\n",)):
                for m in pattern.finditer(code):
                    yield None, path, 0, "%s:%d: %s) %s" % (path, code.count("\n", 0, m.start()) + 1, m.group(), why)


def rooms():
    with open(os.path.join(ROOT, "CMakeLists.txt")) as f:
        return re.search(r"foreach\(dir (base [a-z ]+)\)", f.read()).group(1).split()


def rule_includes(texts, codes):
    order = rooms()
    rank = {room: i for i, room in enumerate(order)}
    call, cli = rank["call"], rank["cli"]
    for path in codes:
        parts = path.split("/")
        for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', texts[path], re.M):
            inc, wrong = m.group(1), None
            to = inc.split("/")[0]
            if path.startswith("engine/"):
                here = rank.get(parts[1])
                if here is None:
                    wrong = "engine/%s is not in the list of rooms (CMakeLists.txt)" % parts[1]
                elif "/" not in inc:
                    wrong = "rooms are named: write \"%s/%s\"" % (parts[1], inc)
                elif to in rank and rank[to] > here:
                    wrong = "%s is above %s" % (to, parts[1])
                elif inc.startswith("connectors/sandbox/") and here < cli:
                    wrong = "the sandbox is only for the command line"
                elif to in ("ratelimit", "connectors") and here < call:
                    wrong = "%s is for call/ and the rooms above" % to
                elif to not in rank and to not in ("ratelimit", "connectors"):
                    wrong = "there is no room %s" % to
            elif path.startswith("ratelimit/") and "/" in inc:
                wrong = "the limiter is a library of its own: no header of the engine"
            elif path == "connectors/connector.h" and inc != "base/err.h":
                wrong = "authors include connector.h, which needs base/err.h and nothing else"
            elif path.startswith("connectors/") and parts[1] not in ("sandbox", "connector.h") \
                    and inc != "connectors/connector.h":
                wrong = "a connector includes connectors/connector.h and nothing else of ours"
            if wrong:
                line = texts[path].count("\n", 0, m.start()) + 1
                yield None, path, 0, "%s:%d: includes \"%s\": %s" % (path, line, inc, wrong)


def rule_readmes(texts, codes):
    for room in ["engine/" + r for r in rooms()] + ["connectors", "ratelimit"]:
        if os.path.isdir(os.path.join(ROOT, room)) and room + "/README.md" not in texts:
            yield None, room, 0, "%s: a room has a README" % room


def rule_errors(texts, codes):
    rows = re.findall(r"^ERR\((\w+),", texts["engine/base/errors.def"], re.M)
    said = "\n".join(t for p, t in texts.items() if p.startswith("tests/") and not p.endswith("house.py"))
    words = set(re.findall(r"\bE_[A-Z_]+\b", said)) | set(re.findall(r"[\"'=]([a-z_]+)[\"'\\]", said))
    for row in rows:
        if "E_" + row not in words and row.lower() not in words:
            yield None, row, 0, "errors.def: no test names E_%s or \"%s\"" % (row, row.lower())


def rule_text(texts, codes):
    for path, text in texts.items():
        for pattern, why in FORBIDDEN_TEXT:
            for m in pattern.finditer(text):
                line = text.count("\n", 0, m.start()) + 1
                yield None, path, 0, "%s:%d: \"%s\": %s" % (path, line, m.group(), why)


def rule_seeds(texts, codes):
    """Seeds are chosen by hand: what a fuzzer finds belongs in build/fuzz."""
    counts = {}
    for name in tracked():
        if name.startswith("tests/fuzz/seeds/"):
            target = name.split("/")[3]
            counts[target] = counts.get(target, 0) + 1
    for target, n in counts.items():
        if n > SEEDS_MAX:
            yield None, target, 0, "tests/fuzz/seeds/%s: %d seeds, %d are allowed" % (target, n, SEEDS_MAX)


RULES = (rule_functions, rule_file_length, rule_line_length, rule_banned, rule_includes, rule_readmes, rule_errors,
         rule_text, rule_seeds)


def check():
    """(what is wrong, {ratchet: {key: amount now}})."""
    texts = read_all()
    codes = {p: bare(t) for p, t in texts.items() if p.endswith((".c", ".h"))}
    wrong, now = [], {ratchet: {} for ratchet in RATCHETS}
    for rule in RULES:
        for ratchet, key, amount, message in rule(texts, codes):
            if ratchet is None:
                wrong.append(message)
                continue
            now[ratchet][key] = max(amount, now[ratchet].get(key, 0))
            allowed = RATCHETS[ratchet].get(key)
            if allowed is None:
                wrong.append(message)
            elif amount > allowed:
                wrong.append("%s (it had %d, and may only shrink)" % (message, allowed))
    return wrong, now


def print_ratchets(now):
    for ratchet, rows in now.items():
        print('    "%s": {' % ratchet)
        line = " " * 7
        for item in ('"%s": %d,' % row for row in sorted(rows.items())):
            if len(line) + 1 + len(item) > LINE_MAX:
                print(line)
                line = " " * 7
            line += " " + item
        print((line + "\n" if rows else "") + "    },")


def main():
    wrong, now = check()
    if "--ratchets" in sys.argv[1:]:
        print_ratchets(now)
        return 0
    for line in wrong:
        print("house: " + line)
    shrunk = [key for ratchet, rows in RATCHETS.items() for key, n in rows.items() if now[ratchet].get(key, 0) < n]
    if shrunk:
        print("house: shrunk, so the lists can: %s" % ", ".join(sorted(shrunk)))
    print("house: %s" % ("%d rules broken" % len(wrong) if wrong else "all rules hold"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
