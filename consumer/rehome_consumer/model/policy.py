"""What steps decide by, and one of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of every day, in UTC; it may pass midnight.

    Attributes:
        start: its first moment.
        end: the first moment after it.
    """

    start: time
    end: time

    def has(self, moment: datetime) -> bool:
        """Whether a moment (in UTC) is in it."""
        now = moment.time()
        if self.start <= self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end

    def __str__(self) -> str:
        """As the setting is written."""
        return f"{self.start:%H:%M}-{self.end:%H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Policy:
    """The few settings that steps decide by.

    Attributes:
        fence_limit: how long ending the tenant's connections may take.
        transaction_limit: how long the tenant's open transactions may take to end by themselves before that.
        cutover: whether the instance's old tasks must be gone before the copy is opened (`careful`), or the new one
            starts beside those that are still ending (`quick`).
        room_factor: free bytes required at the backup place, as a multiple of the database's size.
        dumps_per_server: migrations whose instance may be down for a dump of the same server at a time.
        retention: how long the fenced source stays after a completed move.
        rehearse: how much is moved once before anything is stopped: everything, definitions only, or nothing.
        rehearse_up_to: bytes; of a larger database only the definitions are rehearsed. None: no limit.
        rehearsal_jobs: parallel sessions that read the source for a rehearsal.
        rehearsals_per_server: rehearsals that read the same source at a time.
        rehearsal_hours: when a rehearsal may begin; None: at any time.
    """

    fence_limit: timedelta = timedelta(seconds=60)
    transaction_limit: timedelta = timedelta(seconds=5)
    cutover: Literal["careful", "quick"] = "careful"
    room_factor: float = 1.2
    dumps_per_server: int = 2
    retention: timedelta = timedelta(days=7)
    rehearse: Literal["full", "definitions", "off"] = "full"
    rehearse_up_to: int | None = None
    rehearsal_jobs: int = 2
    rehearsals_per_server: int = 1
    rehearsal_hours: Hours | None = None


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """A step's answer when everything is as the event asks already; the reason goes to journal and log."""

    reason: str
