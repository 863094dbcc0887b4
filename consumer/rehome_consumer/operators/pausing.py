"""Pause all moves, and let them go on: the one way that the command line and the console have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.model import Pause


@dataclass(frozen=True, slots=True)
class Ordered:
    """What an order came to.

    Attributes:
        changed: False: it was so already, and the earlier order stays.
        pause: the pause that is in force now.
    """

    changed: bool
    pause: Pause | None


async def order(views: PostgresJournalViews, *, paused: bool, by: str, why: str) -> Ordered:
    """Pause, or let moves go on. All consumers see it with the next step that could begin a move or stop an instance.

    Args:
        views: the journal, which keeps every order.
        paused: which of the two.
        by: who ordered it.
        why: in their words; may be empty.
    """
    changed = await views.order_pause(by, why, paused=paused)
    return Ordered(changed, await views.paused())
