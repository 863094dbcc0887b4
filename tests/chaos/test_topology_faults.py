"""Somebody has changed the broker's topology: what goes no further is told, and goes on when it is mended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rehome_consumer.rabbitmq.topology import queue_of
from tests.chaos.moving import Move, hold

EXCHANGE = "migration"
EVENT = "migration.stopped"
STEP = "back_up"


@asynccontextmanager
async def unbound(move: Move) -> AsyncIterator[None]:
    """The step's queue does not get its event, though others do: so the broker takes it without a word."""
    async with move.arena.channel() as channel:
        queue = await channel.get_queue(queue_of(STEP))
        await queue.unbind(EXCHANGE, EVENT)
        try:
            yield
        finally:
            await queue.bind(EXCHANGE, EVENT)


async def test_a_missing_binding_is_told_and_the_step_is_woken_by_the_doctor(move: Move) -> None:
    await move.begin(order=hold("stop.ran"), STUCK_AFTER="3", DOCTOR_EVERY="1")
    await move.there()
    async with unbound(move):
        move.go_on()
        await move.said(f"no delivery reaches step {STEP}")
        told = await move.arena.rehome("doctor", str(move.site.id), "--stuck-after", "3", "--repair")
        assert f"no delivery reaches step {STEP}" in told
        await move.ends("migration.completed")
