"""The place of a migration among those that wait for slots, for people."""

from __future__ import annotations

from rehome_consumer.model import NORMAL


def in_line(place: int | None, of: int | None, priority: int | None) -> str:
    """`3rd of 7 in line, priority 6`; nothing for one of normal priority that waits for no slot."""
    parts = [f"{_ordinal(place)} of {of} in line"] if place and of else []
    if priority is not None and (parts or priority != NORMAL):
        parts.append(f"priority {priority}")
    return ", ".join(parts)


def _ordinal(number: int) -> str:
    teens = number // 10 % 10 == 1
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
