"""Runs one program that must not outlive the consumer. Started by `subprocesses.run`, never imported.

    python -I -S reaper.py <the consumer's pid> <program> <argument>...

pg_dump and pg_restore start workers of their own, which get no signal when the consumer dies. So this process stands
between: it gets one (PR_SET_PDEATHSIG, prctl(2)), and then ends its entire process group.
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
from typing import Any

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 3.0  # for asking the server to cancel what it is doing
PAUSE_SECONDS = 0.05


def main() -> int:
    """Run the program; the exit code is the program's, or 128 + signal."""
    parent = int(sys.argv[1])
    started: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: end_group(started))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the signal was asked for
        return 128 + signal.SIGTERM
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the password
    os.umask(0o077)
    started.append(subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL))
    code = started[0].wait()
    return code if code >= 0 else 128 - code


def end_group(started: list[Any]) -> None:
    """Ask the process group to end, and kill it soon afterwards, this process included."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while started and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(started[0].pid, os.WNOHANG) != (0, 0):
                break
        time.sleep(PAUSE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
