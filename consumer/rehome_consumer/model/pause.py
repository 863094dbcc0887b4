"""That operators have paused all moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that is in force.

    Attributes:
        at: since when.
        by: who ordered it.
        why: as they said; may be empty.
    """

    at: datetime
    by: str
    why: str = ""

    def __str__(self) -> str:
        """As it stands in sentences: `paused by anna@host since 2026-11-29 12:00 UTC: the storage is slow`."""
        since = f"paused by {self.by} since {self.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return f"{since}: {self.why}" if self.why else since
