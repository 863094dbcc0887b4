"""A subscription's exchange and queues, and the moves of a message between them."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)

from rehome_events.amqp_properties import sendable
from rehome_events.client.connection import ConnectionLost, limited, refusals
from rehome_events.wire import LONGEST_ERROR

PREFETCH: Final = 10
DELIVERY_LIMIT: Final = 10
"""How often a message may end its consumer (by killing the process) before the broker makes it a dead letter."""

_TRIES: Final = "sub-attempt"
_ERROR: Final = "sub-error"
_REASON: Final = "sub-reason"
_OWN_HEADERS: Final = (_TRIES, _ERROR, _REASON)


class Inbox:
    """Where deliveries arrive, and the error that ended them."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[AbstractIncomingMessage | BaseException | None] = asyncio.Queue()

    async def put(self, message: AbstractIncomingMessage) -> None:
        """Take a delivery."""
        await self._items.put(message)

    def fail(self, error: BaseException) -> None:
        """Let `next` raise this after the deliveries before it."""
        self._items.put_nowait(error)

    def wake(self) -> None:
        """Let `next` return None."""
        self._items.put_nowait(None)

    async def next(self) -> AbstractIncomingMessage | None:
        """Wait for the next delivery; None when woken."""
        item = await self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item


class Subscription:
    """A queue with its retry queue and its dead-letter queue.

    Args:
        name: Name of the queue and of the exchange that leads to it.
        types: Types that it gets from exchange ``migration``.
        retry_delay: Seconds that a message waits in the retry queue.
        timeout: Limit of each exchange with the broker, in seconds.
    """

    def __init__(self, name: str, types: Iterable[str], retry_delay: float, timeout: float) -> None:
        self.name = name
        self._types = sorted(types)
        self._retry_delay = retry_delay
        self._timeout = timeout
        self._channel: AbstractChannel
        self._exchange: AbstractExchange
        self._work: AbstractQueue
        self._dead: AbstractQueue

    async def declare(self, connection: AbstractConnection) -> None:
        """Declare everything, on ``connection``, which is used from then on.

        Raises:
            Refused: Not permitted, or a queue exists with other settings.
        """
        self._channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        with refusals(f"set up {self.name}"):
            async with asyncio.timeout(self._timeout):
                await self._channel.initialize()
                await self._channel.set_qos(prefetch_count=PREFETCH)
                self._exchange = await self._channel.declare_exchange(
                    self.name, ExchangeType.DIRECT, durable=True
                )
                self._work = await self._declare_queue("", "work", self._next_queue("dead", DELIVERY_LIMIT))
                waiting = {"x-message-ttl": round(self._retry_delay * 1000), **self._next_queue("work")}
                await self._declare_queue(".retry", "retry", waiting)
                self._dead = await self._declare_queue(".dead", "dead", {})
                for kind in self._types:
                    await self._work.bind("migration", kind)

    async def _declare_queue(self, suffix: str, key: str, arguments: dict[str, Any]) -> AbstractQueue:
        queue = await self._channel.declare_queue(
            self.name + suffix, durable=True, arguments={"x-queue-type": "quorum", **arguments}
        )
        await queue.bind(self._exchange, key)
        return queue

    def _next_queue(self, key: str, limit: int | None = None) -> dict[str, Any]:
        """A queue's dead-letter arguments: where its messages go next.

        At-least-once needs reject-publish, which never rejects anything where there is no length limit.
        """
        return {
            "x-dead-letter-exchange": self.name,
            "x-dead-letter-routing-key": key,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            **({"x-delivery-limit": limit} if limit else {}),
        }

    async def consume(self, inbox: Inbox) -> None:
        """Consume into ``inbox``, where the end of the channel arrives too."""

        def closed(*_: object) -> None:
            inbox.fail(ConnectionLost("the connection to the broker was lost"))

        self._channel.close_callbacks.add(closed)
        await limited(self._work.consume(inbox.put), self._timeout)

    async def require_consumer(self) -> None:
        """Check that the queue has a consumer.

        Raises:
            ConnectionLost: It has none. A missing queue raises another error of `TROUBLE`.
        """
        queue = await limited(self._channel.declare_queue(self.name, passive=True), self._timeout)
        if not queue.declaration_result.consumer_count:
            raise ConnectionLost(f"the broker does not know the consumer of {self.name} any more")

    async def done(self, message: AbstractIncomingMessage) -> None:
        """Acknowledge a message: it leaves its queue."""
        await limited(message.ack(), self._timeout)

    async def retry(self, message: AbstractIncomingMessage, tries: int, error: Exception) -> None:
        """Move a message to the retry queue: it comes back after the delay."""
        await self._move(message, "retry", {_TRIES: tries, **_failure(error)})

    async def dead_letter(self, message: AbstractIncomingMessage, error: Exception) -> None:
        """Move a message to the dead-letter queue."""
        await self._move(message, "dead", {_TRIES: tries_of(message) + 1, **_failure(error)})

    async def requeue_dead_letters(self, limit: int) -> int:
        """Move at most ``limit`` dead letters back to the queue; returns how many."""
        for count in range(limit):
            message = await limited(self._dead.get(fail=False, timeout=self._timeout), self._timeout)
            if message is None:
                return count
            await self._move(message, "work", {})
        return limit

    async def _move(self, message: AbstractIncomingMessage, key: str, headers: dict[str, Any]) -> None:
        """Publish a copy, and acknowledge the original once the copy is confirmed.

        Left out are ``x-`` headers, which are the broker's, ``user_id``, since another user's closes the channel,
        and ``expiration``, since the copy would expire.
        """
        others = {
            name: value
            for name, value in message.headers.items()
            if not name.startswith("x-") and name not in _OWN_HEADERS
        }
        copy = Message(
            message.body,
            headers=sendable({**headers, **others}),
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            type=message.type,
            timestamp=message.timestamp,
            app_id=message.app_id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await limited(self._exchange.publish(copy, key, mandatory=True), self._timeout)
        await self.done(message)


def tries_of(message: AbstractIncomingMessage) -> int:
    """How often a message was tried before this delivery."""
    count = message.headers.get(_TRIES, 0)
    return count if isinstance(count, int) else 0


def _failure(error: Exception) -> dict[str, Any]:
    return {_ERROR: type(error).__name__, _REASON: str(error)[:LONGEST_ERROR]}
