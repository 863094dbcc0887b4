"""Filling an empty scratch database from a sealed backup, with the tenant's rights only.

1. The administrator creates the extensions, in the source's versions, and fills their own tables: nothing of the
   tenant's exists yet.
2. pg_restore runs as a short-lived role that may act as the tenant's and has no other right; so does ANALYZE, or the
   first users would wait on bad plans, and VACUUM, where the copy will follow its source.
3. That role is dropped, with every session of it: the administrator gives schemas back to whom they belonged, and adds
   privileges and comments on extensions. Both change rows of catalogues and run nothing. Nothing else is given to an
   administrator: what it owns may run with its rights, as an index's functions do in autovacuum.
4. The database's comment says that it is restored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.postgres import client_programs, extensions, restore_list, roles
from rehome_consumer.adapters.postgres.client_programs import database_option, environment
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.adapters.postgres.ownership_tags import TagComment, read_comment, write_comment
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.context import current_migration
from rehome_consumer.errors import Conflict, NotFound, NotOurs
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Credentials, Server

_SQL: Final = administrator("copy")
_CATALOGUE: Final = administrator("databases")

# For the restoring sessions only. What is not flushed yet when such a transaction ends is flushed by the last
# one, which writes the comment and waits for it; a crash before that leaves a database that is not restored.
_SETTINGS: Final = {
    "synchronous_commit": "off",
    "maintenance_work_mem": "256MB",
    # These change what a dump's text means; a database may have other values, and pg_restore does not set them.
    "array_nulls": "on",
    "transform_null_equals": "off",
}


@dataclass(frozen=True, slots=True)
class Restoring:
    """One restore.

    Attributes:
        sessions, server, database, role: where to, and who will own everything but schemas of administrators.
        source: what the dump was taken of.
        dump: its directory.
        programs: directory of the client programs.
        work: a directory for lists of entries, which the caller removes.
        jobs: parallel sessions of pg_restore and vacuumdb.
        limit: seconds that each of them may take.
        nice: how much they give way to other processes, 0 to 19.
        vacuum: whether it is vacuumed as well as analyzed.
    """

    sessions: Sessions
    server: Server
    database: str
    role: str
    source: Mapping[str, Any]
    dump: Path
    programs: Path
    work: Path
    jobs: int
    limit: float
    nice: int
    vacuum: bool

    async def run(self) -> None:
        """Restore. A database that is restored already stays as it is.

        Raises:
            NotFound: there is no such database.
            NotOurs: it is not this migration's scratch database.
            Conflict: it is not empty: it must be made again.
            Incompatible: an extension is not available.
            ChildFailed, TimedOut: pg_restore or vacuumdb did not succeed.
        """
        what = f"restoring into {self.database} on {self.server.name}"
        async with self.sessions.administrator(
            self.server, self.database, what=what, limit=self.limit
        ) as session:
            comment = await self._comment(session)
            if comment.restored:
                return
            if not await session.fetchval(_SQL["empty"]):
                raise Conflict(f"{what}: it is not empty; an earlier restore was cut off. Make it again")
            source = self.source
            lists = await self._lists(source)
            wanted = source["extensions"]
            async with self.sessions.administrator(
                *(self.server, self.database),
                what=what,
                limit=self.limit,
                schemas=extensions.schemas(wanted),
            ) as creating:
                created = await extensions.create(
                    *(creating, wanted, self.role, self.database, self.server.name),
                    source_major=source["version"] // 10000,
                )
            strays = await extensions.strays(session, wanted, created)
            extensions.refuse_strays(strays, source["database"])
            await self._as_administrator(session, "rows", lists.extensions)
            await self._fill(session, comment.tag.migration_id, source, lists)
            tables = [row["name"] for row in await session.fetch(_CATALOGUE["catalogue_tables"])]
            await session.execute(ddl("analyze_catalogue", tables=", ".join(tables)))
            await write_comment(session, self.database, replace(comment, restored=True))

    async def _comment(self, session: Administrator) -> TagComment:
        comment = await read_comment(session, self.database, self.server.name)
        if comment is None:
            raise NotFound(f"there is no database {self.database} on {self.server.name}")
        tag = comment.tag
        if tag.state != "scratch" or current_migration.get() not in (None, tag.migration_id):
            raise NotOurs(
                f"database {self.database} on {self.server.name} is of migration {tag.migration_id} "
                f"and {tag.state}: nothing is restored into it"
            )
        return comment

    async def _fill(
        self,
        session: Administrator,
        migration_id: UUID,
        source: Mapping[str, Any],
        lists: restore_list.RestoreLists,
    ) -> None:
        """Run pg_restore and ANALYZE as the tenant; then add privileges as the administrator.

        Meanwhile the tenant's role has the name that it has on the source, since privileges and policies in
        the dump use it.
        """
        renamed = await roles.use_source_name(session, self.role, source["owner"], migration_id)
        name = renamed.name
        try:
            async with short_lived_login(
                *(self.sessions, self.server, self.database, name, "restore"),
                jobs=self.jobs + 1,
                limit=2 * self.limit,
            ) as login:
                for part, entries, jobs in (
                    ("tenant", lists.tenant, self.jobs),
                    ("calling", lists.calling, 1),
                    ("indexes", lists.indexes, self.jobs),
                    ("spreading", lists.spreading, 1),
                ):
                    if entries or part == "tenant":
                        await self._pg_restore(
                            session, part, entries, login.credentials, _SETTINGS, f"--role={name}", jobs=jobs
                        )
                await self._analyze(session, login.credentials, name)
            # First the owner: it would take the privileges that the tenant's role is granted with it.
            for schema, owner in source.get("schemas", {}).items():
                whose = "pg_database_owner" if owner == "database" else "CURRENT_USER"
                await session.execute(ddl("set_schema_owner", schema=quoted(schema), role=whose))
            await self._as_administrator(session, "privileges", lists.privileges)
        finally:
            await roles.use_own_name(session, self.role, renamed)

    async def _as_administrator(self, session: Administrator, name: str, entries: tuple[str, ...]) -> None:
        """Run pg_restore for what an ordinary role may not do; nothing of the tenant's is applied or run."""
        if not entries:
            return
        what = f"restoring into {self.database} on {self.server.name}"
        settings = await self.sessions.overrides(self.server, self.database, what=what)
        login = self.server.admin
        await self._pg_restore(
            session,
            name,
            entries,
            login,
            {**settings, "search_path": "pg_catalog", "lc_messages": "C", **_SETTINGS},
        )

    async def _lists(self, source: Mapping[str, Any]) -> restore_list.RestoreLists:
        listed = self.work / "all.list"
        await client_programs.run(
            [self.programs / "pg_restore", "--list", f"--file={listed}", self.dump],
            env={},
            limit=self.limit,
            what=f"reading the backup at {self.dump.parent}",
            nice=self.nice,
        )
        wanted = source["extensions"]
        with listed.open(errors="surrogateescape") as lines:
            return restore_list.divide(
                lines,
                extensions=restore_list.ExtensionData(
                    {table for extension in wanted for table in extension["tables"]},
                    {sequence for extension in wanted for sequence in extension["sequences"]},
                ),
                existing_schemas={
                    source["public_schema"],
                    *(extension["schema_oid"] for extension in wanted if not extension["own_schema"]),
                },
                calling_tables=source.get("calling_tables", ()),  # an earlier release wrote neither
                spreading=source.get("spreading", ()),
            )

    async def _pg_restore(
        self,
        session: Administrator,
        name: str,
        entries: tuple[str, ...],
        login: Credentials,
        settings: Mapping[str, str],
        *options: str,
        jobs: int | None = None,
    ) -> None:
        await client_programs.run(
            [
                *(
                    self.programs / "pg_restore",
                    database_option(self.database),
                    f"--jobs={jobs or self.jobs}",
                ),
                *("--no-owner", "--no-tablespaces", "--no-security-labels", "--exit-on-error", *options),
                *(self._use_list(name, entries), self.dump),
            ],
            env=self._environment(session, login, settings),
            limit=self.limit,
            what=f"restoring into {self.database} on {self.server.name}",
            nice=self.nice,
        )

    async def _analyze(self, session: Administrator, login: Credentials, name: str) -> None:
        """Statistics of what the tenant owns; the administrator, or autovacuum, takes care of the rest.

        After a VACUUM the server knows of nearly all pages that every row in them is visible to all, so that rows
        are counted by an index alone, which reads a small part of what the table is.
        """
        how = "--analyze" if self.vacuum else "--analyze-only"
        await client_programs.run(
            [
                *(self.programs / "vacuumdb", how, f"--jobs={self.jobs}", "--quiet"),
                database_option(self.database),
            ],
            # A database or a role may have a delay of its own, with which a VACUUM takes hours.
            env=self._environment(session, login, {"role": name, "vacuum_cost_delay": "0"}),
            limit=self.limit,
            what=f"analyzing {self.database} on {self.server.name}",
            nice=self.nice,
        )

    def _environment(
        self, session: Administrator, login: Credentials, settings: Mapping[str, str]
    ) -> dict[str, str]:
        major = session.major
        return environment(self.sessions, self.server, login, server_major=major, settings=settings)

    def _use_list(self, name: str, entries: tuple[str, ...]) -> str:
        path = self.work / f"{name}.list"
        path.write_text("".join(entries), errors="surrogateescape")
        return f"--use-list={path}"
