"""The command line in processes that start fast: imported here once, and forked for each command.

    python -m tests.support.command_server SOCKET

A command is a process of its own, with its own arguments, environment, standard streams and exit code; it only saves
the second that importing takes. A request is one line of JSON (`Order`) on the socket, the answer another (`Report`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import NoReturn, TypedDict

from rehome_consumer.__main__ import main

PRELOADED = ("sandbox.supervisor.runtime",)
"""Modules that a command may import by their name."""


class Order(TypedDict):
    """A command, with the whole environment; after `limit` seconds it is ended by SIGALRM."""

    arguments: list[str]
    environment: dict[str, str]
    stdin: str
    limit: int


class Report(TypedDict):
    """The exit code, negative for a signal, and what was written."""

    code: int
    out: str
    err: str


def serve(path: str) -> NoReturn:
    """Answer orders, in parallel, until killed."""
    for module in PRELOADED:
        import_module(module)
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
    """Run one order and send its report."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order: Order = json.loads(connection.makefile().readline())
    streams = [os.memfd_create(name) for name in ("in", "out", "err")]
    os.write(streams[0], order["stdin"].encode())
    os.lseek(streams[0], 0, os.SEEK_SET)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(order, streams)
    _, status = os.waitpid(pid, 0)
    out, err = (_text(stream) for stream in streams[1:])
    report = Report(code=os.waitstatus_to_exitcode(status), out=out, err=err)
    connection.sendall(json.dumps(report).encode() + b"\n")
    os._exit(0)


def _text(stream: int) -> str:
    os.lseek(stream, 0, os.SEEK_SET)
    with os.fdopen(stream, encoding="utf-8", newline="") as file:
        return file.read()


def _run(order: Order, streams: list[int]) -> NoReturn:
    """As `python -m rehome_consumer` would."""
    signal.alarm(order["limit"])
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
        os.close(stream)
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
