"""Publish a made-up migration on a real broker, for developers of subscribers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aio_pika import ExchangeType
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity

from rehome_events.client.arguments import require_seconds
from rehome_events.client.connection import Address, connected, limited, refusals
from rehome_events.client.publisher import Publisher
from rehome_events.envelope import CloudEvent
from rehome_events.errors import EventError, NotRouted
from rehome_events.testing.stories import Disorder, Story

_LIMIT = 10.0
_CONSUMERS_QUEUE = "migration.h.prepare"


async def play(
    url: str, story: Story, *, disorder: Disorder = "in order", pause: float = 0.0, force: bool = False
) -> AsyncIterator[tuple[CloudEvent[Any], bool]]:
    """Publish the events of a story on exchange ``migration``, which is declared when it is missing.

    Args:
        url: The broker, as a user who may publish on ``migration``.
        story: The migration.
        disorder: What happens to its events on the way.
        pause: Seconds between two events.
        force: Publish even on a broker that has the consumer's own queues, which would get the events too.

    Yields:
        Each event once it is published, and whether it certainly reached a queue.

    Raises:
        EventError: The broker has the consumer's queues, or the pause is no time.
        BrokerError: The broker could not be reached, or refused.
    """
    require_seconds("pause", pause, zero=True)
    address = Address(url)
    async with connected(address, "rehome_events.tools.mock", _LIMIT) as connection:
        if not force and await _has_consumer(connection):
            raise EventError(
                f"{address} has queue {_CONSUMERS_QUEUE}: the consumer would take these events for real ones. "
                "Use a broker of your own, or --force"
            )
        channel = await connection.channel()
        with refusals("declare exchange 'migration'"):
            await limited(channel.declare_exchange("migration", ExchangeType.TOPIC, durable=True), _LIMIT)
    async with Publisher(url, name="rehome_events.tools.mock") as publisher:
        for event in story.disturbed(disorder):
            try:
                await publisher.publish(event)
            except NotRouted:
                yield event, False
            else:
                yield event, True
            await asyncio.sleep(pause)


async def _has_consumer(connection: AbstractConnection) -> bool:
    channel = await connection.channel()
    with refusals(f"look for queue {_CONSUMERS_QUEUE!r}"):
        try:
            await limited(channel.declare_queue(_CONSUMERS_QUEUE, passive=True), _LIMIT)
        except ChannelNotFoundEntity:
            return False
    return True
