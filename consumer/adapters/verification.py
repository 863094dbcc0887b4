"""Reading a whole database: every row once, in parallel, in one snapshot; only sums come to this process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from consumer.adapters.postgres import shape
from consumer.adapters.postgres.sessions import Sessions
from consumer.adapters.postgres.short_lived import lent
from consumer.adapters.postgres.sums import sum_up
from consumer.errors import TimedOut
from consumer.model import Fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from consumer.adapters.postgres.kinds import TenantSession
    from consumer.model import Server

# The same value must be the same text on both servers, whatever a database or a role has set.
_SETTINGS: Final[Mapping[str, str]] = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "row_security": "off",  # a policy that would hide rows is an error then
    "default_transaction_read_only": "on",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
    "max_parallel_workers_per_gather": "0",  # other tenants live on a pool; our own sessions are parallel
    "jit": "off",
}


class PostgresVerifier:
    """Port `Verifier`. Reads with the tenant's rights: its own code may run in such a session."""

    def __init__(self, sessions: Sessions | None = None, *, jobs: int = 4, limit: float = 6 * 3600.0) -> None:
        """Use these sessions.

        Args:
            sessions: how servers are reached; by default directly, with the default limits.
            jobs: parallel sessions on one database.
            limit: seconds for reading one database.
        """
        self._sessions = sessions or Sessions()
        self._jobs = jobs
        self._limit = limit

    async def row_counts(self, server: Server, database: str, role: str) -> dict[str, int]:
        """Exact rows of every table, 'schema.table' -> count. Raises NotFound."""
        async with self._readers(server, database, role) as readers:
            tables = await sum_up(readers, checksums=False)
        return {name: rows for name, (rows, _) in tables.items()}

    async def fingerprint(self, server: Server, database: str, role: str) -> Fingerprint:
        """Content and shape; `role` and the database's owner are written <tenant>. Raises NotFound."""
        async with self._readers(server, database, role) as readers:
            return Fingerprint(
                tables=await sum_up(readers, checksums=True),
                sequences=await shape.sequences(readers[0]),
                objects=await shape.objects(readers[0]),
                database=await shape.database(readers[0]),
            )

    @asynccontextmanager
    async def _readers(self, server: Server, database: str, role: str) -> AsyncIterator[list[TenantSession]]:
        """Sessions that all see the database as it was at one instant."""
        what = f"reading database {database}"
        settings = {**_SETTINGS, "rehome.tenant": role}
        try:
            async with (
                asyncio.timeout(self._limit),
                lent(
                    *(self._sessions, server, database, role, "read"), jobs=self._jobs, limit=self._limit
                ) as login,
                AsyncExitStack() as stack,
            ):
                readers: list[TenantSession] = []
                snapshot = None
                for _ in range(self._jobs):
                    reader = await stack.enter_async_context(
                        self._sessions.tenant(
                            server,
                            database,
                            login.credentials,
                            what=what,
                            limit=self._limit,
                            settings=settings,
                        )
                    )
                    await stack.enter_async_context(
                        reader.transaction(isolation="repeatable_read", readonly=True)
                    )
                    if snapshot is None:
                        snapshot = await reader.fetchval("SELECT pg_export_snapshot()")
                    else:
                        await reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    readers.append(reader)
                await login.close()  # before anything of the tenant's is read, and may run
                yield readers
        except TimeoutError:
            raise TimedOut(f"{what} on {server.name}: not done in {self._limit:g} s") from None
