"""PostgreSQL servers as the reconciler and `rehome retire` see them, with their few changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg

from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.adapters.postgres.ownership_tags import MAKING, parse
from rehome_consumer.errors import Conflict
from rehome_consumer.ports.operators import DatabaseState, Inventory, MigrationSessions, TaggedDatabase
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

_SQL: Final = administrator("inspection")
_DROP_SECONDS: Final = 300.0  # a checkpoint goes before a database's files are removed


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
            row = await session.fetchrow(_SQL["database_state"], database, role)
        label = parse(row["comment"]) if row else None
        return DatabaseState(
            database=database,
            role=role,
            connection_limit=row["connection_limit"] if row else None,
            can_login=row["can_login"] if row else None,
            closed=bool(row and row["closed"]),
            bytes=row["bytes"] if row else None,
            sessions=row["sessions"] if row else 0,
            tag=label.tag if label else None,
        )

    async def inventory(self, server: Server) -> Inventory:
        """See `Inspector.inventory`."""
        async with self._sessions.administrator(
            server, what=f"looking for what is ours on {server.name}"
        ) as session:
            # On a pool no database is ever ours: what says so there is a tenant's own comment on its own.
            marked = [] if server.kind == "shared" else await session.fetch(_SQL["databases"])
            databases = [_marked(row) for row in marked]
            sessions = await session.fetch(_SQL["sessions"])
            roles = await session.fetch(_SQL["roles"])
        return Inventory(
            databases=tuple(one for one in databases if one is not None),
            sessions=tuple(
                MigrationSessions(UUID(row["migration"]), row["count"], row["since"])
                for row in sessions
                if _is_uuid(row["migration"])
            ),
            short_lived=tuple(UUID(row["migration"]) for row in roles),
        )

    async def drop_fenced(self, server: Server, database: str, role: str) -> bool:
        """Drop a source database for good, if it is fenced and nobody is connected; False when it is gone.

        Nobody is thrown out: whoever comes in the last moment stops it.

        Raises:
            Conflict: it is not fenced (any more), or somebody is connected.
        """
        what = f"dropping database {database} on {server.name}"
        async with self._sessions.administrator(server, what=what, limit=_DROP_SECONDS) as session:
            row = await session.fetchrow(_SQL["database_state"], database, role)
            if row is None or row["connection_limit"] is None:
                return False
            if not row["closed"] or row["can_login"] or row["sessions"]:
                raise Conflict(f"{what}: it is not fenced, or somebody is connected")
            try:
                await session.execute(ddl("drop_empty_handed", database=quoted(database)))
            except asyncpg.ObjectInUseError:
                raise Conflict(f"{what}: somebody is connected to it") from None
        return True

    async def drop_unused_role(self, server: Server, role: str) -> str | None:
        """Drop a role without login that nothing needs any more; else say why it was left.

        Returns:
            None when it is gone.
        """
        what = f"dropping role {role} on {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            row = await session.fetchrow(_SQL["owned"], role)
            if row is None:
                return None
            left = _needed(row)
            return f"role {role} was left: {left}" if left else await _drop_role(session, role)


async def _drop_role(session: Administrator, role: str) -> str | None:
    try:
        await session.execute(ddl("drop_role", role=quoted(role)))
    except asyncpg.DependentObjectsStillExistError as error:
        first = str(error.detail or error.args[0]).partition("\n")[0]
        return f"role {role} was left: {first}"
    return None


def _needed(row: asyncpg.Record) -> str | None:
    """Why a role is to stay."""
    if row["superuser"]:
        return "it is a superuser"
    if row["can_login"]:
        return "it may log in"
    if row["databases"]:
        return f"it owns {', '.join(row['databases'])}"
    if row["connected"]:
        return "it is connected"
    return "other roles are members of it" if row["has_members"] else None


def _marked(row: asyncpg.Record) -> TaggedDatabase | None:
    name = row["name"]
    label = parse(row["comment"])
    if label is not None:
        return TaggedDatabase(name, tag=label.tag)
    making = name.removeprefix(MAKING)
    return TaggedDatabase(name, maker=UUID(making)) if making != name else None


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
