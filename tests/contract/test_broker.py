"""Port `Broker`: the same suite for the fake and for a RabbitMQ node with the topology."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import aio_pika
import pytest

from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.connection import connected
from rehome_consumer.engine import headers
from rehome_consumer.engine.headers import DEFERRALS, TRIES
from rehome_consumer.errors import Refused
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER, queue_of, retry_exchange
from tests.fakes.broker import FakeBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import Broker, Delivery
    from sandbox.rabbitmq.node import BrokerNode

LIMIT = 20.0
STEP = "stop"
QUEUE = queue_of(STEP)
EVENT = "migration.prepared"


class Rig(Protocol):
    """What the suite needs besides the port."""

    broker: Broker

    def another(self) -> Broker:
        """A second consumer's connection."""
        ...

    async def put_into_queue(self, queue: str, message: Message) -> None:
        """Put a message into a queue from outside, headers and all."""
        ...


class FakeRig:
    def __init__(self) -> None:
        self._node = FakeBroker()
        self.broker: Broker = self._node.client()

    def another(self) -> Broker:
        return self._node.client()

    async def put_into_queue(self, queue: str, message: Message) -> None:
        step = queue.rpartition(".")[2]
        self._node.route(HANDLER, step, message)


class AmqpRig:
    def __init__(
        self, first: aio_pika.abc.AbstractRobustConnection, second: aio_pika.abc.AbstractRobustConnection
    ) -> None:
        self._first, self._second = first, second
        self.broker: Broker = AmqpBroker(first)

    def another(self) -> Broker:
        return AmqpBroker(self._second)

    async def put_into_queue(self, queue: str, message: Message) -> None:
        async with await self._first.channel() as channel:
            raw = aio_pika.Message(message.body, message_id=message.message_id, headers=dict(message.headers))
            await channel.default_exchange.publish(raw, queue)


@pytest.fixture(scope="module")
async def amqp_rig(broker: BrokerNode) -> AsyncIterator[Rig]:
    async with connected(broker.url(), name="one") as first, connected(broker.url(), name="two") as second:
        yield AmqpRig(first, second)


@pytest.fixture(params=["fake", "rabbitmq"])
async def rig(request: pytest.FixtureRequest, amqp_rig: Rig, broker: BrokerNode) -> AsyncIterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    yield amqp_rig
    async with connected(broker.url(), name="cleaner") as connection, connection.channel() as channel:
        for name in (QUEUE, queue_of("accept"), queue_of("prepare"), DEAD):
            await (await channel.get_queue(name, ensure=False)).purge()


def a_message(**fields: object) -> Message:
    return Message(body=b'{"a": 1}', message_id=str(uuid4()), type=EVENT, **fields)  # type: ignore[arg-type] # a test's own


@asynccontextmanager
async def reading(broker: Broker, queue: str = QUEUE) -> AsyncIterator[Reader]:
    async with aclosing(broker.consume(queue)) as deliveries:
        yield Reader(deliveries)


class Reader:
    """Deliveries, each awaited for a limited time."""

    def __init__(self, deliveries: AsyncIterator[Delivery]) -> None:
        self._deliveries = deliveries

    async def next(self) -> Delivery:
        async with asyncio.timeout(LIMIT):
            return await anext(self._deliveries)


async def test_an_event_reaches_the_handler_that_it_wakes(rig: Rig) -> None:
    message = Message(
        body=b"\x00\xff",
        message_id=str(uuid4()),
        type=EVENT,
        correlation_id=str(uuid4()),
        content_type="application/cloudevents+json; charset=utf-8",
        app_id="migrations",
        timestamp=datetime(2026, 1, 1, 2, 0, tzinfo=UTC),
        headers={"rehome-tries": 2, "rehome-error": "ein Kuß"},
    )
    async with reading(rig.broker) as reader:
        await rig.broker.publish("migration", EVENT, message, mandatory=True)
        delivery = await reader.next()
        assert delivery.message == message
        assert (delivery.exchange, delivery.routing_key) == ("migration", EVENT)
        await delivery.ack()


async def test_a_publish_that_no_queue_takes_is_refused_where_it_must_arrive(rig: Rig) -> None:
    with pytest.raises(Refused, match=r"migration\.unheard_of"):
        await rig.broker.publish("migration", "migration.unheard_of", a_message(), mandatory=True)


async def test_a_publish_that_no_queue_takes_is_accepted_where_none_is_required(rig: Rig) -> None:
    await rig.broker.publish("migration", "migration.completed", a_message(), mandatory=False)


async def test_a_publish_to_an_exchange_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused, match="topology"):
        await rig.broker.publish("migration.retry.9h", STEP, a_message(), mandatory=True)


