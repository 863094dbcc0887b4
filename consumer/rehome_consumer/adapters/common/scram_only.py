"""Sessions in which the password is proven by SCRAM-SHA-256, and never sent: not in clear text, not as MD5.

With `sslmode=prefer` whoever answers without TLS may ask for the password in clear text, and asyncpg would send it;
an MD5 of it is as good as the password. asyncpg has no setting against that (libpq's is `require_auth`). Its
connections are made by `asyncpg.connect_utils`, with a protocol class that is named nowhere else. So this module
replaces that class by a choice: within `connect` it is a subclass that reads what the server asks for before asyncpg
does; for every other connection it is asyncpg's own.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg import connect_utils
from asyncpg.protocol import Protocol

if TYPE_CHECKING:
    import asyncio

_WANTED: ContextVar[bool] = ContextVar("scram_only", default=False)
_protocol = attrgetter("_protocol")  # asyncpg gives no access to it

# AuthenticationRequest and its codes (PostgreSQL's documentation, "Message Formats").
_AUTHENTICATION: Final = b"R"
_OK, _CLEAR_TEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_ONLY: Final = "only SCRAM-SHA-256 is answered"
_WHY: Final = {
    _OK: f"it asked for no password, as anyone who answers there could; {_ONLY}: let its pg_hba.conf say "
    "scram-sha-256 for this login",
    _CLEAR_TEXT: f"it asked for the password in clear text; {_ONLY}: let its pg_hba.conf say scram-sha-256 for this "
    "login",
    _MD5: f"it asked for the password as MD5; {_ONLY}: set password_encryption to scram-sha-256 there, and the "
    "login's password again",
}
_HEAD: Final = 5
"""Bytes that every message begins with: its kind, and its length without the kind."""
_LARGEST: Final = 65536
"""Bytes of one message before the login is done; a server's own have some hundred."""
_MOST_ITERATIONS: Final = 1_000_000
"""Rounds of hashing that a server may ask for; its default is 4096, and a million take almost a second."""
_ITERATIONS: Final = re.compile(rb",i=(\d+)")
_DIGITS: Final = 9


class NotScramError(asyncpg.InterfaceError):
    """The server asks for another proof than SCRAM-SHA-256; nothing of the password was sent."""


async def connect(**arguments: Any) -> asyncpg.Connection[asyncpg.Record]:
    """`asyncpg.connect`, which answers only a server that asks for SCRAM-SHA-256.

    Takes the arguments of `asyncpg.connect`, by name, and can replace it; with and without TLS.

    Raises:
        NotScramError: the server asked for the password in clear text, as MD5, in another way or not at all, or
            skipped a part of the exchange. An `asyncpg.InterfaceError`, which `postgres_errors.translated`
            translates.
    """
    token = _WANTED.set(True)
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**arguments)
    finally:
        _WANTED.reset(token)
    if not isinstance(_protocol(connection), _ScramOnly):
        connection.terminate()
        raise asyncpg.InternalClientError(
            f"asyncpg {asyncpg.__version__} makes its connections in another way than scram_only.py "
            "expects: install the version of requirements.lock"
        )
    return connection


class _ScramOnly(Protocol):
    """Reads the server's messages until the login is done, and passes on to asyncpg those that it may answer."""

    def __init__(self, addr: object, connected: asyncio.Future[object], *rest: Any) -> None:
        super().__init__(addr, connected, *rest)
        self._connected = connected
        self._wire: Any = None
        self._unread = b""
        self._expected: tuple[int, ...] = (_SASL, _SASL_CONTINUE, _SASL_FINAL, _OK)

    def connection_made(self, transport: Any) -> None:
        """Keep the transport, which asyncpg hides."""
        self._wire = transport
        super().connection_made(transport)

    def data_received(self, data: Any) -> None:
        """Pass on complete messages that are expected; on one that is not, end the connection."""
        if not self._expected:
            super().data_received(data)
            return
        self._unread += data
        read = 0
        try:
            while self._expected and (end := self._end_of_message(read)) is not None:
                self._require_expected(self._unread[read:end])
                read = end
        except NotScramError as error:
            self._refuse(error)
            return
        if not self._expected:
            read = len(self._unread)
        checked, self._unread = self._unread[:read], self._unread[read:]
        if checked:
            super().data_received(checked)

    def _end_of_message(self, start: int) -> int | None:
        """Where the message ends that starts there; None when it is not complete."""
        if len(self._unread) - start < _HEAD:
            return None
        length = int.from_bytes(self._unread[start + 1 : start + _HEAD])
        if not _HEAD - 1 <= length <= _LARGEST:
            raise NotScramError("it does not speak PostgreSQL's protocol")
        end = start + 1 + length
        return end if end <= len(self._unread) else None

    def _require_expected(self, message: bytes) -> None:
        """Raise NotScramError on a request about the login that must not reach asyncpg."""
        if message[:1] != _AUTHENTICATION:
            return
        code = int.from_bytes(message[_HEAD : _HEAD + 4])
        if code != self._expected[0]:
            # This also protects the process: asyncpg crashes it on a part of the exchange that comes too early.
            raise NotScramError(_WHY.get(code, f"it asked for a login of kind {code}, out of order; {_ONLY}"))
        if code == _SASL_CONTINUE:
            found = _ITERATIONS.search(message)
            if found is not None and (len(found[1]) > _DIGITS or int(found[1]) > _MOST_ITERATIONS):
                raise NotScramError(
                    f"it asked for more than {_MOST_ITERATIONS:,} rounds of hashing: see its scram_iterations"
                )
        self._expected = self._expected[1:]

    def _refuse(self, error: NotScramError) -> None:
        self._unread = b""
        if not self._connected.done():
            self._connected.set_exception(error)
        if self._wire is not None:
            self._wire.abort()


def _chosen(*arguments: Any) -> Any:
    return (_ScramOnly if _WANTED.get() else Protocol)(*arguments)


connect_utils.protocol = SimpleNamespace(Protocol=_chosen)  # type: ignore[attr-defined]
