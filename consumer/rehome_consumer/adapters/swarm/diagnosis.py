"""Why an instance does not start: which causes pass by waiting, and which do not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rehome_consumer.errors import Incompatible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

    from rehome_consumer.adapters.swarm.tasks import SwarmTask

CRASHES_IN_A_LOOP = 3
LOOKS_UNTIL_GIVEN_UP = 2  # between a task's end and its successor no task is listed for a moment

# Engine's words, without regard to upper and lower case: Docker 28 begins them in lower case.
_NO_ROOM = "no suitable node"

# Source: rejections of the engine as measured. Another task meets the same, except that a registry may have
# been unreachable when the image was asked for: that one must occur twice.
_PERMANENT = {
    "range of cpus": 1,
    "memory limit": 1,
    "memory reservation": 1,
    "bind source path does not exist": 1,
    "invalid mount config": 1,
    "no such image": 2,
}
_NEVER_RAN = 128  # the engine's own code for a container that it could not start; its error says why
_ENDED = "task: non-zero exit"
_EXIT_CODES = {
    127: "its command is not in the image",
    137: "killed: out of memory, or it ignored SIGTERM",
    255: "Odoo's image ends so when odoo.conf is missing or unusable",
}


class Diagnosis:
    """What happened to the tasks of one start, collected over many looks: the engine forgets old tasks.

    Args:
        service: its name, for errors.
        spec: the definition that is being started.
        earlier: ids of tasks that do not belong to this start.
        room_limit: seconds that Swarm may search for a node with room.
    """

    def __init__(
        self, service: str, spec: Mapping[str, Any], earlier: Collection[str], room_limit: float
    ) -> None:
        self._service = service
        self._spec = spec
        self._earlier = earlier
        self._room_limit = room_limit
        self._ends: dict[str, SwarmTask] = {}
        self._no_room_since: float | None = None
        self._latest: tuple[SwarmTask, ...] = ()
        self._given_up = 0

    def observe(self, tasks: Collection[SwarmTask]) -> None:
        """Record the present tasks.

        Raises:
            Incompatible: no node accepts such a task, or none has room.
        """
        current = tuple(task for task in tasks if task.id not in self._earlier and task.made_from(self._spec))
        self._latest = current
        self._ends.update({task.id: task for task in current if task.ended_unasked})
        for words, times in _PERMANENT.items():
            rejected = [task for task in self._ends.values() if words in task.error.lower()]
            if len(rejected) >= times:
                raise Incompatible(f"service {self._service} cannot run: {rejected[-1].error}")
        self._given_up = self._given_up + 1 if is_exhausted(self._spec, current) else 0
        self._check_room(current, stopping=any(not task.over and not task.wanted for task in tasks))

    @property
    def crash(self) -> SwarmTask | None:
        """The last task that ended, once so many have that this is a loop, or Swarm starts no other."""
        ends = sorted(self._ends.values(), key=lambda task: task.created)
        if len(ends) >= CRASHES_IN_A_LOOP or (ends and self._given_up >= LOOKS_UNTIL_GIVEN_UP):
            return ends[-1]
        return None

    def describe(self) -> str:
        """What the tasks did so far."""
        live = [task.describe() for task in self._latest if not task.over]
        parts = [f"tasks: {', '.join(live) or 'none runs'}"]
        if self._ends:
            last = max(self._ends.values(), key=lambda task: task.created)
            parts.append(f"{len(self._ends)} ended by themselves, the last one: {ending(last)}")
        return "; ".join(parts)

    def _check_room(self, tasks: Collection[SwarmTask], *, stopping: bool) -> None:
        """Raise when no node has room; a task that is still stopping may hold the room needed."""
        unplaced = [task for task in tasks if task.state == "pending" and _NO_ROOM in task.error.lower()]
        if stopping or not unplaced:
            self._no_room_since = None
            return
        now = time.monotonic()
        self._no_room_since = self._no_room_since or now
        if now - self._no_room_since >= self._room_limit:
            raise Incompatible(
                f"service {self._service} cannot run: {unplaced[-1].error}, for {self._room_limit:.0f} s"
            )


def ending(task: SwarmTask) -> str:
    """How a task ended, in words: its exit code and what that usually means, or the engine's error."""
    if task.state == "rejected" or task.exit_code is None:
        return task.error or task.state
    meaning = _EXIT_CODES.get(task.exit_code)
    if task.exit_code == _NEVER_RAN and not task.error.lower().startswith(_ENDED):
        meaning = task.error
    return f"exit code {task.exit_code}{f' ({meaning})' if meaning else ''}"


def is_exhausted(spec: Mapping[str, Any], tasks: Collection[SwarmTask]) -> bool:
    """Whether Swarm has given up: no task is left and its restart policy allows no other."""
    return bool(tasks) and not any(task.wanted for task in tasks) and not _restarts_without_limit(spec)


def _restarts_without_limit(spec: Mapping[str, Any]) -> bool:
    policy = spec["TaskTemplate"].get("RestartPolicy") or {}
    return policy.get("Condition", "any") == "any" and not policy.get("MaxAttempts")
