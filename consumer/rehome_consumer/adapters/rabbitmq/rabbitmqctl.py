"""The broker's users through rabbitmqctl, wherever it runs. Passwords go through its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from typing import TYPE_CHECKING, Any, Final

import orjson

from rehome_consumer.errors import Refused, SettingsError, TimedOut, Unreachable
from rehome_consumer.rabbitmq.topology import VHOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.rabbitmq.access import Change

LARGEST_OUTPUT: Final = 16 * 1024 * 1024
"""Bytes that are read of what it prints: definitions."""

LARGEST_COMPLAINT: Final = 64 * 1024
"""Bytes that are read of what it says on standard error."""

_SECONDS: Final = 60.0
_END_SECONDS: Final = 10.0
_PIECE: Final = 64 * 1024
_NO_NODE: Final = 69  # exit code EX_UNAVAILABLE
_SHOWN: Final = 300


class _TooMuch(Exception):
    """It printed more than is read."""


class Rabbitmqctl:
    """Users by rabbitmqctl: for nodes without the management plugin, and before anybody may log in."""

    def __init__(self, command: str) -> None:
        """Take how it is called, such as `docker exec -i rabbitmq rabbitmqctl`.

        Raises:
            SettingsError: a quotation in it does not end.
        """
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise SettingsError(f"--rabbitmqctl: {error}") from error
        if not self._command:
            raise SettingsError("--rabbitmqctl: name the program")

    async def definitions(self) -> Any:
        """The definitions of the whole node.

        Raises:
            Unreachable, TimedOut: the node does not answer.
            Refused: rabbitmqctl ended with an error, or printed too much.
        """
        code, output, said = await self._call(["export_definitions", "-"], None)
        if code != 0:
            raise _failure("export_definitions", code, said)
        try:
            return orjson.loads(output)
        except orjson.JSONDecodeError as error:
            raise Refused(f"rabbitmqctl export_definitions did not answer with JSON: {error}") from error

    async def make(self, change: Change, password: str) -> None:
        """Make one change. Raises as `definitions` does."""
        scope = ["--vhost", VHOST] if change.command.endswith("permissions") else []
        secret = password if change.command in ("add_user", "change_password") else None
        code, _, said = await self._call([change.command, *scope, change.user, *change.arguments], secret)
        if code != 0:
            raise _failure(f"{change.command} {change.user}", code, said)

    async def _call(self, arguments: Sequence[str], password: str | None) -> tuple[int, str, str]:
        """Exit code, output and error output; a password in what it said is blotted out."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--quiet",
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise SettingsError(f"--rabbitmqctl: {self._command[0]}: {error.strerror or error}") from error
        try:
            async with asyncio.timeout(_SECONDS):
                output, said = await _exchanged(process, f"{password}\n".encode() if password else b"")
        except TimeoutError:
            raise TimedOut(f"rabbitmqctl {arguments[0]} did not end within {_SECONDS:g} s") from None
        except _TooMuch as error:
            raise Refused(f"rabbitmqctl {arguments[0]} printed {error}") from None
        finally:
            if process.returncode is None:
                await _end(process)
        text = said.decode(errors="replace")
        return process.returncode or 0, output.decode(errors="replace"), _without(text, password)


async def _exchanged(process: asyncio.subprocess.Process, told: bytes) -> tuple[bytes, bytes]:
    """Tell a program something; what it prints, and what it says on standard error.

    Raises:
        _TooMuch: one of them has more bytes than are read.
    """
    if process.stdin is not None:
        process.stdin.write(told)
        process.stdin.close()
    reading = [
        asyncio.ensure_future(_read(process.stdout, LARGEST_OUTPUT)),
        asyncio.ensure_future(_read(process.stderr, LARGEST_COMPLAINT)),
    ]
    try:
        output, said = await asyncio.gather(*reading)
        await process.wait()
    finally:
        for one in reading:
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    return output, said


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    kept = bytearray()
    while stream is not None and (piece := await stream.read(_PIECE)):
        kept += piece
        if len(kept) > limit:
            raise _TooMuch(f"more than {limit} bytes")
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it; what is left in its pipes would hold its end up, and is read and forgotten."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(_PIECE):
                    pass
            await process.wait()


def _failure(what: str, code: int, said: str) -> Refused | Unreachable:
    kind = Unreachable if code == _NO_NODE else Refused
    told = " ".join(said.split()).removeprefix("Error: ")[:_SHOWN]
    return kind(f"rabbitmqctl {what} ended with exit code {code}: {told or 'it said nothing'}")


def _without(text: str, password: str | None) -> str:
    return text.replace(password, "...") if password else text
