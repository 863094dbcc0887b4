"""Dump and restore by PostgreSQL's own programs; the data never passes through this process."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.common.bounded_thread import in_thread
from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.postgres import client_programs, extensions
from rehome_consumer.adapters.postgres.restoring import Restoring
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.errors import ChildFailed, RehomeError
from rehome_consumer.model import EVERYTHING
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.adapters.postgres.backup_storage import BackupStorage
    from rehome_consumer.adapters.postgres.short_lived import Login
    from rehome_consumer.model import Backup, Scope, Server
    from rehome_consumer.ports.steps import Facts

_SQL: Final = administrator("copy")

_ZSTD_SINCE: Final = 16  # pg_dump --compress=METHOD
_NO_ZSTD: Final = "compression with zstd"  # "this build does not support compression with ZSTD"
_PROGRESS_SECONDS: Final = 1.0
_LOCK_WAIT: Final = "60s"
_STORAGE_SECONDS: Final = 300.0  # for one small thing at the backup place


class PgCopier:
    """Port `Copier` by pg_dump, pg_restore and vacuumdb; backups are directories in one place."""

    def __init__(
        self,
        place: BackupStorage,
        pg_bin: Path | None = None,
        *,
        sessions: Sessions | None = None,
        jobs: int = 4,
        limit: float = 12 * 3600.0,
    ) -> None:
        """Take places and limits; nothing is opened yet.

        Args:
            place: where backups are.
            pg_bin: directory of the client programs; by default PATH's, else the newest installed.
            sessions: how servers are reached; by default directly, with the default limits.
            jobs: parallel sessions of one dump or restore.
            limit: seconds that one dump, one restore or one ANALYZE may take.
        """
        self._place = place
        self._pg_bin = pg_bin
        self._sessions = sessions or Sessions()
        self._jobs = jobs
        self._limit = limit
        self._mark: UUID | None = None
        # One thread: looks at a storage that hangs wait for each other, instead of taking all threads there are.
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="backup-place")

    async def client_version(self) -> int:
        """Major version of the programs in use. Raises NotReady when one is missing or unusable."""
        return await client_programs.major_version(client_programs.directory(self._pg_bin))

    async def require_dumpable(self, server: Server, database: str) -> None:
        """Nothing in the database is written by the programs in use as what no server takes.

        Raises:
            NotFound: there is no such database.
            Incompatible: something would be; or the programs are missing.
        """
        what = f"looking at the columns of {database}"
        async with self._sessions.administrator(server, database, what=what) as session:
            numbered, major = await session.fetchval(_SQL["has_numbered_columns"]), session.major
        if numbered:
            where = client_programs.directory(self._pg_bin)
            await client_programs.require_column_numbers_known(where, server.name, major)

    async def free_bytes(self) -> int:
        """Free bytes at the backup place. Raises NotReady when nothing can be written there."""
        return await in_thread(
            lambda _: self._place.require_writable(), "looking at the backup place", _STORAGE_SECONDS
        )

    async def require_place(self, mark: UUID | None) -> UUID:
        """The backup place's mark; from now on no backup is begun in a place that has another. Raises NotReady."""
        what = "looking at the backup place"
        self._mark = await in_thread(
            lambda _: self._place.require_mark(mark), what, _STORAGE_SECONDS, self._looking
        )
        return self._mark

    async def dump(
        self,
        server: Server,
        database: str,
        tenant: str,
        backup_id: str,
        facts: Facts,
        scope: Scope = EVERYTHING,
    ) -> None:
        """Dump under a temporary name, with the tenant's rights; a sealed backup of that id stays as it is.

        Raises:
            NotFound: there is no such database.
            ChildFailed, TimedOut: pg_dump did not succeed.
            NotReady: the programs are missing, or nothing can be written.
        """
        if self._place.sealed(backup_id).exists():
            return
        what = f"dumping {database} of {server.name}"
        async with self._work(backup_id, what) as work:
            started = datetime.now(UTC)
            async with self._sessions.administrator(server, database, what=what) as session:
                source = dict(await session.fetchrow(_SQL["source"]) or {})
                source["owner"] = tenant
                source["extensions"] = await extensions.describe(session, tenant)
                source["schemas"] = {
                    row["name"]: row["owner"] for row in await session.fetch(_SQL["schemas_of_others"])
                }
                for found in ("calling_tables", "spreading"):
                    source[found] = [row["oid"] for row in await session.fetch(_SQL[found])]

            async def written() -> int:
                return await in_thread(lambda _: self._place.dumped_bytes(work), what, _STORAGE_SECONDS)

            async with (
                _reporting_progress(facts, written, total=source["data_bytes"]),
                short_lived_login(
                    *(self._sessions, server, database, tenant, "dump"),
                    jobs=(scope.jobs or self._jobs) + 1,
                    limit=self._limit,
                ) as login,
            ):
                await self._pg_dump(
                    login,
                    self._place.dump_in(work),
                    source["version"] // 10000,
                    what,
                    (
                        f"--encoding={source['encoding']}",  # whatever the database asks of its clients
                        f"--jobs={scope.jobs or self._jobs}",
                        *([] if scope.rows else ["--schema-only"]),
                        *([f"--snapshot={scope.snapshot}"] if scope.snapshot else []),
                    ),
                    scope.nice,
                )
            source |= {
                "database": database,
                "started_at": started.isoformat(),
                "ended_at": datetime.now(UTC).isoformat(),
            }
            with translated(what):
                await in_thread(
                    lambda wanted: self._place.finish(work, backup_id, source, wanted), what, _STORAGE_SECONDS
                )

    async def seal(self, backup_id: str, rows: Mapping[str, int], versions: Mapping[str, str]) -> Backup:
        """Hash, write the manifest, flush, rename. Raises Conflict when there is no complete dump."""
        with translated(what := f"sealing backup {backup_id}"):
            return await in_thread(
                lambda wanted: self._place.seal(backup_id, rows, versions, wanted), what, self._limit
            )

    async def backup(self, backup_id: str) -> Backup | None:
        """The sealed backup, checked. Raises Refused naming a file that is missing or altered."""
        with translated(what := f"checking backup {backup_id}"):
            return await in_thread(lambda wanted: self._place.check(backup_id, wanted), what, self._limit)

    async def restore(
        self,
        server: Server,
        database: str,
        backup: Backup,
        role: str,
        facts: Facts,
        *,
        jobs: int | None = None,
        nice: int = 0,
        vacuum: bool = False,
    ) -> None:
        """Restore into an empty scratch database; one that is restored already stays as it is.

        Raises:
            NotFound, NotOurs, Conflict, Incompatible, ChildFailed, TimedOut: as `Restoring.run` says.
        """
        what = f"restoring into {database} on {server.name}"
        async with self._work(backup.id, what) as work:
            with translated(what):
                source = self._place.source_of(backup)
            restoring = Restoring(
                self._sessions,
                server,
                database,
                role,
                source,
                self._place.dump_in(backup.place),
                client_programs.directory(self._pg_bin),
                work,
                jobs or self._jobs,
                self._limit,
                nice,
                vacuum,
            )

            async def grown() -> int:
                async with self._sessions.administrator(server, what=what) as session:
                    return int(await session.fetchval(_SQL["size"], database) or 0)

            async with _reporting_progress(facts, grown, total=source["bytes"]):
                await restoring.run()

    async def discard(self, backup_id: str) -> None:
        """Remove the backup, sealed or not."""
        with translated(what := f"removing backup {backup_id}"):
            await in_thread(lambda wanted: self._place.discard(backup_id, wanted), what, self._limit)

    @asynccontextmanager
    async def _work(self, backup_id: str, what: str) -> AsyncIterator[Path]:
        """A directory of this run's own; removed afterwards unless it was renamed."""
        with translated(what):
            work = await in_thread(lambda wanted: self._begin(backup_id, wanted), what, _STORAGE_SECONDS)
        try:
            yield work
        finally:
            with contextlib.suppress(RehomeError):  # the next run for this backup removes what is left
                await in_thread(lambda _: shutil.rmtree(work, ignore_errors=True), what, _STORAGE_SECONDS)

    def _begin(self, backup_id: str, still_wanted: Callable[[], None]) -> Path:
        if self._mark is not None:
            self._place.require_mark(self._mark)
        return self._place.begin(backup_id, still_wanted)

    async def _pg_dump(
        self,
        login: Login,
        directory: Path,
        server_major: int,
        what: str,
        options: Sequence[str],
        nice: int,
    ) -> None:
        where = client_programs.directory(self._pg_bin)
        zstd = await client_programs.major_version(where) >= _ZSTD_SINCE

        async def dump(compression: str) -> None:
            await client_programs.run(
                [
                    *(
                        where / "pg_dump",
                        client_programs.database_option(login.database),
                        "--format=directory",
                    ),
                    *(f"--file={directory}", f"--compress={compression}", *options),
                    *("--quote-all-identifiers", f"--lock-wait-timeout={_LOCK_WAIT}"),
                    *("--no-publications", "--no-subscriptions", "--no-security-labels"),
                    "--no-sync",  # `seal` flushes every file
                ],
                env=client_programs.environment(
                    self._sessions, login.server, login.credentials, server_major=server_major
                ),
                limit=self._limit,
                what=what,
                nice=nice,
            )

        try:
            await dump("zstd:1" if zstd else "0")
        except ChildFailed as error:
            if not zstd or _NO_ZSTD not in str(error).lower():
                raise
            await in_thread(lambda _: shutil.rmtree(directory, ignore_errors=True), what, _STORAGE_SECONDS)
            await dump("0")


@asynccontextmanager
async def _reporting_progress(
    facts: Facts, look: Callable[[], Awaitable[int]], *, total: int
) -> AsyncIterator[None]:
    """Report the progress once a second during the block, and that all is done at its successful end."""

    async def report() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            # When this fails, the work meets the same trouble, and reports it.
            with contextlib.suppress(RehomeError):
                await facts.progress(min(await look(), total), total)

    reporting = asyncio.create_task(report())
    try:
        yield
    finally:
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
    await facts.progress(total, total)
