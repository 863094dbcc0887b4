"""Port `QueueInspector`, the same on the fake and on a RabbitMQ node with the topology."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.connection import connected
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
    """A client that publishes and consumes, and the inspector under test."""

    broker: Broker
    inspector: QueueInspector

    async def publish(self, times: int) -> None:
        for _ in range(times):
            message = Message(body=b"{}", message_id=str(uuid4()), type="migration.prepared")
            await self.broker.publish("migration", "migration.prepared", message, mandatory=True)

    async def until_status(self, wanted: QueueStatus) -> None:
        """Wait until the handler's queue has this status: a node counts a moment later."""

        async def reached() -> bool:
            return (await self.inspector.queues([STOP]))[STOP] == wanted

        await wait_until(reached, what=f"{STOP} to be {wanted}", limit=20, pause=0.05)


@pytest.fixture(params=["fake", "rabbitmq"])
async def stand(request: pytest.FixtureRequest, broker: BrokerNode) -> AsyncIterator[Stand]:
    if request.param == "fake":
        node = FakeBroker()
        yield Stand(node.client(), FakeQueueInspector(node))
        return
    async with connected(broker.url(), name="inspector") as connection:
        yield Stand(AmqpBroker(connection), AmqpQueueInspector(connection))
        async with connection.channel() as channel:
            await (await channel.get_queue(STOP, ensure=False)).purge()


async def test_ready_messages_are_counted_and_unacknowledged_ones_are_not(stand: Stand) -> None:
    await stand.until_status(QueueStatus(0, 0))
    await stand.publish(3)
    await stand.until_status(QueueStatus(3, 0))
    async with aclosing(stand.broker.consume(STOP)) as deliveries:
        delivery = await anext(deliveries)
        await stand.until_status(QueueStatus(2, 1))
        await delivery.ack()
    await stand.until_status(QueueStatus(2, 0))


async def test_every_consumer_of_a_queue_counts(stand: Stand) -> None:
    await stand.publish(2)
    async with aclosing(stand.broker.consume(STOP)) as one, aclosing(stand.broker.consume(STOP)) as two:
        await anext(one)
        await anext(two)
        await stand.until_status(QueueStatus(0, 2))
    await stand.until_status(QueueStatus(2, 0))


async def test_queues_that_do_not_exist_are_left_out(stand: Stand) -> None:
    found = await stand.inspector.queues([STOP, "migration.h.nobody", BACK_UP, DEAD])
    assert set(found) == {STOP, BACK_UP, DEAD}
    assert await stand.inspector.queues([]) == {}
    assert await stand.inspector.queues(["nobody"]) == {}


async def test_inspecting_takes_no_message(stand: Stand) -> None:
    await stand.publish(1)
    await stand.until_status(QueueStatus(1, 0))
    for _ in range(10):
        await stand.inspector.queues([STOP])
    async with aclosing(stand.broker.consume(STOP)) as deliveries:
        delivery = await anext(deliveries)
        assert "x-delivery-count" not in delivery.message.headers
        await delivery.ack()
