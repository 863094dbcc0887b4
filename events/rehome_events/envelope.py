"""CloudEvents 1.0 on AMQP: attributes, bytes in and out, message properties.

Events are written in structured mode (the JSON body is the complete event), and also read in binary mode
(attributes in headers, data in the body), since other teams' libraries differ.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

import orjson
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractIncomingMessage
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from rehome_events import wire
from rehome_events.amqp_properties import short
from rehome_events.catalog import lookup
from rehome_events.data import EventData, Utc, Word
from rehome_events.errors import EventError, Undecodable

__all__ = [
    "CONTENT_TYPE",
    "CloudEvent",
    "EventData",
    "decode",
    "encode",
    "event_id",
    "from_message",
    "new_event",
    "schema_urn",
    "to_message",
]

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "urn:rehome:events")
# Extensions have no registry: another publisher may use one of these names with another meaning. By W3C's
# standard a malformed traceparent is ignored, whoever sent it.
_TRACING: Final = frozenset({"traceparent"})
_EXTENSIONS: Final = _TRACING | {"migrationid", "attempt", "causationid", "replayof"}
_TRACEPARENT: Final = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"

D = TypeVar("D", bound=EventData)


class CloudEvent(BaseModel, Generic[D]):
    """One event: what happened (``data``), to what, when, and what caused it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"] = Field(
        default="1.0", description="Version of CloudEvents.", examples=["1.0"]
    )
    id: UUID = Field(
        description="Id of the event; a repeated publish has the same id.",
        examples=["0f5d3c1a-9b7e-5a46-8c2d-6e1f40b3a592"],
    )
    source: Word = Field(description="Who publishes it.", examples=["/migrations"])
    type: Word = Field(
        description="Type of the event, which is also the routing key.", examples=["migration.completed"]
    )
    subject: Word = Field(
        description="Id of the instance, that of the data.", examples=["7d9f2a54-3c1b-4e8a-9a70-5b1d2c3e4f60"]
    )
    time: Utc = Field(description="When it happened; UTC.", examples=["2025-11-03T02:00:49.512Z"])
    datacontenttype: Annotated[Literal["application/json"], BeforeValidator(wire.media_type)] = Field(
        default="application/json", description="Media type of the data.", examples=["application/json"]
    )
    dataschema: Word | None = Field(
        default=None,
        description="Type and version of the event's schema.",
        examples=["urn:rehome:events:migration.completed:v1"],
    )
    migrationid: UUID | None = Field(
        default=None,
        description="The migration that the event belongs to.",
        examples=["3f2b8c4d-5e6f-4071-8293-a4b5c6d7e8f9"],
    )
    attempt: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="Number of the migration's attempt, from 1.",
        examples=[1],
    )
    causationid: UUID | None = Field(
        default=None,
        description="Id of the event that caused this one.",
        examples=["6a7b8c9d-0e1f-5203-9415-263748596a7b"],
    )
    traceparent: str | None = Field(
        default=None,
        pattern=_TRACEPARENT,
        description="W3C trace context.",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    )
    replayof: UUID | None = Field(
        default=None,
        description=(
            "Id of the event that is replayed; only on the replay itself, which goes to the step that failed and "
            "not to subscribers. What a replay leads to has the replay's id as its causationid."
        ),
        examples=["0f5d3c1a-9b7e-5a46-8c2d-6e1f40b3a592"],
    )
    data: SerializeAsAny[D] = Field(description="What happened.")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.type != self.data.TYPE:
            raise ValueError(f"type is not that of the data, {self.data.TYPE}")
        if self.subject.lower() != str(self.data.instance_id):
            raise ValueError("subject is not the data's instance_id")
        return self


def event_id(migration_id: UUID, attempt: int, type: str) -> UUID:  # noqa: A002 - the attribute's name in CloudEvents
    """Id of an event of a migration: the same for every publish of the same event (UUID version 5)."""
    return uuid5(_NAMESPACE, f"{migration_id}/{attempt}/{type}")


def schema_urn(type: str, version: int) -> str:  # noqa: A002 - the attribute's name in CloudEvents
    """The ``dataschema`` attribute for a type and version."""
    return f"urn:rehome:events:{type}:v{version}"


