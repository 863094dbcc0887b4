"""Migrations and their deliveries: what waits without anybody coming, or without anybody knowing. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.doctor.finding import Action, Finding
from rehome_consumer.rabbitmq.topology import queue_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.snapshot import Seen
    from rehome_consumer.ports.operators import MigrationView, Parked, Unsent
    from rehome_consumer.saga import Step

UNSENT_TOO_LONG: Final = timedelta(seconds=60)
"""An event may wait so long in the outbox; a relay looks every few seconds."""


def findings(seen: Seen, *, stuck_after: timedelta) -> Iterator[Finding]:
    """Findings about events, deliveries and readers.

    Args:
        seen: the world.
        stuck_after: how long nothing may happen to a migration although something should.
    """
    late = {one.migration_id for one in seen.unsent if seen.now - one.since > UNSENT_TOO_LONG}
    yield from (_unsent(seen, one) for one in seen.unsent if one.migration_id in late)
    yield from _readers(seen)
    for view in seen.migrations.values():
        letters = [one for one in seen.letters or () if one.migration_id == view.id]
        if view.ended:
            yield from _of_ended(view, letters)
        elif view.id not in late and view.instance_id not in seen.holders:
            yield from _open(seen, view, letters, stuck_after)


def next_step(view: MigrationView, steps: list[dict[str, object]]) -> Step | None:
    """The step that an open migration is at: the rollback, or the first that is not done."""
    begun = {row["step"]: row["state"] for row in steps if row["attempt"] == view.attempt}
    if view.state == "failing" or (view.state == "failed" and saga.ROLL_BACK.name in begun):
        return saga.ROLL_BACK
    return next((step for step in saga.MIGRATION[:-1] if begun.get(step.name) != "done"), None)


def idle_since(view: MigrationView) -> datetime:
    """Since when nothing happened to it although something could have."""
    moments = [view.updated_at, view.tried_at, view.next_try_at if view.step_state == "waiting" else None]
    return max(moment for moment in moments if moment is not None)


def _unsent(seen: Seen, one: Unsent) -> Finding:
    view = seen.migrations[one.migration_id]
    return Finding(
        kind="unsent",
        severity="error",
        where=f"migration {one.migration_id}",
        what=f"{one.count} event(s) wait to be sent, first {one.first}",
        since=one.since,
        advice="look at a consumer's log for relay.held_up and relay.no_journal; is one running?",
        repair="publishes them, in order, with the ids they have",
        instance_id=one.instance_id,
        migration_id=one.migration_id,
        action=Action("send", view),
    )


def _readers(seen: Seen) -> Iterator[Finding]:
    if seen.queues is None:
        return
    unread = []
    for step in saga.MIGRATION:
        name = queue_of(step.name)
        look = seen.queues.get(name)
        if look is None:
            yield Finding(
                "no_queue", "error", f"queue {name}", "it is not there", "rehome topology apply, then check"
            )
        elif not look.readers:
            unread.append((step.name, look.ready))
    if unread:
        waiting = sum(ready for _, ready in unread)
        everyone = len(unread) == len(saga.MIGRATION)
        names = (
            "any queue of a handler"
            if everyone
            else f"the queue(s) of {', '.join(name for name, _ in unread)}"
        )
        yield Finding(
            kind="no_reader",
            severity="error" if waiting else "warning",
            where="the broker",
            what=f"nobody reads {names}; {waiting} message(s) wait there",
            advice="start a consumer: rehome run",
        )


def _open(
    seen: Seen, view: MigrationView, letters: list[Parked], stuck_after: timedelta
) -> Iterator[Finding]:
    """An open migration that nobody is at work on."""
    step = next_step(view, seen.steps.get(view.id, []))
    if step is None:
        return
    letter = next((one for one in letters if one.handler == step.name), None)
    if view.state == "failed":
        yield _failed(seen, view, step, letters)
    elif letter is not None:
        yield _parked(view, step, letter)
    elif seen.now - idle_since(view) > stuck_after and not _queued(seen, step):
        known = seen.noted if seen.letters is None else ()
        mine = (one for one in known if (one.migration_id, one.handler) == (view.id, step.name))
        noted = next(mine, None)
        yield _parked(view, step, noted) if noted else _stuck(seen, view, step)


def _queued(seen: Seen, step: Step) -> bool:
    """Whether messages wait for this step: then its delivery may be one of them."""
    look = (seen.queues or {}).get(queue_of(step.name))
    return look is not None and look.ready > 0


def _parked(view: MigrationView, step: Step, letter: Parked) -> Finding:
    return Finding(
        kind="parked",
        severity="error",
        where=f"migration {view.id}",
        what=f"its delivery to step {step.name} is a dead letter ({letter.reason}): it goes no further",
        since=letter.since or idle_since(view),
        advice=f"rehome dead show {letter.id}, then rehome dead replay {letter.id}, or rehome roll-back {view.id}",
        instance_id=view.instance_id,
        migration_id=view.id,
    )


def _stuck(seen: Seen, view: MigrationView, step: Step) -> Finding:
    where = "nowhere to be seen" if seen.queues is None else f"not in {queue_of(step.name)}"
    unknown = "; it may be a dead letter (rehome dead list)" if seen.letters is None else ""
    return Finding(
        kind="stuck",
        severity="error",
        where=f"migration {view.id}",
        what=f"nothing comes to step {step.name}, state {view.state}: its delivery is {where}{unknown}",
        since=idle_since(view),
        advice=f"rehome doctor {view.instance_id} --repair, or rehome roll-back {view.id}",
        repair=f"publishes the event that wakes step {step.name} again, to that handler only",
        instance_id=view.instance_id,
        migration_id=view.id,
        action=Action("wake", view, thing=step.name),
    )


def _failed(seen: Seen, view: MigrationView, step: Step, letters: list[Parked]) -> Finding:
    """It waits for an operator. Past the point of no return without a letter there is one way on."""
    down = not view.past_return and _begun(seen, view, "stop")
    finding = Finding(
        kind="waits_for_operator",
        severity="error" if down else "warning",
        where=f"migration {view.id}",
        what=f"failed at step {step.name}{', and the instance is down' if down else ''}: "
        f"{view.error or view.note or 'the journal does not say why'}",
        since=view.updated_at,
        advice=_way_on(view, step, letters),
        instance_id=view.instance_id,
        migration_id=view.id,
    )
    if seen.letters is None or letters or not view.past_return:
        return finding
    return Finding(
        kind="failed_without_letter",
        severity="error",
        where=finding.where,
        what=f"{finding.what}; its dead letter is gone",
        since=finding.since,
        advice=f"mend what the error says, then rehome doctor {view.instance_id} --repair",
        repair=f"runs step {step.name} again",
        instance_id=view.instance_id,
        migration_id=view.id,
        action=Action("wake_afresh", view, thing=step.name),
    )


def _begun(seen: Seen, view: MigrationView, step: str) -> bool:
    """Whether a step of the present attempt was begun."""
    rows = seen.steps.get(view.id, [])
    return any(row["step"] == step and row["attempt"] == view.attempt for row in rows)


def _way_on(view: MigrationView, step: Step, letters: list[Parked]) -> str:
    letter = next((one for one in letters if one.handler == step.name), None)
    named = f"rehome dead show {letter.id}; rehome dead replay {letter.id}" if letter else "rehome dead list"
    if view.past_return:
        return f"mend what the error says, then {named}; there is no way back"
    return f"mend what the error says, then {named}, or rehome roll-back {view.id}"


def _of_ended(view: MigrationView, letters: list[Parked]) -> Iterator[Finding]:
    for letter in letters:
        advice = f"rehome dead discard {letter.id} --reason ..."
        if view.state == "rolled_back" and letter.handler != saga.ROLL_BACK.name:
            advice = f"rehome dead replay {letter.id} (opens a new attempt), or {advice}"
        yield Finding(
            kind="letter_of_ended",
            severity="note",
            where=f"letter {letter.id}",
            what=f"of step {letter.handler} of migration {view.id}, which is {view.state}",
            since=letter.since,
            advice=advice,
            instance_id=view.instance_id,
            migration_id=view.id,
        )
