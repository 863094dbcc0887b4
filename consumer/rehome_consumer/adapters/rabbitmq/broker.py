"""RabbitMQ through aio-pika. Its traps, and where each is met here, stand in docs/decisions."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aio_pika
import aiormq.exceptions
from aio_pika.exceptions import AMQPError, DeliveryError, PublishError
from yarl import URL

from rehome_consumer.errors import Refused, TimedOut, Unreachable
from rehome_consumer.network.tls import explained
from rehome_consumer.ports.engine import Message
from rehome_events.amqp_properties import read_any_message, sendable, short
from rehome_events.client.connection import ClosedIfUnopened

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator

    from aio_pika.abc import (
        AbstractChannel,
        AbstractIncomingMessage,
        AbstractQueueIterator,
        AbstractRobustConnection,
    )

log = logging.getLogger(__name__)

HEARTBEAT: Final = 30  # seconds
RECONNECT_AFTER: Final = 1  # seconds
ACK_WITHIN: Final = 10.0  # seconds
LOST: Final = (
    AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    ConnectionError,
    RuntimeError,  # "Connection was not opened", "Writer is None": aiormq just after a loss
)
SUSPICIONS: Final = 2
"""Looks in a row that must tell that a reader was forgotten: a message may just be on its way."""
BROKER_HEADERS: Final = ("x-",)
"""Prefix of headers that the broker writes; they are not copied into a republish."""
OUR_HEADERS: Final = "mig-"
"""Prefix of headers that the engine writes (`rehome_consumer.engine.headers`)."""


class AmqpDelivery:
    """A message from a queue, unacknowledged."""

    def __init__(self, incoming: AbstractIncomingMessage) -> None:
        """Take aio-pika's message."""
        self._incoming = incoming

    @property
    def message(self) -> Message:
        """See `Delivery.message`."""
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
        """See `Delivery.ack`. The work is committed; if the channel is gone the message comes again."""
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
        self, connection: AbstractRobustConnection, *, confirm_within: float = 15.0, look_every: float = 30.0
    ) -> None:
        """Take an open robust connection.

        Args:
            connection: from `connected`.
            confirm_within: seconds a confirm may take.
            look_every: seconds without a delivery after which a reader looks whether it still is one.
        """
        self._connection = connection
        self._confirm_within = confirm_within
        self._look_every = look_every
        self._publishing: AbstractChannel | None = None
        self._opening = asyncio.Lock()

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        """See `Broker.publish`."""
        what = f"publish of {message.type or 'a message'} to {exchange} with key {routing_key}"
        try:
            async with asyncio.timeout(self._confirm_within):
                channel = await self._channel()
                to = await channel.get_exchange(exchange, ensure=False)
                await to.publish(_outgoing(message), routing_key, mandatory=mandatory)
        except TimeoutError:
            await self._drop_channel()
            raise TimedOut(f"{what}: no confirm from the broker within {self._confirm_within:g} s") from None
        except PublishError as error:
            raise Refused(
                f"{what}: the broker returned it ({_reply(error)}); is the topology applied?"
            ) from error
        except DeliveryError as error:
            # A channel that asked a quorum queue for the first time while its leader was dying goes on asking the
            # dead one and refuses every message; a new channel asks the new leader (measured on 3.10.8).
            await self._drop_channel()
            raise Unreachable(f"{what}: the broker does not take it now (is the queue full?)") from error
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
            raise Refused(f"queue {queue} is not there: apply the topology ({error})") from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise Refused(f"queue {queue} may not be read: {error}") from error
        except LOST as error:
            raise Unreachable(f"consumer of {queue} is gone: {error or type(error).__name__}") from error
        finally:
            await _close(channel)

    async def _next(
        self, incoming: AbstractQueueIterator, channel: AbstractChannel, queue: str
    ) -> AbstractIncomingMessage | None:
        """The next message; None when the connection was closed.

        Raises:
            Unreachable: messages wait while nothing comes, or the queue has no consumer: ours is gone,
                as a broker may let it go without a word.
        """
        taking = asyncio.ensure_future(anext(incoming, None))
        suspicions = 0
        try:
            while not (await asyncio.wait((taking,), timeout=self._look_every))[0]:
                suspicions = suspicions + 1 if await self._is_forgotten(channel, queue) else 0
                if suspicions == SUSPICIONS:
                    raise Unreachable(f"consumer of {queue} is gone without a word")
            return taking.result()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _is_forgotten(self, channel: AbstractChannel, queue: str) -> bool:
        """Whether the queue looks as if nobody read it; not while the connection is being made anew."""
        try:
            async with asyncio.timeout(self._confirm_within):
                there = await (await channel.get_underlay_channel()).queue_declare(queue, passive=True)
        except TimeoutError:
            return False
        return bool(there.message_count) or not there.consumer_count

    async def _channel(self) -> AbstractChannel:
        """The publishing channel, opened again after a loss. Returns are errors (`on_return_raises`)."""
        async with self._opening:
            if self._publishing is None or self._publishing.is_closed:
                # Not a robust channel: its silent restore would hide that confirms were lost.
                self._publishing = await self._connection.channel(
                    publisher_confirms=True, on_return_raises=True
                )
            return self._publishing

    async def _drop_channel(self) -> None:
        """Forget the publishing channel: after a loss or a time-out its state is unknown."""
        channel, self._publishing = self._publishing, None
        if channel is not None:
            await _close(channel)


