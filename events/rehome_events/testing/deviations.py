"""Where a message deviates from the wire format that docs/publishing.md lists."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from aio_pika import DeliveryMode
from aio_pika.abc import AbstractIncomingMessage

from rehome_events.amqp_properties import InMilliseconds
from rehome_events.catalog import lookup
from rehome_events.data import masked
from rehome_events.envelope import CloudEvent, from_message
from rehome_events.errors import Undecodable
from rehome_events.testing.checks import unknown_fields

_EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
_APP_IDS: Final = {"billing": "billing"}
"""Property app_id of the messages on an exchange, where the documents name one."""


def deviations(message: AbstractIncomingMessage) -> list[str]:
    """Where a message deviates from the wire format; empty when it conforms."""
    try:
        event = from_message(message)
    except Undecodable as error:
        return [str(error)]
    return list(_deviations(message, event))


def assert_conforms(message: AbstractIncomingMessage) -> CloudEvent[Any]:
    """Assert that a message conforms to the wire format, and return its event.

    Raises:
        AssertionError: It deviates; every deviation is named.
    """
    found = deviations(message)
    if found:
        raise AssertionError("; ".join(found))
    return from_message(message)


def _deviations(message: AbstractIncomingMessage, event: CloudEvent[Any]) -> Iterator[str]:
    yield from _wrong_properties(message, event)
    body = orjson.loads(message.body)
    yield from _wrong_content_type(message.content_type, structured="specversion" in body)
    structured = (
        body
        if "specversion" in body
        else {
            "type": event.type,
            "dataschema": event.dataschema,
            "data": body,
        }
    )
    yield from (f"the contract does not know {path}" for path in unknown_fields(structured))
    text = message.body.decode()
    if masked(text) != text:
        yield "the body holds what looks like a password or token"


def _wrong_properties(message: AbstractIncomingMessage, event: CloudEvent[Any]) -> Iterator[str]:
    if message.routing_key != event.type:
        yield f"routing key {message.routing_key} is not the type {event.type}"
    if (expected := lookup(event.type).exchange) != message.exchange:
        yield f"exchange {message.exchange} is not {expected}"
    if message.delivery_mode != DeliveryMode.PERSISTENT:
        yield "delivery mode is not 2: the message would not outlive a restart of the broker"
    if _uuid(message.message_id) != event.id:
        yield f"message_id {message.message_id} is not the event's id {event.id}"
    if message.type != event.type:
        yield f"property type {message.type} is not the event's type {event.type}"
    if message.expiration is not None:
        yield "the message expires: an upgrade would be lost if it is not read in time"
    app_id = _APP_IDS.get(message.exchange or "")
    if not message.app_id or (app_id and message.app_id != app_id):
        yield f"property app_id {message.app_id!r} is not {app_id or 'the name of the service that publishes'!r}"
    yield from _wrong_time(message.timestamp)


def _wrong_content_type(found: str | None, *, structured: bool) -> Iterator[str]:
    """A content type with parameters; the only encoding of JSON is UTF-8."""
    expected = "application/cloudevents+json" if structured else "application/json"
    kind, *parameters = [part.strip().lower() for part in (found or "").split(";")]
    if kind != expected:
        mode = "an event in structured mode" if structured else "the data of an event in binary mode"
        yield f"content type {found} is not {expected}, which {mode} has"
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if name == "charset" and value.strip('"') != "utf-8":
            yield f"content type {found}: JSON is UTF-8"


def _wrong_time(found: datetime | None) -> Iterator[str]:
    if found is None:
        yield "property timestamp is missing, or no time: seconds since 1970"
    elif (
        isinstance(found, InMilliseconds) or found.microsecond
    ):  # the latter where another connection read it
        yield "property timestamp is in milliseconds: seconds since 1970"
    elif not _EARLIEST <= _aware(found) <= datetime.now(UTC) + timedelta(days=1):
        yield f"property timestamp {found:%Y-%m-%d} is not of now: seconds since 1970"


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
