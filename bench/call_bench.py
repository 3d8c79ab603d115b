#!/usr/bin/env python3
"""What a governed call costs, beside nginx in the same run.

    call_bench.py SLUICE [--rounds 5] [--seconds 4] [--connections 64] [--users 256] [--data DIR] [--json] [--check]
                         [--only direct|nginx|sluice|local] [--pause]

Subjects, one after another within each round, so that whatever else the machine does hits all of them:

    direct   wrk -> upstream                       the load's and the upstream's own pace
    nginx    wrk -> nginx proxy_pass -> upstream   keep-alive on both sides, no log, no buffering to disk
    sluice   wrk -> sluice -> upstream             tools/call outlook.list_mail: token, schema, policy, limits, sealed
                                                   arguments, intent, grant, exchange, durable outcome, checked result
    local    wrk -> sluice                         tools/call add: the same without an upstream

wrk sends the same bytes to all four, a tools/call of one of many users.  The upstream is an nginx that answers
everything with the same 1.4 KB of mail.  Where there are two processors the subject has one to itself and the load and
the upstream share the other.  The grants are real: users log in at the sandbox, which then stands idle.

CPU is utime + stime of the subject's process, threads of the kernel's on its behalf (io-wq) included, divided by the
requests it answered, with N connections kept busy.  Latency is taken apart from that, over one connection: what a
subject adds is its latency minus that of `direct`.  Every call must end in outcome "done", or there is no result.

--check: exit 1 unless sluice needs at most RATIO_MAX times nginx's CPU.  --pause: starts everything, says what runs
where, and waits for Enter: for profilers.
"""
import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "script"))
import harness

RATIO_MAX = 2.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MESSAGES = [{"id": "AAMkAGI2%04d" % i, "subject": "Quarterly figures, part %d" % i, "isRead": i % 2 == 0,
             "from": {"emailAddress": {"name": "Bob Baker", "address": "bob@demo.example"}},
             "receivedDateTime": "2026-11-%02dT09:00:00Z" % (i + 1),
             "bodyPreview": "Here are the figures you asked for; the second sheet is a draft."} for i in range(5)]
SUBJECTS = ("direct", "nginx", "sluice", "local")

NGINX = """
daemon off; master_process off; worker_processes 1; pid %(dir)s/%(name)s.pid; error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000; keepalive_timeout 3600s;
    client_body_temp_path %(dir)s/t1; proxy_temp_path %(dir)s/t2; fastcgi_temp_path %(dir)s/t3;
    uwsgi_temp_path %(dir)s/t4; scgi_temp_path %(dir)s/t5;
    %(http)s
}
"""
UPSTREAM = """server { listen 127.0.0.1:%d; location / { default_type application/json; return 200 '%s'; } }"""
PROXY = """
    upstream up { server 127.0.0.1:%d; keepalive 512; keepalive_requests 1000000; keepalive_timeout 3600s; }
    server { listen 127.0.0.1:%d; location / {
        proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; } }"""
POLICY = """
permit (principal in Tenant::"demo", action in [Action::"outlook", Action::"conformance"], resource)
  when { context.user like "*@demo.example" };
permit (principal in Tenant::"demo", action in Action::"accounts", resource);
forbid (principal, action in Action::"destroys", resource) unless { context.auth == "user" };
forbid (principal, action in Action::"outlook", resource) when { context.args has to && context.args.to == "nobody" };
"""
CONFIG = """
workers: 1
connectors: [outlook, conformance]
policies: ["%(dir)s/policy.cedar"]
providers:
  outlook: { base_url: "http://127.0.0.1:%(port)d", auth_url: "%(sandbox)s", client_id: sandbox-client,
             client_secret: "env:SANDBOX_SECRET", allow_loopback: true, allow_plain_http: true,
             limits: { mailbox_requests: { amount: 100000000 }, app_requests: { amount: 100000000 } } }
"""
WRK = """
local requests, at = {}, 0
function init(args)
  local body = '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"' .. args[2] .. '","arguments":' ..
    args[3] .. ',"_meta":{"io.modelcontextprotocol/protocolVersion":"%s",' ..
    '"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},' ..
    '"io.modelcontextprotocol/clientCapabilities":{}}}}'
  for token in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", "/mcp", { ["Content-Type"] = "application/json",
      ["Accept"] = "application/json, text/event-stream", ["MCP-Protocol-Version"] = "%s",
      ["Mcp-Method"] = "tools/call", ["Mcp-Name"] = args[2], ["Authorization"] = "Bearer " .. token }, body)
  end
end
function request()
  at = at %% #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%%d,"us":%%d,"errors":%%d,"p50":%%d,"p99":%%d,"p999":%%d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9)))
end
""" % (harness.MODERN, harness.MODERN)


