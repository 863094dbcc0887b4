"""Migrations and their deliveries: what has stopped, and what waits for an operator. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.doctor.finding import Action, Finding
from rehome_consumer.rabbitmq.topology import queue_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.snapshot import Snapshot
    from rehome_consumer.ports.operators import DeadLetterRecord, MigrationView, UnsentEvents
    from rehome_consumer.saga import Step

UNSENT_TOO_LONG: Final = timedelta(seconds=60)
"""How long an event may wait in the outbox before that is a finding."""


def findings(snapshot: Snapshot, *, stuck_after: timedelta) -> Iterator[Finding]:
    """Findings about events, deliveries and the queues' consumers.

    Args:
        snapshot: of everything.
        stuck_after: how long nothing may happen to a migration although something should.
    """
    late = {one.migration_id for one in snapshot.unsent if snapshot.now - one.since > UNSENT_TOO_LONG}
    yield from (_unsent(snapshot, one) for one in snapshot.unsent if one.migration_id in late)
    yield from _consumers(snapshot)
    for view in snapshot.migrations.values():
        dead_letters = [one for one in snapshot.dead_letters or () if one.migration_id == view.id]
        if view.ended:
            yield from _of_ended(view, dead_letters)
        elif view.id not in late and view.instance_id not in snapshot.holders:
            yield from _open(snapshot, view, dead_letters, stuck_after)


def next_step(view: MigrationView, steps: list[dict[str, object]]) -> Step | None:
    """The step that an open migration is at: the rollback, or the first step that is not done."""
    started = {row["step"]: row["state"] for row in steps if row["attempt"] == view.attempt}
    if view.state == "failing" or (view.state == "failed" and saga.ROLL_BACK.name in started):
        return saga.ROLL_BACK
    return next((step for step in saga.MIGRATION[:-1] if started.get(step.name) != "done"), None)


def idle_since(view: MigrationView) -> datetime:
    """Since when nothing happened to it although something could have."""
    moments = [view.updated_at, view.tried_at, view.next_try_at if view.step_state == "waiting" else None]
    return max(moment for moment in moments if moment is not None)


def _unsent(snapshot: Snapshot, one: UnsentEvents) -> Finding:
    view = snapshot.migrations[one.migration_id]
    return Finding(
        kind="unsent_events",
        severity="error",
        where=f"migration {one.migration_id}",
        what=f"{one.count} event(s) wait to be sent, first {one.first}",
        since=one.since,
        advice="look at a consumer's log for relay.held_up and relay.no_journal; is one running?",
        repair="publishes them, in order, with the ids they have",
        instance_id=one.instance_id,
        migration_id=one.migration_id,
        action=Action("send_events", view),
    )


def _consumers(snapshot: Snapshot) -> Iterator[Finding]:
    if snapshot.queues is None:
        return
    unread = []
    for step in saga.MIGRATION:
        name = queue_of(step.name)
        queue = snapshot.queues.get(name)
        if queue is None:
            yield Finding(
                "queue_missing",
                "error",
                f"queue {name}",
                "it does not exist",
                "rehome topology apply, then check",
            )
        elif not queue.consumers:
            unread.append((step.name, queue.ready))
    if unread:
        waiting = sum(ready for _, ready in unread)
        everyone = len(unread) == len(saga.MIGRATION)
        names = (
            "any handler's queue" if everyone else f"the queue(s) of {', '.join(name for name, _ in unread)}"
        )
        yield Finding(
            kind="queue_not_consumed",
            severity="error" if waiting else "warning",
            where="the broker",
            what=f"no consumer reads {names}; {waiting} message(s) wait there",
            advice="start a consumer: rehome run",
        )


def _open(
    snapshot: Snapshot, view: MigrationView, dead_letters: list[DeadLetterRecord], stuck_after: timedelta
) -> Iterator[Finding]:
    """An open migration that no consumer works on."""
    step = next_step(view, snapshot.steps.get(view.id, []))
    if step is None:
        return
    dead_letter = next((one for one in dead_letters if one.handler == step.name), None)
    if view.state == "failed":
        yield _failed(snapshot, view, step, dead_letters)
    elif dead_letter is not None:
        yield _dead_lettered(view, step, dead_letter)
    elif snapshot.now - idle_since(view) > stuck_after and not _queued(snapshot, step):
        known = snapshot.recorded_dead_letters if snapshot.dead_letters is None else ()
        matching = (one for one in known if (one.migration_id, one.handler) == (view.id, step.name))
        recorded = next(matching, None)
        yield _dead_lettered(view, step, recorded) if recorded else _stuck(snapshot, view, step)


def _queued(snapshot: Snapshot, step: Step) -> bool:
    """Whether messages wait for this step: then its delivery may be one of them."""
    queue = (snapshot.queues or {}).get(queue_of(step.name))
    return queue is not None and queue.ready > 0


def _dead_lettered(view: MigrationView, step: Step, dead_letter: DeadLetterRecord) -> Finding:
    return Finding(
        kind="dead_lettered",
        severity="error",
        where=f"migration {view.id}",
        what=f"its delivery to step {step.name} is a dead letter ({dead_letter.reason}): the migration goes no further",
        since=dead_letter.since or idle_since(view),
        advice=f"rehome dead show {dead_letter.id}, then rehome dead replay {dead_letter.id}, "
        f"or rehome roll-back {view.id}",
        instance_id=view.instance_id,
        migration_id=view.id,
    )


def _stuck(snapshot: Snapshot, view: MigrationView, step: Step) -> Finding:
    where = "the queues could not be read"
    if snapshot.queues is not None:
        where = f"its queue {queue_of(step.name)} is empty"
    unknown = "; it may be a dead letter (rehome dead list)" if snapshot.dead_letters is None else ""
    return Finding(
        kind="stuck",
        severity="error",
        where=f"migration {view.id}",
        what=f"no delivery reaches step {step.name} (state {view.state}): {where}{unknown}",
        since=idle_since(view),
        advice=f"rehome doctor {view.instance_id} --repair, or rehome roll-back {view.id}",
        repair=f"publishes the event that starts step {step.name} again, to that handler only",
        instance_id=view.instance_id,
        migration_id=view.id,
        action=Action("resend_event", view, thing=step.name),
    )


def _failed(
    snapshot: Snapshot, view: MigrationView, step: Step, dead_letters: list[DeadLetterRecord]
) -> Finding:
    """It waits for an operator. Without a dead letter past the point of no return, the repair runs the step again."""
    down = not view.past_pivot and _started(snapshot, view, "stop")
    finding = Finding(
        kind="waiting_for_operator",
        severity="error" if down else "warning",
        where=f"migration {view.id}",
        what=f"failed at step {step.name}{', and the instance is down' if down else ''}: "
        f"{view.error or view.reason or 'the journal does not say why'}",
        since=view.updated_at,
        advice=_next_action(view, step, dead_letters),
        instance_id=view.instance_id,
        migration_id=view.id,
    )
    if snapshot.dead_letters is None or dead_letters or not view.past_pivot:
        return finding
    return Finding(
        kind="dead_letter_missing",
        severity="error",
        where=finding.where,
        what=f"{finding.what}; its dead letter is missing",
        since=finding.since,
        advice=f"fix what the error says, then rehome doctor {view.instance_id} --repair",
        repair=f"runs step {step.name} again",
        instance_id=view.instance_id,
        migration_id=view.id,
        action=Action("run_again", view, thing=step.name),
    )


def _started(snapshot: Snapshot, view: MigrationView, step: str) -> bool:
    """Whether a step of the current attempt was started."""
    rows = snapshot.steps.get(view.id, [])
    return any(row["step"] == step and row["attempt"] == view.attempt for row in rows)


def _next_action(view: MigrationView, step: Step, dead_letters: list[DeadLetterRecord]) -> str:
    dead_letter = next((one for one in dead_letters if one.handler == step.name), None)
    replay = (
        f"rehome dead show {dead_letter.id}; rehome dead replay {dead_letter.id}"
        if dead_letter
        else "rehome dead list"
    )
    if view.past_pivot:
        return f"fix what the error says, then {replay}; it is past the point of no return"
    return f"fix what the error says, then {replay}, or rehome roll-back {view.id}"


def _of_ended(view: MigrationView, dead_letters: list[DeadLetterRecord]) -> Iterator[Finding]:
    for dead_letter in dead_letters:
        advice = f"rehome dead discard {dead_letter.id} --reason ..."
        if view.state == "rolled_back" and dead_letter.handler != saga.ROLL_BACK.name:
            advice = f"rehome dead replay {dead_letter.id} (opens a new attempt), or {advice}"
        yield Finding(
            kind="stale_dead_letter",
            severity="info",
            where=f"dead letter {dead_letter.id}",
            what=f"of step {dead_letter.handler} of migration {view.id}, which is {view.state}",
            since=dead_letter.since,
            advice=advice,
            instance_id=view.instance_id,
            migration_id=view.id,
        )
