"""Where a delivery stands against the journal. Pure: rows in, an answer out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rehome_consumer import saga

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.ports.engine import MigrationRow, StepRow
    from rehome_consumer.saga import Step


@dataclass(frozen=True, slots=True)
class Standing:
    """What to do with a delivery.

    `go`: run the step. `done`: it was done before; make sure that its event went out. `stale`: it is
    over or superseded; nothing to do. `early`: what it follows is not done. `failed`: it failed before;
    make sure that its dead letter is there.
    """

    answer: Literal["go", "done", "stale", "early", "failed"]
    why: str = ""


GO = Standing("go")


def standing(
    step: Step,
    migration: MigrationRow,
    attempt: int,
    row: StepRow | None,
    previous: StepRow | None,
    *,
    replay: UUID | None,
) -> Standing:
    """Compare.

    Args:
        step: whose delivery it is.
        migration: the journal's row.
        attempt: the attempt that the event belongs to.
        row: the journal's row of this step in that attempt.
        previous: the row of the step before it.
        replay: by which an operator sent it again; None: nobody did.
    """
    if attempt < migration.attempt:
        return Standing("stale", f"it belongs to attempt {attempt}, the migration is at {migration.attempt}")
    if row is not None and row.state == "done":
        return Standing("done", f"step {step.name} was done before")
    if row is not None and _has_failed(step, migration, row, replay):
        return Standing("failed", row.error or "")
    if migration.ended:
        return Standing("stale", f"the migration is {migration.state}")
    if step is saga.ROLL_BACK:
        return _rollback(migration, replayed=replay is not None)
    if migration.state == "failing":
        return Standing("stale", "the migration is being rolled back")
    if migration.state == "failed" and replay is None:
        return Standing("stale", "the migration waits for an operator")
    if attempt > migration.attempt or (saga.before(step) and (previous is None or previous.state != "done")):
        return Standing("early", f"what comes before {step.name} is not done")
    return GO


def _rollback(migration: MigrationRow, *, replayed: bool) -> Standing:
    if migration.past_pivot:
        return Standing("stale", "the point of no return is passed: only forward from here")
    if migration.state == "failing" or (migration.state == "failed" and replayed):
        return GO
    return Standing("stale", f"the migration is in state {migration.state}: an operator decides")


def _has_failed(step: Step, migration: MigrationRow, row: StepRow, replay: UUID | None) -> bool:
    """Whether its failure is the last word: no new replay, no new order to roll back."""
    if row.state != "failed" or (step is saga.ROLL_BACK and migration.state == "failing"):
        return False
    return replay is None or replay in row.replays
