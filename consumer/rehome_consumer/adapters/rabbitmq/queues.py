"""The broker's queues and exchanges by passive declares, which need no permission and change nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiormq.exceptions

from rehome_consumer.adapters.rabbitmq.connection import LOST
from rehome_consumer.errors import TimedOut, Unreachable
from rehome_consumer.ports.operators import QueueStatus

if TYPE_CHECKING:
    from collections.abc import Collection

    from aio_pika.abc import AbstractRobustConnection


class AmqpQueueInspector:
    """Port `QueueInspector` on an open connection."""

    def __init__(self, connection: AbstractRobustConnection, *, within: float = 30.0) -> None:
        """Take an open connection, and how long (seconds) reading all queues may take."""
        self._connection = connection
        self._within = within

    async def queues(self, names: Collection[str]) -> dict[str, QueueStatus]:
        """See `QueueInspector.queues`.

        Raises:
            Unreachable, TimedOut: the broker does not answer.
        """
        try:
            async with asyncio.timeout(self._within):
                found = [(name, await self._status(name)) for name in names]
        except TimeoutError:
            raise TimedOut(
                f"the broker did not answer questions about its queues within {self._within:g} s"
            ) from None
        except LOST as error:
            raise Unreachable(f"reading the status of queues: {error or type(error).__name__}") from error
        return {name: status for name, status in found if status is not None}

    async def missing_exchanges(self, names: Collection[str]) -> list[str]:
        """See `QueueInspector.missing_exchanges`.

        Raises:
            Unreachable, TimedOut: the broker does not answer.
        """
        try:
            async with asyncio.timeout(self._within):
                return [name for name in names if not await self._exchange_is_there(name)]
        except TimeoutError:
            raise TimedOut(
                f"the broker did not answer questions about its exchanges within {self._within:g} s"
            ) from None
        except LOST as error:
            raise Unreachable(f"looking for exchanges: {error or type(error).__name__}") from error

    async def _exchange_is_there(self, name: str) -> bool:
        """On a channel of its own, as `_status`."""
        async with self._connection.channel() as channel:
            underlay = await channel.get_underlay_channel()
            try:
                await underlay.exchange_declare(name, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
        return True

    async def _status(self, name: str) -> QueueStatus | None:
        """On a channel of its own: declaring a queue that does not exist passively closes the channel."""
        # Not through a robust channel's `declare_queue`: that answers from memory.
        async with self._connection.channel() as channel:
            underlay = await channel.get_underlay_channel()
            try:
                queue = await underlay.queue_declare(name, passive=True)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return None
        return QueueStatus(queue.message_count or 0, queue.consumer_count or 0)
