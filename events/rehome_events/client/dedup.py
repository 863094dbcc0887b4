"""A memory of handled events, to drop a repeated delivery."""

from collections import OrderedDict
from typing import Protocol
from uuid import UUID

from rehome_events.client.arguments import require_count


class Dedup(Protocol):
    """Remembers ids of handled events. One in the handler's own database also covers a crash."""

    async def has(self, event_id: UUID) -> bool:
        """Whether the event was handled."""
        ...

    async def add(self, event_id: UUID) -> None:
        """Remember that the event was handled."""
        ...


class RecentEvents:
    """The ids of the latest events, in memory: a restart forgets them.

    Args:
        size: How many ids are remembered.

    Raises:
        EventError: The size is less than 1.
    """

    def __init__(self, size: int = 100_000) -> None:
        self._size = require_count("size", size)
        self._ids: OrderedDict[UUID, None] = OrderedDict()

    async def has(self, event_id: UUID) -> bool:
        """Whether the event was handled recently."""
        return event_id in self._ids

    async def add(self, event_id: UUID) -> None:
        """Remember an id, and forget the oldest when there are too many."""
        self._ids[event_id] = None
        self._ids.move_to_end(event_id)
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
