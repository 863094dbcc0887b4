"""RabbitMQ through aio-pika. docs/decisions lists aio-pika's traps and where each is handled here."""

from __future__ import annotations

import asyncio
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import aio_pika
import aiormq.exceptions
from aio_pika.exceptions import DeliveryError, PublishError
from aiormq import spec

from rehome_consumer.adapters.rabbitmq.connection import LOST, close
from rehome_consumer.errors import Refused, TimedOut, Unreachable
from rehome_consumer.ports.engine import BROKER_HEADERS, ENGINE_HEADERS, Message
from rehome_events.amqp_properties import sendable, short

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aio_pika.abc import (
        AbstractChannel,
        AbstractIncomingMessage,
        AbstractQueueIterator,
        AbstractRobustConnection,
    )

log = logging.getLogger(__name__)

ACK_WITHIN: Final = 10.0  # seconds
LOST_AFTER: Final = 2
"""Consecutive checks that must find the consumer missing: a message may just be on its way."""


class AmqpDelivery:
    """A message from a queue, unacknowledged."""

    def __init__(self, incoming: AbstractIncomingMessage) -> None:
        """Take aio-pika's message."""
        self._incoming = incoming

    @cached_property
    def message(self) -> Message:
        """See `Delivery.message`; made once, since the engine looks at it half a dozen times."""
        it = self._incoming
        return Message(
            body=it.body,
            message_id=it.message_id,
            type=it.type,
            correlation_id=it.correlation_id,
            content_type=it.content_type,
            app_id=it.app_id,
            timestamp=it.timestamp,
            headers=dict(it.headers),
        )

    @property
    def exchange(self) -> str:
        """See `Delivery.exchange`."""
        return self._incoming.exchange or ""

    @property
    def routing_key(self) -> str:
        """See `Delivery.routing_key`."""
        return self._incoming.routing_key or ""

    async def ack(self) -> None:
        """See `Delivery.ack`. The work is committed; if the channel is lost the message comes again."""
        message_id = self._incoming.message_id
        try:
            async with asyncio.timeout(ACK_WITHIN):
                await self._incoming.ack()
        except TimeoutError:  # on a connection that has just died aiormq waits for ever
            log.warning("ack.lost message=%s error=the broker did not take it in time", message_id)
        except asyncio.CancelledError:
            if _cancelled():
                raise
            log.warning("ack.lost message=%s error=the connection broke", message_id)
        except LOST as error:
            log.warning("ack.lost message=%s error=%s", message_id, error or type(error).__name__)