def new_event(
    data: D,
    *,
    subject: UUID | str,
    id: UUID,  # noqa: A002 - the attribute's name in CloudEvents
    time: datetime,
    source: str | None = None,
    migrationid: UUID | None = None,
    attempt: int | None = None,
    causationid: UUID | None = None,
    traceparent: str | None = None,
    replayof: UUID | None = None,
) -> CloudEvent[D]:
    """Put an envelope around data; ``source`` defaults to that of the type's publisher.

    Raises:
        EventError: An attribute is wrong, or the subject is not the data's instance.
    """
    try:
        return CloudEvent(
            id=id,
            source=lookup(data.TYPE, data.VERSION).source if source is None else source,
            type=data.TYPE,
            subject=str(subject),
            time=time,
            dataschema=schema_urn(data.TYPE, data.VERSION),
            migrationid=migrationid,
            attempt=attempt,
            causationid=causationid,
            traceparent=traceparent,
            replayof=replayof,
            data=data,
        )
    except ValidationError as error:
        raise EventError(f"{data.TYPE}: {wire.complaint(error)}") from None


def encode(event: CloudEvent[D]) -> bytes:
    """The event as JSON, structured mode; absent attributes and fields are left out.

    Raises:
        EventError: The event would not pass its own validation; nothing invalid is published.
    """
    entry = lookup(event.type, event.data.VERSION)
    if entry.correlated and (event.migrationid is None or event.attempt is None):
        raise EventError(f"{event.type}: migrationid and attempt are needed, it belongs to a migration")
    try:
        fields = event.model_dump(mode="json", exclude_none=True)
        body = orjson.dumps(fields)
        wire.inspect_json(body, fields)
        _envelope_of(type(event.data)).model_validate_json(body, strict=True)
    except ValidationError as error:
        raise EventError(f"{event.type}: {wire.complaint(error)}") from None
    except (TypeError, ValueError, Undecodable) as error:
        raise EventError(f"{event.type}: {str(error)[: wire.LONGEST_ERROR]}") from None
    return body


@cache
def _envelope_of(model: type[EventData]) -> type[CloudEvent[Any]]:
    """The envelope for one kind of data; pydantic takes 25 ms to build it, and does not cache it."""
    return CloudEvent[model]  # type: ignore[valid-type] # built at run time


def decode(
    body: bytes, content_type: str | None = None, headers: Mapping[str, object] | None = None
) -> CloudEvent[Any]:
    """Read an event, in structured or binary mode; unknown attributes and fields are ignored.

    Args:
        body: The message's body, at most 1 MiB of UTF-8.
        content_type: The message's content type; None when it has none.
        headers: The message's headers; attributes of binary mode start with ``ce-``, ``ce_``,
            ``cloudEvents_`` or ``cloudEvents:``, in any case.

    Raises:
        UnknownType: An event of a type or version that this release does not know.
        Undecodable: Anything else that is wrong; the text names it.
    """
    attributes = wire.attributes(body, content_type, headers or {})
    kind = attributes.get("type")
    if not isinstance(kind, str):
        raise Undecodable("missing attribute: type" if kind is None else "attribute type is not text")
    lookup(kind)  # before dataschema is parsed: an unknown type is reported as such
    entry = lookup(kind, wire.version_of(attributes.get("dataschema"), kind))
    try:
        data = entry.model.model_validate(attributes.pop("data", None))
    except ValidationError as error:
        raise Undecodable(f"{kind}: {wire.complaint(error, 'data')}") from None
    droppable = _TRACING if entry.published_by == "rehome" else _EXTENSIONS
    return _open({**attributes, "data": data}, kind, droppable)


def _open(attributes: dict[str, Any], kind: str, droppable: frozenset[str]) -> CloudEvent[Any]:
    """Build the envelope; ``droppable`` attributes that are malformed are left out."""
    try:
        return CloudEvent.model_validate(attributes)
    except ValidationError as error:
        wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
        if wrong and wrong <= droppable:
            rest = {name: value for name, value in attributes.items() if name not in wrong}
            return _open(rest, kind, frozenset())
        raise Undecodable(f"{kind}: {wire.complaint(error)}") from None


def to_message(event: CloudEvent[D]) -> Message:
    """The event as a persistent AMQP message, its attributes mirrored into the properties.

    Raises:
        EventError: The event would not pass its own validation.
    """
    return Message(
        encode(event),
        content_type=CONTENT_TYPE,
        delivery_mode=DeliveryMode.PERSISTENT,
        message_id=str(event.id),
        type=event.type,
        correlation_id=str(event.migrationid) if event.migrationid else None,
        timestamp=event.time,
        app_id=short(event.source.strip("/")),
    )


def from_message(message: AbstractIncomingMessage) -> CloudEvent[Any]:
    """Read the event that a message carries.

    Raises:
        UnknownType: An event of a type or version that this release does not know.
        Undecodable: Anything else that is wrong; the text names it.
    """
    return decode(message.body, message.content_type, message.headers)
