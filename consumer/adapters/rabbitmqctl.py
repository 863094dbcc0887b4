"""The broker's users through rabbitmqctl, wherever it runs. Passwords go through its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from typing import TYPE_CHECKING, Any, Final

import orjson

from consumer.errors import Refused, SettingsError, TimedOut, Unreachable
from consumer.permissions import Access
from consumer.topology import VHOST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.permissions import Change

_SECONDS: Final = 60.0
_WRONG_PASSWORD: Final = 65  # exit code EX_DATAERR of authenticate_user
_NO_NODE: Final = 69  # EX_UNAVAILABLE
_SHOWN: Final = 300


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

    async def access(self) -> Access:
        """The users there are, and their rights in our virtual host.

        Raises:
            Unreachable, TimedOut: the node does not answer.
            Refused: rabbitmqctl ended with an error.
        """
        users = await self._listing("list_users")
        permissions = await self._listing("list_permissions", "--vhost", VHOST)
        topics = await self._listing("list_topic_permissions", "--vhost", VHOST)
        return Access(
            {one["user"]: tuple(map(str, one["tags"])) for one in users},
            {one["user"]: (one["configure"], one["write"], one["read"]) for one in permissions},
            {(one["user"], one["exchange"]): (one["write"], one["read"]) for one in topics},
        )

    async def password_fits(self, user: str, password: str) -> bool:
        """Whether an existing user has this password. Raises as `access` does."""
        code, _, said = await self._call(["authenticate_user", user], password)
        if code not in (0, _WRONG_PASSWORD):
            raise self._failure("authenticate_user", code, said)
        return code == 0

    async def make(self, change: Change, password: str) -> None:
        """Make one change. Raises as `access` does."""
        scope = ["--vhost", VHOST] if change.command.endswith("permissions") else []
        secret = password if change.command in ("add_user", "change_password") else None
        code, _, said = await self._call([change.command, *scope, change.user, *change.arguments], secret)
        if code != 0:
            raise self._failure(f"{change.command} {change.user}", code, said)

    async def _listing(self, *arguments: str) -> list[dict[str, Any]]:
        code, output, said = await self._call([*arguments, "--formatter", "json"], None)
        if code != 0:
            raise self._failure(arguments[0], code, said)
        try:
            listed: list[dict[str, Any]] = orjson.loads(output)
        except orjson.JSONDecodeError as error:
            raise Refused(f"rabbitmqctl {arguments[0]} did not answer with JSON: {error}") from error
        return listed

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
                output, said = await process.communicate(f"{password}\n".encode() if password else b"")
        except TimeoutError:
            raise TimedOut(f"rabbitmqctl {arguments[0]} did not end within {_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        text = said.decode(errors="replace")
        return process.returncode or 0, output.decode(errors="replace"), _without(text, password)

    def _failure(self, what: str, code: int, said: str) -> Refused | Unreachable:
        kind = Unreachable if code == _NO_NODE else Refused
        told = " ".join(said.split()).removeprefix("Error: ")[:_SHOWN]
        return kind(f"rabbitmqctl {what} ended with exit code {code}: {told or 'it said nothing'}")


def _without(text: str, password: str | None) -> str:
    return text.replace(password, "...") if password else text
