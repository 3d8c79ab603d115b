"""What all parts of the runner share: where things are, and on which processor they run."""
import os
import resource
import shutil
import signal
import subprocess
import sys

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(BENCH)
sys.path.insert(0, os.path.join(ROOT, "tests", "script"))
import harness  # noqa: E402  real processes and their lines, as the tests start them


def processors():
    return sorted(os.sched_getaffinity(0))


ALL = processors()          # before the runner pins itself


def subject_cpus(workers):
    """The first processors are the subject's: as many as it has workers."""
    return set(ALL[:max(1, min(workers, len(ALL)))])


def load_cpus():
    """The load and the upstream are on the last ones: apart from the subject wherever there are two."""
    return set(ALL[-2:]) if len(ALL) > 3 else {ALL[-1]}


def pinned(cpus, command):
    if len(ALL) < 2 or not shutil.which("taskset"):
        return command
    return ["taskset", "-c", ",".join(str(c) for c in sorted(cpus))] + command


def raise_limits():
    """Tens of thousands of sockets: as many files as may be opened."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for want in (max(262144, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (want, want))
            return
        except (ValueError, OSError):       # not root, or root without the right to
            continue


def end_in_order():
    """SIGTERM and SIGHUP end us as Ctrl-C does, with all that was started; none that is ignored, and no second one."""
    def end(number, _):
        for n in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(n, signal.SIG_IGN)
        raise SystemExit(128 + number)
    for n in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(n) != signal.SIG_IGN:           # nohup
            signal.signal(n, end)


def say(text, end="\n"):
    print(text, file=sys.stderr, end=end, flush=True)


def on_memory(path):
    """Is that directory on a file system without a disk? Then commits would cost nothing."""
    p = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True)
    return p.stdout.strip() in ("tmpfs", "ramfs")
