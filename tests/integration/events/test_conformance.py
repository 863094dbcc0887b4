"""The check of a publisher: it passes a good one and names what is wrong with a bad one."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import orjson
import pytest
from aio_pika import DeliveryMode, Message
from aio_pika.exceptions import PublishError
from pamqp import decode

from rehome_events.client import Publisher
from rehome_events.envelope import CONTENT_TYPE
from rehome_events.errors import Refused
from rehome_events.testing import Story, check_publisher, check_returned, deviations
from rehome_events.tools.conform import conform
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


class Milliseconds(datetime):
    """A time that goes out in milliseconds, as from a program in JavaScript."""

    def timestamp(self) -> float:
        return super().timestamp() * 1000


def example() -> tuple[bytes, dict[str, Any]]:
    event = golden("plan.upgraded", 1, "valid")["full"]
    properties = {
        "message_id": event["id"],
        "type": event["type"],
        "content_type": CONTENT_TYPE,
        "delivery_mode": DeliveryMode.PERSISTENT,
        "timestamp": datetime.now(UTC),
        "app_id": "billing",
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
        (
            {"content_type": "application/json"},
            "content type application/json is not application/cloudevents",
        ),
        ({"content_type": f"{CONTENT_TYPE.partition(';')[0]}; charset=latin-1"}, "charset"),
        ({"timestamp": None}, "property timestamp is missing"),
        (
            {"timestamp": Milliseconds.now(UTC).replace(microsecond=0)},
            "property timestamp is in milliseconds",
        ),
        ({"timestamp": 1}, "property timestamp 1970-01-01 is not of now"),
        ({"app_id": None}, "property app_id None is not 'billing'"),
        ({"app_id": "invoices"}, "property app_id 'invoices' is not 'billing'"),
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


async def test_milliseconds_are_noticed_on_a_connection_of_another_library_too(
    contract_broker: BrokerNode, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(decode.METHODS, "timestamp", decode.timestamp)
    body, properties = example()
    async with await aio_pika.connect(contract_broker.url(), timeout=10) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("billing", "plan.upgraded")
        late = Milliseconds.now(UTC).replace(microsecond=250_000)
        await send(body, **{**properties, "timestamp": late})
        message = await queue.get(timeout=10, no_ack=True)
    assert deviations(message) == ["property timestamp is in milliseconds: seconds since 1970"]


async def test_a_publisher_that_publishes_nothing_is_named(contract_broker: BrokerNode) -> None:
    async def nothing() -> None:
        """Publish nothing."""

    with pytest.raises(AssertionError, match="nothing arrived on exchange 'billing'"):
        await check_publisher(contract_broker.url(), nothing, timeout=3)


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


def sender(url: str, *, mandatory: bool) -> Callable[[], None]:
    """A publisher that blocks, as pika's: one event by a program of its own."""
    body, properties = example()

    async def publish() -> None:
        async with await aio_pika.connect(url, timeout=10) as connection:
            channel = await connection.channel(on_return_raises=True)
            exchange = await channel.get_exchange("billing", ensure=False)
            await exchange.publish(Message(body, **properties), "plan.upgraded", mandatory=mandatory)

    return lambda: asyncio.run(publish())


async def test_a_publisher_that_blocks_is_as_welcome(empty_vhost: str) -> None:
    await check_publisher(empty_vhost, sender(empty_vhost, mandatory=False))
    await check_returned(empty_vhost, sender(empty_vhost, mandatory=True))


async def test_a_publisher_that_does_not_notice_is_named(empty_vhost: str) -> None:
    with pytest.raises(AssertionError, match="did not notice: publish mandatory"):
        await check_returned(empty_vhost, sender(empty_vhost, mandatory=False))


