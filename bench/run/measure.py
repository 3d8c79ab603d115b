"""What a process costs, read from outside: CPU, memory, syscalls, and the engine's own account of itself."""
import glob
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def family(pid):
    """A process and all that it started."""
    found = [pid]
    for p in found:
        for path in glob.glob("/proc/%d/task/*/children" % p):
            try:
                with open(path) as f:
                    found += [int(c) for c in f.read().split()]
            except OSError:
                pass
    return found


def cpu(pid):
    """(user, system) seconds of all threads, those that ended and the kernel's on its behalf (io-wq) included."""
    user = system = 0
    for p in family(pid):
        with open("/proc/%d/stat" % p) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        user, system = user + int(fields[11]) + int(fields[13]), system + int(fields[12]) + int(fields[14])
    return user * TICK_S, system * TICK_S


def memory(pid):
    """{pss, anonymous} in bytes: what it would give back if it ended, and what of that is no file's."""
    total = {"pss": 0, "anonymous": 0}
    for p in family(pid):
        with open("/proc/%d/smaps_rollup" % p) as f:
            text = f.read()
        total["pss"] += 1024 * int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))
        total["anonymous"] += 1024 * int(re.search(r"^Pss_Anon:\s+(\d+)", text, re.M).group(1))
    return total


def scrape(url):
    """{series: value} of a /metrics page; an engine that is overloaded puts that off as well, for a while."""
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as r:
                text = r.read().decode()
            break
        except urllib.error.HTTPError as e:
            if e.code != 503 or time.monotonic() > until:
                raise
            time.sleep(0.1)
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^([a-z][^ #]*(?:\{[^}]*\})?) (\S+)$", text, re.M)}


def stages(before, after):
    """[(step, calls, mean in microseconds)] between two scrapes."""
    rows = []
    for series in after:
        m = re.fullmatch(r'sluice_step_seconds_count\{step="(\w+)"\}', series)
        if m:
            total = 'sluice_step_seconds_sum{step="%s"}' % m.group(1)
            n = after[series] - before.get(series, 0)
            if n > 0:
                rows.append((m.group(1), int(n), (after[total] - before.get(total, 0)) / n * 1e6))
    return rows


def done_calls(metrics):
    return sum(v for k, v in metrics.items() if k.startswith("sluice_calls_total{") and 'outcome="done"' in k)


def cpu_loop(rounds=300):
    """CPU seconds of a fixed piece of work on the subject's processor: what moves here is the machine."""
    import hashlib
    block = b"x" * 65536
    began = time.process_time()
    for _ in range(rounds):
        hashlib.blake2b(block).digest()
    return time.process_time() - began


class Syscalls:
    """strace -c on a process while a load runs; .calls is None where there is no strace or it may not look."""

    def __init__(self, pid, path):
        self.calls, self.names, self.path, self.process = None, {}, path, None
        if shutil.which("strace"):
            command = ["strace", "-f", "-c", "-q", "-o", path]
            for p in family(pid):
                command += ["-p", str(p)]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until = time.monotonic() + 5
            while time.monotonic() < until and self.process.poll() is None and not self.attached(pid):
                time.sleep(0.01)

    @staticmethod
    def attached(pid):
        with open("/proc/%d/status" % pid) as f:
            return not re.search(r"^TracerPid:\s+0$", f.read(), re.M)

    def end(self):
        if not self.process:
            return
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        try:
            with open(self.path) as f:
                rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", f.read(), re.M)
        except OSError:
            return
        self.names = {name: int(n) for n, name in rows if name != "total"}
        self.calls = sum(self.names.values()) if self.names else None


def machine():
    """What the figures are of."""
    def first(path, pattern, default="unknown"):
        try:
            with open(path) as f:
                m = re.search(pattern, f.read(), re.M)
                return m.group(1).strip() if m else default
        except OSError:
            return default

    def version(command, pattern):
        try:
            p = subprocess.run(command, capture_output=True, text=True)
            m = re.search(pattern, p.stdout + p.stderr)
            return m.group(1) if m else "unknown"
        except OSError:
            return None
    return {"cpu": first("/proc/cpuinfo", r"^model name\s*: (.*)$"), "cpus": os.cpu_count(),
            "memory_gb": round(int(first("/proc/meminfo", r"^MemTotal:\s+(\d+)", "0")) / 1048576, 1),
            "kernel": os.uname().release, "system": first("/etc/os-release", r'^PRETTY_NAME="(.*)"$'),
            "load_before": os.getloadavg()[0],
            "nginx": version(["/usr/sbin/nginx", "-v"], r"nginx/(\S+)"),
            "haproxy": version(["/usr/sbin/haproxy", "-v"], r"version (\S+)"),
            "openssl": version(["openssl", "version"], r"OpenSSL (\S+)")}
