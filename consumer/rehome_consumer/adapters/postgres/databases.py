"""Roles, databases and fences on PostgreSQL servers, as their administrator."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres import (
    extensions,
    facts,
    fences,
    login_rules,
    movable,
    rehearsal_marks,
    roles,
    short_lived,
    short_lived_roles,
    target,
)
from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.ownership_tags import read_comment
from rehome_consumer.adapters.postgres.sessions import Sessions, application_name

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.model import (
        Credentials,
        DatabaseFacts,
        Fence,
        OwnershipTag,
        RehearsalMark,
        RoleAttributes,
        RoleFacts,
        Server,
        ServerFacts,
    )

_NONE: Final = timedelta()


class PostgresDatabases:
    """Port `Databases`. Holds nothing between calls: every call opens a session and closes it.

    Errors of every method, besides those it names: Unreachable, TimedOut, Conflict, Refused, Incompatible,
    as `postgres_errors.translated` says.
    """

    def __init__(self, sessions: Sessions | None = None, *, session_limit: float = 30.0) -> None:
        """Use these sessions.

        Args:
            sessions: how servers are reached; by default directly, with the default limits.
            session_limit: seconds that ending other sessions may take, where the caller gives no limit.
        """
        self._sessions = sessions or Sessions()
        self._limit = session_limit

    async def server_facts(self, server: Server) -> ServerFacts:
        """What the server is. Raises Incompatible when the login is not a superuser."""
        async with self._sessions.administrator(server, what=f"looking at {server.name}") as session:
            return await facts.of_server(session, server.name)

    async def database_size(self, server: Server, database: str) -> int:
        """Bytes. Raises NotFound."""
        async with self._sessions.administrator(server, what=f"looking at database {database}") as session:
            return await facts.size(session, database, server.name)

    async def database_facts(self, server: Server, database: str, tenant: str) -> DatabaseFacts:
        """What its copy must have too. Raises NotFound, and Incompatible for what cannot be moved."""
        what = f"looking at database {database}"
        async with self._sessions.administrator(server, database, what=what) as session:
            await fences.require_nothing_prepared(session, database, server.name)
            return await facts.of_database(session, database, tenant, server.name)

    async def attached(self, server: Server, database: str, tenant: str) -> tuple[str, ...]:
        """What other programs hang on the database. Raises NotFound."""
        what = f"looking for what hangs on database {database}"
        async with self._sessions.administrator(server, database, what=what) as session:
            return await movable.attached(session, tenant)

    async def role_facts(self, server: Server, role: str, database: str) -> RoleFacts:
        """What the role may do. Raises NotFound."""
        async with self._sessions.administrator(server, what=f"looking at role {role}") as session:
            return await roles.facts(session, role, database, server.name)

    async def require_admitted(self, server: Server, database: str, role: str) -> None:
        """Log in as a short-lived role once. Raises Incompatible."""
        await short_lived.require_admitted(self._sessions, server, database, role)

    async def require_login_rules(self, server: Server, database: str, scratch: str, role: str) -> None:
        """Read the server's pg_hba.conf. Raises Incompatible."""
        what = f"reading the pg_hba.conf of {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            await login_rules.require(session, server.name, database, scratch, role)

    async def require_genuine_extensions(
        self, source: Server, database: str, tenant: str, target: Server
    ) -> None:
        """Compare what belongs to extensions with what CREATE EXTENSION makes. Raises Incompatible."""
        await extensions.require_genuine(self._sessions, source, database, tenant, target)

    async def connections(self, server: Server, database: str, role: str) -> int:
        """Sessions on the database (rehome's excepted) and of the role anywhere. Raises NotFound."""
        return (await self.fence_state(server, database, role)).ended

    async def fence(
        self, server: Server, database: str, role: str, limit: timedelta, patience: timedelta = _NONE
    ) -> None:
        """Close database and role, and end their sessions. Raises TimedOut, Incompatible, NotFound."""
        async with self._sessions.administrator(server, what=f"fencing database {database}") as session:
            await fences.fence(
                *(session, database, role, server.name),
                limit=limit.total_seconds(),
                patience=patience.total_seconds(),
            )

    async def fence_state(self, server: Server, database: str, role: str) -> Fence:
        """The state of both. Raises NotFound."""
        async with self._sessions.administrator(
            server, what=f"looking at the fence of {database}"
        ) as session:
            return await fences.state(session, database, role, server.name)

    async def unfence(self, server: Server, database: str, role: str, before: Fence) -> None:
        """Restore what `fence` changed."""
        async with self._sessions.administrator(server, what=f"unfencing database {database}") as session:
            await fences.unfence(session, database, role, before)

    async def make_role(
        self, server: Server, credentials: Credentials, like: RoleAttributes, others: tuple[str, ...]
    ) -> None:
        """The tenant's role, without login, and `others`. Raises Incompatible (a superuser) and NotOurs."""
        async with self._sessions.administrator(server, what=f"making role {credentials.user}") as session:
            await roles.make(session, credentials, like, others, server.name)

    async def make_scratch(
        self, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
    ) -> None:
        """An empty, tagged database like `like`. Raises NotOurs, and Incompatible for locale and settings."""
        await target.make(self._sessions, server, name, like, owner, tag)

    async def ownership_tag(self, server: Server, database: str) -> OwnershipTag | None:
        """The database's ownership tag. Raises NotOurs."""
        what = f"looking for the ownership tag of {database}"
        async with self._sessions.administrator(server, what=what) as session:
            comment = await read_comment(session, database, server.name)
            return comment.tag if comment else None

    async def promote(self, server: Server, scratch: str, final: str, role: str, tag: OwnershipTag) -> None:
        """Rename, tag as verified, allow login. Raises NotOurs, and Conflict when it must be restored again."""
        async with self._sessions.administrator(server, what=f"promoting database {scratch}") as session:
            await target.promote(
                self._sessions, server, session, scratch, final, role, tag, limit=self._limit
            )

    async def drop(self, server: Server, database: str, migration_id: UUID) -> bool:
        """Drop the migration's database. Raises NotOurs."""
        async with self._sessions.administrator(server, what=f"dropping database {database}") as session:
            return await target.drop(self._sessions, server, session, database, migration_id)

    async def close_role(self, server: Server, role: str, *, opened: bool = False) -> None:
        """No login, no session. Raises NotOurs, TimedOut."""
        async with self._sessions.administrator(server, what=f"closing role {role}") as session:
            await roles.close(session, role, server.name, limit=self._limit, opened=opened)

    async def drop_role(self, server: Server, role: str, *, counted_on: bool = False) -> None:
        """Drop a role that has nothing. Raises NotOurs; Transient when it has something."""
        async with self._sessions.administrator(server, what=f"dropping role {role}") as session:
            await roles.drop(session, role, server.name, counted_on=counted_on)

    async def mark_rehearsal(self, server: Server, mark: RehearsalMark) -> None:
        """Make its mark."""
        what = f"marking the rehearsal on {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            await rehearsal_marks.make(session, mark)

    async def unmark_rehearsal(self, server: Server, rehearsal: UUID) -> None:
        """Remove its mark."""
        await self.drop_role(server, rehearsal_marks.mark_name(rehearsal))

    async def end_sessions(self, server: Server, migration_id: UUID) -> int:
        """End what an earlier run left, and drop its short-lived roles. Raises TimedOut."""
        names = application_name(migration_id), short_lived_roles.prefix(migration_id)
        what = f"ending earlier sessions of migration {migration_id} on {server.name}"
        async with self._sessions.administrator(server, what=what) as session:
            ended = await end_sessions(session, "sessions_of_migration", *names, limit=self._limit, what=what)
            await short_lived_roles.drop_all(self._sessions, server, session, migration_id)
        return ended
