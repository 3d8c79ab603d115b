"""Generated policies: trees of conditions, made by type with now and then a wrong turn, and spelled as text or as JSON.

An expression is a tuple of an operator and its operands: ("val", value), ("var", name), ("attr", e, name), ("bin", op,
l, r), ("not", e), ("neg", e), ("and", l, r), ("or", l, r), ("if", c, a, b), ("call", name, receiver, args),
("fn", name, args), ("has", e, path), ("like", e, pieces), ("is", e, type, in or None), ("set", es), ("rec", {k: e}).
"""
import vocabulary as voc

VARS = ("principal", "action", "resource", "context")
COMPARE = ("<", "<=", ">", ">=")
JSON_SAFE = 2**53


class Maker:
    """Makes the conditions of one policy; `env` says what its variables are, as far as one can tell."""

    def __init__(self, rng, schema, env, wild, json):
        self.rng, self.schema, self.env, self.wild, self.json = rng, schema, env, wild, json
        self.names = list(schema["entities"])

    def paths(self):
        """(expression, type, guards) of what can be reached from the variables in two steps."""
        out = []

        def attrs_of(t):
            if t and t[0] == "Ent":
                return self.schema["entities"].get(t[1], {}).get("attrs", {})
            return t[1] if t and t[0] == "Rec" else {}

        def walk(e, t, guards, steps):
            for name, (at, required) in attrs_of(t).items():
                g = guards if required else guards + [("has", e, [name])]
                out.append((("attr", e, name), at, g))
                if steps > 1 and isinstance(at, tuple):
                    walk(("attr", e, name), at, g, steps - 1)
        for var in VARS:
            if self.env.get(var):
                walk(("var", var), self.env[var], [], 2)
        return out

    def reach(self, want):
        """A path of a type that `want` accepts, as (expression, guards), or None."""
        found = [(e, g) for e, t, g in self.paths() if want(t)]
        return self.rng.choice(found) if found else None

    def leaf(self, t):
        v = voc.value(self.rng, t, self.schema, self.wild / 2)
        if v[0] == "long" and not self.json and self.rng.random() < 0.1:
            v = ("long", self.rng.choice(voc.EDGES))
        return literal(v)

    def any_type(self):
        return voc.pick_type(self.rng, self.names)

    def expr(self, t, depth):
        rng = self.rng
        if rng.random() < self.wild / 4:
            t = self.any_type()
        if t == "Bool" and depth > 0:
            return self.boolean(depth)
        r = rng.random()
        if r < 0.5:
            found = self.reach(lambda at: at == t)
            if found:
                e, guards = found
                if guards and rng.random() < 0.7 - self.wild:
                    return ("if", conjunction(guards), e, self.leaf(t))
                return e
        if depth > 0 and r < 0.6:
            return ("if", self.boolean(depth - 1), self.expr(t, depth - 1), self.expr(t, depth - 1))
        if depth > 0 and r < 0.85:
            made = self.operation(t, depth - 1)
            if made:
                return made
        if isinstance(t, tuple) and t[0] == "Ent":
            for var in VARS[:3]:
                if self.env.get(var) == t and rng.random() < 0.4:
                    return ("var", var)
        return self.leaf(t)

    def operation(self, t, depth):
        rng = self.rng
        if t == "Long":
            r = rng.random()
            if r < 0.2:
                return ("neg", self.expr("Long", depth))
            if r < 0.35:
                return ("call", rng.choice(["toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"]),
                        self.expr("duration", depth), [])
            return ("bin", rng.choice("+-*"), self.expr("Long", depth), self.expr("Long", depth))
        if t == "datetime":
            return ("call", "offset", self.expr(t, depth), [self.expr("duration", depth)]) if rng.random() < 0.6 else (
                "call", "toDate", self.expr(t, depth), [])
        if t == "duration":
            return ("call", "durationSince", self.expr("datetime", depth), [self.expr("datetime", depth)]) \
                if rng.random() < 0.6 else ("call", "toTime", self.expr("datetime", depth), [])
        if isinstance(t, tuple) and t[0] == "Set":
            return ("set", [self.expr(t[1], depth) for _ in range(rng.randint(0, 3))])
        if isinstance(t, tuple) and t[0] == "Rec":
            return ("rec", {k: self.expr(at, depth) for k, (at, required) in t[1].items() if required})
        tagged = [n for n, e in self.schema["entities"].items() if e["tags"] == t]
        if tagged:
            e, key = self.expr(("Ent", rng.choice(tagged)), depth), ("val", ("str", rng.choice(voc.STRINGS[:8])))
            got = ("call", "getTag", e, [key])
            return ("if", ("call", "hasTag", e, [key]), got, self.leaf(t)) if rng.random() < 0.7 else got
        return None

    def boolean(self, depth):
        rng = self.rng
        if depth <= 0:
            found = self.reach(lambda at: at == "Bool")
            if found and rng.random() < 0.5:
                return conjunction(found[1] + [found[0]])
            return ("val", ("bool", rng.random() < 0.7)) if rng.random() < 0.3 else self.atom(0)
        r = rng.random()
        if r < 0.15:
            return ("and", self.boolean(depth - 1), self.boolean(depth - 1))
        if r < 0.3:
            return ("or", self.boolean(depth - 1), self.boolean(depth - 1))
        if r < 0.38:
            return ("not", self.boolean(depth - 1))
        if r < 0.43:
            return ("if", self.boolean(depth - 1), self.boolean(depth - 1), self.boolean(depth - 1))
        if r < 0.5:
            found = self.reach(lambda at: True)
            if found and found[1]:
                return ("and", conjunction(found[1]), self.boolean(depth - 1))
        return self.atom(depth - 1)

    def atom(self, depth):
        return self.rng.choice([self.equality, self.comparison, self.membership, self.having, self.liking, self.being,
                                self.containing, self.method, self.tagging])(depth)

    def equality(self, depth):
        t = self.any_type()
        return ("bin", self.rng.choice(("==", "!=")), self.expr(t, depth), self.expr(t, depth))

    def comparison(self, depth):
        t = self.rng.choice(["Long", "Long", "datetime", "duration"])
        return ("bin", self.rng.choice(COMPARE), self.expr(t, depth), self.expr(t, depth))

    def entity(self, depth):
        return self.expr(("Ent", self.rng.choice(self.names)), depth)

    def membership(self, depth):
        left = ("var", self.rng.choice(VARS[:3])) if self.rng.random() < 0.7 else self.entity(depth)
        if self.rng.random() < 0.5:
            return ("bin", "in", left, self.entity(depth))
        return ("bin", "in", left, ("set", [self.entity(depth) for _ in range(self.rng.randint(0, 3))]))

    def having(self, depth):
        of = self.rng.choice([("var", self.rng.choice(VARS)), self.entity(depth)])
        if self.rng.random() < 0.7:
            return ("has", of, [self.rng.choice(voc.ATTRS)])
        return ("has", of, self.rng.sample([a for a in voc.ATTRS if voc.is_ident(a)], self.rng.randint(1, 3)))

    def liking(self, depth):
        pieces = [self.rng.choice(voc.STRINGS + ["a", "b", "", ""]) for _ in range(self.rng.randint(1, 4))]
        return ("like", self.expr("String", depth), pieces)

    def being(self, depth):
        of = ("var", self.rng.choice(VARS[:3])) if self.rng.random() < 0.7 else self.entity(depth)
        return ("is", of, self.rng.choice(self.names), self.entity(depth) if self.rng.random() < 0.3 else None)

    def containing(self, depth):
        t = ("Set", voc.pick_type(self.rng, self.names, 1))
        how = self.rng.choice(["contains", "containsAll", "containsAny", "isEmpty"])
        args = [] if how == "isEmpty" else [self.expr(t[1] if how == "contains" else t, depth)]
        return ("call", how, self.expr(t, depth), args)

    def method(self, depth):
        how = self.rng.choice(["isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange", "lessThan",
                               "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"])
        t = "ipaddr" if how.startswith("is") else "decimal"
        args = [self.expr(t, depth)] if how == "isInRange" or t == "decimal" else []
        if self.rng.random() < self.wild / 20:
            args = args[1:] if args else [self.leaf(t)]
        return ("call", how, self.expr(t, depth), args)

    def tagging(self, depth):
        return ("call", "hasTag", self.entity(depth), [self.expr("String", depth)])


