"""Roles, databases and fences on servers that are only remembered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.ownership_tags import MAKING, TagComment
from rehome_consumer.adapters.postgres.rehearsal_marks import mark_name
from rehome_consumer.adapters.postgres.replication_parts import apply_role
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.context import current_migration
from rehome_consumer.errors import Conflict, Incompatible, NotFound, NotOurs, TimedOut, Transient
from rehome_consumer.model import DatabaseFacts, Fence, RoleAttributes, RoleFacts, ServerFacts
from tests.fakes.world import ADMIN, SHORT_LIVED, TOUCH_LIMIT, FakeDatabase, FakeRole

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from rehome_consumer.model import Credentials, OwnershipTag, RehearsalMark, Server
    from tests.fakes.world import FakeServer, FakeSession, Visit, World

NONE: Final = timedelta()


@dataclass(frozen=True)
class FakeDatabases:
    """Port `Databases` on a `World`."""

    world: World

    async def server_facts(self, server: Server) -> ServerFacts:
        async with self.world.visit(server, "databases.server_facts") as visit:
            there = visit.there
            return ServerFacts(
                version=there.version,
                extensions=frozenset(there.offers),
                tls=there.tls,
                standby=there.standby,
            )

    async def database_size(self, server: Server, database: str) -> int:
        async with self.world.visit(server, "databases.database_size"):
            return self.world.database(server, database).bytes

    async def database_facts(self, server: Server, database: str, tenant: str) -> DatabaseFacts:
        async with self.world.visit(server, "databases.database_facts", database) as visit:
            found = visit.session.database
            _require_nothing_prepared(found)
            others = sorted(
                f"{name} (of role {owner})"
                for name, owner in found.objects.get("owner", {}).items()
                if owner not in (tenant, ADMIN)
            )
            if found.immovable or others:
                raise Incompatible(
                    f"database {database} holds what cannot go along: {[*found.immovable, *others]}"
                )
            encoding, collation, ctype, provider, locale = found.locale
            return DatabaseFacts(
                name=database,
                owner=found.owner,
                encoding=encoding,
                collation=collation,
                ctype=ctype,
                provider=provider,
                locale=locale,
                bytes=found.bytes,
                connection_limit=found.connection_limit,
                extensions=dict(found.extensions),
                settings=found.settings,
                grantees=found.grantees,
                acl=found.acl,
                comment=found.comment,
                role=visit.there.roles[tenant].like if tenant in visit.there.roles else RoleAttributes(),
            )

    async def attached(self, server: Server, database: str, tenant: str) -> tuple[str, ...]:
        async with self.world.visit(server, "databases.attached", database) as visit:
            found = visit.session.database
            sessions = [
                f"role {one.user} is connected: 1 session(s), application {one.application or 'without a name'}"
                for one in visit.there.sessions
                if one.database is found
                and one.user not in (tenant, ADMIN)
                and not SHORT_LIVED.fullmatch(one.user)
            ]
            return (*found.attached, *sessions)

    async def role_facts(self, server: Server, role: str, database: str) -> RoleFacts:
        async with self.world.visit(server, "databases.role_facts") as visit:
            there, found = visit.there, _role(visit.there, role, server)
            owned = {one.name for one in there.databases.values() if one.owner == role} - {database}
            home = there.databases.get(database)
            return RoleFacts(
                role,
                found.superuser,
                found.can_login,
                attributes=(*(("SUPERUSER",) if found.superuser else ()), *found.attributes),
                member_of=found.member_of,
                members=found.members,
                elsewhere=(*(f"owns database {one}" for one in sorted(owned)), *found.elsewhere),
                owner=home.owner if home else "",
                owner_is_superuser=bool(home and there.roles[home.owner].superuser),
            )

    async def require_admitted(self, server: Server, database: str, role: str) -> None:
        async with self.world.visit(server, "databases.require_admitted", database) as visit:
            _role(visit.there, role, server)
            if visit.there.keeps_out:
                raise Incompatible(f"{server.name} keeps out a short-lived role with the rights of {role}")

    async def require_login_rules(self, server: Server, database: str, scratch: str, role: str) -> None:
        async with self.world.visit(server, "databases.require_login_rules") as visit:
            if visit.there.keeps_out:
                raise Incompatible(
                    f"the pg_hba.conf of {server.name} lets {role} into neither {database} nor {scratch}"
                )

    async def require_genuine_extensions(
        self, source: Server, database: str, tenant: str, target: Server
    ) -> None:
        async with self.world.visit(source, "databases.require_genuine_extensions", database) as visit:
            if strays := visit.session.database.strays:
                raise Incompatible(f"extensions of {database} hold what they do not bring: {strays}")
        async with self.world.visit(target, "databases.require_genuine_extensions") as visit:
            await visit.step("compared")

    async def connections(self, server: Server, database: str, role: str) -> int:
        return (await self.fence_state(server, database, role)).ended

    async def fence(
        self, server: Server, database: str, role: str, limit: timedelta, patience: timedelta = NONE
    ) -> None:
        async with self.world.visit(server, "databases.fence") as visit:
            there = visit.there
            target, tenant = self.world.database(server, database), _role(there, role, server)
            if tenant.superuser:
                raise Incompatible(f"role {role} on {server.name} is a superuser: no fence holds it")
            _require_nothing_prepared(target)
            await visit.step("close")
            tenant.can_login, target.connection_limit = False, 0
            target.owner, target.closed = ADMIN, True
            await _wait_for_transactions(visit, lambda: there.tenants(database, role), patience)
            await _end(visit, lambda: there.tenants(database, role), f"fencing {database}")
            _require_nothing_prepared(target)

    async def fence_state(self, server: Server, database: str, role: str) -> Fence:
        async with self.world.visit(server, "databases.fence_state") as visit:
            target = self.world.database(server, database)
            tenant = _role(visit.there, role, server)
            inside = visit.there.tenants(database, role)
            return Fence(
                target.connection_limit,
                tenant.can_login,
                len(inside),
                owner=target.owner,
                closed=target.closed,
                inside=tuple(
                    f"pid {one.pid} (user {one.user})"
                    for one in inside
                    if not visit.there.roles[one.user].superuser
                ),
            )

    async def unfence(self, server: Server, database: str, role: str, before: Fence) -> None:
        async with self.world.visit(server, "databases.unfence") as visit:
            target = self.world.database(server, database)
            target.connection_limit = before.connection_limit
            if before.owner:
                target.owner, target.closed = before.owner, before.closed
            _role(visit.there, role, server).can_login = before.can_login

    async def make_role(
        self, server: Server, credentials: Credentials, like: RoleAttributes, others: tuple[str, ...]
    ) -> None:
        async with self.world.visit(server, "databases.make_role") as visit:
            there = visit.there
            role = there.roles.get(credentials.user)
            if role is not None and role.superuser:
                raise Incompatible(f"role {credentials.user} on {server.name} is a superuser")
            if any(label.tag.state == "verified" for label in _owned(there, credentials.user)):
                return
            if role is not None and (role.attributes or role.member_of or role.members):
                raise Incompatible(f"role {credentials.user} on {server.name} is more than a login")
            if role is not None and role.elsewhere:
                raise NotOurs(f"role {credentials.user} on {server.name} is in use already")
            there.roles[credentials.user] = FakeRole(
                credentials.user, credentials.password.reveal(), can_login=False, like=like
            )
            for other in others:
                there.roles.setdefault(other, FakeRole(other, can_login=False))

    async def make_scratch(
        self, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
    ) -> None:
        async with self.world.visit(server, "databases.make_scratch") as visit:
            there = visit.there
            earlier = _label(there, name, server)
            if earlier is not None:
                if earlier.tag.migration_id != tag.migration_id or earlier.tag.state != "scratch":
                    raise NotOurs(f"database {name} on {server.name} is not this migration's scratch")
                _drop(there, name)
            await visit.step("create")
            if not {like.collation, like.ctype} <= there.collations:
                raise Incompatible(f"{server.name} cannot have a database with {like.collation}")
            if name in there.databases:
                raise Conflict(f"database {name} on {server.name} is being made by another run")
            _role(there, owner, server)
            there.databases[name] = FakeDatabase(
                name,
                owner,
                locale=(like.encoding, like.collation, like.ctype, like.provider, like.locale),
                settings=tuple((owner if role == like.owner else role, text) for role, text in like.settings),
                acl=tuple((owner if who == like.owner else who, may, on) for who, may, on in like.acl),
                label=TagComment(tag, connection_limit=like.connection_limit or -1),
                comment=like.comment,
            )

    async def ownership_tag(self, server: Server, database: str) -> OwnershipTag | None:
        async with self.world.visit(server, "databases.ownership_tag") as visit:
            label = _label(visit.there, database, server)
            return label.tag if label else None

    async def promote(self, server: Server, scratch: str, final: str, role: str, tag: OwnershipTag) -> None:
        async with self.world.visit(server, "databases.promote") as visit:
            there = visit.there
            label = _label(there, final, server)
            if label is not None:
                _require_same(label.tag, tag, final)
                _role(there, role, server).can_login = True
                _drop_roles(there, tag.migration_id)
                return
            label = _label(there, scratch, server)
            if label is None:
                raise Conflict(f"database {scratch} on {server.name} is missing")
            _require_same(replace(label.tag, state="verified"), tag, scratch)
            if not label.restored:
                raise Conflict(f"database {scratch} on {server.name} was not restored")
            await _end(visit, lambda: _inside(there, scratch), f"promoting {scratch}")
            _drop_roles(there, tag.migration_id)
            database = there.databases.pop(scratch)
            there.databases[final] = database
            database.name, database.connection_limit = final, label.connection_limit
            database.label = replace(label, tag=tag)
            _role(there, role, server).can_login = True

    async def drop(self, server: Server, database: str, migration_id: UUID) -> bool:
        async with self.world.visit(server, "databases.drop") as visit:
            label = _label(visit.there, database, server)
            if label is not None and label.tag.migration_id != migration_id:
                raise NotOurs(f"database {database} on {server.name} is another migration's")
            await visit.step("drop")
            if label is not None:
                _drop(visit.there, database)
            visit.there.roles.pop(apply_role(migration_id), None)
            _drop_roles(visit.there, migration_id)
            return label is not None

    async def close_role(self, server: Server, role: str, *, opened: bool = False) -> None:
        async with self.world.visit(server, "databases.close_role") as visit:
            there = visit.there
            found = there.roles.get(role)
            if found is None:
                return
            if found.superuser:
                raise NotOurs(f"role {role} on {server.name} is a superuser")
            if not opened:
                _owned(there, role)
            found.can_login = False
            await _end(visit, lambda: there.tenants("", role), f"closing role {role}")

    async def mark_rehearsal(self, server: Server, mark: RehearsalMark) -> None:
        async with self.world.visit(server, "databases.mark_rehearsal") as visit:
            name = mark_name(mark.id)
            visit.there.roles[name] = FakeRole(name, can_login=False, mark=mark)

    async def unmark_rehearsal(self, server: Server, rehearsal: UUID) -> None:
        await self.drop_role(server, mark_name(rehearsal))

    async def drop_role(self, server: Server, role: str, *, counted_on: bool = False) -> None:
        async with self.world.visit(server, "databases.drop_role") as visit:
            found = visit.there.roles.get(role)
            if found is None:
                return
            making = [
                name for name in visit.there.databases if "__rehome_" in name or name.startswith(MAKING)
            ]
            if counted_on and making:
                raise NotOurs(f"role {role} on {server.name} is left alone: {making[0]} is being made there")
            if found.superuser or found.can_login:
                raise NotOurs(f"role {role} on {server.name} may log in: it is left alone")
            if any(database.owner == role for database in visit.there.databases.values()):
                raise Transient(f"role {role} on {server.name} cannot be dropped: it has something")
            del visit.there.roles[role]

    async def end_sessions(self, server: Server, migration_id: UUID) -> int:
        async with self.world.visit(server, "databases.end_sessions") as visit:
            name = application_name(migration_id)

            def named() -> list[FakeSession]:
                return [
                    one
                    for one in visit.there.sessions
                    if one is not visit.session
                    and (
                        (one.user == ADMIN and one.application == name)
                        or (one.user.startswith(prefix(migration_id)) and not _outlives(one.user))
                    )
                ]

            ended = await _end(visit, named, f"ending sessions of {migration_id}")
            _drop_roles(visit.there, migration_id)
            return ended


def _role(there: FakeServer, name: str, server: Server) -> FakeRole:
    if name not in there.roles:
        raise NotFound(f"there is no role {name} on {server.name}")
    return there.roles[name]


def _drop_roles(there: FakeServer, migration_id: UUID) -> None:
    """Short-lived roles that a run left, with their sessions."""
    for name in [
        name for name in there.roles if name.startswith(prefix(migration_id)) and not _outlives(name)
    ]:
        there.end([one for one in there.sessions if one.user == name])
        del there.roles[name]


def _outlives(role: str) -> bool:
    """Whether a copy follows its source by this role: whichever run is at work."""
    return role.endswith(("_sync", "_apply"))


def _label(there: FakeServer, name: str, server: Server) -> TagComment | None:
    database = there.databases.get(name)
    if database is not None and database.label is None:
        raise NotOurs(f"database {name} on {server.name} carries no ownership tag")
    return database.label if database else None


def _owned(there: FakeServer, role: str) -> list[TagComment]:
    labels: list[TagComment] = []
    for database in there.databases.values():
        if database.owner == role:
            current = current_migration.get()
            if database.label is None or current not in (None, database.label.tag.migration_id):
                raise NotOurs(f"role {role} owns database {database.name}, which is not this migration's")
            labels.append(database.label)
    return labels


def _inside(there: FakeServer, name: str) -> list[FakeSession]:
    return [session for session in there.sessions if session.database.name == name]


def _drop(there: FakeServer, name: str) -> None:
    there.end(_inside(there, name))
    del there.databases[name]


def _require_same(found: OwnershipTag, tag: OwnershipTag, name: str) -> None:
    if found != tag:
        raise NotOurs(f"database {name} is of migration {found.migration_id} attempt {found.attempt}")


def _require_nothing_prepared(database: FakeDatabase) -> None:
    if database.prepared:
        raise Incompatible(f"database {database.name} has prepared transactions: {database.prepared}")


async def _wait_for_transactions(
    visit: Visit, look: Callable[[], list[FakeSession]], patience: timedelta
) -> None:
    """End idle sessions; the others may end by themselves."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience.total_seconds()
    while any(one.at_work for one in look()) and loop.time() < deadline:
        visit.there.end([one for one in look() if not one.at_work])
        await visit.step("patient")


async def _end(visit: Visit, look: Callable[[], list[FakeSession]], what: str) -> int:
    """End sessions until a look shows none."""
    ended: set[int] = set()
    for _ in range(TOUCH_LIMIT):
        sessions = look()
        if not sessions:
            return len(ended)
        ended.update(session.pid for session in sessions)
        visit.there.end(sessions)
        await visit.step("ended")
    if not (sessions := look()):
        return len(ended)
    left = ", ".join(
        f"pid {one.pid} (user {one.user}, application {one.application!r}, database {one.database.name})"
        for one in sessions
    )
    raise TimedOut(f"{what}: still connected: {left}")
