"""A made-up migration, published on a real broker."""

from datetime import UTC, datetime
from uuid import UUID

import aio_pika
import pytest

from rehome_events.envelope import from_message
from rehome_events.errors import EventError, Refused
from rehome_events.testing import OUTCOMES, Story
from rehome_events.tools.mock import play
from sandbox.rabbitmq.node import BrokerNode


async def played(url: str, story: Story, *, force: bool = False) -> list[tuple[UUID, bool]]:
    return [(event.id, taken) async for event, taken in play(url, story, force=force)]


async def test_a_subscriber_gets_a_played_migration_in_order(empty_vhost: str) -> None:
    story = Story("completed")
    await played(empty_vhost, story)
    async with await aio_pika.connect(empty_vhost, timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("migration", "migration.#")
        events = await played(empty_vhost, story)
        got = [from_message(await queue.get(no_ack=True)) for _ in events]
    assert tuple(got) == story.events


async def test_events_that_no_queue_gets_are_reported(empty_vhost: str) -> None:
    routed = dict(await played(empty_vhost, story := Story("rejected")))
    assert routed == {story.events[0].id: True}
    routed = dict(await played(empty_vhost, story := Story("completed")))
    assert [routed[event.id] for event in story.events] == [False] * 8 + [True]


async def test_it_is_not_played_to_a_consumer_at_work(contract_broker: BrokerNode) -> None:
    with pytest.raises(EventError, match="the consumer would take these events for real ones"):
        await played(contract_broker.url(), Story("rejected"))
    assert await played(contract_broker.url(), Story("rejected"), force=True)


async def test_what_the_broker_refuses_is_a_sentence(contract_broker: BrokerNode) -> None:
    with pytest.raises(Refused, match=r"the broker refused to .*ACCESS_REFUSED"):
        await played(contract_broker.url("billing"), Story("rejected"), force=True)


@pytest.mark.parametrize("pause", [-1.0, float("nan"), float("inf")])
async def test_a_pause_that_is_no_time_is_refused(pause: float) -> None:
    with pytest.raises(EventError, match=r"pause must be 0 or more \(seconds\)"):
        await anext(play("amqp://localhost/", Story("rejected"), pause=pause))


async def test_no_event_lies_in_the_future() -> None:
    now = datetime.now(UTC)
    for outcome in OUTCOMES:
        assert all(event.time <= now for event in Story(outcome).events)
