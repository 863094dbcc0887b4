"""Replaying a dead letter: whether it may be done, and the message that does it. Pure: no broker, no journal.

The id of a replay is derived from the dead letter (or, where it opens a new attempt, from that attempt). So a dead
letter that is replayed twice, because the tool died in between, is one replay to the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from rehome_consumer import saga
from rehome_consumer.ports.engine import BROKER_HEADERS, ENGINE_HEADERS, Message
from rehome_events.envelope import decode, encode

if TYPE_CHECKING:
    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.ports.engine import MigrationRow
    from rehome_consumer.saga import Step
    from rehome_events.envelope import CloudEvent

REPLAYS: Final = UUID("5d1f0a34-7c52-5f6e-8f0b-6a3f1f5f2c11")
"""Namespace of the ids that replays get."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a dead letter's migration.

    Attributes:
        migration: its row; None when the journal has none.
        done, started: steps of the present attempt that are done, and that were started at all.
        undoing: its rollback was started in the present attempt.
        as_left: everything is still as the failed step left it: nothing was undone.
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
    """The first forward step that is not done: where a migration that is not undone would go on."""
    undone = next((step for step in saga.MIGRATION[:-1] if step.name not in case.done), None)
    return undone if undone is not None and saga.before(undone) else None


def forward(dead_letter: DeadLetter, case: Case, waking: bytes | None) -> Plan:
    """What going on would do, instead of a rollback that was refused, or why that is refused as well.

    Args:
        dead_letter: of the rollback.
        case: with `as_left`.
        waking: the event that wakes the step of `stopped_at`, as it was published.
    """
    migration, step = case.migration, stopped_at(case)
    if (
        saga.named(dead_letter.handler) is not saga.ROLL_BACK
        or dead_letter.event is None
        or migration is None
    ):
        return _refused(
            dead_letter,
            "only the dead letter of a rollback can be turned forward; replay it without --forward",
        )
    refusal = _refusal(saga.ROLL_BACK, dead_letter.event, migration, case)
    if refusal is not None:
        return _refused(dead_letter, refusal)
    if migration.state != "failed":
        return _refused(dead_letter, f"migration {migration.id} is being rolled back; wait for its end")
    if step is None or not case.as_left:
        return _refused(
            dead_letter,
            "something was undone, or could not be checked (`rehome dead show` says which): it can only be rolled "
            "back; replay it without --forward",
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
    """Why this dead letter of a known migration must not be replayed; None when it may."""
    rollback = step is saga.ROLL_BACK
    if event.attempt is not None and event.attempt < migration.attempt:
        return f"it is of attempt {event.attempt}, migration {migration.id} is at {migration.attempt}; discard it"
    if migration.state == "rolled_back":
        return "it has been rolled back since; discard the dead letter" if rollback else _outdated(case)
    if migration.ended:
        return f"migration {migration.id} is {migration.state}; discard the dead letter"
    if migration.state == "failing":
        return None if rollback else f"migration {migration.id} is being rolled back; wait for its end"
    if rollback and migration.past_pivot:
        return f"migration {migration.id} is past the point of no return; discard the dead letter"
    if step.name in case.done:
        return f"step {step.name} was done since; discard the dead letter"
    if case.undoing and not rollback and not case.as_left:
        return (
            f"its rollback was started, so what step {step.name} needs may be undone: replay the dead letter of "
            f"roll_back, or rehome roll-back {migration.id}"
        )
    return None


def _outdated(case: Case) -> str | None:
    """Whether a later upgrade of the instance has replaced it."""
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
    """The same for the same dead letter; another one when the same event fails again."""
    return uuid5(REPLAYS, f"{dead_letter.id} {dead_letter.handler} {dead_letter.failed_at}")


def _stripped(message: Message) -> Message:
    """The same message without what engine and broker wrote into its headers."""
    carried = {k: v for k, v in message.headers.items() if not k.startswith((ENGINE_HEADERS, BROKER_HEADERS))}
    return replace(message, headers=carried)
