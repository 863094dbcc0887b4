"""Reading an entire database: every row once, in parallel, in one snapshot; this process gets only checksums."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres import checksums, schema_objects
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.errors import TimedOut, Unreachable
from rehome_consumer.fingerprint import SEQUENCES, TABLE_PARTS, TABLES, Fold, Shortlist
from rehome_consumer.model import Fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from rehome_consumer.model import Named, Server, Spared

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
    "max_parallel_workers_per_gather": "0",  # other tenants live on a pool; the verifier's sessions are parallel
    "jit": "off",
    # Code in the database may replace a table by a view while it is read.
    "restrict_nonsystem_relation_kind": "view, foreign-table",
}


class PostgresVerifier:
    """Port `Verifier`. Reads with the tenant's rights: the tenant's code may run in such a session."""

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
        counts: dict[str, int] = {}
        async with self._readers(server, database, role) as readers:
            await checksums.read_tables(
                readers, lambda name, rows, _: counts.__setitem__(name, rows), checksums=False
            )
        return dict(sorted(counts.items()))

    async def fingerprint(
        self, server: Server, database: str, role: str, spared: Spared | None = None
    ) -> Fingerprint:
        """Content and schema objects; `role` is written <tenant>. Raises NotFound."""
        tables, rows = Fold(TABLE_PARTS), 0
        large: tuple[int, str] | None = None

        def take(name: str, count: int, checksum: str) -> None:
            nonlocal rows
            tables.add(name, f"{count} {checksum}")
            rows += count

        async def take_large_objects() -> None:
            nonlocal large
            large = await self._large_objects(server, database)

        async with self._readers(server, database, role) as readers:
            also = [take_large_objects()] if await checksums.has_large_objects(readers[0]) else []
            reading = checksums.read_tables(readers, take, checksums=True, wanted=_without(spared))
            await checksums.run_together([reading, *also])
            return Fingerprint(
                tables=tables.parts(),
                rows=rows,
                large_objects=large,
                sequences=await schema_objects.sequence_parts(readers[0], spared),
                objects=await schema_objects.objects(readers),
                extensions=await schema_objects.extensions(readers[0]),
                database=await schema_objects.database(readers[0]),
            )

    async def some(
        self,
        server: Server,
        database: str,
        role: str,
        kind: str,
        parts: Sequence[int],
        spared: Spared | None = None,
    ) -> Mapping[int, Sequence[Named]]:
        """The second look; for tables it reads all rows again. Raises NotFound."""
        async with self._readers(server, database, role) as readers:
            if kind == SEQUENCES:
                return await schema_objects.some_sequences(readers[0], parts, spared)
            if kind != TABLES:
                return await schema_objects.some(readers[0], kind, parts)
            first, wanted = Shortlist(parts, TABLE_PARTS), _without(spared)
            await checksums.list_tables(readers[0], lambda name: first.add(name) if wanted(name) else None)
            chosen = {one.name for found in first.found.values() for one in found}
            read = Shortlist(parts, TABLE_PARTS)
            await checksums.read_tables(
                readers,
                lambda name, rows, checksum: read.add(name, f"{rows} {checksum}"),
                checksums=True,
                wanted=chosen.__contains__,
            )
            return read.found

    async def _large_objects(self, server: Server, database: str) -> tuple[int, str] | None:
        """Read by the administrator, in a session of its own: no one else may read their catalogue."""
        what = f"reading large objects of {database}"
        async with self._sessions.administrator(server, database, what=what, limit=self._limit) as session:
            return await checksums.large_objects(session)

    @asynccontextmanager
    async def _readers(self, server: Server, database: str, role: str) -> AsyncIterator[list[TenantSession]]:
        """Sessions that all see the database as it was at one moment."""
        what = f"reading database {database}"
        settings = {**_SETTINGS, "rehome.tenant": role}
        try:
            async with (
                asyncio.timeout(self._limit),
                short_lived_login(
                    *(self._sessions, server, database, role, "read"), jobs=self._jobs, limit=self._limit
                ) as login,
                AsyncExitStack() as stack,
            ):

                async def open_reader(snapshot: str | None) -> TenantSession:
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
                    if snapshot is not None:
                        await reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                    return reader

                async def open_if_admitted(snapshot: str) -> TenantSession | None:
                    try:
                        return await open_reader(snapshot)
                    except (
                        Unreachable
                    ):  # the database's limit, or the server's, admits no more: fewer read longer
                        return None

                first = await open_reader(None)
                snapshot = str(await first.fetchval("SELECT pg_catalog.pg_export_snapshot()"))
                others = await checksums.run_together(
                    [open_if_admitted(snapshot) for _ in range(1, self._jobs)]
                )
                readers = [first, *(one for one in others if one is not None)]
                await login.close()  # before anything of the tenant's is read, which may run its code
                yield readers
        except TimeoutError:
            raise TimedOut(f"{what} on {server.name}: not done in {self._limit:g} s") from None


def _without(spared: Spared | None) -> Callable[[str], bool]:
    return lambda name: not (spared and spared(TABLES, name))
