"""Where log lines of steps are kept, so that a migration's page has its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class LogLine:
    """What was logged in a step: a JSON object, with secrets masked."""

    migration_id: UUID
    at: datetime
    text: str


class LogStore(Protocol):
    """Lines of all migrations. Everything raises `RehomeError` where the store does not answer."""

    async def keep(self, lines: Sequence[LogLine]) -> None:
        """Add them, in this order. After an error it is not known whether they were added."""
        ...

    async def purge(self) -> None:
        """Delete those that are older than the settings say."""
        ...
