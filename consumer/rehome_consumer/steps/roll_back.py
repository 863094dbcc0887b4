"""A failed move is undone: the customer is back on the shared pool, nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rehome_consumer.facts import RESTARTED_AT, SOURCE, STOPPED_AT
from rehome_consumer.steps.support.common import Event, instance_of, server_of
from rehome_events.migration import MigrationRolledBack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.ports.steps import Ports


class Undo(Protocol):
    """Puts back what a step changed; safe when it changed nothing. Returns what it had to leave behind."""

    async def __call__(self, event: Event, ports: Ports) -> tuple[str, ...]:
        """Undo on behalf of the `migration.failed` in `event`."""
        ...


def undoing(undos: tuple[tuple[str, Undo], ...]) -> Callable[[Event, Ports], Awaitable[MigrationRolledBack]]:
    """A step that runs these undos, in the order given, for every step that was begun.

    Args:
        undos: (step's name, its undo), last step first.
    """

    async def run(event: Event, ports: Ports) -> MigrationRolledBack:
        started = await ports.facts.started()
        undone: list[str] = []
        leftovers: list[str] = []
        for name, undo in undos:
            if name in started:
                leftovers += await undo(event, ports)
                undone.append(name)
        instance = await instance_of(event, ports)
        return MigrationRolledBack(
            instance_id=instance.id,
            failed_step=event.data.step,
            reason=event.data.message,
            source=(await server_of(ports, SOURCE)).ref,
            downtime_seconds=await _downtime(ports),
            undone=tuple(undone),
            leftovers=tuple(leftovers),
        )

    return run


async def _downtime(ports: Ports) -> float | None:
    """Seconds from the stop to the first healthy answer on the pool again; None if it was never stopped."""
    stopped = await ports.facts.recall(STOPPED_AT)
    up = await ports.facts.recall(RESTARTED_AT)
    if stopped is None or up is None:
        return None
    return (up - stopped).total_seconds()
