"""Follow migrations: a durable queue of its own for each subscriber; no event is lost, none is handled twice.

A subscriber declares its own exchange and queues on the broker:

- exchange ``sub_<team>.<name>`` (direct) leads to its queues, by the routing keys work, retry and dead;
- queue ``sub_<team>.<name>`` gets the chosen types from exchange ``migration``;
- queue ``sub_<team>.<name>.retry`` holds what failed, and returns it after the delay;
- queue ``sub_<team>.<name>.dead`` holds dead letters: what cannot be handled, with the reason in its headers.

A copy of an event is confirmed in the retry or dead-letter queue before the original is acknowledged: a crash in
between delivers the event twice, never loses it, and the memory of handled ids drops the repeat.
"""

import asyncio
import contextlib
import inspect
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

from rehome_events.catalog import CATALOG, requested
from rehome_events.client.arguments import (
    not_awaitable,
    require_coroutine_function,
    require_count,
    require_names,
    require_seconds,
)
from rehome_events.client.connection import TROUBLE, Address, close, reason
from rehome_events.client.dedup import Dedup, RecentEvents
from rehome_events.client.queues import Inbox, Subscription, tries_of
from rehome_events.data import EventData
from rehome_events.envelope import CloudEvent, from_message
from rehome_events.errors import EventError, NotAwaitable, Undecodable, UnknownType, Unreachable

_log = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")
_LONGEST_QUEUE_NAME: Final = 240
"""Bytes; a broker takes 255, with the endings of the retry and dead-letter queues."""
_LONGEST_RETRY_DELAY: Final = 4_000_000.0
"""Seconds, about 46 days: a broker counts a queue's time to live in 32 bits of milliseconds."""
_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 15.0

Handler = Callable[[CloudEvent[Any]], Awaitable[None]]
"""Handles an event. It may be called twice for one event, and the second call must do no harm.

It raises `Reject` where another try would not help; any other exception leads to another try, later.
"""


class Reject(Exception):
    """Raised by a handler: this event cannot be handled, make it a dead letter."""


