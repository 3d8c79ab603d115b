"""What generated cases speak of: schemas with their types, entities and values that mostly keep to them.

A type is a string ("Bool", "Long", "String", "decimal", "ipaddr", "datetime", "duration") or a tuple: ("Set", T),
("Rec", {name: (T, required)}), ("Ent", "Namespace::Name").  A value is what Cedar's JSON makes of it, kept apart from
its spelling: ("long", 3), ("ent", type, id), ("ext", fn, text), ("set", [...]), ("rec", {...}), ("bool", b) and
("str", s).
"""
LONGS = [0, 1, -1, 2, 3, 5, 10, -10, 60, 1000, 86400000, 2**31, -2**31, 2**53 - 1, -(2**53) + 1]
EDGES = [2**63 - 1, -2**63, 2**62, -2**62, 2**63 - 2]
STRINGS = ["", "a", "b", "ab", "abc", "a*b", "*", "\\", "\"", "'", "\n", "\t", "\0", "é", "💩", "alice", "bob",
           "Zürich", "10.0.0.1", "1.5", "user@example.com", "aaaaaaaaaaaaaaaaaaaaaaaa", "ab ab ab", "\u202e", "\u0301",
           "read"]
EXT = {
    "decimal": ("decimal", ["0.0", "1.0", "1.00", "-1.5", "0.0001", "922337203685477.5807", "-922337203685477.5808",
                            "12.3456", "-0.0", "00.10"],
                ["1", "1.", ".5", "1.23456", "922337203685477.5808", "+1.0", "1.0 ", "", "a", "1e1", "--1.0"]),
    "ipaddr": ("ip", ["10.0.0.1", "10.0.0.0/8", "127.0.0.1", "127.0.0.0/7", "224.0.0.1", "0.0.0.0/0", "::1", "::",
                      "::/0", "ff00::2", "fe80::1/10", "1:2:3:4:5:6:7:8", "10.0.0.7/32", "::ffff:1/128",
                      "2001:db8::/32", "255.255.255.255", "239.1.2.3/4", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8"],
               ["10.0.0", "10.0.0.256", "10.0.0.01", "10.0.0.1/33", "10.0.0.1/08", "::1/129", "1::2::3",
                "::ffff:1.2.3.4", "12345::", "", " 10.0.0.1", "10.0.0.1/", "g::", ":1", "1:", "1:2:3:4:5:6:7:8:9",
                "10.0.0.1/-1", ":::"]),
    "datetime": ("datetime", ["1970-01-01", "2024-02-29", "2024-10-15T11:35:00Z", "2024-10-15T11:35:00.123Z",
                              "1969-12-31T23:59:59.999Z", "0000-01-01", "9999-12-31T23:59:59.999Z",
                              "2024-10-15T11:35:00+0530", "2024-10-15T11:35:00.001-2359", "2000-02-29"],
                 ["2023-02-29", "2024-13-01", "2024-00-10", "2024-1-1", "2024-10-15T24:00:00Z", "2024-10-15T11:35:60Z",
                  "2024-10-15T11:35Z", "2024-10-15T11:35:00", "2024-10-15T11:35:00+2400", "2024-10-15T11:35:00.12Z",
                  "2024-10-15 ", "", "2024-10-15T11:35:00z", "2024-10-15T11:35:00+05:30", "10000-01-01", "2100-02-29",
                  "2024-10-15T11:35:00+0060"]),
    "duration": ("duration", ["0ms", "1d", "-1d", "1h30m", "1d2h3m4s5ms", "90m", "-5s", "9223372036854775807ms",
                              "-9223372036854775808ms", "00h", "106751991167d", "86400s"],
                 ["1", "d", "", "1h1d", "1.5h", "9223372036854775808ms", "106751991168d", "1 d", "+1d", "--1d", "1d1d",
                  "1D", "-", "1ms1s", "153722867280912931m"]),
}
SCALARS = ["Bool", "Long", "String"]
ATTRS = ["n", "b", "s", "owner", "tags", "r", "d", "at", "ip", "x", "if", "has", "a b", "ü", "group", "level"]
IDS = ["a", "b", "c", "alice", "", "x y", "\"q\"", "ü", "Ünï", "12UA45"]


def pick_type(rng, names, depth=0):
    r = rng.random()
    if r < 0.5 or depth > 1:
        return rng.choice(SCALARS)
    if r < 0.65:
        return rng.choice(list(EXT))
    if r < 0.78:
        return ("Set", pick_type(rng, names, depth + 1))
    if r < 0.88:
        return ("Ent", rng.choice(names))
    return ("Rec", attributes(rng, names, rng.randint(0, 3), depth + 1))


def attributes(rng, names, n, depth=0):
    return {a: (pick_type(rng, names, depth), rng.random() < 0.6) for a in rng.sample(ATTRS, min(n, len(ATTRS)))}


def make_schema(rng):
    """{"space", "entities": {name: {attrs, parents, tags, enum}},
    "actions": {(type, id): {principals, resources, context, parents}}}"""
    space = rng.choice(["", "", "App::", "A::B::"])
    names = [space + n for n in rng.sample(["User", "Group", "Photo", "Album", "Doc", "Team"], rng.randint(2, 4))]
    if space and rng.random() < 0.3:
        names[-1] = names[-1].rsplit("::", 1)[-1]
    entities = {}
    for name in names:
        e = {"attrs": attributes(rng, names, rng.randint(0, 5)), "parents": [], "tags": None, "enum": None}
        if rng.random() < 0.5:
            e["parents"] = rng.sample(names, rng.randint(1, min(2, len(names))))
        if rng.random() < 0.3:
            e["tags"] = pick_type(rng, names, 1)
        entities[name] = e
    if rng.random() < 0.2:
        last = entities[names[-1]]
        last.update(attrs={}, parents=[], tags=None, enum=rng.sample(["a", "b", "c", "x y"], rng.randint(1, 3)))
    kind, actions = space + "Action", {}
    for a in rng.sample(["read", "write", "x y", "del", "all"], rng.randint(1, 4)):
        actions[(kind, a)] = {"principals": rng.sample(names, rng.randint(1, len(names))),
                              "resources": rng.sample(names, rng.randint(1, len(names))),
                              "context": attributes(rng, names, rng.randint(0, 4)),
                              "parents": rng.sample(list(actions), min(len(actions), rng.randint(0, 2)))}
    return {"space": space, "entities": entities, "actions": actions}


# ---- values ----------------------------------------------------------------------------------------------------------

def value(rng, t, schema, wild=0.0, depth=0):
    """A value of type t; with probability `wild`, at each place, of another."""
    if rng.random() < wild:
        t = pick_type(rng, list(schema["entities"]))
    if t == "Bool":
        return ("bool", rng.random() < 0.5)
    if t == "Long":
        return ("long", rng.choice(LONGS) if rng.random() < 0.8 else rng.randint(-20, 20))
    if t == "String":
        return ("str", rng.choice(STRINGS))
    if isinstance(t, str) and t in EXT:
        fn, good, bad = EXT[t]
        return ("ext", fn, rng.choice(bad) if rng.random() < wild / 4 else rng.choice(good))
    if t[0] == "Set":
        return ("set", [value(rng, t[1], schema, wild, depth + 1) for _ in range(rng.randint(0, 3))])
    if t[0] == "Ent":
        return ("ent", t[1], pick_id(rng, schema, t[1]))
    return ("rec", record(rng, t[1], schema, wild, depth + 1))


def record(rng, attrs, schema, wild=0.0, depth=0):
    out = {}
    for name, (t, required) in attrs.items():
        if required and rng.random() >= wild / 3 or not required and rng.random() < 0.6:
            out[name] = value(rng, t, schema, wild, depth)
    if rng.random() < wild / 3:
        out[rng.choice(ATTRS)] = value(rng, pick_type(rng, list(schema["entities"])), schema, 0, depth)
    return out


def pick_id(rng, schema, name):
    enum = schema["entities"].get(name, {}).get("enum")
    return rng.choice(enum) if enum and rng.random() < 0.9 else rng.choice(IDS[:6] if rng.random() < 0.9 else IDS)


def to_json(rng, v, implicit=False):
    """implicit: spellings that only a schema tells from records and strings, now and then."""
    kind = v[0]
    if kind in ("bool", "long", "str"):
        return v[1]
    if kind == "ent":
        uid = {"type": v[1], "id": v[2]}
        return uid if implicit and rng.random() < 0.5 else {"__entity": uid}
    if kind == "ext":
        r = rng.random()
        if implicit and r < 0.3:
            return v[2]
        if implicit and r < 0.5:
            return {"fn": v[1], "arg": v[2]}
        return {"__extn": {"fn": v[1], "arg": v[2]}}
    if kind == "set":
        return [to_json(rng, x, implicit) for x in v[1]]
    return {k: to_json(rng, x, implicit) for k, x in v[1].items()}


def make_entities(rng, schema, wild, typed):
    uids, out = set(), []
    for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 8])):
        name = rng.choice(list(schema["entities"]))
        uids.add((name, pick_id(rng, schema, name)))
    order = sorted(uids)
    rng.shuffle(order)
    for at, (name, id_) in enumerate(order):
        e = schema["entities"][name]
        above = [u for u in order[:at] if u[0] in e["parents"] or rng.random() < wild / 3]
        if e["parents"] and rng.random() < 0.15:
            above.append((rng.choice(e["parents"]), "elsewhere"))
        one = {"uid": {"type": name, "id": id_},
               "attrs": {k: to_json(rng, v, typed) for k, v in record(rng, e["attrs"], schema, wild).items()},
               "parents": [{"type": t, "id": i} for t, i in rng.sample(above, min(len(above), 3))]}
        if e["tags"] and rng.random() < 0.8 or rng.random() < wild / 5:
            t = e["tags"] or "String"
            one["tags"] = {k: to_json(rng, value(rng, t, schema, wild), typed)
                           for k in rng.sample(STRINGS[:8], rng.randint(0, 3))}
        out.append(one)
    if not typed:
        for (kind, id_), a in schema["actions"].items():
            out.append({"uid": {"type": kind, "id": id_}, "attrs": {},
                        "parents": [{"type": t, "id": i} for t, i in a["parents"]]})
    return out, order