class _Connection(ClosedIfUnopened, aio_pika.RobustConnection):
    """A robust connection that is closed when it could not be opened."""


@asynccontextmanager
async def connected(
    url: str, *, name: str, tls: ssl.SSLContext | None = None, within: float = 30.0
) -> AsyncIterator[AbstractRobustConnection]:
    """An open robust connection with a heartbeat.

    Args:
        url: amqp:// or amqps:// with the virtual host.
        name: shown in the broker's list of connections.
        tls: for amqps://, from `tls.broker_context`.
        within: seconds the first connection may take.

    Raises:
        Unreachable: no broker there, or it refuses the login; the password is not told.
    """
    read_any_message()
    address = URL(url).update_query(heartbeat=str(HEARTBEAT))
    port = address.port or (5671 if address.scheme == "amqps" else 5672)
    shown = f"{address.host}:{port}{address.path}"
    try:
        async with asyncio.timeout(within):
            connection = await aio_pika.connect_robust(
                address,
                client_properties={"connection_name": name},
                reconnect_interval=RECONNECT_AFTER,
                ssl_context=tls,
                connection_class=_Connection,
            )
    except TimeoutError:
        raise Unreachable(f"RabbitMQ at {shown} did not answer within {within:g} s") from None
    except (*LOST, OSError) as error:
        raise Unreachable(f"RabbitMQ at {shown}: {explained(error) or _at_once(error, address)}") from error
    try:
        yield connection
    finally:
        await _close(connection)


def _at_once(error: BaseException, address: URL) -> str:
    """Why there was no connection; a broker that hangs up at once says nothing, so the usual cause is told."""
    said = str(error) or type(error).__name__
    if not isinstance(error.__cause__, ConnectionResetError):
        return said
    usual = "was our client certificate refused?" if address.scheme == "amqps" else "does it want amqps://?"
    return f"{said}; {usual}"


async def _close(thing: Any) -> None:
    """Close a channel or connection, whatever state it is in, within five seconds."""
    try:
        async with asyncio.timeout(5):
            await thing.close()
    except (*LOST, OSError, TimeoutError) as error:
        log.debug("close.lost error=%s", error)


def _cancelled() -> bool:
    """Whether somebody cancels us; aio-pika raises CancelledError too when a connection breaks."""
    task = asyncio.current_task()
    return task is not None and bool(task.cancelling())


def _outgoing(message: Message) -> aio_pika.Message:
    """The message as it can be sent, whatever somebody put into the one that it is a copy of."""
    # Ours first: where others' headers leave no room, it is theirs that are left out.
    ours_first = sorted(message.headers.items(), key=lambda header: not header[0].startswith(OUR_HEADERS))
    return aio_pika.Message(
        message.body,
        message_id=short(message.message_id),
        type=short(message.type),
        correlation_id=short(message.correlation_id),
        content_type=short(message.content_type),
        app_id=short(message.app_id),
        timestamp=message.timestamp,
        headers=sendable({k: v for k, v in ours_first if not k.startswith(BROKER_HEADERS)}),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _reply(error: PublishError) -> str:
    text = getattr(error.frame, "reply_text", None)
    return str(text or "unroutable")
