"""Reading an entire database: every row once, in parallel, in one snapshot; this process gets only checksums."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from rehome_consumer.adapters.postgres import checksums, schema_objects, signature
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.adapters.postgres.snapshots import see
from rehome_consumer.errors import TimedOut, Unreachable
from rehome_consumer.fingerprint import SEQUENCES, TABLE_PARTS, TABLES, Fold, Shortlist
from rehome_consumer.model import EVERYTHING, Fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from rehome_consumer.adapters.postgres.short_lived import Login, Purpose
    from rehome_consumer.model import Named, Scope, Server

T = TypeVar("T")

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

    async def with_snapshot(
        self, server: Server, database: str, role: str, work: Callable[[str], Awaitable[T]]
    ) -> T:
        """Hold a snapshot while `work` runs. Raises NotFound."""
        what = f"holding a snapshot of {database}"
        async with self._opened(server, database, role, "hold", what, EVERYTHING, jobs=1) as opened:
            snapshot = await opened.snapshot()
            await opened.login.close()
            return await work(snapshot)

    async def signature(self, server: Server, database: str, snapshot: str | None = None) -> str:
        """Read by the administrator: of catalogs alone. Raises NotFound."""
        return await signature.read(self._sessions, server, database, snapshot)

    async def fingerprint(
        self, server: Server, database: str, role: str, scope: Scope = EVERYTHING
    ) -> Fingerprint:
        """Content and schema objects; `role` is written <tenant>. Raises NotFound."""
        tables, rows = Fold(TABLE_PARTS), 0
        large: tuple[int, str] | None = None
        others: schema_objects.Others | None = None

        def take(name: str, count: int, checksum: str) -> None:
            nonlocal rows
            tables.add(name, f"{count} {checksum}")
            rows += count

        async def take_large_objects() -> None:
            nonlocal large
            large = await self._large_objects(server, database, scope.snapshot)

        async def take_others(reader: TenantSession) -> None:
            nonlocal others
            others = await schema_objects.others(reader, scope)

        async with self._readers(server, database, role, scope) as readers:
            if scope.rows:
                also = [take_large_objects()] if await checksums.has_large_objects(readers[0]) else []
                reading = checksums.read_tables(
                    *(readers, take),
                    checksums=True,
                    wanted=_tables(scope),
                    contents=scope.contents,
                    first=take_others,
                )
                await checksums.run_together([reading, *also])
            objects = await schema_objects.objects(readers, definitions=scope.definitions)
            found = others or await schema_objects.others(readers[0], scope)
            return Fingerprint(tables.parts(), rows, large, objects=objects, **found._asdict())

    async def some(
        self,
        server: Server,
        database: str,
        role: str,
        kind: str,
        parts: Sequence[int],
        scope: Scope = EVERYTHING,
    ) -> Mapping[int, Sequence[Named]]:
        """The second look; for tables it reads all rows again. Raises NotFound."""
        async with self._readers(server, database, role, scope) as readers:
            if kind == SEQUENCES:
                return await schema_objects.some_sequences(readers[0], parts, scope)
            if kind != TABLES:
                return await schema_objects.some(readers[0], kind, parts)
            first, wanted = Shortlist(parts, TABLE_PARTS), _tables(scope)
            await checksums.list_tables(readers[0], lambda name: first.add(name) if wanted(name) else None)
            chosen = {one.name for found in first.found.values() for one in found}
            read = Shortlist(parts, TABLE_PARTS)
            await checksums.read_tables(
                readers,
                lambda name, rows, checksum: read.add(name, f"{rows} {checksum}"),
                checksums=True,
                wanted=chosen.__contains__,
                contents=scope.contents,
            )
            return read.found

    async def _large_objects(
        self, server: Server, database: str, snapshot: str | None
    ) -> tuple[int, str] | None:
        """Read by the administrator, in a session of its own: no one else may read their catalogue."""
        what = f"reading large objects of {database}"
        async with (
            self._sessions.administrator(server, database, what=what, limit=self._limit) as session,
            session.transaction(isolation="repeatable_read", readonly=True),
        ):
            await see(session, snapshot, what)
            return await checksums.large_objects(session)

    @asynccontextmanager
    async def _readers(
        self, server: Server, database: str, role: str, scope: Scope = EVERYTHING
    ) -> AsyncIterator[list[TenantSession]]:
        """Sessions that all see the database as it was at one moment."""
        what, jobs = f"reading database {database}", scope.jobs or self._jobs
        async with self._opened(server, database, role, "read", what, scope, jobs=jobs) as opened:
            await opened.add(scope.snapshot)
            snapshot = scope.snapshot or await opened.snapshot()
            await checksums.run_together([opened.add_if_admitted(snapshot) for _ in range(1, jobs)])
            await opened.login.close()  # before anything of the tenant's is read, which may run its code
            yield opened.readers

    @asynccontextmanager
    async def _opened(
        self,
        server: Server,
        database: str,
        role: str,
        purpose: Purpose,
        what: str,
        scope: Scope,
        *,
        jobs: int,
    ) -> AsyncIterator[_Opened]:
        """No reader yet; those that are added are closed at the end, within the limit."""
        settings = {**_SETTINGS, "rehome.tenant": role, "rehome.rows": "on" if scope.rows else "off"}
        try:
            async with (
                asyncio.timeout(self._limit),
                short_lived_login(
                    *(self._sessions, server, database, role, purpose), jobs=jobs, limit=self._limit
                ) as login,
                AsyncExitStack() as stack,
            ):
                yield _Opened(self._sessions, login, stack, what, self._limit, settings)
        except TimeoutError:
            raise TimedOut(f"{what} on {server.name}: not done in {self._limit:g} s") from None


@dataclass
class _Opened:
    """Sessions of one short-lived login, each in a transaction that sees one moment."""

    sessions: Sessions
    login: Login
    stack: AsyncExitStack
    what: str
    limit: float
    settings: Mapping[str, str]
    readers: list[TenantSession] = field(default_factory=list)

    async def snapshot(self) -> str:
        """What the first session sees, for others; for as long as it is open."""
        if not self.readers:
            await self.add(None)
        return str(await self.readers[0].fetchval("SELECT pg_catalog.pg_export_snapshot()"))

    async def add(self, snapshot: str | None) -> None:
        """One more session; None: it sees the database as it is now."""
        login = self.login
        reader = await self.stack.enter_async_context(
            self.sessions.tenant(
                login.server,
                login.database,
                login.credentials,
                what=self.what,
                limit=self.limit,
                settings=self.settings,
            )
        )
        await self.stack.enter_async_context(reader.transaction(isolation="repeatable_read", readonly=True))
        await see(reader, snapshot, self.what)
        self.readers.append(reader)

    async def add_if_admitted(self, snapshot: str) -> None:
        """As `add`; the database's limit, or the server's, may admit no more: then fewer read longer."""
        with suppress(Unreachable):
            await self.add(snapshot)


def _tables(scope: Scope) -> Callable[[str], bool]:
    return lambda name: scope.has(TABLES, name)
