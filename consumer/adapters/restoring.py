"""Filling an empty scratch database from a sealed backup, as nobody but the tenant.

1. The administrator creates the extensions, in the source's versions.
2. pg_restore runs as a short-lived role that may act as the tenant's and has no other right.
3. The administrator adds privileges and the rows of extensions' own tables.
4. ANALYZE, or the first users would wait on bad plans.
5. The database's label says that it is restored.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from consumer.adapters import backup_files, children, toc
from consumer.adapters.backups import DUMP, SOURCE
from consumer.adapters.postgres import roles
from consumer.adapters.postgres.marks import Label, label_of, put_label
from consumer.adapters.postgres.names import literal, quoted
from consumer.adapters.programs import database_option, environment
from consumer.context import current_migration
from consumer.errors import Conflict, Incompatible, NotFound, NotOurs, Refused
from consumer.model import Credentials, Secret
from consumer.sql import load

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from consumer.adapters.postgres.sessions import Connection, Sessions
    from consumer.model import Backup, Server

log = logging.getLogger(__name__)

_SQL: Final = load("copy")

# For the restoring sessions only. What is not flushed yet when such a transaction ends is flushed by the
# label's, which comes last and waits for it; a crash before that leaves a database that is not restored.
_FAST: Final = {"synchronous_commit": "off", "maintenance_work_mem": "256MB"}


@dataclass(frozen=True, slots=True)
class Restoring:
    """One restore.

    Attributes:
        sessions, server, database, role: where to, and who will own everything.
        backup: what from.
        programs: directory of the client programs.
        work: a directory for lists of entries, which the caller removes.
        jobs: parallel sessions of pg_restore and vacuumdb.
        limit: seconds that each of them may take.
    """

    sessions: Sessions
    server: Server
    database: str
    role: str
    backup: Backup
    programs: Path
    work: Path
    jobs: int
    limit: float

    async def run(self) -> None:
        """Restore. A database that is restored already is left as it is.

        Raises:
            NotFound: there is no such database.
            NotOurs: it is not this migration's scratch database.
            Conflict: it is not empty: it must be made anew.
            Incompatible: an extension cannot be had.
            ChildFailed, TimedOut: pg_restore or vacuumdb did not succeed.
        """
        what = f"restoring into {self.database} on {self.server.name}"
        async with self.sessions.open(self.server, self.database, what=what, limit=self.limit) as connection:
            label = await self._label(connection)
            if label.restored:
                return
            if not await connection.fetchval(_SQL["empty"]):
                raise Conflict(f"{what}: it is not empty; an earlier restore was cut off. Make it anew")
            source = self.source()
            await self._extensions(connection, source)
            await self._fill(connection, label.mark.migration_id, source)
            await self._analyze(connection)
            await put_label(connection, self.database, replace(label, restored=True))

    def source(self) -> dict[str, Any]:
        """What the dump was taken of.

        Raises:
            NotFound: the backup is gone.
            Refused: what it says of itself cannot be read.
        """
        try:
            return dict(json.loads(backup_files.read(self.backup.place / SOURCE)))
        except FileNotFoundError:
            raise NotFound(f"backup {self.backup.id} is gone from the backup place") from None
        except backup_files.MALFORMED as error:
            raise Refused(
                f"backup {self.backup.id}: {SOURCE} cannot be read: {backup_files.why(error)}"
            ) from None

    async def _label(self, connection: Connection) -> Label:
        label = await label_of(connection, self.database, self.server.name)
        if label is None:
            raise NotFound(f"there is no database {self.database} on {self.server.name}")
        if label.mark.state != "scratch" or current_migration.get() not in (None, label.mark.migration_id):
            raise NotOurs(
                f"database {self.database} on {self.server.name} is of migration {label.mark.migration_id} "
                f"and {label.mark.state}: nothing is restored into it"
            )
        return label

    async def _extensions(self, connection: Connection, source: dict[str, Any]) -> None:
        newer = connection.get_server_version().major > source["version"] // 10000
        for wanted in source["extensions"]:
            name, version = wanted["name"], wanted["version"]
            offered = {
                row["version"]: row["trusted"]
                for row in await connection.fetch(_SQL["extension_versions"], name)
            }
            if version not in offered and not (offered and newer):
                raise Incompatible(
                    f"{self.server.name} does not offer extension {name} in version {version}, "
                    f"only {', '.join(sorted(offered)) or 'none at all'}: install it there"
                )
            if version not in offered:
                log.warning(
                    "extension.newer database=%s extension=%s source=%s", self.database, name, version
                )
            # Who made it may update or drop it: the tenant keeps what it could do.
            as_tenant = wanted["by_owner"] and offered.get(version, False)
            await self._extension(connection, wanted, version if version in offered else None, as_tenant)

    async def _extension(
        self, connection: Connection, wanted: dict[str, Any], version: str | None, as_tenant: bool
    ) -> None:
        clauses = [f"VERSION {literal(version)}"] if version else []
        async with connection.transaction():
            if not wanted["own_schema"]:
                schema = quoted(wanted["schema"])
                clauses.append(f"SCHEMA {schema}")
                if not await connection.fetchval(_SQL["schema_exists"], wanted["schema"]):
                    await connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {quoted(self.role)}")
            if as_tenant:
                await connection.execute(f"SET LOCAL ROLE {quoted(self.role)}")
            await connection.execute(
                f"CREATE EXTENSION IF NOT EXISTS {quoted(wanted['name'])} {' '.join(clauses)}"
            )

    async def _fill(self, connection: Connection, migration_id: UUID, source: dict[str, Any]) -> None:
        """Run pg_restore, first as the tenant, then as the administrator.

        Meanwhile the tenant's role has the name that it has on the source, since privileges and policies in
        the dump are spelt with it.
        """
        contents = await self._contents(source)
        login = Credentials(roles.restorer_name(migration_id), Secret(secrets.token_urlsafe(24)))
        await roles.make_restorer(connection, migration_id, self.role, login.password)
        name = await roles.lend_name(connection, self.role, source["owner"], migration_id)
        try:
            await self._pg_restore(connection, "tenant", contents.tenants, login, f"--role={name}")
            if contents.administrators:
                await self._pg_restore(
                    connection, "administrator", contents.administrators, self.server.admin
                )
        finally:
            await roles.return_name(connection, self.role, name)
            await roles.drop_restorer(connection, migration_id)

    async def _contents(self, source: dict[str, Any]) -> toc.Contents:
        listed = self.work / "all.list"
        await children.run(
            [self.programs / "pg_restore", "--list", f"--file={listed}", self.backup.place / DUMP],
            env={},
            limit=self.limit,
            what=f"reading the backup {self.backup.id}",
        )
        extensions = source["extensions"]
        with listed.open(errors="surrogateescape") as lines:
            return toc.divide(
                lines,
                extensions=toc.Extensions(
                    {table for extension in extensions for table in extension["tables"]},
                    {sequence for extension in extensions for sequence in extension["sequences"]},
                ),
                made_schemas={
                    source["public_schema"],
                    *(extension["schema_oid"] for extension in extensions if not extension["own_schema"]),
                },
            )

    async def _pg_restore(
        self, connection: Connection, name: str, entries: tuple[str, ...], login: Credentials, *options: str
    ) -> None:
        await children.run(
            [
                *(self.programs / "pg_restore", database_option(self.database), f"--jobs={self.jobs}"),
                *("--no-owner", "--no-tablespaces", "--no-security-labels", "--exit-on-error", *options),
                *(self._list(name, entries), self.backup.place / DUMP),
            ],
            env=self._environment(connection, login, _FAST),
            limit=self.limit,
            what=f"restoring into {self.database} on {self.server.name}",
        )

    async def _analyze(self, connection: Connection) -> None:
        await children.run(
            [
                *(self.programs / "vacuumdb", "--analyze-only", f"--jobs={self.jobs}", "--quiet"),
                database_option(self.database),
            ],
            env=self._environment(connection, self.server.admin, {}),
            limit=self.limit,
            what=f"analyzing {self.database} on {self.server.name}",
        )

    def _environment(
        self, connection: Connection, login: Credentials, settings: dict[str, str]
    ) -> dict[str, str]:
        major = connection.get_server_version().major
        return environment(self.sessions, self.server, login, server_major=major, settings=settings)

    def _list(self, name: str, entries: tuple[str, ...]) -> str:
        path = self.work / f"{name}.list"
        path.write_text("".join(entries), errors="surrogateescape")
        return f"--use-list={path}"
