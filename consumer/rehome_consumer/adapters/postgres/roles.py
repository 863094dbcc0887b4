"""The tenant's role on a server: what it may do, and how it is created and closed on the dedicated one.

Nothing is done to a role that is a superuser, owns a database without this migration's ownership tag, or is tied to
anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.ownership_tags import MAKING, TagComment, making_name, parse
from rehome_consumer.adapters.postgres.scram import verifier
from rehome_consumer.adapters.postgres.shared_comments import carried, text_of
from rehome_consumer.context import current_migration
from rehome_consumer.errors import Incompatible, NotFound, NotOurs
from rehome_consumer.model import Credentials, RoleAttributes, RoleFacts
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")


async def facts(session: Administrator, role: str, database: str, where: str) -> RoleFacts:
    """What the role may do, and how it is tied to anything but `database`.

    Raises:
        NotFound: there is no such role.
    """
    row = await session.fetchrow(_SQL["role"], role)
    if row is None:
        raise NotFound(f"there is no role {role} on {where}")
    ties = await session.fetch(_SQL["role_elsewhere"], role, [database])
    connected = await session.fetch(_SQL["role_connected_elsewhere"], role, [database])
    home = await session.fetchrow(_SQL["database"], database)
    return RoleFacts(
        name=row["name"],
        superuser=row["superuser"],
        can_login=row["can_login"],
        attributes=tuple(row["attributes"]),
        member_of=tuple(row["member_of"]),
        members=tuple(row["members"]),
        elsewhere=tuple(tie["tie"] for tie in ties),
        connected_to=tuple(found["name"] for found in connected),
        owner=home["owner"] if home else "",
        owner_is_superuser=bool(home and home["owner_is_superuser"]),
    )


async def attributes(session: Administrator, role: str, where: str) -> RoleAttributes:
    """What its new role must have too; of a role that is not there, the usual ones. Raises Incompatible."""
    row = await session.fetchrow(_SQL["role"], role)
    if row is None:
        return RoleAttributes()
    return RoleAttributes(
        create_databases=row["create_databases"],
        inherit=row["inherit"],
        connection_limit=row["connection_limit"],
        valid_until=row["valid_until"],
        comment=carried(row["comment"], f"role {role} on {where}"),
    )


async def make(
    session: Administrator,
    credentials: Credentials,
    like: RoleAttributes,
    others: tuple[str, ...],
    where: str,
) -> None:
    """Create or correct the tenant's role, without login; create `others`, without login, where missing.

    A role that has its verified database already stays as it is: a late run must not lock a tenant out.

    Raises:
        Incompatible: the role exists, and is a superuser, or more than an ordinary login.
        NotOurs: it exists, and owns a database that is not this migration's, or has something elsewhere.
    """
    name = credentials.user
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], name)
        exists = await session.fetchrow(_SQL["role"], name)
        if exists and exists["superuser"]:
            raise Incompatible(f"role {name} on {where} is a superuser: a tenant gets an ordinary role")
        owned = await _owned_databases(session, name, where)
        if any(comment and comment.tag.state == "verified" for comment in owned.values()):
            return
        await _require_unused_elsewhere(session, name, owned, where)
        await session.fetchrow(_SQL["keep_out_of_log"])
        secret = literal(verifier(credentials.password.reveal()))
        statement = "alter_tenant_role" if exists else "create_tenant_role"
        expires = bool(exists and exists["valid_until"])
        await session.execute(
            ddl(statement, role=quoted(name), attributes=_clauses(like, expires=expires), verifier=secret)
        )
        if like.comment or (exists and exists["comment"]):
            text = literal(like.comment) if like.comment else "NULL"
            await session.execute(ddl("comment_role", role=quoted(name), text=text))
        for other in others:
            if not await session.fetchrow(_SQL["role"], other):
                await session.execute(ddl("create_other_role", role=quoted(other)))


def _clauses(like: RoleAttributes, *, expires: bool) -> str:
    """The attributes in CREATE and ALTER ROLE; `expires`: the role has a date already, which cannot be removed."""
    until = like.valid_until or ("infinity" if expires else None)
    return " ".join(
        (
            "CREATEDB" if like.create_databases else "NOCREATEDB",
            "INHERIT" if like.inherit else "NOINHERIT",
            f"CONNECTION LIMIT {int(like.connection_limit)}",
            *([f"VALID UNTIL {literal(until)}"] if until else []),
        )
    )


async def close(session: Administrator, role: str, where: str, *, limit: float, opened: bool = False) -> None:
    """No login for the role and no session of it; nothing when it does not exist.

    A role that owns a database of somebody else's may be another customer's login, and stays as it is. One that this
    migration has `opened` owned nothing else then (see `make`): what it owns by now is its own doing.

    Raises:
        NotOurs: it is a superuser; or not `opened`, and owns a database that is not this migration's.
        TimedOut: a session of it does not end; names it.
    """
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], role)
        exists = await session.fetchrow(_SQL["role"], role)
        if exists is None:
            return
        if exists["superuser"]:
            raise NotOurs(f"role {role} on {where} is a superuser: it is left alone")
        if not opened:
            await _owned_databases(session, role, where)
        await session.execute(ddl("forbid_login", role=quoted(role)))
    what = f"closing role {role} on {where}"
    await end_sessions(session, "tenants_sessions", "", role, limit=limit, what=what)


async def drop(session: Administrator, role: str, where: str, *, counted_on: bool = False) -> None:
    """Drop a role that may not log in, and has nothing; nothing when it does not exist.

    Raises:
        NotOurs: it is more than that; or it is `counted_on`, and a migration makes a database there.
    """
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], role)
        if counted_on and (making := await session.fetchval(_SQL["database_in_the_making"])):
            raise NotOurs(
                f"role {role} on {where} is left alone: {making} is being made there, and may need it"
            )
        found = await session.fetchrow(_SQL["role"], role)
        if found is None:
            return
        if found["superuser"] or found["can_login"]:
            raise NotOurs(f"role {role} on {where} may log in: it is left alone")
        await session.execute(ddl("drop_role", role=quoted(role)))


async def _require_unused_elsewhere(
    session: Administrator, role: str, owned: dict[str, TagComment | None], where: str
) -> None:
    """A role that exists already must be an ordinary login, and have nothing outside of the databases `owned`.

    Raises:
        Incompatible: it may do more than log in, or is a member of another role, or another is of it.
        NotOurs: it owns or may do something elsewhere.
    """
    found = await session.fetchrow(_SQL["role"], role)
    if found is None:
        return
    more = [*found["attributes"], *(f"member of {one}" for one in found["member_of"])]
    more += [f"granted to {one}" for one in found["members"]]
    if more:
        raise Incompatible(
            f"role {role} on {where} is there already and more than a tenant's login ({', '.join(more)}): give the "
            "tenant another role, or take that away (ALTER ROLE, REVOKE)"
        )
    ties = await session.fetch(_SQL["role_elsewhere"], role, list(owned))
    if ties:
        named = ", ".join(row["tie"] for row in ties)
        raise NotOurs(f"role {role} on {where} is in use already: it {named}. Give the tenant another role")


async def _owned_databases(session: Administrator, role: str, where: str) -> dict[str, TagComment | None]:
    """The databases that the role owns, with their comments; all of the current migration, or of any if there is none.

    One that a run left unfinished has no comment yet; it is recognized by its name.

    Raises:
        NotOurs: one has no ownership tag, or another migration's.
    """
    owned: dict[str, TagComment | None] = {}
    migration = current_migration.get()
    making = MAKING if migration is None else making_name(migration)
    for row in await session.fetch(_SQL["databases_owned_by"], role):
        if row["name"].startswith(making):
            owned[row["name"]] = None
            continue
        comment = parse(text_of(row["comment"]))
        if comment is None or migration not in (None, comment.tag.migration_id):
            raise NotOurs(
                f"role {role} on {where} owns database {row['name']}, which is not this migration's: "
                "the role is left alone"
            )
        owned[row["name"]] = comment
    return owned


class Renamed(NamedTuple):
    """The name that a role has for a while, and the comment that it had before."""

    name: str
    comment: str | None


async def use_source_name(session: Administrator, role: str, name: str, migration_id: UUID) -> Renamed:
    """Give the tenant's role the name it has on the source, until `use_own_name`; returns the name it has now.

    Where another role has that name already, the tenant's keeps its own. A role that a lost run left under that
    name has a comment that says so, and is dropped.
    """
    await drop_left_under_source_name(session, migration_id)
    found = await session.fetchrow(_SQL["role"], role)
    before = text_of(found["comment"]) if found else None
    if name == role or await session.fetchrow(_SQL["role"], name):
        return Renamed(role, before)
    async with session.transaction():
        await session.execute(ddl("rename_role", role=quoted(role), name=quoted(name)))
        comment = literal(_comment(migration_id))
        await session.execute(ddl("comment_role", role=quoted(name), text=comment))
    return Renamed(name, before)


async def use_own_name(session: Administrator, role: str, renamed: Renamed) -> None:
    """Undo `use_source_name`, which returned `renamed`."""
    if renamed.name == role:
        return
    async with session.transaction():
        await session.execute(ddl("rename_role", role=quoted(renamed.name), name=quoted(role)))
        comment = literal(renamed.comment) if renamed.comment else "NULL"
        await session.execute(ddl("comment_role", role=quoted(role), text=comment))


async def drop_left_under_source_name(session: Administrator, migration_id: UUID) -> None:
    """Drop a role that a lost run of this migration left under its source name; its database was dropped before."""
    for row in await session.fetch(_SQL["roles_with_comment"], _comment(migration_id)):
        await session.execute(ddl("drop_role", role=quoted(row["name"])))


def _comment(migration_id: UUID) -> str:
    return f"rehome: under this name while migration {migration_id} restores"
