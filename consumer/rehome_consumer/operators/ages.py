"""Lengths of time for people."""

from __future__ import annotations

from datetime import UTC, datetime


def age(moment: datetime | None, *, now: datetime | None = None) -> str:
    """How long ago, or `in ...`: 45s, 12m, 3h05m, 2d04h."""
    if moment is None:
        return ""
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    sign, seconds = ("in ", -seconds) if seconds < 0 else ("", seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{sign}{days}d{hours % 24:02}h"
    if hours:
        return f"{sign}{hours}h{minutes % 60:02}m"
    return f"{sign}{minutes}m" if minutes >= 2 else f"{sign}{seconds}s"  # noqa: PLR2004 - 90s reads better than 1m
