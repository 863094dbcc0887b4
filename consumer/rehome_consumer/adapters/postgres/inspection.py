"""What the reconciler and `rehome retire` read from PostgreSQL servers, and the few changes that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from rehome_consumer.adapters.postgres import rehearsal_marks
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.adapters.postgres.ownership_tags import MAKING, parse
from rehome_consumer.adapters.postgres.shared_comments import text_of
from rehome_consumer.errors import Conflict
from rehome_consumer.ports.operators import (
    DatabaseState,
    FollowedSlot,
    Inventory,
    MigrationSessions,
    TaggedDatabase,
)
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

_SQL: Final = administrator("inspection")
_DATABASES: Final = administrator("databases")
_DROP_SECONDS: Final = 300.0  # a checkpoint goes before a database's files are removed
_SIZES_SECONDS: Final = 300.0  # hundreds of databases with thousands of files each


class PostgresInspector:
    """Port `Inspector`. Holds nothing between calls: every call opens a session and closes it.

    Errors of every method, besides those it names: Unreachable, TimedOut, Conflict, Refused, Incompatible,
    as `postgres_errors.translated` says.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Use these sessions."""
        self._sessions = sessions

    async def database_state(self, server: Server, database: str, role: str) -> DatabaseState:
        """See `Inspector.database_state`."""
        async with self._sessions.administrator(
            server, what=f"looking at {database} on {server.name}"
        ) as session:
            return await _database_state(session, database, role)

    async def inventory(self, server: Server) -> Inventory:
        """See `Inspector.inventory`."""
        async with self._sessions.administrator(
            server, what=f"looking for what rehome has on {server.name}"
        ) as session:
            # On a pool no database is rehome's: where a comment says so, a tenant wrote it on its own database.
            tagged = [] if server.kind == "shared" else await session.fetch(_SQL["databases"])
            databases = [_tagged(row) for row in tagged]
            sessions = await session.fetch(_SQL["sessions"])
            roles = await session.fetch(_SQL["roles"])
            followed = await session.fetch(_SQL["followed"])
            slots = await session.fetch(_SQL["slots"])
            rehearsals = await rehearsal_marks.found(session)
        return Inventory(
            databases=tuple(one for one in databases if one is not None),
            sessions=tuple(
                MigrationSessions(UUID(row["migration"]), row["count"], row["since"])
                for row in sessions
                if _is_uuid(row["migration"])
            ),
            short_lived=tuple(UUID(row["migration"]) for row in roles),
            followed=tuple(UUID(row["migration"]) for row in followed),
            slots=tuple(
                FollowedSlot(UUID(row["migration"]), row["retained"], row["behind"]) for row in slots
            ),
            rehearsals=rehearsals,
        )

    async def database_sizes(self, server: Server, databases: Collection[str]) -> dict[str, int]:
        """See `Inspector.database_sizes`. Reads the size of every file of these databases."""
        what = f"reading the sizes of databases on {server.name}"
        async with self._sessions.administrator(server, what=what, limit=_SIZES_SECONDS) as session:
            rows = await session.fetch(_SQL["sizes"], list(databases))
        return {row["name"]: row["bytes"] for row in rows if row["bytes"] is not None}

    async def active_sessions(self, server: Server) -> int:
        """See `Inspector.active_sessions`."""
        what = f"counting active sessions on {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            return int(await session.fetchval(_SQL["active_sessions"]))

    async def drop_fenced(self, server: Server, database: str, role: str) -> bool:
        """Drop a source database for good, if it is fenced and without connections; False when it is missing.

        No session is ended: one that is opened at the last moment prevents it.

        Raises:
            Conflict: it is not fenced (any more), or has connections.
        """
        what = f"dropping database {database} on {server.name}"
        async with self._sessions.administrator(server, what=what, limit=_DROP_SECONDS) as session:
            found = await _database_state(session, database, role)
            if not found.exists:
                return False
            if not found.closed or found.can_login or found.sessions:
                raise Conflict(f"{what}: it is not fenced, or there are connections to it")
            try:
                await session.execute(ddl("drop_unused_database", database=quoted(database)))
            except asyncpg.ObjectInUseError:
                raise Conflict(f"{what}: there are connections to it") from None
        return True

    async def drop_unused_role(self, server: Server, role: str) -> str | None:
        """Drop a role without login that nothing needs any more.

        Returns:
            None when it does not exist any more, else why it was left.
        """
        what = f"dropping role {role} on {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            row = await session.fetchrow(_SQL["owned"], role)
            if row is None:
                return None
            needed = _why_needed(row)
            return f"role {role} was left: {needed}" if needed else await _drop_role(session, role)


async def _database_state(session: Administrator, database: str, role: str) -> DatabaseState:
    now = await session.fetchrow(_DATABASES["fence_state"], database, role)
    sessions = await session.fetch(_DATABASES["tenants_sessions"], database, role)
    details = await session.fetchrow(_SQL["size_and_comment"], database)
    limit = now["connection_limit"] if now else None
    comment = parse(text_of(details["comment"])) if details else None
    return DatabaseState(
        database=database,
        role=role,
        connection_limit=limit,
        can_login=now["can_login"] if now else None,
        closed=limit == 0 or bool(now and now["closed"]),
        bytes=details["bytes"] if details else None,
        sessions=len(sessions),
        tag=comment.tag if comment else None,
    )


async def _drop_role(session: Administrator, role: str) -> str | None:
    try:
        await session.execute(ddl("drop_role", role=quoted(role)))
    except asyncpg.DependentObjectsStillExistError as error:
        first = str(error.detail or error.args[0]).partition("\n")[0]
        return f"role {role} was left: {first}"
    return None


def _why_needed(row: asyncpg.Record) -> str | None:
    if row["superuser"]:
        return "it is a superuser"
    if row["can_login"]:
        return "it may log in"
    if row["databases"]:
        return f"it owns {', '.join(row['databases'])}"
    if row["connected"]:
        return "it is connected"
    return "other roles are members of it" if row["has_members"] else None


def _tagged(row: asyncpg.Record) -> TaggedDatabase | None:
    name = row["name"]
    comment = parse(text_of(row["comment"]))
    if comment is not None:
        return TaggedDatabase(name, tag=comment.tag)
    making = name.removeprefix(MAKING)
    return TaggedDatabase(name, maker=UUID(making)) if making != name else None


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
