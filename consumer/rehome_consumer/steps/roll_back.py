"""A failed move is undone: the customer is back on the shared pool, nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rehome_consumer.facts import RESTARTED_AT, STOPPED_AT
from rehome_consumer.move import Move
from rehome_consumer.steps.support import leaving
from rehome_events.migration import MigrationRolledBack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.steps.support.situation import Situation

    Describe = Callable[[Situation], tuple[str, ...]]
    DescribeUndo = Callable[[Situation], str]


class Undo(Protocol):
    """Undoes what a step changed; safe when it changed nothing. Returns what it had to leave behind."""

    async def __call__(self, move: Move) -> tuple[str, ...]:
        """Undo on behalf of the `migration.failed` that woke the rollback."""
        ...


def undoing(undos: tuple[tuple[str, Undo], ...]) -> Callable[[Move], Awaitable[MigrationRolledBack]]:
    """A step that runs these undos, in the order given, for every step that was started.

    Args:
        undos: (step's name, its undo), last step first.
    """

    async def run(move: Move) -> MigrationRolledBack:
        started = await move.facts.started()
        undone: list[str] = []
        leftovers: list[str] = []
        for name, undo in undos:
            if name in started:
                # Each looks for itself: an undo may take long, and the customer may leave meanwhile.
                leftovers += await undo(Move(move.event, move.ports))
                undone.append(name)
        instance = await move.instance()
        return MigrationRolledBack(
            instance_id=instance.id,
            failed_step=move.data.step,
            reason=move.data.message,
            source=(await move.source()).ref,
            downtime_seconds=await _downtime(move),
            undone=tuple(undone),
            leftovers=leaving.distinct(leftovers),
        )

    return run


def describing(descriptions: tuple[tuple[str, DescribeUndo], ...]) -> Describe:
    """The description of the same rollback.

    Args:
        descriptions: (step's name, the description of its undo), last step first.
    """

    def describe(now: Situation) -> tuple[str, ...]:
        return tuple(
            f"would undo {name}: {describe_undo(now)}"
            for name, describe_undo in descriptions
            if now.started is None or name in now.started
        )

    return describe


async def _downtime(move: Move) -> float | None:
    """Seconds from the stop to the first healthy answer on the pool again; None if it was never stopped."""
    stopped_at = await move.facts.recall(STOPPED_AT)
    restarted_at = await move.facts.recall(RESTARTED_AT)
    if stopped_at is None or restarted_at is None:
        return None
    return (restarted_at - stopped_at).total_seconds()
