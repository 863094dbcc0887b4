"""The broker's users through rabbitmqctl, wherever it runs. Passwords are written to its standard input."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import orjson

from rehome_consumer.adapters.common import subprocesses
from rehome_consumer.errors import Refused, SettingsError, TimedOut, Unreachable
from rehome_consumer.rabbitmq.topology import VHOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.rabbitmq.access import Change

NAME: Final = "rabbitmqctl"
"""Of the program."""

LARGEST_OUTPUT: Final = 16 * 1024 * 1024
"""Bytes that are read of its standard output: definitions."""

LARGEST_ERROR_OUTPUT: Final = 64 * 1024
"""Bytes that are read of its standard error."""

_SECONDS: Final = 60.0
_PIECE: Final = 64 * 1024
_NO_NODE: Final = 69  # exit code EX_UNAVAILABLE
_SHOWN: Final = 300


class _TooMuch(Exception):
    """It printed more than is read."""


class Rabbitmqctl:
    """Users by rabbitmqctl: for nodes without the management plugin, and before any user may log in."""

    def __init__(self, command: str) -> None:
        """Take the command that runs it, such as `docker exec -i rabbitmq rabbitmqctl`.

        Raises:
            SettingsError: it is empty, or a quotation in it does not end.
        """
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise SettingsError(f"--rabbitmqctl: {error}") from error
        if not self._command:
            raise SettingsError("--rabbitmqctl: name the program")

    def require_that_it_reads_passwords(self) -> None:
        """Refuse options of rabbitmqctl's own in the command: since 4.0 it then waits for a password without end.

        Raises:
            SettingsError: it has one.
        """
        names = [PurePath(part).name for part in self._command]
        if NAME in names[:-1] and names[-1] != NAME:
            raise SettingsError(
                f"--rabbitmqctl: {NAME} must be the last word: with options behind it RabbitMQ 4 reads no password. "
                "Name a node by the variable RABBITMQ_NODENAME, "
                f"such as `env RABBITMQ_NODENAME=rabbit@host {NAME}`"
            )

    async def definitions(self) -> Any:
        """The definitions of the complete node.

        Raises:
            Unreachable, TimedOut: the node does not answer.
            Refused: rabbitmqctl ended with an error, or printed too much.
        """
        code, output, error_output = await self._call(["export_definitions", "-"], None)
        if code != 0:
            raise _failure("export_definitions", code, error_output)
        try:
            return orjson.loads(output)
        except orjson.JSONDecodeError as error:
            raise Refused(f"rabbitmqctl export_definitions did not answer with JSON: {error}") from error

    async def make(self, change: Change, password: str) -> None:
        """Make one change. Raises as `definitions` does."""
        scope = ["--vhost", VHOST] if change.command.endswith("permissions") else []
        secret = password if change.command in ("add_user", "change_password") else None
        arguments = [change.command, *scope, change.user, *change.arguments]
        code, _, error_output = await self._call(arguments, secret)
        if code != 0:
            raise _failure(f"{change.command} {change.user}", code, error_output)

    async def _call(self, arguments: Sequence[str], password: str | None) -> tuple[int, str, str]:
        """Exit code, output and error output; a password in the error output is masked."""
        program = shutil.which(self._command[0])
        if program is None:
            raise SettingsError(f"--rabbitmqctl: {self._command[0]}: there is no such program")
        # Since 4.0 it reads a password only when it is called with a command and a user's name, and nothing else.
        quiet = [] if password else ["--quiet"]
        command = [program, *self._command[1:], *arguments, *quiet]
        try:
            async with (
                subprocesses.started(command, env=None, stdin=asyncio.subprocess.PIPE) as process,
                asyncio.timeout(_SECONDS),
            ):
                output, error_output = await _communicate(
                    process, f"{password}\n".encode() if password else b""
                )
        except TimeoutError:
            raise TimedOut(f"rabbitmqctl {arguments[0]} did not end within {_SECONDS:g} s") from None
        except _TooMuch as error:
            raise Refused(f"rabbitmqctl {arguments[0]} printed {error}") from None
        text = error_output.decode(errors="replace")
        return process.returncode or 0, output.decode(errors="replace"), _without(text, password)


async def _communicate(process: asyncio.subprocess.Process, sent: bytes) -> tuple[bytes, bytes]:
    """Write to a program's standard input; return its standard output and standard error.

    Raises:
        _TooMuch: one of them has more bytes than are read.
    """
    if process.stdin is not None:
        process.stdin.write(sent)
        process.stdin.close()
    reading = [
        asyncio.ensure_future(_read(process.stdout, LARGEST_OUTPUT)),
        asyncio.ensure_future(_read(process.stderr, LARGEST_ERROR_OUTPUT)),
    ]
    try:
        output, error_output = await asyncio.gather(*reading)
        await process.wait()
    finally:
        for one in reading:
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    return output, error_output


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    found = bytearray()
    while stream is not None and (piece := await stream.read(_PIECE)):
        found += piece
        if len(found) > limit:
            raise _TooMuch(f"more than {limit} bytes")
    return bytes(found)


def _failure(what: str, code: int, error_output: str) -> Refused | Unreachable:
    kind = Unreachable if code == _NO_NODE else Refused
    text = " ".join(error_output.split()).removeprefix("Error: ")[:_SHOWN]
    return kind(f"rabbitmqctl {what} ended with exit code {code}: {text or 'without a message'}")


def _without(text: str, password: str | None) -> str:
    return text.replace(password, "...") if password else text
