"""Replaying a dead letter: whether it may be done, and the message that does it. Pure: no broker, no journal.

The id of a replay is made from the letter (or, where it opens a new attempt, from that attempt). So a letter
that is replayed twice, because the tool died in between, is one replay to the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

import orjson

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.inbound import migration_id_of
from rehome_consumer.ports.engine import Message
from rehome_events.envelope import decode, encode
from rehome_events.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.ports.engine import Delivery, MigrationRow
    from rehome_consumer.saga import Step
    from rehome_events.envelope import CloudEvent

REPLAYS: Final = UUID("5d1f0a34-7c52-5f6e-8f0b-6a3f1f5f2c11")
"""Namespace of the ids that replays get."""
NO_HANDLER: Final = "unknown"
FAILED: Final = "failed"
"""Reason of a letter whose step gave up."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, read as far as it can be read.

    Attributes:
        id: the message id, by which commands name it; `?` and its place when it has none.
        handler: whose queue it was in.
        event: the event, or None when it cannot be read; then `trouble` says why.
        reason: `failed`, `undecodable`, ..., or `crashed` when the broker parked it itself.
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


@dataclass(frozen=True, slots=True)
class Case:
    """What the journal and the world say of a letter's migration.

    Attributes:
        migration: its row; None when the journal has none.
        done, begun: steps of the present attempt that are done, and that were begun at all.
        undoing: its rollback was begun in the present attempt.
        as_left: the world is still as the failed step left it: nothing was undone.
        newer: a later migration of the same instance, in words.
    """

    migration: MigrationRow | None = None
    done: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()
    undoing: bool = False
    as_left: bool = False
    newer: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do; `message` is None when it is refused."""

    what: str
    handler: str
    message: Message | None


def read(delivery: Delivery, place: int) -> DeadLetter:
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
            or ("the consumer died on it, time and again" if reason == headers.CRASHED else "")
        ),
        failed_at=_since(carried),
        tries=_number(carried.get(headers.TRIES)) + (reason == FAILED),  # it was written before the last try
        event=event,
        trouble=trouble,
        instance=event.subject if event else _subject(message.body),
        message=message,
    )


def plan(dead_letter: DeadLetter, case: Case) -> Plan:
    """What replaying would do, or why it is refused."""
    step = saga.named(dead_letter.handler)
    if step is None:
        return _refused(dead_letter, f"there is no handler {dead_letter.handler}; discard it")
    if dead_letter.event is None:
        return Plan(
            f"would run {step.name} again on a message that it could not read: {dead_letter.trouble}",
            step.name,
            _stripped(dead_letter.message),
        )
    migration = case.migration
    if migration is None and step is not saga.MIGRATION[0]:
        return _refused(dead_letter, "the journal has no such migration; discard it")
    refusal = _refusal(step, dead_letter.event, migration, case) if migration else _outdated(case)
    if refusal is not None:
        return _refused(dead_letter, refusal)
    if migration is not None and migration.state == "rolled_back":
        return _reopening(migration)
    on = f" on migration {migration.id}" if migration else ""
    return Plan(
        f"would run {step.name} again{on}", step.name, again(dead_letter.event, _replay_id(dead_letter))
    )


def stopped_at(case: Case) -> Step | None:
    """The first forward step that is not done, begun or not: where a migration that is not undone would go on."""
    undone = next((step for step in saga.MIGRATION[:-1] if step.name not in case.done), None)
    return undone if undone is not None and saga.before(undone) else None


def forward(dead_letter: DeadLetter, case: Case, waking: bytes | None) -> Plan:
    """What going on would do, instead of a rollback that was refused, or why that is refused as well.

    Args:
        dead_letter: of the rollback.
        case: with the world looked at.
        waking: the event that wakes the step of `stopped_at`, as it was told.
    """
    migration, step = case.migration, stopped_at(case)
    if (
        saga.named(dead_letter.handler) is not saga.ROLL_BACK
        or dead_letter.event is None
        or migration is None
    ):
        return _refused(
            dead_letter, "only the letter of a rollback can be turned forward; replay it without --forward"
        )
    refusal = _refusal(saga.ROLL_BACK, dead_letter.event, migration, case)
    if refusal is not None:
        return _refused(dead_letter, refusal)
    if migration.state != FAILED:
        return _refused(dead_letter, f"migration {migration.id} is being rolled back; wait for its end")
    if step is None or not case.as_left:
        return _refused(
            dead_letter,
            "something was undone, or the world could not be looked at (`rehome dead show` says which): only back "
            "from here; replay it without --forward",
        )
    if waking is None:
        return _refused(
            dead_letter, f"the journal has no {step.on.TYPE} any more, which would wake step {step.name}"
        )
    return Plan(
        f"would run {step.name} again on migration {migration.id}, instead of undoing it",
        step.name,
        again(decode(waking), uuid5(REPLAYS, f"forward {dead_letter.id} {dead_letter.failed_at}")),
    )


def again(event: CloudEvent[Any], replay: UUID) -> Message:
    """The same event under a new id that says whose replay it is (the first event's, however often)."""
    replayed = event.model_copy(update={"id": replay, "replayof": event.replayof or event.id})
    return Message.of_event(encode(replayed))


def _refusal(step: Step, event: CloudEvent[Any], migration: MigrationRow, case: Case) -> str | None:
    """Why this letter of a known migration must not be replayed; None: it may."""
    rollback = step is saga.ROLL_BACK
    if event.attempt is not None and event.attempt < migration.attempt:
        return f"it is of attempt {event.attempt}, migration {migration.id} is at {migration.attempt}; discard it"
    if migration.state == "rolled_back":
        return "it has been rolled back since; discard the letter" if rollback else _outdated(case)
    if migration.ended:
        return f"migration {migration.id} is {migration.state}; discard the letter"
    if migration.state == "failing":
        return None if rollback else f"migration {migration.id} is being rolled back; wait for its end"
    if rollback and migration.past_pivot:
        return f"migration {migration.id} is past the point of no return; discard the letter"
    if step.name in case.done:
        return f"step {step.name} was done since; discard the letter"
    if case.undoing and not rollback and not case.as_left:
        return (
            f"its rollback was begun, so what step {step.name} needs may be undone: replay the letter of roll_back, "
            f"or rehome roll-back {migration.id}"
        )
    return None


def _outdated(case: Case) -> str | None:
    """A later upgrade of the instance has the last word."""
    return f"a later upgrade of this instance came ({case.newer}); discard it" if case.newer else None


def _refused(dead_letter: DeadLetter, why: str) -> Plan:
    return Plan(f"refused: {why}", dead_letter.handler, None)


def _reopening(migration: MigrationRow) -> Plan:
    trigger = decode(migration.trigger)
    attempt = migration.attempt + 1
    return Plan(
        f"would open attempt {attempt} of migration {migration.id} from the start with the original {trigger.type}",
        saga.MIGRATION[0].name,
        again(trigger, uuid5(REPLAYS, f"{migration.id} {attempt}")),
    )


def _replay_id(dead_letter: DeadLetter) -> UUID:
    """The same for the same letter; another one when the same event fails once more."""
    return uuid5(REPLAYS, f"{dead_letter.id} {dead_letter.handler} {dead_letter.failed_at}")


def _stripped(message: Message) -> Message:
    """The same message without what engine and broker wrote into its headers."""
    kept = {k: v for k, v in message.headers.items() if not k.startswith((headers.PREFIX, "x-"))}
    return Message(
        body=message.body,
        message_id=message.message_id,
        type=message.type,
        correlation_id=message.correlation_id,
        content_type=message.content_type,
        app_id=message.app_id,
        timestamp=message.timestamp,
        headers=kept,
    )


def _since(carried: Mapping[str, Any]) -> datetime | None:
    """When it became a dead letter, as the engine or, for what the broker parked, the broker wrote it."""
    told = carried.get(headers.FAILED_AT)
    if told is not None:
        try:
            return datetime.fromisoformat(str(told))
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
