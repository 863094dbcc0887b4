"""Runs one program that must not outlive the consumer. Started by `subprocesses`, never imported.

    python -I -S reaper.py <the consumer's pid> <niceness> <program> <argument>...

pg_dump, pg_restore and rabbitmqctl start processes of their own, which get no signal when the consumer dies. Debian's
rabbitmqctl does it through su(1), in another session: no signal to a process group reaches them there. So this process
stands between: it gets one signal (PR_SET_PDEATHSIG, prctl(2)), inherits every orphan (PR_SET_CHILD_SUBREAPER), and
ends them all.
The niceness is added to the consumer's own, for the program and all that it starts.
Its standard streams and its exit code are the program's.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 3.0  # for asking the server to cancel what it is doing
KILL_SECONDS = 3.0
PAUSE_SECONDS = 0.05


def main() -> int:
    """Run the program; the exit code is the program's, or 128 + signal."""
    parent, nice = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: end_everything())
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the signal was asked for
        return 128 + signal.SIGTERM
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the password
    os.umask(0o077)
    if nice:
        give_way(nice)
    code = subprocess.Popen(sys.argv[3:]).wait()
    return code if code >= 0 else 128 - code


def give_way(nice: int) -> None:
    """Run at a lower priority from here on, with every process that is started.

    The disk's follows (ionice(1): without a class of its own, `(niceness + 20) / 5`). Where Linux groups processes by
    session (sched(7), "autogroup"), the session's niceness is what counts, and this process leads one of its own.
    """
    niceness = os.nice(nice)
    with contextlib.suppress(OSError):  # no such kernel
        Path("/proc/self/autogroup").write_text(str(niceness))


def end_everything() -> None:
    """Ask everything that was started to end; kill what is left soon afterwards, and this process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(signal.SIGTERM)
    wait_for_all(GRACE_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline and not wait_for_all(PAUSE_SECONDS):
        send(signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)


def send(number: signal.Signals) -> None:
    """Send a signal to each descendant; one of another user may not be reached."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """The pids of a process's children, their children, and so on, as they are now."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(one for child in children for one in descendants(child))]


def wait_for_all(seconds: float) -> bool:
    """Wait until no child is left, for at most so long; return whether none is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
