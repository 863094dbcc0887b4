"""What to do with a delivery, from what it says and what the journal has. Pure: no port is called here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rehome_consumer import saga
from rehome_consumer.engine.exclusive_runs import ASKED, is_suspect
from rehome_consumer.engine.headers import FAILED, UNDECODABLE, UNKNOWN_MIGRATION
from rehome_consumer.engine.outcome import Ack, GiveUp, Run, come_back

if TYPE_CHECKING:
    from rehome_consumer.engine.inbound import Inbound
    from rehome_consumer.engine.outcome import Outcome, Settled
    from rehome_consumer.ports.engine import MigrationRow, StepRow
    from rehome_events.envelope import CloudEvent


@dataclass(frozen=True, slots=True)
class Rows:
    """What the journal has for a delivery.

    Attributes:
        migration: its migration.
        attempt: the attempt that it belongs to.
        step: its step in that attempt; None when it was never started.
        previous: the step before that; None when there is none, or it was never started.
    """

    migration: MigrationRow
    attempt: int
    step: StepRow | None = None
    previous: StepRow | None = None


def decide(inbound: Inbound, event: CloudEvent[Any], rows: Rows | None) -> Outcome:
    """What to do with an event: the outcome of the first rule that applies.

    Args:
        inbound: the delivery.
        event: what it says.
        rows: None when there is no such migration of its instance.
    """
    if rows is None:
        return GiveUp(UNKNOWN_MIGRATION, "no such migration of this instance")
    migration, row, name = rows.migration, rows.step, inbound.step.name
    stale = partial(Ack, migration.id, "stale")
    older = f"it belongs to attempt {rows.attempt}, the migration is at {migration.attempt}"
    done = Ack(migration.id, "done", f"step {name} was done before")
    error = (row.error or "") if row else ""
    written = row is not None and row.dead_lettered
    failed = Ack(migration.id, "failed", error) if written else GiveUp(FAILED, error, row)
    refusal = _refusal(inbound, migration)
    early = come_back(inbound.early_returns, f"what comes before {name} is not done")
    rules: tuple[tuple[bool, Outcome], ...] = (
        (rows.attempt < migration.attempt, stale(older)),
        (row is not None and row.done, done),
        (_has_failed(inbound, rows), failed),
        (migration.ended, stale(f"the migration is {migration.state}")),
        (bool(refusal), stale(refusal)),
        (_is_early(inbound, rows), early),
        (True, run(inbound, event, rows)),
    )
    return next(outcome for applies, outcome in rules if applies)


def decide_unread(inbound: Inbound, row: StepRow | None) -> Settled:
    """What to do with what cannot be read; `row` is its step's, where it says whose it is.

    An event in a newer version is valid. Mostly the same event was published in a known version, too; else a newer
    consumer, which reads the same queues, can handle it.
    """
    rules: tuple[tuple[bool, Settled], ...] = (
        (not inbound.newer, GiveUp(UNDECODABLE, inbound.unreadable)),
        (row is not None and row.done, Ack(None, "done", inbound.unreadable)),
        (True, come_back(inbound.early_returns, inbound.unreadable)),
    )
    return next(outcome for applies, outcome in rules if applies)


def run(inbound: Inbound, event: CloudEvent[Any], rows: Rows) -> Run:
    """Run the step: alone if consumers died of it, unless it came back for that often enough."""
    bound = event.model_copy(update={"migrationid": rows.migration.id, "attempt": rows.attempt})
    alone = is_suspect(rows.step) and inbound.deferrals < ASKED
    return Run(bound, rows.migration, alone=alone, again=rows.step is not None)


def _has_failed(inbound: Inbound, rows: Rows) -> bool:
    """Whether the step failed for good: no new replay, no new order to roll back."""
    row, replay = rows.step, inbound.replay
    ordered = inbound.step is saga.ROLL_BACK and rows.migration.state == "failing"
    failed = row is not None and row.state == "failed" and not ordered
    return failed and (replay is None or (row is not None and replay in row.replays))


def _refusal(inbound: Inbound, migration: MigrationRow) -> str:
    """Why the migration is not in a state for this step; empty when it is."""
    state, replayed = migration.state, inbound.replay is not None
    if inbound.step is saga.ROLL_BACK:
        wanted = state == "failing" or (state == "failed" and replayed)
        rules = (
            (migration.past_pivot, "the point of no return is passed: only forward from here"),
            (not wanted, f"the migration is in state {state}: an operator decides"),
        )
    else:
        rules = (
            (state == "failing", "the migration is being rolled back"),
            (state == "failed" and not replayed, "the migration waits for an operator"),
        )
    return next((why for applies, why in rules if applies), "")


def _is_early(inbound: Inbound, rows: Rows) -> bool:
    """Whether what the step follows is not done; a rollback follows whatever failed."""
    is_first = saga.before(inbound.step) is None
    previous_done = rows.previous is not None and rows.previous.done
    follows = rows.attempt <= rows.migration.attempt and (is_first or previous_done)
    return inbound.step is not saga.ROLL_BACK and not follows
