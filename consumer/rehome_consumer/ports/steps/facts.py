"""The time, and what a migration remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import InLine, Pause

T = TypeVar("T")


class Clock(Protocol):
    """The time, so that a simulation can own it."""

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        ...


class Facts(Protocol):
    """What this attempt of this migration remembers; bound to it by the engine, stored in the journal."""

    async def remember(self, fact: Fact[T], value: T) -> T:
        """Store the fact unless it is stored already; return the stored value: the first one counts.

        A secret is encrypted.
        """
        ...

    async def recall(self, fact: Fact[T]) -> T | None:
        """The stored value, or None."""
        ...

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:
        """All of these slots for this migration, such as of the dumps of one server; None: it has them.

        Counted over all consumers. They end with `release_slots`, or with the migration; while the migration waits for
        an operator, others do not wait for it.

        Args:
            wanted: slots -> how many migrations may have each at a time.
            waits: whether it waits in line for what it does not get; else it goes before those who do.

        Returns:
            None, or its place among those who wait for any of these, and then it has got none of those it lacks. Those
            come first who have the higher priority or have waited longer, unless they lack something else, or do not
            look any more. Look again in time, or others go first.
        """
        ...

    async def release_slots(self, resources: Collection[str]) -> None:
        """Let others have these slots, and the place in line; its age is kept, in case this one comes back."""
        ...

    async def paused(self) -> Pause | None:
        """Who has paused all moves, since when and why; None: they go on."""
        ...

    async def earlier_consumers(self) -> int:
        """Connections of consumers whose release cannot go on with a warm move; none can be started any more."""
        ...

    async def progress(self, done: int, total: int) -> None:
        """Record how far a long step is, in bytes (or whatever unit both share). Never fails the step."""
        ...

    async def started(self) -> frozenset[str]:
        """Names of the steps of this attempt that were started, finished or not."""
        ...

    async def seconds_per_step(self) -> Mapping[str, float]:
        """Seconds each finished step of this attempt took, by step name."""
        ...