def conjunction(parts):
    e = parts[0]
    for p in parts[1:]:
        e = ("and", e, p)
    return e


def literal(v):
    if v[0] == "ext":
        return ("fn", v[1], [("val", ("str", v[2]))])
    if v[0] == "set":
        return ("set", [literal(x) for x in v[1]])
    if v[0] == "rec":
        return ("rec", {k: literal(x) for k, x in v[1].items()})
    return ("val", v)


# ---- spelled as text -------------------------------------------------------------------------------------------------

def uid_text(t, id_):
    return "%s::%s" % (t, voc.quote(id_))


def text(e):
    op = e[0]
    if op == "val":
        kind = e[1][0]
        if kind == "bool":
            return "true" if e[1][1] else "false"
        if kind == "long":
            return "(%d)" % e[1][1] if e[1][1] < 0 else str(e[1][1])
        return voc.quote(e[1][1]) if kind == "str" else uid_text(e[1][1], e[1][2])
    if op == "var":
        return e[1]
    if op == "attr":
        return "%s.%s" % (text(e[1]), e[2]) if voc.is_ident(e[2]) else "%s[%s]" % (text(e[1]), voc.quote(e[2]))
    if op == "bin":
        return "(%s %s %s)" % (text(e[2]), e[1], text(e[3]))
    if op in ("and", "or"):
        return "(%s %s %s)" % (text(e[1]), "&&" if op == "and" else "||", text(e[2]))
    if op == "not":
        return "(!%s)" % text(e[1])
    if op == "neg":
        return "(-%s)" % text(e[1])
    if op == "if":
        return "(if %s then %s else %s)" % tuple(map(text, e[1:]))
    if op == "call":
        return "%s.%s(%s)" % (text(e[2]), e[1], ", ".join(map(text, e[3])))
    if op == "fn":
        return "%s(%s)" % (e[1], ", ".join(map(text, e[2])))
    if op == "has":
        return "(%s has %s)" % (text(e[1]), ".".join(e[2]) if all(map(voc.is_ident, e[2])) else voc.quote(e[2][0]))
    if op == "like":
        return "(%s like \"%s\")" % (text(e[1]), "*".join(voc.quote(p)[1:-1].replace("*", "\\*") for p in e[2]))
    if op == "is":
        return "(%s is %s%s)" % (text(e[1]), e[2], " in " + text(e[3]) if e[3] else "")
    if op == "set":
        return "[%s]" % ", ".join(map(text, e[1]))
    return "{%s}" % ", ".join("%s: %s" % (voc.quote(k), text(x)) for k, x in e[1].items())