class Subscriber:
    """A durable subscription, handled one event at a time in the order of delivery.

    Use it as an asynchronous context manager and await `run`. It reconnects by itself.

    Args:
        url: ``amqp://`` or ``amqps://user:password@host:port/vhost``.
        handler: Called with each event.
        team: Whose subscription it is; lower-case letters, digits, ``_`` and ``-``.
        name: Which of the team's subscriptions; the same.
        types: What to receive: models, or names of types, which stand for version 1; None for all that
            subscribers may read. Of several versions of one event the handler gets the one that comes first.
        tries: How often an event is tried before it becomes a dead letter.
        retry_delay: Seconds until an event is tried again. It is a property of a queue: to change it later,
            delete the queue ``....retry`` first.
        dedup: Remembers the ids of handled events; None for a memory in the process, which a restart forgets.
        timeout: Limit of each exchange with the broker, in seconds.
        watch: Seconds between two checks that the broker still knows this consumer.
        ca_file: Certificates of the authorities that sign the broker's (PEM), for ``amqps://``.
        ssl_context: Replaces the TLS context that would be made.

    Raises:
        EventError: A name, a type, the handler, a number or the URL is wrong.
    """

    def __init__(
        self,
        url: str,
        handler: Handler,
        *,
        team: str,
        name: str,
        types: Iterable[str | type[EventData]] | None = None,
        tries: int = 5,
        retry_delay: float = 30.0,
        dedup: Dedup | None = None,
        timeout: float = 10.0,
        watch: float = 30.0,
        ca_file: Path | str | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._wanted = wanted(types)
        self.types = frozenset(kind for kind, _ in self._wanted)
        _require_names(team, name)
        require_coroutine_function("handler", handler)
        require_count("tries", tries)
        require_seconds("retry_delay", retry_delay, zero=True, longest=_LONGEST_RETRY_DELAY)
        require_seconds("timeout", timeout)
        require_seconds("watch", watch)
        if dedup is not None:
            _require_dedup(dedup)
        self._address = Address(url, ca_file=ca_file, ssl_context=ssl_context)
        self._handler = handler
        self._queues = Subscription(f"sub_{team}.{name}", self.types, retry_delay, timeout)
        self._tries = tries
        self._dedup = RecentEvents() if dedup is None else dedup
        self._timeout = timeout
        self._watch = watch
        self._stopping = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._inbox: Inbox | None = None

    @property
    def queue(self) -> str:
        """Name of the queue."""
        return self._queues.name

    async def __aenter__(self) -> Self:
        """Connect and declare, so that from here on no event is missed.

        Raises:
            Refused: Login or permission; or the queues exist with other settings.
            Unreachable: No connection in time.
        """
        try:
            await self._connect()
        except TROUBLE as error:
            await self._disconnect()
            raise Unreachable(f"no connection to {self._address}: {reason(error)}") from error
        except EventError:
            await self._disconnect()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._disconnect()

    def stop(self) -> None:
        """End `run` after the event that is being handled; may be called from a signal handler."""
        self._stopping.set()
        if self._inbox is not None:
            self._inbox.wake()

    async def run(self) -> None:
        """Handle events until `stop` is called, through losses of the connection.

        Raises:
            Refused: The broker refused while reconnecting; trying again would not help.
            NotAwaitable: The handler is no coroutine function; the event stays in the queue.
        """
        delay = _FIRST_DELAY
        while not self._stopping.is_set():
            try:
                if self._connection is None:
                    await self._connect()
                delay = _FIRST_DELAY
                await self._consume()
            except TROUBLE as error:
                _log.warning(
                    "subscriber.reconnect queue=%s delay=%s error=%s", self.queue, delay, reason(error)
                )
                await self._disconnect()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
                delay = min(delay * 2, _LONGEST_DELAY)

    async def requeue_dead_letters(self, limit: int = 1000) -> int:
        """Return at most ``limit`` dead letters to the queue, their tries counted from 1 again; returns how many.

        Raises:
            OSError: The connection was lost meanwhile; what was not returned is still a dead letter.
        """
        return await self._queues.requeue_dead_letters(limit)

    async def _connect(self) -> None:
        self._connection = await self._address.connect(self.queue, self._timeout)
        await self._queues.declare(self._connection)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await close(connection)

    async def _consume(self) -> None:
        """Handle deliveries until stopped.

        Raises:
            ConnectionLost: The connection or the consumer was lost; or another error of `TROUBLE`.
        """
        self._inbox = Inbox()
        watching = asyncio.create_task(self._watch_consumer())
        try:
            await self._queues.consume(self._inbox)
            while not self._stopping.is_set():
                message = await self._inbox.next()
                if message is not None and not self._stopping.is_set():
                    await self._handle(message)
        finally:
            watching.cancel()
            self._inbox = None

    async def _watch_consumer(self) -> None:
        """Check that the broker still knows this consumer: it can drop one silently."""
        inbox = self._inbox
        try:
            while inbox is not None:
                await asyncio.sleep(self._watch)
                await self._queues.require_consumer()
        except TROUBLE as error:
            if inbox is not None:
                inbox.fail(error)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            event = from_message(message)
        except UnknownType as error:
            _log.debug("subscriber.ignored queue=%s reason=%s", self.queue, error)
            return await self._queues.done(message)
        except Undecodable as error:
            return await self._dead_letter(message, error)
        if (event.type, event.data.VERSION) not in self._wanted or await self._dedup.has(event.id):
            return await self._queues.done(message)
        try:
            await handled(self._handler, event)
        except NotAwaitable:
            raise
        except Reject as error:
            return await self._dead_letter(message, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the event is kept
            return await self._try_later(message, event, error)
        await self._dedup.add(event.id)
        return await self._queues.done(message)

    async def _try_later(
        self, message: AbstractIncomingMessage, event: CloudEvent[Any], error: Exception
    ) -> None:
        tries = tries_of(message) + 1
        if tries >= self._tries:
            return await self._dead_letter(message, error)
        _log.warning(*("subscriber.retry queue=%s id=%s try=%d", self.queue, event.id, tries), exc_info=error)
        return await self._queues.retry(message, tries, error)

    async def _dead_letter(self, message: AbstractIncomingMessage, error: Exception) -> None:
        _log.error(*("subscriber.dead_letter queue=%s id=%s", self.queue, message.message_id), exc_info=error)
        await self._queues.dead_letter(message, error)


async def handled(handler: Handler, event: CloudEvent[Any]) -> None:
    """Call a handler, and await what it gives.

    Raises:
        NotAwaitable: It gave nothing to await.
    """
    given = handler(event)
    if not inspect.isawaitable(given):
        raise NotAwaitable(not_awaitable("handler", handler))
    await given


def _require_names(team: str, name: str) -> None:
    for label, text in (("team", team), ("name", name)):
        if not isinstance(text, str) or not _NAME.fullmatch(text):
            raise EventError(
                f"{label} {text!r} must be lower-case letters and digits, with _ or - between them"
            )
    if len(f"sub_{team}.{name}") > _LONGEST_QUEUE_NAME:
        raise EventError(f"team and name together are longer than {_LONGEST_QUEUE_NAME - 5} characters")


def _require_dedup(dedup: Dedup) -> None:
    for method in ("has", "add"):
        if not hasattr(dedup, method):
            raise EventError(
                f"dedup must have the coroutine functions has(id) and add(id): {dedup!r} has no {method}"
            )
        require_coroutine_function(f"dedup.{method}", getattr(dedup, method))


def wanted(types: Iterable[str | type[EventData]] | None) -> frozenset[tuple[str, int]]:
    """Types and versions to receive.

    Raises:
        EventError: There is none, or one is not for subscribers, or not published in that version.
    """
    readable = [entry.type for entry in CATALOG.values() if "subscribers" in entry.readers]
    named = require_names("types", types, '"migration.completed"') or readable
    for one in named:
        if not isinstance(one, str) and not (isinstance(one, type) and issubclass(one, EventData)):
            raise EventError(f"types: {one!r} is neither the name of a type nor a model")
    kinds = {one if isinstance(one, str) else one.TYPE for one in named}
    if unknown := sorted(kinds - set(readable)):
        raise EventError(f"not for subscribers: {', '.join(unknown)}; see `python -m rehome_events list`")
    return frozenset((entry.type, entry.version) for entry in map(requested, named))
