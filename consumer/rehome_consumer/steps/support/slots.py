"""Resources that few migrations use at a time, and the line of those who wait for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Queued

if TYPE_CHECKING:
    from rehome_consumer.model import Server
    from rehome_consumer.ports.steps import Facts


@dataclass(frozen=True, slots=True)
class Slot:
    """One of a few places at a resource.

    Attributes:
        name: the resource.
        places: how many may have it at a time.
        limit: how many there may be, in words, such as "2 dump(s) of pool-1 at a time".
    """

    name: str
    places: int
    limit: str


def dump_slot(source: Server) -> str:
    """Dumps of one server: taken before the instance is stopped, released when its backup is sealed."""
    return f"dump {source.id}"


DOWN: Final = "down"
"""Instances that moves have stopped, on whichever server: taken before the stop, released when the instance serves."""


def rehearsal_slot(source: Server) -> str:
    """Rehearsals from one server: taken before one begins, released at its end."""
    return f"rehearsal {source.id}"


async def take(facts: Facts, *slots: Slot, waits: bool = True) -> None:
    """Take these slots together, or a place in line for them.

    Args:
        facts: of the migration.
        slots: the one that fewer wait for comes first.
        waits: whether it waits in line; else it goes before those who do.

    Raises:
        Queued: one of them is not free, or others go first.
    """
    place = await facts.acquire_slots({one.name: one.places for one in slots}, waits=waits)
    if place is not None:
        lacks = next((one for one in slots if one.name == place.lacks), slots[0])
        raise Queued(f"{lacks.limit}; waiting for a slot", next=place.soon)
