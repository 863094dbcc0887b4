"""Those who wait for slots, in line: who goes first, and who has had the chance and did not come.

Pure: the journal holds the line, and asks here who may go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

LOWEST: Final = 0
HIGHEST: Final = 9
NORMAL: Final = 4
"""Priorities, as JMS and AMQP 1.0 have them: 0 to 9, higher goes first, 4 is normal."""

LEVEL: Final = timedelta(hours=12)
"""What one level of priority is worth: as much as having waited so much longer. So nobody waits for ever."""

NEXT: Final = 10
"""Migrations per place that look for it every few seconds; all others look seldom, and follow as these leave.

A slot that was released is taken within seconds, and those who wait cost little, however many they are.
"""
OFTEN: Final = timedelta(seconds=10)
SELDOM: Final = timedelta(minutes=1)
"""How long, at most, those two are away between two looks."""
GRACE: Final = timedelta(seconds=8)
"""How much later than that one who was called is passed over."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """One who waits.

    Attributes:
        wanted: slots that it takes together -> how many may have each at a time.
        overdue: it was called, since slots are free, and did not look within its time: it is passed over.
    """

    migration_id: UUID
    wanted: Mapping[str, int]
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class InLine:
    """A place in the line of those who wait for any of the same slots.

    Attributes:
        place: from 1, who goes first.
        of: how many there are.
        lacks: a slot that is not free; None: all are, and others go first.
        soon: it looks again within OFTEN, else within SELDOM.
    """

    place: int
    of: int
    lacks: str | None = None
    soon: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether it is one's turn.

    Attributes:
        goes: it is.
        called: the first of those before it that could go: they have to look now, or are passed over.
        gone: those who were called, and are passed over.
    """

    goes: bool
    called: tuple[UUID, ...] = ()
    gone: tuple[UUID, ...] = ()


def rank(since: datetime, priority: int) -> datetime:
    """What those who wait are ordered by, the earliest first: since when, as if each level were LEVEL of waiting."""
    return since - priority * LEVEL


def turn(wanted: Mapping[str, int], ahead: Sequence[Waiter], taken: Mapping[str, int]) -> Turn:
    """Whether one who waits may take its slots, of which each has a free place.

    Those ahead of it come first, in their order, and each takes what it waits for if all of it is free: who lacks
    something keeps nobody waiting who does not.

    Args:
        wanted: its slots -> how many may have each at a time.
        ahead: those who wait for any of the same slots and come before it, in order.
        taken: slots of all of them -> how many have each now.
    """
    have, gone = Counter(taken), tuple(one.migration_id for one in ahead if one.overdue)
    could_go = [one for one in ahead if not one.overdue and _free(one.wanted, taken)]
    for one in could_go:
        if _free(one.wanted, have):
            have.update(one.wanted.keys())
    if _free(wanted, have):
        return Turn(goes=True, gone=gone)
    called = could_go[: NEXT * min(wanted.values())]
    return Turn(goes=False, called=tuple(one.migration_id for one in called), gone=gone)


def _free(wanted: Mapping[str, int], have: Mapping[str, int]) -> bool:
    return all(have.get(slot, 0) < places for slot, places in wanted.items())