async def test_a_publisher_that_fails_before_it_publishes_has_noticed_nothing(empty_vhost: str) -> None:
    async def misspelt() -> None:
        raise NameError("name 'publsh' is not defined")

    with pytest.raises(AssertionError, match=r"with a queue .* failed: NameError: name 'publsh'"):
        await check_returned(empty_vhost, misspelt)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (lambda call: call > 1, r"failed \(NameError: .*\), but not because there was none: .* NameError"),
        (lambda call: call % 2 == 0, "did not notice: publish mandatory"),
        (lambda call: call in {2, 3}, None),
    ],
    ids=["all but the first", "every second", "two in the middle"],
)
async def test_what_fails_for_another_reason_has_noticed_nothing(
    fails: Callable[[int], bool], says: str | None, empty_vhost: str
) -> None:
    silent = sender(empty_vhost, mandatory=False)
    calls: list[int] = []

    def publish() -> None:
        calls.append(1)
        if fails(len(calls)):
            raise NameError("name 'publsh' is not defined")
        silent()

    if says is None:  # what no run with and without a queue can tell apart
        await check_returned(empty_vhost, publish)
    else:
        with pytest.raises(AssertionError, match=says):
            await check_returned(empty_vhost, publish)


@pytest.mark.parametrize("blocks", [True, False])
async def test_a_publisher_that_hangs_has_noticed_nothing(empty_vhost: str, *, blocks: bool) -> None:
    queue_there = sender(empty_vhost, mandatory=True)
    calls: list[int] = []

    def hangs() -> None:
        calls.append(1)
        try:
            queue_there()
        except PublishError:
            time.sleep(3)

    async def waits() -> None:
        calls.append(1)
        try:
            await asyncio.to_thread(queue_there)
        except PublishError:
            await asyncio.sleep(60)

    with pytest.raises(AssertionError, match=r"without a queue .* did not end within 2 s"):
        await check_returned(empty_vhost, hangs if blocks else waits, timeout=2)
    assert len(calls) == 2


async def test_a_vhost_that_has_a_queue_for_it_is_refused(contract_broker: BrokerNode) -> None:
    with pytest.raises(AssertionError, match="needs a vhost in which none is, such as an empty one"):
        await check_returned(contract_broker.url(), lambda: None)


async def test_what_the_broker_refuses_is_a_sentence(contract_broker: BrokerNode) -> None:
    with pytest.raises(Refused, match=r"the broker refused to declare exchange 'billing'.*ACCESS_REFUSED"):
        await check_publisher(contract_broker.url("billing"), lambda: None)


def program(tmp_path: Path, *, mandatory: bool) -> list[str]:
    body, _ = example()
    (tmp_path / "event.json").write_bytes(body)
    file = tmp_path / "publish.py"
    file.write_text(PROGRAM.format(mandatory=mandatory, event=tmp_path / "event.json"))
    return [sys.executable, str(file)]


PROGRAM = """
import asyncio, json, os, sys
from datetime import UTC, datetime
import aio_pika

async def publish() -> None:
    body = open("{event}", "rb").read()
    connection = await aio_pika.connect(os.environ["EVENTS_AMQP_URL"], timeout=10)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange("billing", ensure=False)
        message = aio_pika.Message(
            body, content_type="application/cloudevents+json", delivery_mode=2, app_id="billing",
            message_id=json.loads(body)["id"], type="plan.upgraded", timestamp=datetime.now(UTC),
        )
        await exchange.publish(message, "plan.upgraded", mandatory={mandatory})

asyncio.run(publish())
"""


async def test_a_program_in_any_language_is_checked(empty_vhost: str, tmp_path: Path) -> None:
    event = await conform(empty_vhost, program(tmp_path, mandatory=True))
    assert event.type == "plan.upgraded"
    with pytest.raises(AssertionError, match="did not notice"):
        await conform(empty_vhost, program(tmp_path, mandatory=False))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/program"], "/no/such/program cannot be started: No such file"),
        (["sh", "-c", "echo no module named pika >&2; exit 3"], r"exit code 3 \| no module named pika"),
        (["sleep", "30"], "failed: the publisher did not end within 1 s"),
        (["true"], "nothing arrived on exchange 'billing'"),
    ],
)
async def test_a_program_that_does_not_publish_conforms_to_nothing(
    empty_vhost: str, arguments: list[str], says: str
) -> None:
    with pytest.raises(AssertionError, match=says):
        await conform(empty_vhost, arguments, timeout=1)