def scope_text(var, s):
    if s is None:
        return var
    if s[0] == "is":
        return "%s is %s%s" % (var, s[1], " in " + (s[2] if isinstance(s[2], str) else uid_text(*s[2])) if s[2] else "")
    if isinstance(s[1], list):
        return "%s in [%s]" % (var, ", ".join(uid_text(*u) for u in s[1]))
    return "%s %s %s" % (var, s[0], s[1] if isinstance(s[1], str) else uid_text(*s[1]))


def policy_text(p):
    notes = "".join("@%s(%s)\n" % (k, voc.quote(v)) for k, v in p["annotations"].items())
    scope = ", ".join(scope_text(v, p[v]) for v in VARS[:3])
    return "%s%s(%s)%s;" % (notes, p["effect"], scope,
                            "".join(" %s { %s }" % (kind, text(e)) for kind, e in p["conditions"]))


# ---- spelled as JSON -------------------------------------------------------------------------------------------------

METHODS = ("contains", "containsAll", "containsAny", "getTag", "hasTag")


def est(e):
    op = e[0]
    if op == "val":
        v = e[1]
        return {"Value": {"__entity": {"type": v[1], "id": v[2]}} if v[0] == "ent" else v[1]}
    if op == "var":
        return {"Var": e[1]}
    if op == "attr":
        return {".": {"left": est(e[1]), "attr": e[2]}}
    if op == "bin":
        return {e[1]: {"left": est(e[2]), "right": est(e[3])}}
    if op in ("and", "or"):
        return {"&&" if op == "and" else "||": {"left": est(e[1]), "right": est(e[2])}}
    if op in ("not", "neg"):
        return {"!" if op == "not" else "neg": {"arg": est(e[1])}}
    if op == "if":
        return {"if-then-else": {"if": est(e[1]), "then": est(e[2]), "else": est(e[3])}}
    if op == "call" and e[1] in METHODS:
        return {e[1]: {"left": est(e[2]), "right": est(e[3][0])}}
    if op == "call":
        return {"isEmpty": {"arg": est(e[2])}} if e[1] == "isEmpty" else {e[1]: [est(x) for x in [e[2]] + e[3]]}
    if op == "fn":
        return {e[1]: [est(x) for x in e[2]]}
    if op == "has":
        return {"has": {"left": est(e[1]), "attr": e[2][0] if len(e[2]) == 1 else e[2]}}
    if op == "like":
        pattern = []
        for i, piece in enumerate(e[2]):
            pattern += (["Wildcard"] if i else []) + ([{"Literal": piece}] if piece else [])
        return {"like": {"left": est(e[1]), "pattern": pattern}}
    if op == "is":
        return {"is": dict({"left": est(e[1]), "entity_type": e[2]}, **({"in": est(e[3])} if e[3] else {}))}
    if op == "set":
        return {"Set": [est(x) for x in e[1]]}
    return {"Record": {k: est(x) for k, x in e[1].items()}}


