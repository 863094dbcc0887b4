"""The time, and what a migration remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import Pause

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

    async def acquire_slot(self, resource: str, places: int) -> bool:
        """One of `places` slots at a resource, such as the dumps of one server, for this migration.

        Counted over all consumers; having it already is True. It ends with `release_slot`, or with the migration;
        while the migration waits for an operator, others do not wait for it.
        """
        ...

    async def release_slot(self, resource: str) -> None:
        """Let the next migration have the slot; nothing if this one has none."""
        ...

    async def paused(self) -> Pause | None:
        """Who has paused all moves, since when and why; None: they go on."""
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