# ---- processes -----------------------------------------------------------------------------------------------------

def pinned(cpu, command):
    if (os.cpu_count() or 1) < 2 or not shutil.which("taskset"):
        return command
    return ["taskset", "-c", str(cpu)] + command


def nginx(folder, name, http, cpu):
    """A single nginx process; answers it and the port it took."""
    path = os.path.join(folder, name + ".conf")
    port = harness_port()
    with open(path, "w") as f:
        f.write(NGINX % {"dir": folder, "name": name, "http": http(port)})
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    p = harness.Process(pinned(cpu, [program, "-p", folder, "-c", path]))
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            urllib.request.urlopen("http://127.0.0.1:%d/" % port, timeout=1).read()
            return p, port
        except OSError:
            time.sleep(0.02)
    raise SystemExit("call_bench: nginx did not start:\n" + p.text())


def harness_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bed:
    """Everything that runs."""

    def __init__(self, opt):
        self.folder = harness.scratch("sluice-bench-")
        body = json.dumps({"value": MESSAGES}, separators=(",", ":"))
        self.upstream, self.upstream_port = nginx(self.folder, "upstream", lambda port: UPSTREAM % (port, body), 1)
        self.proxy, self.proxy_port = nginx(self.folder, "proxy", lambda port: PROXY % (self.upstream_port, port), 0)
        self.sandbox = harness.Process([harness.SLUICE, "sandbox", "--listen", "127.0.0.1:0"])
        login = "http://" + self.sandbox.wait_line(r"(127\.0\.0\.1:\d+)").group(1)
        self.engine = self.start_engine(login, opt)
        self.connect(opt.users)

    def start_engine(self, login, opt):
        config = os.path.join(self.folder, "sluice.yaml")
        with open(config, "w") as f:
            f.write(CONFIG % {"dir": self.folder, "port": self.upstream_port, "sandbox": login})
        with open(os.path.join(self.folder, "policy.cedar"), "w") as f:
            f.write(POLICY)
        data = opt.data or os.path.join(self.folder, "data")
        engine = harness.Engine(config=config, data=data, env={"SANDBOX_SECRET": "sandbox-secret"})
        if (os.cpu_count() or 1) >= 2:
            for task in os.listdir("/proc/%d/task" % engine.process.pid):
                os.sched_setaffinity(int(task), {0})
        return engine

    def connect(self, n):
        users, self.tokens = os.path.join(self.folder, "users"), os.path.join(self.folder, "tokens")
        with open(users, "w") as f:
            f.writelines("user%d@demo.example\n" % i for i in range(n))
        common = ["--users-file", users, "--agent", "bench", "--tenant", "demo", "--data", self.engine.data]
        harness.run("connect", "outlook", "--sandbox-login", "--url", self.engine.url, *common)
        with open(self.tokens, "w") as f:
            f.write(harness.run("token", "--ttl", "8h", "--audience", self.engine.url, *common))
        self.script = os.path.join(self.folder, "load.lua")
        with open(self.script, "w") as f:
            f.write(WRK)

    def subject(self, name):
        """(port, pid, tool, arguments) of a subject."""
        mail, add = ("outlook.list_mail", '{"count":5}'), ("add", '{"a":2,"b":3}')
        return {"direct": (self.upstream_port, self.upstream.process.pid) + mail,
                "nginx": (self.proxy_port, self.proxy.process.pid) + mail,
                "sluice": (self.engine.port, self.engine.process.pid) + mail,
                "local": (self.engine.port, self.engine.process.pid) + add}[name]

    def done_calls(self):
        text = self.engine.request("GET", "/metrics")[2].decode()
        return sum(int(float(v))
                   for v in re.findall(r'^sluice_calls_total\{[^}]*outcome="done"[^}]*\} (\S+)', text, re.M))

    def stop(self):
        self.engine.stop()
        for p in (self.sandbox, self.proxy, self.upstream):
            p.signal(signal.SIGTERM)
            p.wait()


# ---- one measurement -----------------------------------------------------------------------------------------------

