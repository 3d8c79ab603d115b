"""What runs for a case: the upstream, the engine with its users, and the peers beside it.

The engine has everything on: tokens of user and agent, policies, limits, budgets, sealed credentials, a durable journal
on a real disk.  Its data directory is filled by bench-populate before it starts; the load's tokens come from there.
"""
import json
import os
import shutil
import subprocess

import peers
from common import ROOT, harness, load_cpus, pinned, subject_cpus

POLICY = """
@id("users-use-their-mailboxes")
permit (principal is User, action in [%(actions)s], resource) when { context.user like "user-*" };
@id("agents-act-for-them")
permit (principal is Agent, action in [%(actions)s], resource) when { context.user like "user-*" };
@id("people-destroy")
forbid (principal, action in Action::"destroys", resource) unless { context.auth == "user" };
@id("nobody-gets-mail")
forbid (principal, action in [%(actions)s], resource) when { context.args has to && context.args.to == "nobody" };
"""
MORE = """@id("extra-%(i)d")
permit (principal == User::"somebody-%(i)d", action in [%(actions)s], resource)
  when { context.args has folder && context.args.folder == "folder-%(i)d" };
"""
CONFIG = """
workers: %(workers)d
idle_poll_us: %(idle_poll_us)d
connections: 100000
connectors: [%(connectors)s]
policies: ["%(folder)s/policy.cedar"]
%(tls)sauth: { audiences: ["%(audience)s"] }
journal: %(journal)s
budgets: %(budgets)s
overload: %(overload)s
providers:
%(providers)s"""
PROVIDER = """  %(name)s: { base_url: "%(url)s", token_url: "%(plain)s/token", client_id: bench-client,
    client_secret: "env:BENCH_SECRET", allow_loopback: true, allow_plain_http: true,
    plain_http2: %(plain_http2)s, limits: %(limits)s }
"""
# Far away, so that they are counted and never reached; a scenario brings them near.
LIMITS = {
    "outlook": {"mailbox_concurrency": {"concurrency": 100000}, "mailbox_requests": {"amount": 1000000000},
                "app_requests": {"amount": 1000000000}},
    "bench": {"account_at_once": {"concurrency": 100000}},
}
BUDGETS = {"tenant": {"per_minute": 1000000000}, "agent": {"per_minute": 1000000000},
           "user": {"per_minute": 1000000000}}
ENGINES = ("sluice", "tuned")