# ---- schemas, spelled ------------------------------------------------------------------------------------------------

def quote(s):
    special = {"\\": "\\\\", "\"": "\\\"", "\n": "\\n", "\t": "\\t", "\0": "\\0", "\r": "\\r"}
    return "\"" + "".join(special.get(c, c) for c in s) + "\""


def is_ident(s):
    return s.isascii() and s.isidentifier() and s not in ("if", "in", "is", "has", "like", "then", "else", "true",
                                                          "false")


def type_text(t):
    if t == "Bool":
        return "Bool"
    if isinstance(t, str):
        return t
    if t[0] == "Set":
        return "Set<%s>" % type_text(t[1])
    if t[0] == "Ent":
        return t[1]
    return attrs_text(t[1])


def attrs_text(attrs):
    return "{ %s }" % ", ".join("%s%s: %s" % (quote(k) if not is_ident(k) else k, "" if required else "?", type_text(t))
                                for k, (t, required) in attrs.items())


def schema_text(schema):
    def entity(name, e):
        short = name.rsplit("::", 1)[-1]
        if e["enum"]:
            return "entity %s enum [%s];" % (short, ", ".join(quote(i) for i in e["enum"]))
        return "entity %s%s = %s%s;" % (short, " in [%s]" % ", ".join(e["parents"]) if e["parents"] else "",
                                        attrs_text(e["attrs"]), " tags " + type_text(e["tags"]) if e["tags"] else "")

    def action(id_, a):
        above = " in [%s]" % ", ".join(quote(i) for _, i in a["parents"]) if a["parents"] else ""
        return "action %s%s appliesTo { principal: [%s], resource: [%s], context: %s };" % (
            quote(id_), above, ", ".join(a["principals"]), ", ".join(a["resources"]), attrs_text(a["context"]))

    parts = {}
    for name, e in schema["entities"].items():
        parts.setdefault(name.rpartition("::")[0], []).append(entity(name, e))
    for (kind, id_), a in schema["actions"].items():
        parts.setdefault(kind.rpartition("::")[0], []).append(action(id_, a))
    return "\n".join("namespace %s {\n%s\n}" % (space, "\n".join(lines)) if space else "\n".join(lines)
                     for space, lines in parts.items())


