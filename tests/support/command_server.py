"""The command line in processes that start fast: imported here once, and forked for each command.

    python -m tests.support.command_server SOCKET

A command is a process of its own, with its own arguments, environment, output and exit code; it only saves the
second that importing takes. A request is one line of JSON (`Order`) on the socket, the answer one line: the exit
code, negative for a signal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn, TypedDict

from rehome_consumer.__main__ import main

LONGEST_SECONDS = 60
"""After so long a command is ended by SIGALRM."""


class Order(TypedDict):
    """A command: where its output goes, as paths, and the whole environment."""

    arguments: list[str]
    environment: dict[str, str]
    out: str
    err: str


def serve(path: str) -> NoReturn:
    """Answer orders, in parallel, until killed."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the processes that answer
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> NoReturn:
    """Run one order and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order: Order = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        _run(order)
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(order: Order) -> NoReturn:
    """As `python -m rehome_consumer` would."""
    signal.alarm(LONGEST_SECONDS)
    for path, descriptor in ((order["out"], 1), (order["err"], 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    code = 1
    try:
        code = main(order["arguments"])
    except SystemExit as end:  # argparse
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - Python itself would print it and end with 1
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
