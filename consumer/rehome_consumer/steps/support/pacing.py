"""What holds a move up while its customer is served: a pause, the maintenance window, the upgrade's `not_before`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Queued
from rehome_consumer.facts import LET_GO_AT, NOT_BEFORE
from rehome_consumer.model import closed

if TYPE_CHECKING:
    from rehome_consumer.move import Move

LEAD: Final = timedelta(days=1)
"""How long before its `not_before` a move is prepared: what has to be put right is known by then."""


async def require_unpaused(move: Move) -> None:
    """Return unless operators have paused all moves.

    Raises:
        Queued: they have. The delivery comes back, no try is counted, nothing was changed.
    """
    pause = await move.facts.paused()
    if pause is not None:
        raise Queued(f"rehome is {pause}; this move waits for `rehome resume`")


async def require_due(move: Move) -> None:
    """Return unless the upgrade is for a later day: nothing is prepared that long before.

    Raises:
        Queued: as `require_unpaused`.
    """
    not_before = await move.facts.recall(NOT_BEFORE)
    if not_before is None or move.clock.now() + LEAD >= not_before:
        return
    if await move.facts.recall(LET_GO_AT) is None:
        raise Queued(
            f"the upgrade says not before {not_before:%Y-%m-%d %H:%M} UTC; the move is prepared from a day before on"
        )


async def require_window(move: Move) -> None:
    """Return if the instance may be stopped now: nothing says otherwise, or an operator has let this move go.

    Raises:
        Queued: as `require_unpaused`.
    """
    now, not_before = move.clock.now(), await move.facts.recall(NOT_BEFORE)
    if not_before is not None and now < not_before:
        why = f"the upgrade says not before {not_before:%Y-%m-%d %H:%M} UTC"
    else:
        why = closed(move.policy.windows, now) or ""
    if why and await move.facts.recall(LET_GO_AT) is None:
        raise Queued(f"{why}; `rehome move-now {move.migration_id}` lets it go now")
