"""The queue of dead letters, as a tool reads it: read all, remove those that were replayed or discarded."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import aiormq.exceptions

from rehome_consumer.adapters.rabbitmq.broker import AmqpDelivery
from rehome_consumer.adapters.rabbitmq.connection import LOST
from rehome_consumer.errors import Refused, TimedOut, Unreachable
from rehome_consumer.rabbitmq.topology import DEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractRobustConnection

log = logging.getLogger(__name__)

PAUSE: Final = 0.05  # seconds between two checks
BACK_WITHIN: Final = 5.0  # seconds in which dead letters that were only read are in the queue again


class HeldDeadLetter(AmqpDelivery):
    """A dead letter that this tool holds unacknowledged; `taken` once it was acknowledged."""

    def __init__(self, incoming: AbstractIncomingMessage) -> None:
        """Take aio-pika's message."""
        super().__init__(incoming)
        self.taken = False

    async def ack(self) -> None:
        """Remove it from the queue."""
        self.taken = True
        await super().ack()

    async def give_back(self) -> None:
        """Put it back into the queue."""
        await self._incoming.nack(requeue=True)


class DeadLetters:
    """The dead letters. None leaves the queue without an acknowledgement, even if the tool dies.

    While one tool holds them, another gets none: use `PostgresJournalViews.alone`, so that one runs at a time.
    """

    def __init__(self, connection: AbstractRobustConnection, *, within: float = 120.0) -> None:
        """Take an open connection, and how long (seconds) reading may take."""
        self._connection = connection
        self._within = within

    @asynccontextmanager
    async def held(self) -> AsyncIterator[list[HeldDeadLetter]]:
        """All dead letters, held; those not acknowledged return to the queue at the end.

        Raises:
            Unreachable: the connection was lost.
            TimedOut: reading them took too long.
            Refused: there is no such queue, or this user may not read it.
        """
        channel = await self._connection.channel()
        dead_letters: list[HeldDeadLetter] = []
        try:
            queue = await channel.get_queue(DEAD, ensure=False)
            try:
                async with asyncio.timeout(self._within):
                    while (message := await queue.get(fail=False)) is not None:
                        dead_letters.append(HeldDeadLetter(message))
            except TimeoutError:
                raise TimedOut(
                    f"reading queue {DEAD} took longer than {self._within:g} s; {len(dead_letters)} were read"
                ) from None
            yield dead_letters
        except (aiormq.exceptions.ChannelNotFoundEntity, aiormq.exceptions.ChannelAccessRefused) as error:
            raise Refused(f"queue {DEAD}: {error}") from error
        except LOST as error:
            raise Unreachable(f"queue {DEAD}: {error or type(error).__name__}") from error
        finally:
            with suppress(*LOST, TimeoutError):
                await _give_back(channel, [one for one in dead_letters if not one.taken])


async def _are_back(channel: Any, count: int) -> bool:
    queue = await channel.queue_declare(DEAD, passive=True)
    return (queue.message_count or 0) >= count


async def _give_back(channel: AbstractChannel, dead_letters: list[HeldDeadLetter]) -> None:
    """Give dead letters back and wait until the queue has them: the next tool must get them all."""
    async with asyncio.timeout(BACK_WITHIN):
        try:
            if channel.is_closed:  # the broker gives them back by itself
                return
            for dead_letter in dead_letters:
                await dead_letter.give_back()
            underlay = await channel.get_underlay_channel()
            while True:
                if await _are_back(underlay, len(dead_letters)):
                    break
                await asyncio.sleep(PAUSE)
        finally:
            await channel.close()
