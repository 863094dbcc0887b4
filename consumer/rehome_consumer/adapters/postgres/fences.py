"""The fence: no login for the tenant's role, nobody may connect to its database, nobody left inside.

While it stands the database belongs to the administrator, and CONNECT to nobody: what a tenant's role owns elsewhere
(a function of its own in a neighbour's database) could open its own database again, and whom the tenant had let in
could come back. Our short-lived roles are let in one by one. A superuser passes every door, so the fence refuses to
stand around one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.activity import end_sessions, wait_until_entered
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.errors import Conflict, Incompatible, NotFound
from rehome_consumer.model import Fence, Grant
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")


async def state(session: Administrator, database: str, role: str, where: str) -> Fence:
    """How both are now; `ended` counts the connections there are.

    Raises:
        NotFound: there is no such database or role.
    """
    now = await _doors(session, database, role, where)
    sessions = await session.fetch(_SQL["tenants_sessions"], database, role)
    grants: tuple[Grant, ...] | None = None
    if now["acl_said"]:
        found = await session.fetch(_SQL["database_acl"], now["oid"])
        said = {Grant(row["grantee"], row["privilege"], row["grantable"], row["grantor"]) for row in found}
        grants = None if said == _by_default(now["owner"]) else tuple(sorted(said))
    return Fence(
        connection_limit=now["connection_limit"],
        can_login=now["can_login"],
        ended=len(sessions),
        owner=now["owner"],
        grants=grants,
        closed=now["closed"],
        inside=tuple(f"pid {one['pid']} (user {one['user']})" for one in sessions if not one["superuser"]),
    )


async def put_up(session: Administrator, database: str, role: str, where: str, *, limit: float) -> None:
    """Close every door, end who is inside, return when nobody is.

    Args:
        session: on the maintenance database.
        database: the tenant's.
        role: the tenant's.
        where: the server's name, for errors.
        limit: seconds.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: the role is a superuser, or prepared transactions are pending.
        Conflict: somebody else opens the doors at this moment.
        TimedOut: somebody is still connected; names who.
    """
    if (await _doors(session, database, role, where))["superuser"]:
        raise Incompatible(f"role {role} on {where} is a superuser: no fence holds it")
    await _require_nothing_prepared(session, database, where)
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], database)
        await session.execute(ddl("refuse_login", role=quoted(role)))
        await session.execute(ddl("own_database", database=quoted(database), role="CURRENT_USER"))
        for row in await session.fetch(_SQL["grantees_on_database"], database):
            grantee = quoted(row["grantee"]) if row["grantee"] else "PUBLIC"
            await session.execute(ddl("close_database", database=quoted(database), grantee=grantee))
        if not await session.fetch(_SQL["connectable_by"], database):
            await session.execute(ddl("limit_database", database=quoted(database), sessions="0"))
    # Who passed the doors before they were closed is seen from here on: first who is still entering.
    await wait_until_entered(session, database, limit=limit)
    what = f"fencing {database} on {where}"
    await end_sessions(session, "tenants_sessions", database, role, limit=limit, what=what)
    if not (await _doors(session, database, role, where))["closed"]:
        raise Conflict(f"{what}: somebody opened it at this moment")
    await _require_nothing_prepared(session, database, where)


async def take_down(session: Administrator, database: str, role: str, before: Fence) -> None:
    """Every door as it was."""
    name = quoted(database)
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], database)
        if before.owner:
            await session.execute(ddl("own_database", database=name, role=quoted(before.owner)))
            await _grant_again(session, database, before)
        await session.execute(
            ddl("limit_database", database=name, sessions=str(int(before.connection_limit)))
        )
        login = "let_login" if before.can_login else "refuse_login"
        await session.execute(ddl(login, role=quoted(role)))


async def _grant_again(session: Administrator, database: str, before: Fence) -> None:
    """The database's privileges as they were; whom the server no longer knows gets none."""
    wanted = before.grants
    if wanted is None:
        wanted = tuple(sorted(_by_default(before.owner)))
    found = await session.fetchrow(_SQL["database"], database)
    if found is None:
        return
    now = {
        Grant(row["grantee"], row["privilege"], row["grantable"], row["grantor"])
        for row in await session.fetch(_SQL["database_acl"], found["oid"])
    }
    names = {one.grantee for one in wanted} | {one.grantor for one in wanted}
    known = {row["name"] for row in await session.fetch(_SQL["role_names"], sorted(names))} | {""}
    for one in sorted(now - set(wanted)):
        await _change(session, database, "revoke_on_database", one)
    missing = {one for one in set(wanted) - now if {one.grantee, one.grantor} <= known}
    for one in _in_turn(missing, now & set(wanted), before.owner):
        await _change(session, database, "grant_on_database", one, as_role=one.grantor != before.owner)


def _in_turn(missing: set[Grant], there: set[Grant], owner: str) -> Iterator[Grant]:
    """The missing ones, each after the one by which its grantor may pass the privilege on."""
    given = {(one.grantee, one.privilege) for one in there if one.grantable}
    left = sorted(missing)
    while ready := [one for one in left if one.grantor == owner or (one.grantor, one.privilege) in given]:
        yield from ready
        given |= {(one.grantee, one.privilege) for one in ready if one.grantable}
        left = [one for one in left if one not in ready]


def _by_default(owner: str) -> set[Grant]:
    """Privileges on a database about which nothing was ever said (source: acldefault, acl.c)."""
    public, owners = ("CONNECT", "TEMPORARY"), ("CONNECT", "CREATE", "TEMPORARY")
    return {
        *(Grant("", privilege, grantable=False, grantor=owner) for privilege in public),
        *(Grant(owner, privilege, grantable=False, grantor=owner) for privilege in owners),
    }


async def _change(
    session: Administrator, database: str, statement: str, grant: Grant, *, as_role: bool = False
) -> None:
    grantee = quoted(grant.grantee) if grant.grantee else "PUBLIC"
    option = "WITH GRANT OPTION" if grant.grantable else ""
    if as_role:
        await session.execute(ddl("as_role", role=quoted(grant.grantor)))
    await session.execute(
        ddl(statement, database=quoted(database), privilege=grant.privilege, grantee=grantee, option=option)
    )
    if as_role:
        await session.execute(ddl("as_ourselves"))


async def _doors(session: Administrator, database: str, role: str, where: str) -> asyncpg.Record:
    """The database's connection limit, owner and privileges, and the role's login. Raises NotFound."""
    now = await session.fetchrow(_SQL["fence_state"], database, role)
    if now is None or now["connection_limit"] is None:
        raise NotFound(f"there is no database {database} on {where}")
    if now["can_login"] is None:
        raise NotFound(f"there is no role {role} on {where}")
    return now


async def _require_nothing_prepared(session: Administrator, database: str, where: str) -> None:
    prepared = await session.fetch(_SQL["prepared"], database)
    if prepared:
        named = ", ".join(f"{row['gid']!r} of {row['owner']}" for row in prepared)
        raise Incompatible(
            f"database {database} on {where} has prepared transactions ({named}): they are still open, and no "
            "dump would hold their rows. COMMIT PREPARED or ROLLBACK PREPARED them and replay the upgrade"
        )
