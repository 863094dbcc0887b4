"""Give a migration another priority among those that wait for slots, for the command line and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.facts import FENCE
from rehome_consumer.operators.moving_now import BEFORE_THE_STOP
from rehome_consumer.ports.operators import signed

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.state.views import PostgresJournalViews


@dataclass(frozen=True, slots=True)
class Prioritized:
    """A migration that has another priority.

    Attributes:
        before: the priority until now.
        place_in_line, length_of_line: where it waits for slots now; None: it waits for none at this moment.
    """

    migration_id: UUID
    instance_id: UUID
    before: int
    priority: int
    place_in_line: int | None = None
    length_of_line: int | None = None


async def prioritize(
    views: PostgresJournalViews, wanted: UUID, priority: int, *, by: str, why: str
) -> Prioritized:
    """Give the open migration with this id, or of this instance, a priority from 0 to 9; higher goes first.

    It holds for later attempts, too.

    Raises:
        NotFound: no migration with this id, or of this instance, is open; or the journal knows no priorities yet.
        Refused: its instance is stopped already, or it does not move forward.
    """
    found = await views.migrations(wanted, 1, ended=False)
    if not found:
        raise NotFound(
            f"no migration of instance {wanted}, and none with that id, is open (rehome status --all lists those over)"
        )
    one = found[0]
    if one.state not in BEFORE_THE_STOP or FENCE in await views.facts(one.id, one.attempt):
        what = "has stopped its instance" if one.state in BEFORE_THE_STOP else f"is {one.state}"
        raise Refused(f"migration {one.id} {what}: it waits for no slot any more")
    before = await views.prioritize(one.id, one.attempt, priority, signed(by, why))
    if before is None:
        raise Refused(
            f"migration {one.id} has gone on meanwhile; look again: rehome status {one.instance_id}"
        )
    place = (await views.in_line()).get(one.id, {})
    return Prioritized(
        one.id,
        one.instance_id,
        before,
        priority,
        place.get("place_in_line"),
        place.get("length_of_line"),
    )
