"""What must hold of the line of those who wait for slots; kept without the line that the journal has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rehome_consumer.engine.inbound import opened_by
from rehome_consumer.model import NORMAL
from rehome_consumer.model.line import LEVEL, OFTEN, SELDOM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime, timedelta
    from uuid import UUID

    from rehome_consumer.model import InLine
    from rehome_consumer.ports.engine import StepRow
    from tests.simulation.schedule import Schedule

IDLE: Final = SELDOM
"""For so long at most slots are free, and one that looks for them in time does not get them."""


@dataclass
class Wait:
    """One that waits, or has left the line.

    Attributes:
        since: of its first look.
        looked: its last one.
        within: how long it may be away after that.
        in_line: whether it waits; else it waits for something else.
        free_since: since when it finds its slots free at each look, and does not get them.
    """

    attempt: int
    wanted: Mapping[str, int]
    since: datetime
    looked: datetime
    within: timedelta
    in_line: bool = True
    free_since: datetime | None = None


class LineWatch:
    """Every look for slots, and what came of it.

    Attributes:
        priorities: by migration, as upgrades and operators have said.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.waits: dict[UUID, Wait] = {}
        self.priorities: dict[UUID, int] = {}

    def free(self, wanted: Mapping[str, int], but_for: UUID) -> bool:
        """Whether all of these have a free place; slots of one are not counted."""
        rows = self.schedule.journal.migrations
        return all(
            sum(
                slot == name
                and one != but_for
                and rows[one].attempt == attempt
                and not rows[one].ended
                and rows[one].state != "failed"
                for slot, one, attempt in self.schedule.journal.slots
            )
            < places
            for name, places in wanted.items()
        )

    def passed_over(self, row: StepRow, wanted: Mapping[str, int]) -> list[UUID]:
        """Those who come before it, wait in line for the same, have looked in time, and could go now."""
        now, mine = self.schedule.site.clock.now(), self.waits.get(row.migration_id)
        here = mine is not None and mine.attempt == row.attempt and mine.wanted.keys() & wanted
        since = mine.since if mine is not None and here else now
        return [
            one
            for one, wait in self._in_line()
            if one != row.migration_id
            and wait.wanted.keys() & wanted
            and now - wait.looked < wait.within
            and self._mark(one, wait.since) < self._mark(row.migration_id, since)
            and self.free(wait.wanted, one)
        ]

    def looked(
        self, row: StepRow, wanted: Mapping[str, int], passed: list[UUID], place: InLine | None
    ) -> str | None:
        """One has looked, and got its slots (None) or a place; returns what does not hold.

        Args:
            row: of its step.
            wanted: the slots that it did not have before.
            passed: who came before it, as it looked.
            place: what it got.
        """
        now, mine = self.schedule.site.clock.now(), self.waits.get(row.migration_id)
        if place is None:
            self.waits.pop(row.migration_id, None)
            for wait in self.waits.values():
                wait.free_since = None
            if beaten := [one for one in passed if not self.free(self.waits[one].wanted, one)]:
                return f"first in line, first served: migration {row.migration_id} went before {beaten}"
            return None
        if mine is None or mine.attempt != row.attempt or not mine.wanted.keys() & wanted:
            mine = self.waits[row.migration_id] = Wait(row.attempt, wanted, now, now, OFTEN)
        in_time = mine.in_line and now - mine.looked <= 2 * mine.within
        begun = mine.free_since if in_time and mine.free_since else now
        mine.free_since = begun if place.lacks is None else None
        mine.looked, mine.in_line, mine.within = now, True, OFTEN if place.soon else SELDOM
        if mine.free_since is not None and now - mine.free_since > IDLE:
            return f"no free slot stays idle: for migration {row.migration_id} some are free since {mine.free_since}"
        return None

    def left(self, row: StepRow) -> None:
        """One has released its slots, and waits in no line."""
        if wait := self.waits.get(row.migration_id):
            wait.in_line = False

    def _in_line(self) -> Iterator[tuple[UUID, Wait]]:
        rows = self.schedule.journal.migrations
        for one, wait in self.waits.items():
            row = rows[one]
            stands = wait.in_line and wait.attempt == row.attempt
            if stands and not row.ended and row.state not in ("failing", "failed"):
                yield one, wait

    def _mark(self, migration: UUID, since: datetime) -> tuple[datetime, UUID]:
        if migration not in self.priorities:
            said = {opened_by(event.id): event.data.priority for event in self.schedule.upgrades}
            priority = said.get(migration)
            self.priorities[migration] = NORMAL if priority is None else priority
        return since - self.priorities[migration] * LEVEL, migration