def scope_json(s):
    def one(u):
        return {"slot": u} if isinstance(u, str) else {"entity": {"type": u[0], "id": u[1]}}
    if s is None:
        return {"op": "All"}
    if s[0] == "is":
        return dict({"op": "is", "entity_type": s[1]}, **({"in": one(s[2])} if s[2] else {}))
    if isinstance(s[1], list):
        return {"op": "in", "entities": [{"type": t, "id": i} for t, i in s[1]]}
    return dict({"op": s[0]}, **one(s[1]))


def policy_json(p):
    out = {"effect": p["effect"], "conditions": [{"kind": kind, "body": est(e)} for kind, e in p["conditions"]]}
    out.update({v: scope_json(p[v]) for v in VARS[:3]})
    if p["annotations"]:
        out["annotations"] = p["annotations"]
    return out


# ---- policies --------------------------------------------------------------------------------------------------------

def scope(rng, schema, names, known, slot):
    r = rng.random()
    if slot and r < 0.6:
        return rng.choice([("==", slot), ("in", slot), ("is", rng.choice(names), slot)])
    pick = rng.choice(known) if known and rng.random() < 0.8 else \
        (rng.choice(names), voc.pick_id(rng, schema, names[0]))
    if r < 0.4:
        return None
    if r < 0.55:
        return ("==", pick)
    if r < 0.75:
        return ("in", pick)
    return ("is", rng.choice(names), pick if rng.random() < 0.4 else None)


def make_policy(rng, schema, known, wild, json=False, template=False):
    names, actions = list(schema["entities"]), list(schema["actions"])
    act = rng.choice(actions)
    decl = schema["actions"][act]
    env = {"principal": ("Ent", rng.choice(decl["principals"])), "resource": ("Ent", rng.choice(decl["resources"])),
           "context": ("Rec", decl["context"]), "action": None}
    r = rng.random()
    p = {"effect": "permit" if rng.random() < 0.7 else "forbid", "annotations": {},
         "principal": scope(rng, schema, names, known, "?principal" if template else None),
         "resource": scope(rng, schema, names, known, "?resource" if template else None),
         "action": ("==", act) if r < 0.4 else ("in", act) if r < 0.5 else
         ("in", rng.sample(actions, rng.randint(0, len(actions)))) if r < 0.65 else None}
    for var in ("principal", "resource"):       # mostly, what is asked of a variable fits the head
        s = p[var]
        if s and s[0] == "is":
            env[var] = ("Ent", s[1])
        elif s and s[0] == "==" and not isinstance(s[1], str):
            env[var] = ("Ent", s[1][0])
        elif s is None and rng.random() < 0.5:
            p[var] = ("is", env[var][1], None)
    maker = Maker(rng, schema, env, wild, json)
    p["conditions"] = [("when" if rng.random() < 0.8 else "unless", maker.boolean(rng.randint(1, 4)))
                       for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    if rng.random() < 0.1:
        p["annotations"][rng.choice(["note", "if", "advice"])] = rng.choice(voc.STRINGS)
    return p
