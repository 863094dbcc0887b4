"""What operators see of the journal. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from consumer.adapters.postgres_errors import translated
from consumer.sql import load

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    import asyncpg

SQL = load("journal")


@dataclass(frozen=True, slots=True)
class MigrationView:
    """One migration and the step it is at (or was last)."""

    id: UUID
    instance_id: UUID
    attempt: int
    state: str
    past_return: bool
    to_plan: str
    note: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    step: str | None
    step_state: str | None
    tries: int | None
    error: str | None
    next_try_at: datetime | None
    tried_at: datetime | None
    progress_done: int | None
    progress_total: int | None


class JournalViews:
    """Lists and histories for the command line."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        """Pool of the state database."""
        self._pool = pool

    async def migrations(self, wanted: UUID | None = None, limit: int = 50) -> list[MigrationView]:
        """Newest first; `wanted` is an instance's or a migration's id."""
        with translated("state database"):
            return [MigrationView(**row) for row in await self._pool.fetch(SQL["list"], wanted, limit)]

    async def steps(self, migration_id: UUID) -> list[dict[str, Any]]:
        """Every step of every attempt, in the order they were begun."""
        with translated("state database"):
            return [dict(row) for row in await self._pool.fetch(SQL["steps_of"], migration_id)]

    async def history(self, migration_id: UUID) -> list[dict[str, Any]]:
        """What happened, oldest first."""
        with translated("state database"):
            return [dict(row) for row in await self._pool.fetch(SQL["history"], migration_id)]
