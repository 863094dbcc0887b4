"""A dead letter, read for operators: what it is, whose, and why it was given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from rehome_consumer.engine import headers
from rehome_consumer.engine.inbound import migration_id_of
from rehome_events.envelope import decode
from rehome_events.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from rehome_consumer.ports.engine import Delivery, Message
    from rehome_events.envelope import CloudEvent

NO_HANDLER: Final = "unknown"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, read as far as it can be read.

    Attributes:
        id: the message id, by which commands name it; `?` and its place when it has none.
        handler: whose queue it was in.
        event: the event, or None when it cannot be read; then `trouble` says why.
        reason: `failed`, `undecodable`, ..., or `crashed` when the broker made it a dead letter itself.
        instance: the instance it is about, if it says so.
    """

    id: str
    handler: str
    type: str
    reason: str
    error: str
    failed_at: datetime | None
    tries: int
    event: CloudEvent[Any] | None
    trouble: str | None
    instance: str | None
    message: Message

    @property
    def migration_id(self) -> UUID | None:
        """The migration it belongs to, if it says so."""
        return migration_id_of(self.event) if self.event else None


def read_dead_letter(delivery: Delivery, place: int) -> DeadLetter:
    """Read a dead letter; never fails, whatever is in it."""
    message = delivery.message
    carried = message.headers
    event, trouble = None, None
    try:
        event = decode(message.body, message.content_type, carried)
    except Undecodable as error:
        trouble = str(error)
    reason = str(carried.get(headers.REASON, headers.CRASHED))  # without one the broker did it
    return DeadLetter(
        id=message.message_id or f"?{place}",
        handler=str(carried.get(headers.HANDLER) or delivery.routing_key or NO_HANDLER),
        type=event.type if event else str(message.type or "?"),
        reason=reason,
        error=str(
            carried.get(headers.ERROR)
            or ("the consumer died on it repeatedly" if reason == headers.CRASHED else "")
        ),
        failed_at=_since(carried),
        tries=_number(carried.get(headers.TRIES))
        + (reason == headers.FAILED),  # it was written before the last try
        event=event,
        trouble=trouble,
        instance=event.subject if event else _subject(message.body),
        message=message,
    )


def _since(carried: Mapping[str, Any]) -> datetime | None:
    """When it became a dead letter, as the engine or the broker wrote it."""
    failed_at = carried.get(headers.FAILED_AT)
    if failed_at is not None:
        try:
            return datetime.fromisoformat(str(failed_at))
        except ValueError:
            return None
    deaths = carried.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else {}
    time = first.get("time") if isinstance(first, dict) else None
    return time if isinstance(time, datetime) else None


def _subject(body: bytes) -> str | None:
    """The instance that an event which cannot be read says it is about, if that much can be read."""
    try:
        subject = orjson.loads(body)["subject"]
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    return subject if isinstance(subject, str) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
