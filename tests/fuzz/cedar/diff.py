#!/usr/bin/env python3
"""Differential fuzzing of engine/policy against the reference implementation of Cedar (npm @cedar-policy/cedar-wasm).

    diff.py BATCH [--seconds S | --decisions N] [--seed SEED] [--node-modules DIR] [--keep DIR]

Generated policy sets (text and JSON, templates with links), entities, schemas (both formats) and requests go to both,
one case a line; what both say is compared: whether policies and schema are accepted, the decision with its reasons and
errors, whether requests and entities fit the schema, and which policies validate.  The seed is printed first; the same
seed makes the same cases.  Ends with 1 at the first difference, whose case it prints and keeps as DIR/case.jsonl, and
with 77 when the reference is not installed.

A case: {"policies": {"staticPolicies", "templates", "templateLinks"}, "schema"?, "validate"?, "check"?, "entities",
"requests": [{"principal", "action", "resource", "context"}]}, as the reference takes them.  An answer: {"policies":
bool, "schema"?: bool, "invalid"?: [ids], "inapplicable"?: [ids], "impossible"?: [ids], "requests"?: [[decision,
[reasons], [errors]]]}; a decision is "allow", "deny" or "refused" (the request, its context or the entities do not
fit).
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import policies as pol
import vocabulary as voc

REQUESTS = 64           # to each set of policies


# ---- cases -----------------------------------------------------------------------------------------------------------

def policy_set(rng, schema, known, wild):
    n, as_json = rng.randint(1, 8), rng.random() < 0.4
    made = [pol.make_policy(rng, schema, known, wild, as_json) for _ in range(n)]
    if not as_json:
        out = {"staticPolicies": "\n".join(map(pol.policy_text, made))}
    else:
        out = {"staticPolicies": {"p%d" % i: pol.policy_json(p) if rng.random() < 0.7 else pol.policy_text(p)
                                  for i, p in enumerate(made)}}
    if rng.random() < 0.4:
        add_templates(rng, schema, known, wild, out)
    return out


def add_templates(rng, schema, known, wild, out):
    names = list(schema["entities"])
    out["templates"], out["templateLinks"] = {}, []
    for i in range(rng.randint(1, 3)):
        t = pol.make_policy(rng, schema, known, wild, True, True)
        slots = ["?" + v for v in ("principal", "resource") if t[v] and t[v][-1] == "?" + v]
        if not slots:
            continue
        out["templates"]["t%d" % i] = pol.policy_json(t) if rng.random() < 0.5 else pol.policy_text(t)
        for k in range(rng.randint(0, 3)):
            uids = [rng.choice(known) if known and rng.random() < 0.8 else (rng.choice(names), "a") for _ in slots]
            out["templateLinks"].append({
                "templateId": "t%d" % i, "newId": "l%d_%d" % (i, k),
                "values": {s: {"__entity": {"type": u[0], "id": u[1]}} for s, u in zip(slots, uids)}})


def request(rng, schema, known, wild, typed):
    (kind, id_), a = rng.choice(list(schema["actions"].items()))

    def one(types):
        fitting = [u for u in known if u[0] in types]
        if fitting and rng.random() < 0.9 - wild:
            return rng.choice(fitting)
        name = rng.choice(types if rng.random() < 0.9 - wild / 2 else list(schema["entities"]))
        return (name, voc.pick_id(rng, schema, name))
    p, r = one(a["principals"]), one(a["resources"])
    if rng.random() < wild / 10:
        id_ = "nothing"
    context = voc.record(rng, a["context"], schema, wild / 2)
    return {"principal": {"type": p[0], "id": p[1]}, "action": {"type": kind, "id": id_},
            "resource": {"type": r[0], "id": r[1]},
            "context": {k: voc.to_json(rng, v, typed) for k, v in context.items()}}


def mangled(rng, text):
    """A text with a character left out, doubled or put in: mostly no policy any more."""
    at = rng.randrange(len(text) + 1)
    how = rng.randint(0, 3)
    if how == 0:
        return text[:at] + text[at + 1:]
    if how == 1:
        return text[:at] + rng.choice("()[]{},;:.\"\\*!-@?=<>&| 019ax\n/é") + text[at:]
    words = text.split(" ")
    k = rng.randrange(len(words))
    words[k:k + 1] = [words[k], rng.choice(words)] if how == 2 else []
    return " ".join(words)


def mangled_json(rng, j):
    """JSON with one member or element, anywhere, renamed, left out or replaced."""
    places = []

    def walk(x):
        if isinstance(x, (dict, list)) and x:
            places.append(x)
        for k in x.values() if isinstance(x, dict) else x if isinstance(x, list) else ():
            walk(k)
    walk(j)
    if not places:
        return
    x = rng.choice(places)
    if isinstance(x, list):
        x[rng.randrange(len(x))] = rng.choice([None, 1.5, "a", [], {}, {"Value": 1}, {"Var": "context"}])
        return
    key = rng.choice(list(x))
    how = rng.randint(0, 2)
    value = x.pop(key) if how < 2 else x[key]
    if how == 1:
        x[rng.choice(["left", "Value", "op", "is", "decimal", "x", "in", "arg", "ip", "!", "&&"])] = value
    elif how == 2:
        x[key] = rng.choice([None, True, 3, "==", "permit", [], {}, {"Value": "1.0"}, {"type": "A", "id": "a"}])


def damaged_policies(rng, p):
    links, templates = p.get("templateLinks"), p.get("templates")
    if links and rng.random() < 0.5:
        link = rng.choice(links)
        how = rng.randint(0, 3)
        if how == 0:
            link["values"].pop(rng.choice(list(link["values"])))
        elif how == 1:
            link["values"]["?" + rng.choice(["principal", "resource", "action"])] = {"type": "User", "id": "a"}
        else:
            link["newId" if how == 2 else "templateId"] = rng.choice(["p0", "policy0", "t0", "t1", "l0_0", "none", ""])
        return
    of = rng.choice([x for x in (p, templates) if x])
    key = "staticPolicies" if of is p else rng.choice(list(of))
    if isinstance(of[key], str):
        of[key] = mangled(rng, of[key])
    else:
        mangled_json(rng, of[key])


def damaged(rng, schema):
    """Now and then a schema that may not be accepted."""
    e = schema["entities"][rng.choice(list(schema["entities"]))]
    how = rng.randint(0, 3)
    if how == 0:
        e["attrs"][rng.choice(voc.ATTRS)] = (("Ent", rng.choice(["Nobody", "App::User", "Action"])), True)
    elif how == 1:
        e["parents"] = e["parents"] + ["Nobody"]
    elif how == 2:
        a = schema["actions"][rng.choice(list(schema["actions"]))]
        a["parents"] = a["parents"] + [rng.choice(list(schema["actions"]) + [(list(schema["actions"])[0][0], "gone")])]
    else:
        a = schema["actions"][rng.choice(list(schema["actions"]))]
        a["principals"] = a["principals"] + [rng.choice(["Nobody", a["principals"][0]])]


def make_case(rng, schemas=True):
    schema = voc.make_schema(rng)
    typed, wild = schemas and rng.random() < 0.5, rng.choice([0.0, 0.05, 0.2, 0.5])
    entities, known = voc.make_entities(rng, schema, wild if rng.random() < 0.5 else 0.0, typed)
    case = {"policies": policy_set(rng, schema, known, wild), "entities": entities}
    if rng.random() < 0.12:
        damaged_policies(rng, case["policies"])
    request_wild = wild if rng.random() < 0.5 else 0.0
    case["requests"] = [request(rng, schema, known, request_wild, typed) for _ in range(REQUESTS)]
    if typed:
        if rng.random() < 0.1:
            damaged(rng, schema)
        case["schema"] = voc.schema_json(schema) if rng.random() < 0.5 else voc.schema_text(schema)
        case["check"], case["validate"] = rng.random() < 0.8, True
    return case


# ---- both sides ------------------------------------------------------------------------------------------------------

class Side:
    """A process that answers each line with one. `again`: how often it may be started again when it dies."""

    def __init__(self, command, again=0):
        self.command, self.again = command, again
        self.start()

    def start(self):
        self.p = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.line = line
        self.p.stdin.write(line)
        self.p.stdin.flush()

    def answer(self):
        line = self.p.stdout.readline()
        if not line:
            print("%s ended with %s" % (self.command[0], self.p.wait()), flush=True)
            if not self.again:
                raise SystemExit("diff: the case was %s" % self.line.decode())
            self.again -= 1
            self.start()
            self.ask(self.line)
            return self.answer()
        return json.loads(line)


def same(ours, theirs):
    """None, or what differs."""
    for key in ("policies", "schema", "invalid", "inapplicable", "impossible"):
        if ours.get(key) != theirs.get(key):
            return "%s: ours %s, theirs %s" % (key, ours.get(key), theirs.get(key))
    for i, (a, b) in enumerate(zip(ours.get("requests", []), theirs.get("requests", []))):
        if a[:3] != b[:3]:
            return "request %d: ours %s, theirs %s" % (i, a, b)
    if len(ours.get("requests", [])) != len(theirs.get("requests", [])):
        return "one of them answered the requests"
    return None


class Count:
    def __init__(self):
        self.cases = self.decisions = self.allows = self.refused = self.errors = 0
        self.validations = self.invalid = self.unaccepted = 0

    def add(self, theirs):
        self.cases += 1
        self.unaccepted += not theirs["policies"] or theirs.get("schema") is False
        self.validations += len(theirs.get("requests", [])) > 0 and "invalid" in theirs
        self.invalid += bool(theirs.get("invalid"))
        for decision, _, errors in (r[:3] for r in theirs.get("requests", [])):
            self.decisions += decision != "refused"
            self.allows += decision == "allow"
            self.refused += decision == "refused"
            self.errors += bool(errors)

    def __str__(self):
        return ("%d decisions (%d allow, %d with errors), %d requests refused, %d validations (%d with findings), "
                "%d inputs not accepted" % (self.decisions, self.allows, self.errors, self.refused, self.validations,
                                            self.invalid, self.unaccepted))


def report(case, ours, theirs, what, keep):
    os.makedirs(keep, exist_ok=True)
    path = os.path.join(keep, "case.jsonl")
    with open(path, "w") as f:
        f.write(json.dumps(case) + "\n")
    print("difference: " + what)
    print("the case is in %s" % path)
    print("ours:   " + str(ours.get("why", ours.get("findings", ""))))
    print("theirs: " + str(theirs.get("why", theirs.get("findings", ""))))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("batch")
    args.add_argument("--seconds", type=float)
    args.add_argument("--decisions", type=int)
    args.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    args.add_argument("--node-modules")
    args.add_argument("--keep", default=os.path.join(HERE, "..", "..", "..", "build", "cedar-diff"))
    args.add_argument("--no-schemas", action="store_true")
    args.add_argument("--go-on", action="store_true", help="count differences instead of ending at the first")
    args = args.parse_args()
    if not args.node_modules:
        sys.path.insert(0, os.path.join(HERE, "..", "..", "clients"))
        import install
        install.main()
        args.node_modules = os.path.join(install.need(), "node_modules")
    print("seed %d" % args.seed, flush=True)
    sides = [Side([args.batch]),        # V8 has died of itself, once in three million decisions
             Side(["node", os.path.join(HERE, "peer.mjs"), args.node_modules], again=3)]
    rng, count, began, told, bad = random.Random(args.seed), Count(), time.monotonic(), 0, 0
    case = make_case(rng, not args.no_schemas)
    while True:
        line = json.dumps(case).encode() + b"\n"
        for s in sides:
            s.ask(line)
        following = make_case(rng, not args.no_schemas)          # made while both think
        ours, theirs = [s.answer() for s in sides]
        what = same(ours, theirs)
        if what:
            bad += 1
            report(case, ours, theirs, what, os.path.join(args.keep, str(bad)) if args.go_on else args.keep)
            if not args.go_on:
                return 1
        count.add(theirs)
        case, spent = following, time.monotonic() - began
        if spent > told + 10:
            told = spent
            print("%4.0f s: %s" % (spent, count), flush=True)
        if args.seconds and spent > args.seconds or args.decisions and count.decisions >= args.decisions:
            break
    print("%s; %d differences (seed %d)" % (count, bad, args.seed))
    return bad > 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
