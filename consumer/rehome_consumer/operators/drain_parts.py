"""What a drain looks at, what was ordered, what it follows, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rehome_consumer.operators.drain_plan import Entry, plan

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.model import Server
    from rehome_consumer.operators.drain_plan import Wanted
    from rehome_consumer.ports.operators import Inspector, JournalViews, MigrationView, PlatformRecords

UNDONE: Final = frozenset({"rolled_back", "rejected", "discarded"})
"""Ends of a migration whose instance stays on the pool."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool, as the drain sees it; sizes are read once.

    Attributes:
        server: its row in `db_servers`.
        again: whether those are moved, too, whose last move was rolled back.
    """

    server: Server
    records: PlatformRecords
    inspector: Inspector
    views: JournalViews
    again: bool = False
    sizes: dict[str, int | None] = field(default_factory=dict)

    async def look(self) -> tuple[list[Entry], list[MigrationView]]:
        """The plan as it is now, and all migrations that have to do with it."""
        residents = await self.records.residents(self.server)
        unknown = {one.instance.database for one in residents} - self.sizes.keys()
        if unknown:
            found = await self.inspector.database_sizes(self.server, unknown)
            self.sizes.update({name: found.get(name) for name in unknown})
        ids = {one.instance.id for one in residents}
        moves = await self.views.moves_from(self.server.id, ids)
        moves += [one for one in await self.views.waiting() if one.instance_id in ids]
        sizes = {name: size for name, size in self.sizes.items() if size is not None}
        return plan(self.server, residents, sizes, moves, again=self.again), moves


@dataclass(frozen=True, slots=True)
class Order:
    """What operators have ordered.

    Attributes:
        at_once: migrations under way at a time, at most.
        busy: active sessions on the pool; nothing is published while there are more.
        failures: so many that did not complete, and nothing more is published.
        by, why: who ordered it, and why, for the journal.
    """

    wanted: Wanted
    at_once: int
    busy: int
    failures: int
    by: str
    why: str = ""


@dataclass(slots=True)
class Followed:
    """A migration whose end the drain tells.

    Attributes:
        since: when it was published, or first seen.
        ours: published by this very run.
        event_id: of the upgrade that this run has published.
        noted: its history says who ordered it.
        view: as the journal has it; None: no consumer has taken its upgrade yet.
        told: its end was told.
        old: it waited for an operator before the drain began.
        discarded: an operator has discarded its upgrade, which no consumer had taken.
    """

    id: UUID
    instance_id: UUID
    since: datetime
    ours: bool
    event_id: UUID | None = None
    noted: bool = False
    view: MigrationView | None = None
    told: bool = False
    old: bool = False
    discarded: bool = False

    @property
    def state(self) -> str:
        """Its state; `published` before a consumer has taken it, `discarded` where none ever will."""
        if self.discarded:
            return "discarded"
        return self.view.state if self.view else "published"

    @property
    def waits_behind(self) -> bool:
        """Whether its upgrade waits for the end of another migration of its instance."""
        return self.view is not None and self.view.behind is not None

    @property
    def counts(self) -> bool:
        """Whether it is under way.

        One that waits for an operator is not, nor one that waits behind another: it would hold up all others.
        """
        return not self.told and self.state != "failed" and not self.waits_behind


@dataclass(frozen=True, slots=True)
class Summary:
    """How a drain ended.

    Attributes:
        followed: the migrations that it has published or waited for.
        left: instances that it would have moved, had it gone on.
        left_out: instances that it does not move.
        gave_up: too many did not complete.
    """

    followed: list[Followed]
    left: list[Entry]
    left_out: list[Entry]
    gave_up: bool

    def of(self, *states: str) -> list[Followed]:
        """Those in one of these states."""
        return [one for one in self.followed if one.state in states]

    @property
    def under_way(self) -> list[Followed]:
        """Those that go on."""
        return [one for one in self.followed if one.counts]

    @property
    def well(self) -> bool:
        """Whether all was moved that was to be moved, and nothing needs an operator."""
        return not (self.left or self.gave_up or self.of("failed", *UNDONE))
