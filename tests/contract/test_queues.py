"""Port `QueueInspector`, held by the fake and by a RabbitMQ node with our topology alike: queues seen from outside."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker, connected
from rehome_consumer.adapters.rabbitmq.queues import AmqpQueueInspector
from rehome_consumer.ports.engine import Message
from rehome_consumer.ports.operators import QueueStatus
from rehome_consumer.rabbitmq.topology import DEAD, queue_of
from sandbox.system.net import wait_until
from tests.fakes.broker import FakeBroker
from tests.fakes.inspection import FakeQueueInspector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import Broker
    from rehome_consumer.ports.operators import QueueInspector
    from sandbox.rabbitmq.node import BrokerNode

STOP, BACK_UP = queue_of("stop"), queue_of("back_up")


@dataclass
class Stand:
    """Who publishes and reads, and who looks."""

    broker: Broker
    looks: QueueInspector

    async def publish(self, times: int) -> None:
        for _ in range(times):
            message = Message(body=b"{}", message_id=str(uuid4()), type="migration.prepared")
            await self.broker.publish("migration", "migration.prepared", message, mandatory=True)

    async def become(self, wanted: QueueStatus) -> None:
        """Wait until the handler's queue is like this: a node counts a moment later."""

        async def like_this() -> bool:
            return (await self.looks.queues([STOP]))[STOP] == wanted

        await wait_until(like_this, what=f"{STOP} to be {wanted}", limit=20, pause=0.05)


@pytest.fixture(params=["fake", "rabbitmq"])
async def stand(request: pytest.FixtureRequest, broker: BrokerNode) -> AsyncIterator[Stand]:
    if request.param == "fake":
        node = FakeBroker()
        yield Stand(node.client(), FakeQueueInspector(node))
        return
    async with connected(broker.url(), name="looks") as connection:
        yield Stand(AmqpBroker(connection), AmqpQueueInspector(connection))
        async with connection.channel() as channel:
            await (await channel.get_queue(STOP, ensure=False)).purge()


async def test_what_waits_is_counted_and_what_is_in_somebodys_hand_is_not(stand: Stand) -> None:
    await stand.become(QueueStatus(0, 0))
    await stand.publish(3)
    await stand.become(QueueStatus(3, 0))
    async with aclosing(stand.broker.consume(STOP)) as deliveries:
        delivery = await anext(deliveries)
        await stand.become(QueueStatus(2, 1))
        await delivery.ack()
    await stand.become(QueueStatus(2, 0))


async def test_every_reader_of_a_queue_counts(stand: Stand) -> None:
    await stand.publish(2)
    async with aclosing(stand.broker.consume(STOP)) as one, aclosing(stand.broker.consume(STOP)) as two:
        await anext(one)
        await anext(two)
        await stand.become(QueueStatus(0, 2))
    await stand.become(QueueStatus(2, 0))


async def test_those_asked_for_are_told_and_those_that_are_not_there_left_out(stand: Stand) -> None:
    found = await stand.looks.queues([STOP, "migration.h.nobody", BACK_UP, DEAD])
    assert set(found) == {STOP, BACK_UP, DEAD}
    assert await stand.looks.queues([]) == {}
    assert await stand.looks.queues(["nobody"]) == {}


async def test_looking_takes_nothing_out(stand: Stand) -> None:
    await stand.publish(1)
    await stand.become(QueueStatus(1, 0))
    for _ in range(10):
        await stand.looks.queues([STOP])
    async with aclosing(stand.broker.consume(STOP)) as deliveries:
        delivery = await anext(deliveries)
        assert "x-delivery-count" not in delivery.message.headers
        await delivery.ack()