async def test_publishing_goes_on_after_a_refusal(rig: Rig) -> None:
    with pytest.raises(Refused):
        await rig.broker.publish("migration.retry.9h", STEP, a_message(), mandatory=True)
    async with reading(rig.broker) as reader:
        await rig.broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
        delivery = await reader.next()
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_many_publishes_at_once_are_all_confirmed(rig: Rig) -> None:
    messages = [a_message() for _ in range(20)]
    await asyncio.gather(*(rig.broker.publish("migration", EVENT, one, mandatory=True) for one in messages))
    got = set()
    async with reading(rig.broker) as reader:
        for _ in messages:
            delivery = await reader.next()
            got.add(delivery.message.message_id)
            await delivery.ack()
    assert got == {one.message_id for one in messages}


async def test_one_delivery_at_a_time_is_in_hand(rig: Rig) -> None:
    first, second = a_message(), a_message()
    for message in (first, second):
        await rig.broker.publish("migration", EVENT, message, mandatory=True)
    async with reading(rig.broker) as one, reading(rig.another()) as other:
        deliveries = await one.next(), await other.next()
        assert {each.message.message_id for each in deliveries} == {first.message_id, second.message_id}
        for each in deliveries:
            await each.ack()


async def test_what_was_not_acknowledged_comes_again(rig: Rig) -> None:
    await rig.broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
    async with reading(rig.broker) as reader:
        await reader.next()
    async with reading(rig.another()) as reader:
        delivery = await reader.next()
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_an_acknowledgement_after_the_channel_was_closed_is_no_error(rig: Rig) -> None:
    await rig.broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
    async with reading(rig.broker) as reader:
        late = await reader.next()
    await late.ack()
    async with reading(rig.broker) as reader:
        delivery = await reader.next()
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_a_retry_comes_to_its_handler_after_the_delay_as_it_was(rig: Rig) -> None:
    sent = a_message(headers={TRIES: 3, DEFERRALS: 1})
    async with reading(rig.broker) as reader:
        await rig.broker.publish(retry_exchange("1s"), STEP, sent, mandatory=True)
        delivery = await reader.next()
        assert (delivery.exchange, delivery.routing_key) == (HANDLER, STEP)
        assert delivery.message.body == sent.body
        assert delivery.message.message_id == sent.message_id
        assert delivery.message.headers[TRIES] == 3
        assert "x-death" in delivery.message.headers
        await delivery.ack()


async def test_headers_that_the_broker_wrote_are_not_sent_on(rig: Rig) -> None:
    sent = a_message(headers={"x-death": "forged", "x-delivery-count": 4, "rehome-deferrals": 1})
    async with reading(rig.broker) as reader:
        await rig.broker.publish("migration", EVENT, sent, mandatory=True)
        delivery = await reader.next()
        assert delivery.message.headers == {"rehome-deferrals": 1}
        await delivery.ack()


async def test_a_dead_letter_waits_with_its_reason(rig: Rig) -> None:
    sent = a_message(headers={"rehome-reason": "failed", "rehome-handler": STEP})
    await rig.broker.publish(DEAD, STEP, sent, mandatory=True)
    async with reading(rig.broker, DEAD) as reader:
        delivery = await reader.next()
        assert delivery.routing_key == STEP
        assert delivery.message.headers == sent.headers
        await delivery.ack()


async def test_a_message_that_is_never_acknowledged_becomes_a_dead_letter(rig: Rig) -> None:
    await rig.broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
    last = []
    for _ in range(6):  # the first delivery, and five more
        async with reading(rig.broker) as reader:
            delivery = await reader.next()
            assert delivery.message.message_id == sent.message_id
            last.append(headers.is_last(delivery))
    assert last == [False] * 5 + [True]
    async with reading(rig.broker, DEAD) as reader:
        delivery = await reader.next()
        assert (delivery.message.message_id, delivery.routing_key) == (sent.message_id, STEP)
        await delivery.ack()


async def test_an_upgrade_reaches_the_first_step_alone(rig: Rig) -> None:
    await rig.broker.publish("billing", "plan.upgraded", sent := a_message(), mandatory=True)
    async with reading(rig.broker, queue_of("accept")) as reader:
        delivery = await reader.next()
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_a_replay_reaches_its_handler_alone(rig: Rig) -> None:
    await rig.broker.publish(HANDLER, "prepare", sent := a_message(), mandatory=True)
    async with reading(rig.broker, queue_of("prepare")) as reader:
        delivery = await reader.next()
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_an_empty_message_is_delivered(rig: Rig) -> None:
    await rig.put_into_queue(QUEUE, Message(body=b""))
    async with reading(rig.broker) as reader:
        delivery = await reader.next()
        assert (delivery.message.body, delivery.message.headers) == (b"", {})
        assert (delivery.message.type, delivery.message.content_type) == (None, None)
        await delivery.ack()


async def test_a_queue_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(Refused, match=r"migration\.h\.unheard_of"):
        async with reading(rig.broker, "migration.h.unheard_of") as reader:
            await reader.next()
