"""Resources that few migrations use at a time, and the order in which the others wait for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Queued

if TYPE_CHECKING:
    from rehome_consumer.model import Server
    from rehome_consumer.ports.steps import Facts

NEXT: Final = 10
"""Migrations per place that look for it every ten seconds; all others look once a minute, and follow as these leave.

A slot that was released is taken within seconds, and those who wait cost little, however many they are.
"""


def dump_slot(source: Server) -> str:
    """Dumps of one server: taken before the instance is stopped, released when its backup is sealed."""
    return f"dump {source.id}"


DOWN: Final = "down"
"""Instances that moves have stopped, on whichever server: taken before the stop, released when the instance serves."""


def rehearsal_slot(source: Server) -> str:
    """Rehearsals from one server: taken before one begins, released at its end."""
    return f"rehearsal {source.id}"


async def leave(facts: Facts, slot: str) -> None:
    """Let others have this migration's slot, and its place among the next ones for it, if it has one of them."""
    await facts.release_slot(slot)
    await facts.release_slot(f"next {slot}")


async def take(facts: Facts, slot: str, places: int, under_way: str) -> None:
    """Take a slot, or a place among the next ones for it.

    Args:
        facts: of the migration.
        slot: the resource.
        places: how many may have it at a time.
        under_way: what those who have it do, such as "2 dumps of pool-1 are under way".

    Raises:
        Queued: no slot is free.
    """
    next_ones = f"next {slot}"
    if not await facts.acquire_slot(slot, places):
        is_next = await facts.acquire_slot(next_ones, NEXT * places)
        raise Queued(f"{under_way}; waiting for a slot", next=is_next)
    await facts.release_slot(next_ones)
