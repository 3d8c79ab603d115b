"""What the pages say is so: examples run, every key, error and method is there and none too many, links lead somewhere.

Fenced blocks of README.md and docs/*.md, by their tags:

  sh run        each line is run beside an engine that serves the demo tenant; `#=> text` must be in what it prints;
                the test itself is systemd, which stops that engine and starts it
  yaml config   accepted by `sluice serve --check`
  yaml desk     the configuration of the example connector
  cedar         accepted by `sluice policy check`
  c connector   the example connector: the build has made it a program (the second argument), which is run here
  json          parses
  cedar file X  what is in a file X beside the commands; validates against the schema that the page's commands make
  json file X   likewise; parses
"""
import glob
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import docs_gen
import harness
import house
import upstream

ROOT = harness.ROOT
EXAMPLE = os.path.abspath(sys.argv.pop(2)) if len(sys.argv) > 2 and os.path.exists(sys.argv[2]) else None
PAGES = ["README.md"] + sorted(os.path.relpath(p, ROOT) for p in glob.glob(os.path.join(ROOT, "docs", "*.md")))
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
read = docs_gen.read


def blocks(tag, pages=None):
    """[(page:line, text)]"""
    found = []
    for page in pages or PAGES:
        text = read(page)
        for m in FENCE.finditer(text):
            if m.group(1).strip() == tag:
                found.append(("%s:%d" % (page, text.count("\n", 0, m.start()) + 1), m.group(2)))
    return found


def files(language, pages=None):
    """[(page:line, name, text)] of the blocks that are files."""
    named = [t.split() for t in sorted({m.group(1).strip() for p in pages or PAGES for m in FENCE.finditer(read(p))})
             if re.match(language + " file [a-z.]+$", t)]
    return [(where, t[2], text) for t in named for where, text in blocks(" ".join(t), pages)]


def prose(text):
    return FENCE.sub(lambda m: "\n" * m.group().count("\n"), text)


