"""The check of a publisher: it passes a good one and names what is wrong with a bad one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aio_pika
import orjson
import pytest
from aio_pika import DeliveryMode, Message

from rehome_events.client import Publisher
from rehome_events.envelope import CONTENT_TYPE
from rehome_events.testing import Story, check_publisher, check_returned
from rehome_events.tools.schema import golden
from sandbox.rabbitmq.node import BrokerNode

Send = Callable[..., Awaitable[None]]


@pytest.fixture
async def send(contract_broker: BrokerNode) -> AsyncIterator[Send]:
    """Publish with aio-pika alone: `send(body, routing_key, **properties)`."""
    async with await aio_pika.connect(contract_broker.url(), timeout=10) as connection:
        channel = await connection.channel(on_return_raises=True)

        async def publish(body: bytes, routing_key: str = "plan.upgraded", **properties: Any) -> None:
            exchange = await channel.get_exchange("billing", ensure=False)
            await exchange.publish(Message(body, **properties), routing_key)

        yield publish


def example() -> tuple[bytes, dict[str, Any]]:
    event = golden("plan.upgraded", 1, "valid")["full"]
    properties = {
        "message_id": event["id"],
        "type": event["type"],
        "content_type": CONTENT_TYPE,
        "delivery_mode": DeliveryMode.PERSISTENT,
    }
    return orjson.dumps(event), properties


async def test_the_librarys_publisher_conforms(contract_broker: BrokerNode) -> None:
    event = Story().upgrade
    async with Publisher(contract_broker.url("billing")) as publisher:
        assert await check_publisher(contract_broker.url(), lambda: publisher.publish(event)) == event


async def test_a_message_made_by_hand_conforms(contract_broker: BrokerNode, send: Send) -> None:
    body, properties = example()
    await check_publisher(contract_broker.url(), lambda: send(body, **properties))


async def test_binary_mode_conforms(contract_broker: BrokerNode, send: Send) -> None:
    body, properties = example()
    event = orjson.loads(body)
    data = orjson.dumps(event.pop("data"))
    headers = {f"cloudEvents:{name}": value for name, value in event.items()}
    properties |= {"headers": headers, "content_type": "application/json"}
    await check_publisher(contract_broker.url(), lambda: send(data, **properties))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delivery_mode": DeliveryMode.NOT_PERSISTENT}, "delivery mode is not 2"),
        ({"message_id": "1"}, "message_id 1 is not the event's id"),
        ({"type": "upgrade"}, "property type upgrade"),
        ({"content_type": "text/plain"}, "content type text/plain"),
        ({"expiration": 60}, "the message expires"),
        ({"routing_key": "plan.changed"}, "routing key plan.changed"),
    ],
)
async def test_a_deviation_of_the_message_is_named(
    change: dict[str, Any], says: str, contract_broker: BrokerNode, send: Send
) -> None:
    body, properties = example()
    with pytest.raises(AssertionError, match=says):
        await check_publisher(contract_broker.url(), lambda: send(body, **{**properties, **change}))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("plan_teir", "premium", "does not know data.plan_teir"),
        ("to_plan", None, "data.to_plan"),
        ("from_plan", "amqp://billing:hunter2@broker", "looks like a password"),
    ],
)
async def test_a_deviation_of_the_body_is_named(
    field: str, value: object, says: str, contract_broker: BrokerNode, send: Send
) -> None:
    body, properties = example()
    event = orjson.loads(body)
    event["data"][field] = value
    with pytest.raises(AssertionError, match=says) as named:
        await check_publisher(contract_broker.url(), lambda: send(orjson.dumps(event), **properties))
    assert "hunter2" not in str(named.value)


async def test_a_publisher_that_publishes_nothing_is_named(contract_broker: BrokerNode) -> None:
    async def nothing() -> None:
        """Publish nothing."""

    with pytest.raises(AssertionError, match="nothing arrived on exchange 'billing'"):
        await check_publisher(contract_broker.url(), nothing, timeout=0.3)


async def test_a_second_message_is_named(contract_broker: BrokerNode, send: Send) -> None:
    body, properties = example()

    async def twice() -> None:
        await send(body, **properties)
        await send(body, **properties)

    with pytest.raises(AssertionError, match="2 messages arrived, not one"):
        await check_publisher(contract_broker.url(), twice)


async def test_the_librarys_publisher_notices_that_no_queue_gets_its_event(empty_vhost: str) -> None:
    async def publish() -> None:
        async with Publisher(empty_vhost) as publisher:
            await publisher.publish(Story().upgrade)

    await check_returned(empty_vhost, publish)


async def test_a_publisher_that_does_not_notice_is_named(empty_vhost: str) -> None:
    async def publish() -> None:
        async with await aio_pika.connect(empty_vhost, timeout=10) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange("billing", ensure=False)
            await exchange.publish(Message(b"{}"), "plan.upgraded")

    with pytest.raises(AssertionError, match="did not notice"):
        await check_returned(empty_vhost, publish)
