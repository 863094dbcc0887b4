"""MIGRATION: every step of a move, in order, in one table. Read this first.

`plan.upgraded` enters at the top; each step is woken by the event in its second column and emits one of
those in its fourth. Queues, bindings, retries, rollback order, the crash matrix, and what operators are shown of a
replay or a rollback are derived from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from rehome_consumer.ports.readiness import EVERYTHING, Part
from rehome_consumer.steps import (
    accept,
    back_up,
    complete,
    prepare,
    provision,
    restore,
    rewrite_conf,
    roll_back,
    start,
    stop,
)
from rehome_events.billing import PlanUpgraded
from rehome_events.migration import (
    InstanceResized,
    MigrationBackedUp,
    MigrationCompleted,
    MigrationConfRewritten,
    MigrationFailed,
    MigrationPrepared,
    MigrationProvisioned,
    MigrationRejected,
    MigrationRequested,
    MigrationRestored,
    MigrationRolledBack,
    MigrationStarted,
    MigrationStopped,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.model import NothingToDo
    from rehome_consumer.move import Move
    from rehome_consumer.steps.roll_back import Describe, DescribeUndo, Undo
    from rehome_events.envelope import EventData

    Run = Callable[[Move], Awaitable[EventData | NothingToDo]]

TIERS: Final[dict[str, timedelta]] = {
    "1s": timedelta(seconds=1),
    "10s": timedelta(seconds=10),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "30m": timedelta(minutes=30),
}
"""The delays there are; each is one queue on the broker, shared by all steps."""

WHILE_UP: Final = ("1s", "10s", "1m", "5m", "30m", "30m")
"""Delays while the instance serves: waiting costs nobody anything."""
WHILE_DOWN: Final = ("1s", "10s", "10s", "1m")
"""Delays while the instance is down: the customer waits, so roll back soon."""
ONLY_FORWARD: Final = ("1s", "1s", "10s", "10s", "1m", "1m", "5m", "5m", "30m")
"""Delays where giving up means that an operator has to act."""


@dataclass(frozen=True, slots=True)
class Step:
    """One handler: a queue, what wakes it, what it does, what it emits, and how it is tried again.

    Attributes:
        name: the handler; its queue is `migration.h.<name>`.
        on: the event that wakes it.
        run: the work.
        emits: the events it may emit (if it is not `NothingToDo`).
        retries: delays before the second, third, ... try.
        limit: the longest one try may take.
        describe: what running it again would do, for operators; one line per thing.
        undo: undoes what it changed.
        describe_undo: what that would do, for operators.
        if_it_fails: `roll_back` the migration, or leave it to an `operator`.
        pivot: when it is done, the point of no return is passed: only forward from here.
        needs: parts of the consumer's surroundings without which it is not run. Before the downtime that is everything,
            so that nothing is stopped which could not go on; afterwards what the step itself uses.
    """

    name: str
    on: type[EventData]
    run: Run
    emits: tuple[type[EventData], ...]
    retries: tuple[str, ...]
    limit: timedelta
    describe: Describe
    undo: Undo | None = None
    describe_undo: DescribeUndo | None = None
    if_it_fails: Literal["roll_back", "operator"] = "roll_back"
    pivot: bool = False
    needs: frozenset[Part] = EVERYTHING

    @property
    def while_down(self) -> bool:
        """Whether the instance may be down when it is tried again, and a rollback would serve it again."""
        return self.retries is WHILE_DOWN

    def __post_init__(self) -> None:
        """Raise TypeError for an undo that operators could not be shown."""
        if (self.undo is None) != (self.describe_undo is None):
            raise TypeError(f"step {self.name}: undo and describe_undo belong together")


_MINUTES = timedelta(minutes=1)
_HOURS = timedelta(hours=1)


def _just(*parts: Part) -> frozenset[Part]:
    """What a step needs beside the databases that every step reads."""
    return frozenset({"journal", "platform", *parts})


# fmt: off
_FORWARD: Final = (
    Step("accept", PlanUpgraded, accept.run, (MigrationRequested, InstanceResized, MigrationRejected),
         WHILE_UP, 5 * _MINUTES, accept.describe, if_it_fails="operator"),
    Step("prepare", MigrationRequested, prepare.run, (MigrationPrepared,),
         WHILE_UP, 24 * _HOURS, prepare.describe, prepare.undo, prepare.describe_undo),
    Step("stop", MigrationPrepared, stop.run, (MigrationStopped,),
         WHILE_DOWN, 24 * _HOURS, stop.describe, stop.undo, stop.describe_undo),
    Step("back_up", MigrationStopped, back_up.run, (MigrationBackedUp,),
         WHILE_DOWN, 12 * _HOURS, back_up.describe, back_up.undo, back_up.describe_undo,
         needs=_just("client_programs", "backup_place")),
    Step("provision", MigrationBackedUp, provision.run, (MigrationProvisioned,),
         WHILE_DOWN, 5 * _MINUTES, provision.describe, provision.undo, provision.describe_undo,
         needs=_just()),
    Step("rewrite_conf", MigrationProvisioned, rewrite_conf.run, (MigrationConfRewritten,),
         WHILE_DOWN, 5 * _MINUTES, rewrite_conf.describe, rewrite_conf.undo, rewrite_conf.describe_undo,
         needs=_just("data_root", "runtime")),
    Step("restore", MigrationConfRewritten, restore.run, (MigrationRestored,),
         WHILE_DOWN, 24 * _HOURS, restore.describe, restore.undo, restore.describe_undo,
         needs=_just("client_programs", "backup_place", "runtime")),
    Step("start", MigrationRestored, start.run, (MigrationStarted,),
         WHILE_DOWN, 20 * _MINUTES, start.describe, start.undo, start.describe_undo, pivot=True,
         needs=_just("runtime")),
    Step("complete", MigrationStarted, complete.run, (MigrationCompleted,),
         ONLY_FORWARD, 12 * _HOURS, complete.describe, if_it_fails="operator",
         needs=_just("client_programs", "data_root", "runtime", "backup_place")),
)
_BACKWARD: Final = tuple(reversed(_FORWARD))

MIGRATION: Final = (
    *_FORWARD,
    Step("roll_back", MigrationFailed,
         roll_back.undoing(tuple((step.name, step.undo) for step in _BACKWARD if step.undo)), (MigrationRolledBack,),
         ONLY_FORWARD, 2 * _HOURS,
         roll_back.describing(tuple((step.name, step.describe_undo) for step in _BACKWARD if step.describe_undo)),
         if_it_fails="operator", needs=_just("data_root", "runtime")),
)
# fmt: on

ROLL_BACK: Final = MIGRATION[-1]

STATES: Final[dict[str, str]] = {
    event.TYPE: event.TYPE.rpartition(".")[2] for step in MIGRATION for event in step.emits
}
"""Event type -> state of the migration once it is emitted: `migration.stopped` -> `stopped`."""


def before(step: Step) -> Step | None:
    """The step that must be done before this one; None for the first and for the rollback."""
    index = MIGRATION.index(step)
    return None if index == 0 or step is ROLL_BACK else MIGRATION[index - 1]


def named(name: str) -> Step | None:
    """The step of that name, or None."""
    return next((step for step in MIGRATION if step.name == name), None)
