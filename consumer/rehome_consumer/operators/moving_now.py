"""Let one migration go on outside of the maintenance window: the one way of the command line and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.facts import FENCE
from rehome_consumer.ports.operators import signed

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.model import Pause

BEFORE_THE_STOP: Final = frozenset({"open", "requested", "prepared"})
"""States in which the window may hold a migration up."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """A migration that was let go.

    Attributes:
        pause: the pause that holds it up all the same.
    """

    migration_id: UUID
    instance_id: UUID
    pause: Pause | None


async def move_now(views: PostgresJournalViews, wanted: UUID, *, by: str, why: str) -> LetGo:
    """Let the open migration with this id, or of this instance, be stopped at any time from now on.

    It holds for its present attempt. A slot, the hours of rehearsals and a pause still hold it up.

    Raises:
        NotFound: no migration with this id, or of this instance, is open.
        Refused: its instance is stopped already, or it does not move forward.
    """
    found = await views.migrations(wanted, 1, ended=False)
    if not found:
        raise NotFound(
            f"no migration of instance {wanted}, and none with that id, is open (rehome status --all lists those over)"
        )
    one = found[0]
    if one.state not in BEFORE_THE_STOP:
        raise Refused(f"migration {one.id} is {one.state}: no window holds it up")
    if FENCE in await views.facts(one.id, one.attempt):
        raise Refused(f"migration {one.id} has stopped its instance: no window holds it up any more")
    if not await views.let_go(one.id, one.attempt, signed(by, why)):
        raise Refused(
            f"migration {one.id} has gone on meanwhile; look again: rehome status {one.instance_id}"
        )
    return LetGo(one.id, one.instance_id, await views.paused())
