"""What was published in a schedule: its events and dead letters, read from their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from rehome_consumer.engine.headers import REASON
from rehome_consumer.engine.inbound import opened_by
from rehome_consumer.rabbitmq.topology import DEAD
from rehome_events.billing import PlanUpgraded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehome_consumer.ports.engine import Message
    from tests.simulation.schedule import Schedule

GARBAGE: Final = 10
"""A longer body is an event."""


@dataclass(frozen=True, slots=True)
class Published:
    """The parts of an event that invariants need; the package's own reading would take long."""

    id: UUID
    type: str
    migration: UUID | None
    attempt: int | None
    reason: str | None
    leftovers: tuple[str, ...]


def published(schedule: Schedule) -> list[Message]:
    return [message for exchange, _, message in schedule.node.log if exchange == "migration"]


def events(schedule: Schedule) -> list[Published]:
    return [read_event(message) for message in published(schedule)]


def read_event(message: Message) -> Published:
    """The event in a message."""
    event = orjson.loads(message.body)
    migration = event.get("migrationid")
    return Published(
        id=UUID(event["id"]),
        type=event["type"],
        migration=UUID(migration) if migration else _opened_by(event),
        attempt=event.get("attempt"),
        reason=message.headers.get(REASON),
        leftovers=tuple(event["data"].get("leftovers", ())),
    )


def _opened_by(event: dict[str, Any]) -> UUID | None:
    """The migration that a `plan.upgraded` opens."""
    if event["type"] != PlanUpgraded.TYPE:
        return None
    return opened_by(UUID(event.get("replayof") or event["id"]))


def dead_letters(schedule: Schedule) -> Iterator[Published]:
    """The events of all dead letters, without the schedule's garbage."""
    for stored in schedule.node.queues[DEAD].ready:
        if len(stored.message.body) > GARBAGE:
            yield read_event(stored.message)


def dead_letters_published(schedule: Schedule) -> set[tuple[UUID | None, int | None, str]]:
    """Migration, attempt and handler of every dead letter that was ever published."""
    letters = [
        (key, read_event(message))
        for exchange, key, message in schedule.node.log
        if exchange == DEAD and len(message.body) > GARBAGE
    ]
    return {(event.migration, event.attempt, handler) for handler, event in letters}
