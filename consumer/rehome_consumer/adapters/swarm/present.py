"""Whether a service runs as it is defined today: one that does not would not run after a stop either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.diagnosis import ending
from rehome_consumer.errors import Incompatible, Transient

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask

_PAUSED: Final = frozenset({"paused", "rollback_paused"})
_KILLED: Final = 137  # most often for want of memory

# Words of errors that other limits may cure.
_ABOUT_AMOUNTS: Final = ("range of cpus", "memory", "insufficient resources")


def require_runs(service: SwarmService, tasks: Collection[SwarmTask], wanted: Mapping[str, Any]) -> list[str]:
    """Warnings about how the service runs now; a stopped one has none.

    Args:
        service: as it is.
        tasks: all that the swarm lists, oldest first.
        wanted: its definition with the limits that it is to have.

    Raises:
        Incompatible: its last update is paused, and what it defines does not run.
        Transient: its tasks end or are not placed; the next try looks again.
    """
    if not edit.replicas_of(service.spec):
        return []
    current = [task for task in tasks if task.made_from(service.spec)]
    runs = any(task.serving for task in current)
    paused = service.update in _PAUSED
    if runs:
        return [f"{_update(service)}, though a task of its present definition runs"] if paused else []
    troubles = [task for task in current if task.ended_unasked or (task.wanted and task.error)]
    last = troubles[-1] if troubles else None
    how = (ending(last) if last.over else last.error) if last else "no task of it runs"
    if last and _may_be_cured(service, wanted, last):
        return [f"service {service.name} does not run now ({how}); the new limits may change that"]
    if paused and not any(task.wanted and not task.error for task in current):
        raise Incompatible(
            f"{_update(service)}, and its present definition does not run: {how}; repair it, or go back to the "
            f"definition before (docker service rollback {service.name})"
        )
    if last:
        raise Transient(
            f"service {service.name} does not run now, and would not after a stop either: {how}; repair it first"
        )
    return []


def _update(service: SwarmService) -> str:
    return f"service {service.name}: its last update is {service.update} ({service.update_message})"


def _may_be_cured(service: SwarmService, wanted: Mapping[str, Any], task: SwarmTask) -> bool:
    """Whether it ended for want of what it gets more of now."""
    before, after = (edit.template_of(spec).get("Resources") for spec in (service.spec, wanted))
    about_amounts = task.exit_code == _KILLED or any(words in task.error.lower() for words in _ABOUT_AMOUNTS)
    return before != after and about_amounts
