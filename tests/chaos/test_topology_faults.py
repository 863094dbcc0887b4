"""A changed topology of the broker: a stuck migration is reported, and continues after the repair."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rehome_consumer.rabbitmq.topology import queue_of
from tests.chaos.moving import Move, hold

EXCHANGE = "migration"
EVENT = "migration.stopped"
STEP = "back_up"


@asynccontextmanager
async def unbound(move: Move) -> AsyncIterator[None]:
    """The step's queue does not get its event, but others do: so the broker accepts the event without an error."""
    async with move.arena.channel() as channel:
        queue = await channel.get_queue(queue_of(STEP))
        await queue.unbind(EXCHANGE, EVENT)
        try:
            yield
        finally:
            await queue.bind(EXCHANGE, EVENT)


async def test_a_missing_binding_is_reported_and_the_doctor_wakes_the_step(move: Move) -> None:
    await move.begin(order=hold("stop.ran"), STUCK_AFTER="3", DOCTOR_EVERY="1")
    await move.until_reached()
    async with unbound(move):
        move.release()
        await move.until_logged(f"no delivery reaches step {STEP}")
        report = await move.arena.rehome("doctor", str(move.site.id), "--stuck-after", "3", "--repair")
        assert f"no delivery reaches step {STEP}" in report
        await move.must_end("migration.completed")
