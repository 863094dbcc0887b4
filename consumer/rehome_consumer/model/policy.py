"""What steps decide by, and one of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """The few settings that steps decide by.

    Attributes:
        fence_limit: how long ending the tenant's connections may take.
        room_factor: free bytes required at the backup place, as a multiple of the database's size.
        dumps_per_server: migrations whose instance may be down for a dump of the same server at a time.
        retention: how long the fenced source stays after a completed move.
    """

    fence_limit: timedelta = timedelta(seconds=60)
    room_factor: float = 1.2
    dumps_per_server: int = 2
    retention: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """A step's answer when everything is as the event asks already; the reason goes to journal and log."""

    reason: str
