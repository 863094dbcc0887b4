"""Checks of what comes over AMQP: bodies, properties and headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aio_pika
import orjson
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from rehome_consumer import saga
from rehome_consumer.adapters.rabbitmq import broker
from rehome_consumer.adapters.rabbitmq.broker import AmqpDelivery
from rehome_consumer.engine import headers, inbound, replay
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.engine.inbound import migration_id_of
from rehome_consumer.ports.engine import Message
from rehome_events.amqp_properties import read_any_message
from rehome_events.catalog import CATALOG
from rehome_events.envelope import CONTENT_TYPE, decode, encode
from rehome_events.errors import EventError, Undecodable
from rehome_events.tools.schema import golden
from tests.fuzz.common import as_json, lines_and_rest, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = 2000
PLANNED = 3


@dataclass(frozen=True)
class DeadLetter:
    """A delivery without a broker."""

    message: Message
    exchange: str = "billing"
    routing_key: str = "plan.upgraded"
    acked: list[bool] = field(default_factory=list)

    async def ack(self) -> None:
        self.acked.append(True)


def envelope(data: bytes) -> None:
    """Content type, headers as JSON, body: an event that can be written again as it was read, or Undecodable."""
    (content_type, named), body = lines_and_rest(data, 2)
    headers = as_json(named.encode())
    check_event(body, content_type or None, headers if isinstance(headers, dict) else {})


def check_event(body: bytes, content_type: str | None, headers: dict[str, Any]) -> bool:
    """Whether it is an event.

    Whether or not: every step accepts it or calls it undecodable, and a dead letter of it can be read and planned.
    """
    message = Message(body, content_type=content_type, headers=headers)
    dead_letter = read_dead_letter(DeadLetter(message), 1)
    replay.plan(dead_letter, replay.Case())
    event = None

    def read() -> None:
        nonlocal event
        event = decode(body, content_type, headers)

    trouble = refused(read, Undecodable)
    assert dead_letter.trouble == trouble
    for step in saga.MIGRATION:
        found = inbound.read(step, DeadLetter(message))
        assert (found.event is None) == bool(found.unreadable)
    if event is None:
        return False
    assert len(body) <= 1024 * 1024
    migration_id_of(event)
    written: list[bytes] = []
    if refused(lambda: written.append(encode(event)), EventError) is None:
        assert decode(written[0], CONTENT_TYPE) == event
    return True


def properties(data: bytes) -> None:
    """The frame of a message's properties: read, and copied for retries and dead letters, whatever is in it."""
    read_any_message()
    header = ContentHeader()
    try:
        header.unmarshal(data)
    except (struct.error, ValueError, IndexError):
        return  # a broker would not send this frame
    check_properties(header.properties)


def check_properties(found: Basic.Properties) -> None:
    """A delivery with these properties can be published again, and its frame has room for what the engine adds."""
    found.delivery_mode = None  # brokers refuse values other than 1 and 2
    found.expiration = None  # brokers refuse what is not a number
    delivery = AmqpDelivery(
        aio_pika.IncomingMessage(
            DeliveredMessage(
                delivery=Basic.Deliver(delivery_tag=1, exchange="billing", routing_key="plan.upgraded"),
                header=ContentHeader(properties=found),
                body=b"{}",
                channel=None,  # type: ignore[arg-type] # nothing is acknowledged
            )
        )
    )
    dead_letter = read_dead_letter(delivery, 1)
    assert dead_letter.trouble
    plan = replay.plan(dead_letter, replay.Case())
    laters = headers.count(delivery, headers.DEFERRALS) + 1
    copies = [
        headers.retry_message(delivery, "accept", 1, "é" * 2 * TEXT),
        headers.deferral_message(delivery, "accept", headers.DEFERRALS, laters, "why"),
        headers.dead_letter(delivery, "accept", "undecodable", "\U0001f600" * 2 * TEXT, NOW),
        *([plan.message] if plan.message else []),
    ]
    for number, copy in enumerate(copies):
        sent = broker._properties(copy).marshal()
        assert len(sent) < 128 * 1024 - 20, "it must fit into one frame"
        again = ContentHeader()
        again.unmarshal(struct.pack(">HHQ", 60, 0, 0) + sent)
        assert headers.HANDLER in (again.properties.headers or {}) or number == PLANNED


def envelope_seeds() -> Iterator[bytes]:
    for entry in CATALOG.values():
        for kind in ("valid", "invalid"):
            for example in golden(entry.type, entry.version, kind).values():
                event = example.get("event", example)
                yield CONTENT_TYPE.encode() + b"\n{}\n" + orjson.dumps(event)
                data = event.pop("data", None)
                headers = {f"ce-{name}": value for name, value in event.items()}
                yield b"application/json\n" + orjson.dumps(headers) + b"\n" + orjson.dumps(data)


def properties_seeds() -> Iterable[bytes]:
    kinds: dict[str, Any] = {
        "text": "é", "number": 2**40, "half": 0.5, "yes": True, "none": None, "at": NOW, "list": [1, ["x"]],
        "table": {"a": {"b": bytearray(b"c")}}, headers.DEFERRALS: 7, "x-death": [{"count": 1}],
    }  # fmt: skip
    for given in ({}, kinds):
        made = Basic.Properties(
            content_type=CONTENT_TYPE, message_id="0f5d3c1a", message_type="plan.upgraded", timestamp=NOW,
            correlation_id="c", app_id="billing", headers=given or None,
        )  # fmt: skip
        yield struct.pack(">HHQ", 60, 0, 2) + made.marshal()
