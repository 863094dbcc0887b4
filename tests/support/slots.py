"""One slot, as most tests want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Facts


async def got(facts: Facts, resource: str, places: int) -> bool:
    """Whether the migration gets a slot; else it waits in line."""
    return await facts.acquire_slots({resource: places}) is None
