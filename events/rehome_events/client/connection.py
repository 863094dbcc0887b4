"""A connection to RabbitMQ in which every wait has a limit, and the broker's refusals as errors of this package."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import aio_pika
from aio_pika.abc import AbstractConnection, TimeoutType
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    InvalidFrameError,
)
from aio_pika.exceptions import ProbableAuthenticationError as LoginRefused
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource, ConnectionNotAllowed
from yarl import URL

from rehome_events.amqp_properties import read_any_message
from rehome_events.errors import EventError, Refused, Unreachable

HEARTBEAT: Final = 30
"""Seconds between heartbeats when the URL names none; without them a dead broker goes unnoticed for minutes."""
TROUBLE: Final = (*CONNECTION_EXCEPTIONS, asyncio.InvalidStateError)
"""What a connection throws when it is lost or was just restored: worth another try."""
_CLOSING: Final = 5.0
_FINAL: Final = (
    AuthenticationError,
    LoginRefused,
    ConnectionNotAllowed,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

T = TypeVar("T")


class ConnectionLost(ConnectionError):
    """The connection went away in the middle of something."""


class Address:
    """The broker's address and the login; printed without the password.

    Args:
        url: ``amqp://`` or ``amqps://user:password@host:port/vhost``.
        ca_file: Certificates of the authorities that sign the broker's (PEM); None for the system's.
        ssl_context: Replaces the context that would be made, for client certificates and the like.

    Raises:
        EventError: The URL is malformed or no text, or TLS is configured wrongly or for a URL that does not use it.
    """

    def __init__(
        self, url: str, *, ca_file: Path | str | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        parsed = _parsed(url)
        tls = parsed.scheme == "amqps"
        if not tls and (ca_file or ssl_context):
            raise EventError(f"{_without_login(parsed)}: ca_file and ssl_context need an amqps:// URL")
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise EventError(f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}")
        self.url = parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=HEARTBEAT)
        self.ssl_context = (ssl_context or _context(ca_file)) if tls else None

    def __str__(self) -> str:
        return _without_login(self.url)

    async def connect(self, name: str, timeout: float) -> AbstractConnection:
        """Open a connection that is called ``name`` in the broker's listings.

        Raises:
            Refused: Wrong user or password, or no access to the vhost.
            OSError: No connection within ``timeout`` seconds, for any other reason; TimeoutError is one.
        """
        read_any_message()
        with refusals(f"log in to {self} as {self.url.user}"), self._closed_during_login():
            return await limited(
                aio_pika.connect(
                    self.url.update_query(name=name),
                    ssl_context=self.ssl_context,
                    timeout=timeout,
                    connection_class=ClosedIfUnopened,
                ),
                timeout,
            )

    @contextlib.contextmanager
    def _closed_during_login(self) -> Iterator[None]:
        """Name the usual cause: aio-pika hides the broker's reason."""
        try:
            yield
        except InvalidFrameError as error:
            hint = f"is there a vhost {self.url.path[1:] or '/'!r}, and may {self.url.user} use it?"
            raise ConnectionLost(f"closed by the broker at once; {hint}") from error


@contextlib.asynccontextmanager
async def connected(address: Address, name: str, timeout: float) -> AsyncIterator[AbstractConnection]:
    """A connection that is closed at the end; what is wrong with it is an error of this package.

    Raises:
        Unreachable: No connection within ``timeout`` seconds, or it was lost meanwhile.
        Refused: Wrong user or password, or no access to the vhost.
    """
    try:
        connection = await address.connect(name, timeout)
        try:
            yield connection
        finally:
            await close(connection)
    except TROUBLE as error:
        raise Unreachable(f"no connection to {address}: {reason(error)}") from error


class ClosedIfUnopened(aio_pika.Connection):
    """A connection that is closed when it could not be opened.

    aio-pika leaves it to the garbage collector, which may run after the event loop has ended, too late to close it.
    """

    async def connect(self, timeout: TimeoutType = None) -> None:
        """As aio-pika's."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


def _parsed(url: str) -> URL:
    if not isinstance(url, str):
        raise EventError(f"the broker's URL must be text, not {type(url).__name__}: is it configured?")
    try:
        parsed = URL(url)
    except ValueError:
        raise EventError("the broker's URL is not a URL: amqp://user:password@host:port/vhost") from None
    if parsed.scheme not in {"amqp", "amqps"} or not parsed.host:
        raise EventError("the broker's URL must look like amqp://user:password@host:port/vhost (or amqps://)")
    return parsed


def _without_login(url: URL) -> str:
    return f"{url.scheme}://{url.host}:{url.port or (5671 if url.scheme == 'amqps' else 5672)}{url.path}"


def _context(ca_file: Path | str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise EventError(f"cannot read certificates from {ca_file}: {error}") from error


@contextlib.contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Translate what the broker would refuse again; ``doing`` completes "refused to ...".

    Raises:
        Refused: The broker refused.
    """
    try:
        yield
    except _FINAL as error:
        raise Refused(f"the broker refused to {doing}: {reason(error)}") from error


async def limited(awaitable: Awaitable[T], seconds: float) -> T:
    """Await, with a limit.

    aio-pika ends a wait with a bare CancelledError when the connection breaks; here it is distinguished from a
    cancellation of the caller.

    Raises:
        TimeoutError: The limit passed.
        ConnectionLost: The connection broke.
    """
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionLost("the connection to the broker was lost") from None


async def close(connection: AbstractConnection) -> None:
    """Close a connection, whatever state it is in, within a few seconds."""
    with contextlib.suppress(Exception):
        await limited(connection.close(), _CLOSING)


def reason(error: BaseException) -> str:
    """The broker's or the network's reason, in one short line."""
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    return " ".join(text.split())[:300]