def cells(page, head):
    """The rows of the table whose first heading is `head`, as lists of cells."""
    found, within = [], False
    for line in prose(read(page)).split("\n"):
        if line.startswith("| " + head + " |"):
            within = True
        elif within and line.startswith("| "):
            found.append([c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif not line.startswith("|--"):
            within = False
    return found


def ticked(text):
    return re.findall(r"`([^`]+)`", text)


# ---- examples --------------------------------------------------------------------------------------------------------

class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = harness.scratch()
        cls.etc = os.path.join(cls.dir, "etc")
        cls.data = os.path.join(cls.dir, "sluice-data")
        os.makedirs(os.path.join(cls.etc, "policies"))
        for i, (_, text) in enumerate(blocks("cedar")):
            with open(os.path.join(cls.etc, "policies", "%02d.cedar" % i), "w") as f:
                f.write(text)
        for _, name, text in files("cedar") + files("json"):
            with open(os.path.join(cls.dir, name), "w") as f:
                f.write(text)
        os.mkdir(os.path.join(cls.dir, "docs"))
        os.symlink(os.path.join(ROOT, "docs", "demo"), os.path.join(cls.dir, "docs", "demo"))

    def placed(self, text):
        return text.replace("/etc/sluice/", self.etc + "/").replace("/var/lib/sluice/", self.data + "/").replace(
            "/var/backups/", self.dir + "/")

    def accepted(self, program, where, text):
        path = os.path.join(self.dir, "config.yaml")
        credentials = os.path.join(self.dir, "credentials")
        os.makedirs(credentials, exist_ok=True)
        env = {"CREDENTIALS_DIRECTORY": credentials}
        for name in re.findall(r"credential:([\w-]+)", text):
            with open(os.path.join(credentials, name), "w") as f:
                f.write("ab" * 32)
        env.update((name, "secret") for name in re.findall(r"env:(\w+)", text))
        with open(path, "w") as f:
            f.write(self.placed(text))
        p = subprocess.run([program, "serve", "--check", "--config", path], capture_output=True, text=True, cwd=ROOT,
                           env=dict(os.environ, **env))
        self.assertEqual(p.returncode, 0, where + ": " + p.stderr)
        self.assertIn("acceptable", p.stdout)

    def test_configurations_are_accepted(self):
        self.assertGreaterEqual(len(blocks("yaml config")), 4)
        for where, text in blocks("yaml config"):
            with self.subTest(where):
                self.accepted(harness.SLUICE, where, text)

    def test_policies_are_accepted(self):
        for where, text in blocks("cedar"):
            with self.subTest(where):
                path = os.path.join(self.dir, "one.cedar")
                with open(path, "w") as f:
                    f.write(text)
                harness.run("policy", "check", path)

    def test_policies_that_are_files_validate_and_none_is_useless(self):
        config = os.path.join(self.dir, "all.yaml")
        with open(config, "w") as f:
            f.write("connectors: [outlook]\nentities: [%s/entities.json]\n" % self.dir)
        self.assertGreaterEqual(len(files("cedar")), 4)
        for where, name, _ in files("cedar"):
            with self.subTest(where):
                harness.run("policy", "check", "--config", config, "--deny-warnings", os.path.join(self.dir, name))

    def test_commands_do_what_the_page_says(self):
        def start():
            return harness.Engine(data=self.data, args=["--policies", "docs/demo"])

        engine = start()
        env = dict(os.environ, PATH=os.path.dirname(harness.SLUICE) + os.pathsep + os.environ["PATH"])
        ran = 0
        for where, text in blocks("sh run"):
            for line in self.placed(text).replace("\\\n", " ").splitlines():
                command, _, expected = line.partition("#=>")
                if command == "systemctl stop sluice":
                    self.assertEqual(engine.stop(), 0)
                    continue
                if command == "systemctl start sluice":
                    engine = start()
                    continue
                p = subprocess.run(["bash", "-eo", "pipefail", "-c", command], capture_output=True, text=True,
                                   cwd=self.dir, env=env, timeout=60)
                self.assertEqual(p.returncode, 0, "%s: %s\n%s%s" % (where, command, p.stdout, p.stderr))
                self.assertIn(expected.strip(), p.stdout + p.stderr, "%s: %s" % (where, command))
                ran += 1
        self.assertGreaterEqual(ran, 10)
        self.assertEqual(engine.stop(), 0)

    def test_json_parses(self):
        for where, text in blocks("json") + [(where, text) for where, _, text in files("json")]:
            with self.subTest(where):
                json.loads(text)

    # ---- the example connector ----

    def desk(self):
        """A help desk: tickets by reference; what each test wants to go wrong is in `trouble`."""
        tickets, trouble = {}, []

        def behave(c, request):
            head, body = request.split(b"\r\n\r\n", 1)
            method, target = head.split(b" ", 2)[:2]
            if trouble:
                return trouble.pop(0)(c, json.loads(body) if body else None, tickets)
            if method == b"POST":
                ticket = json.loads(body)
                if ticket["reference"] in tickets:
                    return upstream.answer(c, 409, b'{"error":{"text":"reference is taken"}}')
                tickets[ticket["reference"]] = dict(ticket, number=len(tickets) + 1)
                return upstream.answer(c, 201, json.dumps(tickets[ticket["reference"]]).encode())
            m = re.search(rb"reference=(\w+)", target)
            found = [t for t in tickets.values() if not m or t["reference"] == m.group(1).decode()]
            return upstream.answer(c, 200, json.dumps({"tickets": found}).encode())

        return upstream.Upstream(behave), tickets, trouble

    def test_the_connector_works(self):
        if not EXAMPLE:
            self.skipTest("needs the program made of docs/connectors.md as second argument")
        (where, config), = blocks("yaml desk")
        self.accepted(EXAMPLE, where, config)
        desk, tickets, trouble = self.desk()
        policy = os.path.join(self.dir, "desk.cedar")
        with open(policy, "w") as f:
            f.write('permit (principal in Tenant::"demo", action in Action::"desk", resource is Desk);\n'
                    'permit (principal in Tenant::"demo", action in Action::"accounts", resource is Desk);\n'
                    'forbid (principal is Agent, action in Action::"writes", resource == Desk::"board");')
        path = os.path.join(self.dir, "desk.yaml")
        with open(path, "w") as f:
            f.write(config.replace("http://127.0.0.1:8080", desk.url))
        engine = harness.Process([EXAMPLE, "serve", "--listen", "127.0.0.1:0", "--config", path, "--policies", policy,
                                  "--data", os.path.join(self.dir, "desk-data")])
        engine.wait_line("listening")

        def sluice(*args, code=0, stdin=None):
            who = ["--tenant", "demo", "--as", "ann@demo.example", "--agent", "helper", "--data", "desk-data"]
            p = subprocess.run([EXAMPLE, *args, *who], capture_output=True, text=True, cwd=self.dir, input=stdin,
                               timeout=60)
            self.assertEqual(p.returncode, code, p.stdout + p.stderr)
            return p.stdout + p.stderr

        def lost(c, ticket, all_tickets):
            all_tickets[ticket["reference"]] = dict(ticket, number=77)
            return "close"

        sluice("connect", "desk", "--token-file", "-", stdin="desk-token\n")
        self.assertIn("urgency", sluice("tools", "desk.open_ticket"))
        opened = ("call", "desk.open_ticket", "--arg", "queue=billing", "--arg", "title=Printer")
        self.assertIn("number: 1", sluice(*opened, "--arg", "urgency=high", "--key", "k1"))
        self.assertIn("number: 1", sluice(*opened, "--arg", "urgency=high", "--key", "k1"))
        self.assertEqual([t["urgency"] for t in tickets.values()], ["high"], "one key, one ticket")
        self.assertIn("Printer", sluice("call", "desk.list_tickets", "--arg", "queue=billing"))
        trouble.append(lambda c, ticket, all_tickets: upstream.answer(
            c, 400, b'{"error":{"code":"slow_down","text":"slow down","wait_ms":50}}'))
        self.assertIn("number: 2", sluice(*opened))
        trouble.append(lost)
        self.assertIn("number: 77", sluice(*opened), "the lost answer was settled by looking")
        self.assertEqual(len(tickets), 3)
        sluice("call", "desk.open_ticket", "--arg", "queue=board", "--arg", "title=x", code=3)
        sluice(*opened, "--arg", "urgency=extreme", code=3)
        self.assertEqual(len(tickets), 3)
        self.assertTrue(all(re.search(rb"(?i)\nauthorization: Bearer desk-token\r", r) for r in desk.requests))
        engine.signal(15)
        self.assertEqual(engine.wait(), 0, engine.text())
        desk.close()


# ---- references ------------------------------------------------------------------------------------------------------

def config_tables():
    """{table: [(key, kind, argument)]} of config.c."""
    text = read("engine/runtime/config.c")
    tables = {}
    for m in re.finditer(r"static const struct key (\w+)\[\] = \{(.*?)\n\};", text, re.S):
        rows = re.findall(r'(?:TOP|SETUP|ISSUER|LIMIT|TOOL_BUDGET)\("(\w+)", (K_\w+), ([\w.\[\]]+)\)|'
                          r'\{ "(\w+)", (K_\w+), 0, (\w+), (\w+) \}', m.group(2))
        tables[m.group(1)] = [(a or d, b or e, c or (f if f != "NULL" else g)) for a, b, c, d, e, f, g in rows]
    return tables


class Configuration(unittest.TestCase):
    KINDS = {"K_TEXT": "text", "K_BOOL": "true/false", "K_INT": "number", "K_LIST": "list", "K_SECRET": "secret",
             "K_LEVEL": "level", "K_FORMAT": "format", "K_VALIDATION": "strict, warn or off"}
    CALLS = {"read_issuers": ("issuer_keys", "[]"), "read_providers": ("provider_keys", ".NAME"),
             "read_limits": ("limit_keys", ".LIMIT"), "read_costs": ("", ".REQUEST"),
             "read_tool_budgets": ("tool_budget_keys", ".TOOL")}

    def keys(self, table="top_keys", prefix=""):
        """{dotted key: (type, field)}"""
        found = {}
        for name, kind, to in config_tables()[table]:
            if kind == "K_MAP":
                found.update(self.keys(to, prefix + name + "."))
            elif kind == "K_CALL":
                inner, suffix = self.CALLS[to]
                if not inner:
                    found[prefix + name + suffix] = ("number", "")
                    continue
                if to == "read_issuers":
                    found[prefix + name] = ("list of mappings", "")
                found.update(self.keys(inner, prefix + name + suffix + "."))
            else:
                found[prefix + name] = (self.KINDS[kind], to)
        return found

    def test_every_key_is_described(self):
        keys = self.keys()
        rows = {ticked(r[0])[0]: r for r in cells("docs/operating.md", "key")}
        self.assertGreater(len(keys), 50)
        self.assertEqual(sorted(keys), sorted(rows))
        for key, (kind, _) in keys.items():
            self.assertEqual(rows[key][1], kind, key)

    def test_defaults_are_those_of_the_code(self):
        text = read("engine/runtime/config.c")
        body = re.search(r"static struct config \*config_new\(void\)\n\{(.*?)\n\}", text, re.S).group(1)
        code = {field: value.strip('"') for field, value in re.findall(r"c->(\w+) = ([^;]+);", body)}
        rows = {ticked(r[0])[0]: r[2].strip("`") for r in cells("docs/operating.md", "key")}
        seen = 0
        for key, (kind, field) in self.keys().items():
            own = not key.startswith(("auth.issuers", "providers."))
            if own and field in code:
                self.assertEqual(rows[key], re.sub(r"LOG_LEVEL_(\w+)", lambda m: m.group(1).lower(), code[field]), key)
                seen += 1
            elif kind == "true/false":
                self.assertEqual(rows[key], "false", key)
        self.assertEqual(seen, len(code), "config_new() sets something the page's table does not know")


class References(unittest.TestCase):
    def test_what_is_made_from_the_code_is_current(self):
        self.assertEqual(docs_gen.stale(), [], "run python3 tests/script/docs_gen.py")

    def test_each_error_has_something_to_do(self):
        named = [n for r in cells("docs/operating.md", "error") for n in ticked(r[0])]
        rows = [args[0].lower() for _, args in docs_gen.errors() if args[2] != "INTERNAL"]
        self.assertEqual(sorted(named), sorted(rows))

    def test_limits_are_those_the_connectors_declare(self):
        declared = {}
        for path in glob.glob(os.path.join(ROOT, "connectors", "*", "*.c")):
            with open(path) as f:
                text = f.read()
            for m in re.finditer(r"^PROVIDER\(.*?^ *\.name = \"(\w+)\".*?\)\n\n", text, re.M | re.S):
                if ".fixture = true" in m.group():
                    continue
                for limit, fields in re.findall(r'\{ \.name = "(\w+)", (\.scope = PER_\w+,[^"]*)', m.group()):
                    values = dict(re.findall(r"\.(\w+) = (\w+)", fields))
                    declared[m.group(1) + " " + limit] = (
                        values.get("concurrency") or ("%s ms apart" % values["spacing_ms"] if "spacing_ms" in values
                                                      else "%s in %s ms" % (values["amount"], values["window_ms"])))
        page = {" ".join(ticked(r[0])): r[2] for r in cells("docs/operating.md", "limit")}
        self.assertEqual(page, declared)

    def test_methods_are_those_that_are_served(self):
        code = {}
        for name, flags in re.findall(r'^    \{ STR\("([\w/]+)"\),\s+([\w |]+),', read("engine/mcp/methods.c"), re.M):
            words = set(flags.split(" | "))
            code[name] = tuple("yes" if words & {era, "BOTH"} else "" for era in ("IN_LEGACY", "IN_MODERN"))
        page = {ticked(r[0])[0]: (r[1], r[2]) for r in cells("docs/protocol.md", "method")}
        self.assertEqual(page, code)

    def test_meta_keys_are_those_of_the_code(self):
        code = set()
        for path in glob.glob(os.path.join(ROOT, "engine", "mcp", "*.c")):
            with open(path) as f:
                code |= set(re.findall(r"dev\.sluice/\w+", f.read()))
        self.assertEqual(set(re.findall(r"dev\.sluice/\w+", read("docs/protocol.md"))), code)

    def test_every_room_is_in_the_house(self):
        named = {ticked(r[0])[0] for r in cells("docs/design.md", "room")}
        self.assertEqual(named, {"engine/" + r for r in house.rooms()} | {"ratelimit", "connectors"})

    def test_metrics_that_are_named_exist(self):
        known = {"sluice_" + m[0].lower() for m in docs_gen.metrics()}
        for page in PAGES:
            if page != "docs/metrics.md":
                for name in re.findall(r"\bsluice_[a-z_]+(?=[`{])", read(page)):
                    self.assertIn(name, known, page)

    def test_verbs_and_options_exist(self):
        verbs = set(re.findall(r"^  (\w+)  +\w", harness.run("--help"), re.M))
        helps = {}
        for page in PAGES + ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]:
            text = read(page)
            commands = re.findall(r"`sluice ([a-z][^`]*)`", prose(text))
            for m in FENCE.finditer(text):
                if m.group(1).startswith("sh"):
                    commands += re.findall(r"\bsluice ([a-z][^|>&\n#]*)", m.group(2))
            commands += [" ".join(server["args"]) for tag in ("json",) for _, block in blocks(tag, [page])
                         for server in json.loads(block).get("mcpServers", {}).values() if "args" in server]
            for command in commands:
                verb = command.split()[0]
                self.assertIn(verb, verbs, "%s: sluice %s" % (page, command))
                helps.setdefault(verb, harness.run(verb, "--help"))
                for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", command):
                    self.assertRegex(helps[verb], r"(?<![\w-])%s(?![\w-])" % option, "%s: sluice %s" % (page, command))


    def test_pages_that_the_program_names_exist(self):
        """In what `sluice VERB --help` teaches, in the man page, in comments of configurations."""
        for path in [p for p in house.tracked() if p.endswith((".c", ".h", ".1", ".yaml", ".cedar"))] + ["dev"]:
            for page in re.findall(r"\bdocs/[\w./-]+\.md\b", read(path)):
                self.assertTrue(os.path.exists(os.path.join(ROOT, page)), "%s names %s" % (path, page))


class Links(unittest.TestCase):
    NAME = re.compile(r"^[\w./*-]+\.(?:c|h|def|S|py|mjs|cedar|yaml|md|cmake)$")

    @classmethod
    def setUpClass(cls):
        cls.files = [p for p in house.tracked() if "/seeds/" not in p]
        cls.pages = [p for p in cls.files if p.endswith(".md")] or PAGES

    def anchors(self, path):
        found = set()
        for title in re.findall(r"^#+ (.*)$", prose(read(path)), re.M):
            plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
        return found

    def test_links_lead_somewhere(self):
        for page in self.pages:
            for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(read(page))):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, anchor = target.partition("#")
                path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
                self.assertTrue(os.path.exists(os.path.join(ROOT, path)), "%s: %s" % (page, target))
                if anchor:
                    self.assertIn(anchor, self.anchors(path), "%s: %s" % (page, target))

    def test_files_that_pages_name_exist(self):
        """A name in backticks, as the end of the path of some file of the project."""
        for page in self.pages:
            for name in (w for t in ticked(prose(read(page))) for w in re.split(r"[\s,:]+", t)):
                if not self.NAME.match(name) or name.startswith("/") or "NAME" in name:
                    continue
                pattern = re.compile("(?:^|/)" + re.escape(name).replace(r"\*", "[^/]*") + "$")
                near = [f for f in self.files if pattern.search(f)]
                self.assertTrue(near, "%s names %s, which is not there" % (page, name))


if __name__ == "__main__":
    harness.main()