def cpu_us(pid):
    """(user, system) of all threads of a process, those that have ended included."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) * TICK_S * 1e6, int(fields[12]) * TICK_S * 1e6


def load(bed, name, connections, seconds):
    """One run of wrk against a subject."""
    port, pid, tool, args = bed.subject(name)
    done = bed.done_calls() if name in ("sluice", "local") else 0
    before = cpu_us(pid)
    out = subprocess.run(pinned(1, ["wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds, "--timeout", "10s", "-s",
                                    bed.script,
                                    "http://127.0.0.1:%d" % port, "--", bed.tokens, tool, args]),
                         capture_output=True, text=True, check=True).stdout
    after = cpu_us(pid)
    r = json.loads(re.search(r"RESULT (.*)", out).group(1))
    r["user"], r["system"] = [(b - a) / max(r["requests"], 1) for a, b in zip(before, after)]
    r["cpu"] = r["user"] + r["system"]
    if r["errors"]:
        raise SystemExit("call_bench: %d of %d requests to %s failed" % (r["errors"], r["requests"], name))
    if name in ("sluice", "local") and bed.done_calls() - done < r["requests"]:
        raise SystemExit("call_bench: only %d of %d calls ended in outcome done" %
                         (bed.done_calls() - done, r["requests"]))
    return r


def measure(bed, opt):
    """{subject: {"busy": [...], "alone": [...]}}"""
    results = {s: {"busy": [], "alone": []} for s in opt.only}
    for name in opt.only:
        load(bed, name, opt.connections, 1)             # warm: connections, caches, pools
    for _ in range(opt.rounds):
        for name in opt.only:
            results[name]["busy"].append(load(bed, name, opt.connections, opt.seconds))
        for name in opt.only:
            results[name]["alone"].append(load(bed, name, 1, 1))
    return results


# ---- the report ----------------------------------------------------------------------------------------------------

def spread(values):
    return "%6.2f  (%.2f..%.2f)" % (statistics.median(values), min(values), max(values))


def report(results, opt):
    """Prints; answers the ratio of CPU to nginx, None without both."""
    print("CPU of the subject per request, %d connections kept busy; median of %d rounds (least..most)" %
          (opt.connections, opt.rounds))
    for name, r in results.items():
        if name == "direct":
            continue
        b = r["busy"]
        print("  %-7s %s us   user %5.2f  system %5.2f   %7.0f requests/s" % (
            name, spread([x["cpu"] for x in b]), statistics.median(x["user"] for x in b),
            statistics.median(x["system"] for x in b),
            statistics.median(x["requests"] / x["us"] * 1e6 for x in b)))
    print("latency, microseconds, one connection; median of the rounds")
    base = results.get("direct")
    for name, r in results.items():
        line = "  %-7s" % name
        for q in ("p50", "p99", "p999"):
            v = statistics.median(x[q] for x in r["alone"])
            line += "  %s %6.0f" % (q, v)
            if base and name != "direct":
                line += " (+%.0f)" % (v - statistics.median(x[q] for x in base["alone"]))
        print(line)
    if "nginx" not in results or "sluice" not in results:
        return None
    own = [x["cpu"] for x in results["nginx"]["busy"]]
    ratios = [s["cpu"] / n["cpu"] for s, n in zip(results["sluice"]["busy"], results["nginx"]["busy"])]
    print("sluice / nginx, CPU per request, round by round: %s" % spread(ratios))
    floor = (max(own) - min(own)) / statistics.median(own)
    print("noise floor: nginx against itself, most less least over the median: %.1f %%" % (100 * floor))
    if base:
        p99 = [x["p99"] for x in base["alone"]]
        print("noise floor of latency: p99 of `direct` was %d..%d us" % (min(p99), max(p99)))
    return statistics.median(ratios)


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("sluice")
    for name, default in (("--rounds", 5), ("--seconds", 4), ("--connections", 64), ("--users", 256)):
        p.add_argument(name, type=int, default=default)
    p.add_argument("--data")
    p.add_argument("--only", choices=SUBJECTS, action="append")
    for name in ("--json", "--check", "--pause"):
        p.add_argument(name, action="store_true")
    opt = p.parse_args()
    opt.only = opt.only or list(SUBJECTS)
    harness.SLUICE = os.path.abspath(opt.sluice)
    bed = Bed(opt)
    if opt.pause:
        print("engine: pid %d, %s; nginx: pid %d, port %d; %s %s; Enter ends" % (
            bed.engine.process.pid, bed.engine.url, bed.proxy.process.pid, bed.proxy_port, bed.script, bed.tokens),
            flush=True)
        sys.stdin.readline()
        bed.stop()
        return 0
    results = measure(bed, opt)
    bed.stop()
    ratio = report(results, opt)
    if opt.json:
        print(json.dumps(results))
    if opt.check and (ratio is None or ratio > RATIO_MAX):
        print("call_bench: more than %.1f times nginx's CPU" % RATIO_MAX)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
