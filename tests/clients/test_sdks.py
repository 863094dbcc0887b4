"""What CloudEvents' own SDKs write and read, as docs/other-clients.md says of their prefixes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aio_pika
import orjson
import pytest
from cloudevents.core.bindings import amqp, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as TheirEvent

from rehome_events.catalog import all_in_use
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode
from rehome_events.testing import check_publisher
from rehome_events.tools.schema import golden
from tests.clients.node import run
from tests.clients.pages import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aio_pika.abc import AbstractChannel

    from tests.clients.pages import Reader

Written = tuple[dict[str, Any], str, bytes]
"""Headers, content type and body."""


def upgrade() -> dict[str, Any]:
    event: dict[str, Any] = golden("plan.upgraded", 1, "valid")["full"]
    return event


def theirs(event: Mapping[str, Any]) -> TheirEvent:
    attributes = {name: value for name, value in event.items() if name != "data"}
    return TheirEvent(attributes | {"time": datetime.fromisoformat(attributes["time"])}, event["data"])


def rabbitmq_by_python() -> Written:
    message = rabbitmq.to_binary(theirs(upgrade()), JSONFormat())
    assert message.content_type
    return dict(message.headers), message.content_type, message.body


def amqp_by_python() -> Written:
    message = amqp.to_binary(theirs(upgrade()), JSONFormat())
    return dict(message.application_properties), message.properties["content-type"], message.application_data


def kafka_by_python() -> Written:
    message = kafka.to_binary(theirs(upgrade()), JSONFormat())
    headers = {name: value.decode() for name, value in message.headers.items() if name != "content-type"}
    return headers, "application/json", message.value if isinstance(message.value, bytes) else b""


def by_node(binding: str) -> Written:
    written = json.loads(run("write.mjs", upgrade(), binding))
    headers = {name: value for name, value in written["headers"].items() if name.lower() != "content-type"}
    return headers, "application/json", written["body"].encode()


def by_hand() -> Written:
    event = upgrade()
    data = orjson.dumps(event.pop("data"))
    return {f"cloudEvents:{name}": value for name, value in event.items()}, "application/json", data


BINARY = {
    "RabbitMQ, Python": (rabbitmq_by_python, "ce-"),
    "AMQP 1.0, Python": (amqp_by_python, "cloudEvents_"),
    "Kafka, Python": (kafka_by_python, "ce_"),
    "HTTP, Node": (lambda: by_node("HTTP"), "ce-"),
    "Kafka, Node": (lambda: by_node("Kafka"), "ce_"),
    "by hand": (by_hand, "cloudEvents:"),
}


@pytest.mark.parametrize("binding", BINARY)
def test_an_event_in_binary_mode_is_read_as_in_structured_mode(binding: str) -> None:
    write, prefix = BINARY[binding]
    headers, content_type, body = write()
    assert {name for name in headers if name.startswith(prefix)} >= {f"{prefix}id", f"{prefix}time"}
    assert decode(body, content_type, headers) == decode(orjson.dumps(upgrade()), CONTENT_TYPE)


def test_the_page_names_each_prefix_and_no_other() -> None:
    named = re.findall(r"^\| `([a-zA-Z]+[-_:])` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted({prefix for _, prefix in BINARY.values()})


async def test_a_message_of_the_rabbitmq_binding_conforms(reader: Reader, operator: AbstractChannel) -> None:
    event = upgrade()
    headers, content_type, body = rabbitmq_by_python()
    exchange = await operator.get_exchange("billing", ensure=False)
    message = aio_pika.Message(
        body, headers=headers, content_type=content_type, delivery_mode=2, message_id=event["id"],
        type=event["type"], timestamp=datetime.now(UTC), app_id="billing",
    )  # fmt: skip

    async def publish() -> None:
        await exchange.publish(message, event["type"])

    read = await check_publisher(reader.variables["EVENTS_AMQP_URL"], publish)
    assert read == decode(orjson.dumps(event), CONTENT_TYPE)


EVERY_EVENT = [
    event
    for entry in all_in_use()
    for name, event in golden(entry.type, entry.version, "valid").items()
    if name in {"full", "minimal"}
]


def test_the_sdk_for_node_reads_every_event() -> None:
    bodies = [json.dumps(event) for event in EVERY_EVENT]
    lines = run("read.mjs", bodies, CONTENT_TYPE).splitlines()
    for line, event in zip(lines, EVERY_EVENT, strict=True):
        assert same(line.encode(), event)


def test_the_sdk_for_python_reads_every_event() -> None:
    for event in EVERY_EVENT:
        message = rabbitmq.RabbitMQMessage({}, CONTENT_TYPE, json.dumps(event).encode())
        read = rabbitmq.from_rabbitmq(message, JSONFormat())
        assert same(rabbitmq.to_structured(read, JSONFormat()).body, event)


def same(body: bytes, event: Mapping[str, Any]) -> bool:
    read: CloudEvent[Any] = decode(body, CONTENT_TYPE)
    return read == decode(orjson.dumps(event), CONTENT_TYPE)