def type_json(t):
    if isinstance(t, str) and t in EXT:
        return {"type": "Extension", "name": t}
    if isinstance(t, str):
        return {"type": "Boolean" if t == "Bool" else t}
    if t[0] == "Set":
        return {"type": "Set", "element": type_json(t[1])}
    if t[0] == "Ent":
        return {"type": "Entity", "name": t[1]}
    return attrs_json(t[1])


def attrs_json(attrs):
    return {"type": "Record", "attributes": {k: dict(type_json(t), **({} if required else {"required": False}))
                                             for k, (t, required) in attrs.items()}}


def schema_json(schema):
    out = {}

    def of(space):
        return out.setdefault(space, {"entityTypes": {}, "actions": {}})

    for name, e in schema["entities"].items():
        decl = {"enum": e["enum"]} if e["enum"] else {"memberOfTypes": e["parents"], "shape": attrs_json(e["attrs"])}
        if e["tags"]:
            decl["tags"] = type_json(e["tags"])
        of(name.rpartition("::")[0])["entityTypes"][name.rsplit("::", 1)[-1]] = decl
    for (kind, id_), a in schema["actions"].items():
        of(kind.rpartition("::")[0])["actions"][id_] = {
            "memberOf": [{"id": i} for _, i in a["parents"]],
            "appliesTo": {"principalTypes": a["principals"], "resourceTypes": a["resources"],
                          "context": attrs_json(a["context"])}}
    return out
