"""When instances may be stopped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection

DAYS_AHEAD: Final = 3
"""Days among which a window opens: on the day on which clocks are put forward one may be missing."""


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of every day; it may pass midnight.

    Attributes:
        start: its first moment.
        end: the first moment after it.
    """

    start: time
    end: time

    def has(self, moment: datetime) -> bool:
        """Whether a moment is in it, by its own clock: in UTC where these hours are."""
        now = moment.time()
        if self.start <= self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end

    def __str__(self) -> str:
        """As the setting is written."""
        return f"{self.start:%H:%M}-{self.end:%H:%M} UTC"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day where its customers live; it may pass midnight.

    Attributes:
        start: its first moment.
        end: the first moment after it.
        zone: whose clocks say so, summer time included.
    """

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def read(cls, text: str) -> Window:
        """Read `22:00-05:00 Europe/Berlin`; without a zone it is UTC.

        Raises:
            ValueError: it has another form, its ends do not differ, or there is no such zone on this machine.
        """
        hours, _, zone = text.strip().partition(" ")
        start, dash, end = hours.partition("-")
        try:
            found = cls(time.fromisoformat(start), time.fromisoformat(end), ZoneInfo("UTC"))
        except ValueError:
            found = None
        if found is None or not dash or found.start == found.end or found.start.tzinfo or found.end.tzinfo:
            raise ValueError(f"{text!r}: write it as 22:00-05:00 Europe/Berlin; the two times differ")
        try:
            return replace(found, zone=ZoneInfo(zone.strip() or "UTC"))
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(
                f"{text!r}: this machine knows no time zone {zone.strip()!r}; they are called as Europe/Berlin, UTC "
                "(Debian's package tzdata has them)"
            ) from None

    def has(self, moment: datetime) -> bool:
        """Whether a moment (aware) is in it."""
        return Hours(self.start, self.end).has(moment.astimezone(self.zone))

    def opens(self, moment: datetime) -> datetime:
        """When it opens next after a moment (aware), in its own zone."""
        today = moment.astimezone(self.zone).date()
        days = (today + timedelta(days=ahead) for ahead in range(DAYS_AHEAD))
        starts = [datetime.combine(day, self.start, self.zone).astimezone(UTC) for day in days]
        coming = [start for start in starts if start > moment]
        return next((start for start in coming if self.has(start)), coming[0]).astimezone(self.zone)

    def __str__(self) -> str:
        """As the setting is written."""
        return f"{self.start:%H:%M}-{self.end:%H:%M} {self.zone.key}"


def closed(windows: Collection[Window], moment: datetime) -> str | None:
    """Why no instance may be stopped at a moment, and when a window opens next; None: one is open, or there is none."""
    if not windows or any(window.has(moment) for window in windows):
        return None
    opens = min(window.opens(moment) for window in windows)
    named = ", ".join(map(str, windows))
    return f"the maintenance window is {named}; it opens at {opens:%Y-%m-%d %H:%M %Z}"