class Rig:
    AUDIENCE = "http://bench.example/mcp"

    def __init__(self, case, systems, opt, pinning=True):
        self.case, self.opt, self.pinning = case, opt, pinning
        self.folder = harness.scratch("sluice-bench-")
        self.data = os.path.join(opt.data, os.path.basename(self.folder)) if opt.data else \
            os.path.join(self.folder, "data")
        self.ca = os.path.join(self.folder, "ca.pem")
        self.providers = case.providers()
        self.systems, self.left_out, self.upstream = {}, {}, None
        try:
            self.start(systems)
        except BaseException:               # Ctrl-C, too: nothing of it is left
            self.stop()
            raise

    def start(self, systems):
        self.make_certificate()
        self.start_upstream()
        self.populate()
        if "tuned" in systems:
            shutil.copytree(self.data, self.data_of("tuned"))
        for name in systems:
            try:
                self.systems[name] = self.start_engine(name) if name in ENGINES else peers.START[name](self)
            except peers.Missing as e:
                self.left_out[name] = str(e)

    def program(self, name):
        return os.path.join(self.opt.programs, name)

    # ---- the upstream ----

    def make_certificate(self):
        """A certificate of its own authority for 127.0.0.1, which everybody here is told to trust."""
        self.key = os.path.join(self.folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", self.key, "-out", self.ca, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)

    def start_upstream(self):
        u = self.case.upstream
        command = [self.program("bench-upstream"), "--port", "0", "--delay", u["delay"], "--payload", str(u["payload"]),
                   "--expires-in", str(u["expires_in"])]
        if u["fail"]:
            command += ["--fail", u["fail"]]
        self.tls_port = 0
        if u["tls"]:
            self.tls_port = peers.free_port()
            command += ["--tls-port", str(self.tls_port), "--cert", self.ca, "--key", self.key]
        self.upstream = harness.Process(pinned(load_cpus(), command))
        self.port = int(self.upstream.wait_line(r"listening http://127\.0\.0\.1:(\d+)").group(1))

    def upstream_url(self):
        if self.case.upstream["tls"]:
            return "https://127.0.0.1:%d" % self.tls_port
        return "http://127.0.0.1:%d" % self.port

    def upstream_stats(self):
        import urllib.request
        with urllib.request.urlopen("http://127.0.0.1:%d/stats" % self.port, timeout=10) as r:
            return json.load(r)

    # ---- the engine ----

    def populate(self):
        """Users, accounts, and [(tenant, user, token)] of those that the load calls for."""
        c = self.case.callers
        self.tokens = []
        path = os.path.join(self.folder, "tokens")
        for provider in self.providers:
            command = [self.program("bench-populate"), "--data", self.data, "--provider", provider, "--tenants",
                       str(c["tenants"]), "--users", str(c["users"]), "--tokens", path, "--tokens-max",
                       str(c["tokens"]), "--audience", self.AUDIENCE, "--agent", "agent-0"]
            if c["expired"]:
                command.append("--expired")
            p = subprocess.run(command, capture_output=True, text=True)
            if p.returncode:
                raise SystemExit("bench: bench-populate: %s" % p.stderr.strip())
        with open(path) as f:
            self.tokens = [line.split() for line in f]
        for agent in range(1, c["agents"]):         # users take turns with agents
            for i in range(agent, len(self.tokens), c["agents"]):
                self.tokens[i][2] = None
            for tenant in {t for t, _, token in self.tokens if token is None}:
                rows = [r for r in self.tokens if r[2] is None and r[0] == tenant]
                for row, token in zip(rows, self.mint([r[1] for r in rows], tenant, "agent-%d" % agent)):
                    row[2] = token

    def mint(self, users, tenant, agent="agent-0"):
        """Fresh tokens, one per user named."""
        path = os.path.join(self.folder, "users")
        with open(path, "w") as f:
            f.write("\n".join(users) + "\n")
        return harness.run("token", "--users-file", path, "--tenant", tenant, "--agent", agent, "--ttl", "8h",
                           "--audience", self.AUDIENCE, "--data", self.data).split()

    def issuer_key(self):
        return peers.raw_public_key(os.path.join(self.data, "issuer.key"))

    def write_policies(self):
        actions = ", ".join('Action::"%s"' % p for p in self.providers)
        with open(os.path.join(self.folder, "policy.cedar"), "w") as f:
            f.write(POLICY % {"actions": actions})
            for i in range(self.case.engine["policies"] - POLICY.count("@id")):
                f.write(MORE % {"i": i, "actions": actions})

    def data_of(self, name):
        return self.data if name == "sluice" else "%s-%s" % (self.data, name)

    @staticmethod
    def engine_program(name):
        """What ./dev build made; `tuned` is what ./dev build tuned makes, if it is of the same code."""
        if name == "sluice":
            return harness.SLUICE
        program = os.path.join(ROOT, "build", name, "sluice")
        if not os.path.exists(program):
            raise peers.Missing("it is not built: ./dev build tuned")
        if os.path.getmtime(program) < os.path.getmtime(harness.SLUICE):
            raise peers.Missing("it is older than the program that it stands beside: ./dev build tuned")
        return program

    def start_engine(self, name):
        e = self.case.engine
        program = self.engine_program(name)
        self.write_policies()
        providers = "".join(PROVIDER % {
            "name": p, "url": self.upstream_url(), "plain": "http://127.0.0.1:%d" % self.port,
            "plain_http2": json.dumps(e["plain_http2"]),
            "limits": json.dumps({**LIMITS.get(p, {}), **e["limits"]})} for p in self.providers)
        config = os.path.join(self.folder, "sluice.yaml")
        with open(config, "w") as f:
            f.write(CONFIG % {"workers": e["workers"], "idle_poll_us": e["idle_poll_us"],
                              "connectors": ", ".join(self.providers), "folder": self.folder,
                              "tls": "" if e["http2"] else "tls: { provider_http2: false }\n",
                              "audience": self.AUDIENCE, "journal": json.dumps({"segment_mb": 64, **e["journal"]}),
                              "budgets": json.dumps({**BUDGETS, **e["budgets"]}),
                              "overload": json.dumps({"delay_ms": 500, **e["overload"]}), "providers": providers})
        try:
            engine = harness.Engine(config=config, data=self.data_of(name), program=program, env={
                "BENCH_SECRET": "bench-secret", "SSL_CERT_FILE": self.ca})
        except AssertionError as error:
            raise SystemExit("bench: the engine did not start: %s" % error) from None
        system = peers.System(name, engine, engine.url)
        if self.pinning:
            system.pin(subject_cpus(e["workers"]))
        system.metrics = "http://127.0.0.1:%d/metrics" % engine.port
        return system

    def stop(self):
        for name, system in self.systems.items():
            if name != "direct":
                system.stop()
        if self.upstream:
            self.upstream.signal(15)
            self.upstream.wait()
        if self.opt.data:
            for name in ENGINES:
                shutil.rmtree(self.data_of(name), True)