class AmqpBroker:
    """Broker port. One connection; one channel for publishing, one for each consumer."""

    def __init__(
        self, connection: AbstractRobustConnection, *, confirm_within: float = 15.0, check_every: float = 30.0
    ) -> None:
        """Take an open robust connection.

        Args:
            connection: from `connected`.
            confirm_within: seconds a confirm may take.
            check_every: seconds without a delivery after which a consumer checks that the broker still knows it.
        """
        self._connection = connection
        self._confirm_within = confirm_within
        self._check_every = check_every
        self._publishing: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        """See `Broker.publish`."""
        what = f"publish of {message.type or 'a message'} to {exchange} with key {routing_key}"
        try:
            async with asyncio.timeout(self._confirm_within):
                channel = await (await self._channel()).get_underlay_channel()
                # Not through aio-pika's message and exchange, which take as long as the publish itself. Its confirm is
                # waited for, so the write is not, for which others would have to wait as well.
                await cast("aiormq.Channel", channel).basic_publish(
                    message.body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=_properties(message),
                    mandatory=mandatory,
                    wait=False,
                )
        except TimeoutError:
            await self._drop_channel()
            raise TimedOut(f"{what}: no confirm from the broker within {self._confirm_within:g} s") from None
        except PublishError as error:
            raise Refused(
                f"{what}: the broker returned it ({_reply(error)}); is the topology applied (rehome topology check)?"
            ) from error
        except DeliveryError as error:
            # A channel that first used a quorum queue while its leader was dying keeps using the dead leader and
            # refuses every message; a new channel uses the new leader (measured on 3.10.8).
            await self._drop_channel()
            raise Unreachable(f"{what}: the broker rejected it for now (is the queue full?)") from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            await self._drop_channel()
            raise Refused(f"{what}: {error}") from error
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            await self._drop_channel()
            raise Refused(f"{what}: {error}; apply the topology") from error
        except asyncio.CancelledError as error:
            if _cancelled():
                raise
            # aio-pika cancels the confirm's future when the connection breaks under it.
            await self._drop_channel()
            raise Unreachable(f"{what}: the connection broke before the confirm") from error
        except LOST as error:
            await self._drop_channel()
            raise Unreachable(f"{what}: {error or type(error).__name__}") from error

    async def consume(self, queue: str) -> AsyncGenerator[AmqpDelivery, None]:
        """See `Broker.consume`. An iterator, not a callback: it outlives reconnections."""
        channel = await self._connection.channel()
        try:
            await channel.set_qos(prefetch_count=1)
            source = await channel.get_queue(queue, ensure=True)
            async with source.iterator() as incoming:
                while (message := await self._next(incoming, channel, queue)) is not None:
                    yield AmqpDelivery(message)
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            raise Refused(f"queue {queue} does not exist: apply the topology ({error})") from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise Refused(f"queue {queue} may not be read: {error}") from error
        except LOST as error:
            raise Unreachable(f"the consumer of {queue} was lost: {error or type(error).__name__}") from error
        finally:
            await close(channel)

    async def _next(
        self, incoming: AbstractQueueIterator, channel: AbstractChannel, queue: str
    ) -> AbstractIncomingMessage | None:
        """The next message; None when the connection was closed.

        Raises:
            Unreachable: messages wait but none is delivered, or the queue has no consumer: the broker has lost
                this one silently.
        """
        receiving = asyncio.ensure_future(anext(incoming, None))
        misses = 0
        try:
            while not (await asyncio.wait((receiving,), timeout=self._check_every))[0]:
                misses = misses + 1 if await self._is_lost(channel, queue) else 0
                if misses == LOST_AFTER:
                    raise Unreachable(f"the consumer of {queue} was lost silently")
            return receiving.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _is_lost(self, channel: AbstractChannel, queue: str) -> bool:
        """Whether the queue seems to have lost this consumer; False while the connection is being restored."""
        try:
            async with asyncio.timeout(self._confirm_within):
                there = await (await channel.get_underlay_channel()).queue_declare(queue, passive=True)
        except TimeoutError:
            return False
        return bool(there.message_count) or not there.consumer_count

    async def _channel(self) -> AbstractChannel:
        """The publishing channel, opened again after a loss. Returned messages are errors (`on_return_raises`)."""
        async with self._opening:
            if self._publishing is None or self._publishing.is_closed:
                # Not a robust channel: its silent restore would hide that confirms were lost.
                self._publishing = await self._connection.channel(
                    publisher_confirms=True, on_return_raises=True
                )
            return self._publishing

    async def _drop_channel(self) -> None:
        """Give up the publishing channel: after a loss or a time-out its state is unknown."""
        channel, self._publishing = self._publishing, None
        if channel is not None:
            await close(channel)


def _cancelled() -> bool:
    """Whether this task is really cancelled; aio-pika raises CancelledError too when a connection breaks."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _properties(message: Message) -> spec.Basic.Properties:
    """Its properties in a form that can be sent, whatever the message that it is a copy of contains."""
    # The engine's first: where there are too many headers, others' are left out.
    engine_first = sorted(
        message.headers.items(), key=lambda header: not header[0].startswith(ENGINE_HEADERS)
    )
    return spec.Basic.Properties(
        message_id=short(message.message_id),
        message_type=short(message.type),
        correlation_id=short(message.correlation_id),
        content_type=short(message.content_type),
        app_id=short(message.app_id),
        timestamp=message.timestamp,
        headers=sendable({k: v for k, v in engine_first if not k.startswith(BROKER_HEADERS)}),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        priority=0,  # as aio-pika sends what others publish with it: of one queue all must have the same
    )


def _reply(error: PublishError) -> str:
    text = getattr(error.frame, "reply_text", None)
    return str(text or "unroutable")
