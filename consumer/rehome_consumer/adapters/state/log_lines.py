"""Log lines in the journal's table `log_lines`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from rehome_consumer.ports.log_lines import LogLine

SQL: Final = load("log_lines")
LIMIT: Final = 10.0
"""Seconds for one batch."""


class PostgresLogLines:
    """Port `LogStore`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], days: float) -> None:
        """Take the state database, and for how many days lines are kept."""
        self._pool = pool
        self._days = days

    async def keep(self, lines: Sequence[LogLine]) -> None:
        """See `LogStore.keep`."""
        columns = (
            [one.migration_id for one in lines],
            [one.at for one in lines],
            [one.text for one in lines],
        )
        async with session(self._pool, "state database", LIMIT) as db:
            await db.execute(SQL["keep"], *columns)

    async def purge(self) -> None:
        """See `LogStore.purge`."""
        async with session(self._pool, "state database", LIMIT) as db:
            while int((await db.execute(SQL["purge"], self._days)).split()[-1]):
                pass
