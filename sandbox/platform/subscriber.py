"""An independent subscriber: receives every event on exchange `migration`, repeats included, and keeps all of them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehome_events.client.connection import TROUBLE, Address, close, limited
from rehome_events.envelope import CloudEvent, from_message
from rehome_events.errors import BrokerError, Undecodable
from rehome_events.printable import visible
from sandbox.system.serving import until_stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self
    from uuid import UUID

    from aio_pika.abc import AbstractChannel, AbstractConnection

EXCHANGE = "migration"
ENDS = ("migration.completed", "migration.rolled_back", "migration.rejected")
"""One of these is the last event of a migration."""
REQUEST_LIMIT_SECONDS = 10.0
RETRY_SECONDS = 0.2


@dataclass
class Subscriber:
    """Another team's service, used as ``async with``; its durable queue is deleted at the end.

    Attributes:
        url: a broker's, as a user who may read exchange `migration`.
        binding: the events it wants; `#` is all.
        on_event: called with each event, in the order of arrival.
        deliveries: every event that arrived, repeats too, in the order of arrival.
        undecodable: why each message that is not an event could not be read.
        queue: its queue's name.
    """

    url: str
    binding: str = "#"
    on_event: Callable[[CloudEvent[Any]], None] | None = None
    deliveries: list[CloudEvent[Any]] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    queue: str = field(default_factory=lambda: f"sub_watcher.{secrets.token_hex(4)}")
    _bound: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition, repr=False)
    _reader: asyncio.Task[None] | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        """Return once the queue is bound: what is published from now on is received.

        Raises:
            TimeoutError: no broker let it bind its queue within 10 seconds.
            BrokerError: the broker refuses it (`rehome_events.errors`).
        """
        self._reader = asyncio.create_task(self._read_for_ever())
        bound = asyncio.create_task(self._bound.wait())
        waiting = {self._reader, bound}
        await asyncio.wait(waiting, timeout=REQUEST_LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        bound.cancel()
        if self._reader.done():
            await self._reader
        if not self._bound.is_set():
            self._reader.cancel()
            raise TimeoutError(f"queue {self.queue} was not bound within {REQUEST_LIMIT_SECONDS:g} s")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader}, timeout=REQUEST_LIMIT_SECONDS)
        # Where the broker has been removed by now, so has the queue.
        with contextlib.suppress(*TROUBLE, BrokerError):
            connection = await self._connect()
            try:
                channel = await limited(_channel(connection), REQUEST_LIMIT_SECONDS)
                await limited(channel.queue_delete(self.queue), REQUEST_LIMIT_SECONDS)
            finally:
                await close(connection)

    @property
    def events(self) -> list[CloudEvent[Any]]:
        """The events without repeats (one per id), in the order of arrival."""
        return list({event.id: event for event in reversed(self.deliveries)}.values())[::-1]

    def types(self, instance_id: UUID) -> list[str]:
        """Types of an instance's events, without repeats, in the order of arrival."""
        return [event.type for event in self.events if event.subject == str(instance_id)]

    async def wait_for(self, *types: str, instance_id: UUID, limit: float) -> CloudEvent[Any]:
        """The first event of one of these types about the instance, already received or still to come.

        Raises:
            TimeoutError: none came within `limit` seconds; names the types that did come.
        """

        def first() -> CloudEvent[Any] | None:
            about = (event for event in self.deliveries if event.subject == str(instance_id))
            return next((event for event in about if event.type in types), None)

        try:
            async with asyncio.timeout(limit), self._arrived:
                while (found := first()) is None:
                    await self._arrived.wait()
                return found
        except TimeoutError as error:
            received = ", ".join(self.types(instance_id)) or "none"
            raise TimeoutError(
                f"waited {limit:g} s for {' or '.join(types)} of instance {instance_id}; received: {received}"
            ) from error

    async def _connect(self) -> AbstractConnection:
        return await Address(self.url).connect("sandbox.platform.subscriber", REQUEST_LIMIT_SECONDS)

    async def _read_for_ever(self) -> None:
        """Read the queue; a lost connection is opened again, and the queue keeps what arrives meanwhile."""
        while True:
            with contextlib.suppress(*TROUBLE):
                connection = await self._connect()
                try:
                    await self._read(await limited(_channel(connection), REQUEST_LIMIT_SECONDS))
                finally:
                    await close(connection)
            await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, channel: AbstractChannel) -> None:
        """Read until the channel is lost."""
        queue = await limited(
            channel.declare_queue(self.queue, durable=True, arguments={"x-queue-type": "quorum"}),
            REQUEST_LIMIT_SECONDS,
        )
        await limited(queue.bind(EXCHANGE, self.binding), REQUEST_LIMIT_SECONDS)
        self._bound.set()
        async with queue.iterator() as messages:
            async for message in messages:
                try:
                    await self._take(from_message(message))
                except Undecodable as error:
                    self.undecodable.append(str(error))
                await limited(message.ack(), REQUEST_LIMIT_SECONDS)

    async def _take(self, event: CloudEvent[Any]) -> None:
        self.deliveries.append(event)
        if self.on_event is not None:
            self.on_event(event)
        async with self._arrived:
            self._arrived.notify_all()


async def _channel(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel()


def _print(event: CloudEvent[Any]) -> None:
    print(visible(f"{event.time:%H:%M:%S.%f} {event.subject} {event.type}"), flush=True)


async def run(url: str) -> None:
    """Print each event until SIGTERM or SIGINT."""
    async with Subscriber(url, on_event=_print):
        await until_stopped()


def main() -> int:
    """The command line: `SUBSCRIBER_AMQP_URL=... python -m sandbox.platform.subscriber` prints each event."""
    argparse.ArgumentParser(prog="sandbox.platform.subscriber", description=main.__doc__).parse_args()
    if "SUBSCRIBER_AMQP_URL" not in os.environ:
        print("subscriber: set SUBSCRIBER_AMQP_URL", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(os.environ["SUBSCRIBER_AMQP_URL"]))
    except (BrokerError, TimeoutError) as error:
        print(f"subscriber: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
