"""Messages of other clients that a codec fails on: the connection is kept, and a copy can always be published."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import struct
from typing import TYPE_CHECKING, Any, Self

import aio_pika
import pytest
from pamqp import encode

from rehome_consumer.adapters.rabbitmq import connection as adapter
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.engine import headers
from rehome_events.amqp_properties import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rehome_consumer.adapters.rabbitmq.broker import AmqpDelivery
    from sandbox.rabbitmq.node import BrokerNode

LIMIT = 20.0
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Raw(str):
    """A value that goes over the wire as these bytes; no ordinary client sends them."""

    __slots__ = ("wire",)

    wire: bytes

    def __new__(cls, wire: bytes) -> Self:
        made = super().__new__(cls, "raw")
        made.wire = wire
        return made


class RawTime(dt.datetime):
    """A time beyond what Python can hold."""


def passing(real: Callable[..., bytes], *, prefix: bool = False) -> Callable[..., bytes]:
    def written(value: Any, *more: Any) -> bytes:
        if isinstance(value, Raw):
            return bytes([len(value.wire)]) + value.wire if prefix else value.wire
        return struct.pack(">Q", 2**63) if isinstance(value, RawTime) else real(value, *more)

    return written


def text(value: bytes) -> Raw:
    return Raw(b"S" + struct.pack(">I", len(value)) + value)


def nested(levels: int) -> Raw:
    value = b"V"
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return Raw(value)


MESSAGES: dict[str, dict[str, Any]] = {
    "a content type that is not UTF-8": {"content_type": Raw(b"\xff\xfe/json")},
    "a long id that is not UTF-8": {"message_id": Raw(b"\xff" * 255)},
    "a time after the year 9999": {"timestamp": RawTime(2026, 1, 1, tzinfo=dt.UTC)},
    "a header after the year 9999": {"headers": {"at": Raw(b"T" + struct.pack(">Q", 2**63))}},
    "a header's text that is not UTF-8": {"headers": {"text": text(b"\xff")}},
    "a number too large for a float": {"headers": {"number": Raw(b"d" + struct.pack(">d", 1e300))}},
    "a decimal": {"headers": {"number": Raw(b"D" + struct.pack(">BI", 255, 2**32 - 1))}},
    "headers nested deep": {"headers": {"deep": nested(200)}},
    "headers nested deeper than can be read": {"headers": {"deep": nested(3000)}},
    "headers that fill the frame": {"headers": {f"h{number}": "x" * 1000 for number in range(120)}},
    "rehome's counters at their largest": {
        "headers": {headers.DEFERRALS: 2**63 - 1, headers.TRIES: 2**63 - 1}
    },
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process send what a codec would refuse to write."""
    monkeypatch.setitem(encode.METHODS, "shortstr", passing(encode.METHODS["shortstr"], prefix=True))
    monkeypatch.setitem(encode.METHODS, "timestamp", passing(encode.METHODS["timestamp"]))
    monkeypatch.setattr(encode, "encode_table_value", passing(encode.encode_table_value))


@pytest.fixture
async def queue(broker: BrokerNode) -> AsyncIterator[str]:
    name = f"malformed_{secrets.token_hex(4)}"
    async with await aio_pika.connect(broker.url()) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        yield name
        await channel.queue_delete(name)


async def send(broker: BrokerNode, queue: str, **properties: Any) -> None:
    async with await aio_pika.connect(broker.url()) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b"{}", **properties), queue)


async def next_of(deliveries: Any) -> AmqpDelivery:
    async with asyncio.timeout(LIMIT):
        delivery: AmqpDelivery = await anext(deliveries)
        return delivery


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("name", MESSAGES)
async def test_it_is_read_the_connection_is_kept_and_copies_can_be_published(
    name: str, broker: BrokerNode, queue: str
) -> None:
    await send(broker, queue, **MESSAGES[name])
    async with adapter.connected(broker.url(), name="test") as connection:
        lost: list[object] = []
        connection.close_callbacks.add(lambda *arguments: lost.append(arguments))
        port = AmqpBroker(connection)
        deliveries = port.consume(queue)
        delivery = await next_of(deliveries)
        copies = (
            headers.retry_message(delivery, "restore", 3, "é" * 3000),
            headers.deferral_message(
                delivery, "restore", headers.DEFERRALS, headers.count(delivery, headers.DEFERRALS) + 1, "x"
            ),
            headers.dead_letter(delivery, "restore", "undecodable", "\U0001f600" * 3000, NOW),
        )
        for copy in copies:
            await port.publish("", queue, copy, mandatory=True)
        await delivery.ack()
        for _ in copies:
            again = await next_of(deliveries)
            assert again.message.headers[headers.HANDLER] == "restore"
            await again.ack()
        assert not lost
        await deliveries.aclose()


@pytest.mark.usefixtures("hostile")
async def test_headers_that_cannot_be_read_are_reported_as_such(broker: BrokerNode, queue: str) -> None:
    await send(broker, queue, headers={"deep": nested(3000), "good": 1})
    async with adapter.connected(broker.url(), name="test") as connection:
        deliveries = AmqpBroker(connection).consume(queue)
        delivery = await next_of(deliveries)
        assert delivery.message.headers == {UNREADABLE: True}
        await delivery.ack()
        await deliveries.aclose()
