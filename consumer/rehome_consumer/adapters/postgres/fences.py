"""The fence: no login for the tenant's role, no CONNECT to its database for anyone, no session left on it.

While it lasts the database belongs to the administrator, and nobody has CONNECT: otherwise what the tenant's role owns
elsewhere (a function in a neighbour's database) could open the database again, and roles that the tenant had granted
CONNECT could come back. Short-lived roles are granted it one by one. A fence does not stop a superuser, so none is put
around a superuser's database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.activity import end_sessions, wait_for_opening_sessions
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
    """The state of both; `ended` counts the connections there are.

    Raises:
        NotFound: there is no such database or role.
    """
    now = await _state(session, database, role, where)
    sessions = await session.fetch(_SQL["tenants_sessions"], database, role)
    grants: tuple[Grant, ...] | None = None
    if now["has_acl"]:
        found = await session.fetch(_SQL["database_acl"], now["oid"])
        granted = {Grant(row["grantee"], row["privilege"], row["grantable"], row["grantor"]) for row in found}
        grants = None if granted == default_grants(now["owner"]) else tuple(sorted(granted))
    return Fence(
        connection_limit=now["connection_limit"],
        can_login=now["can_login"],
        ended=len(sessions),
        owner=now["owner"],
        grants=grants,
        closed=now["closed"],
        inside=tuple(f"pid {one['pid']} (user {one['user']})" for one in sessions if not one["superuser"]),
    )


async def fence(
    session: Administrator, database: str, role: str, where: str, *, limit: float, patience: float = 0.0
) -> None:
    """Forbid login and connections, end the sessions there are, return when there are none.

    Args:
        session: on the maintenance database.
        database: the tenant's.
        role: the tenant's.
        where: the server's name, for errors.
        limit: seconds.
        patience: seconds that open transactions may take to end by themselves; nobody else is let in meanwhile.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: the role is a superuser, or prepared transactions are pending.
        Conflict: someone else opened the database meanwhile.
        TimedOut: a session does not end; names it.
    """
    if (await _state(session, database, role, where))["superuser"]:
        raise Incompatible(f"role {role} on {where} is a superuser: no fence holds it")
    await require_nothing_prepared(session, database, where)
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], database)
        await session.execute(ddl("forbid_login", role=quoted(role)))
        await session.execute(ddl("set_database_owner", database=quoted(database), role="CURRENT_USER"))
        for row in await session.fetch(_SQL["grantees_on_database"], database):
            grantee = quoted(row["grantee"]) if row["grantee"] else "PUBLIC"
            await session.execute(ddl("revoke_all_on_database", database=quoted(database), grantee=grantee))
        if not await session.fetch(_SQL["short_lived_with_connect"], database):
            await session.execute(ddl("set_connection_limit", database=quoted(database), sessions="0"))
    # Sessions that were admitted before are ended from here on: first wait for those that are still opening.
    await wait_for_opening_sessions(session, database, limit=limit)
    what = f"fencing {database} on {where}"
    await end_sessions(session, "tenants_sessions", database, role, limit=limit, what=what, patience=patience)
    if not (await _state(session, database, role, where))["closed"]:
        raise Conflict(f"{what}: someone opened it again meanwhile")
    await require_nothing_prepared(session, database, where)


async def unfence(session: Administrator, database: str, role: str, before: Fence) -> None:
    """Restore owner, privileges, connection limit and login as they were before the fence."""
    name = quoted(database)
    async with session.transaction():
        await session.fetchval(_SQL["lock_role"], database)
        if before.owner:
            await session.execute(ddl("set_database_owner", database=name, role=quoted(before.owner)))
            await _restore_grants(session, database, before)
        await session.execute(
            ddl("set_connection_limit", database=name, sessions=str(int(before.connection_limit)))
        )
        login = "allow_login" if before.can_login else "forbid_login"
        await session.execute(ddl(login, role=quoted(role)))


async def _restore_grants(session: Administrator, database: str, before: Fence) -> None:
    """The database's privileges as they were; a role that no longer exists gets none."""
    wanted = before.grants
    if wanted is None:
        wanted = tuple(sorted(default_grants(before.owner)))
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
    for one in _in_grant_order(missing, now & set(wanted), before.owner):
        await _change(session, database, "grant_on_database", one, as_role=one.grantor != before.owner)


def _in_grant_order(missing: set[Grant], there: set[Grant], owner: str) -> Iterator[Grant]:
    """The missing grants, each after the one that allows its grantor to pass the privilege on."""
    given = {(one.grantee, one.privilege) for one in there if one.grantable}
    left = sorted(missing)
    while ready := [one for one in left if one.grantor == owner or (one.grantor, one.privilege) in given]:
        yield from ready
        given |= {(one.grantee, one.privilege) for one in ready if one.grantable}
        left = [one for one in left if one not in ready]


def default_grants(owner: str) -> set[Grant]:
    """Privileges on a database on which none were ever granted or revoked (source: acldefault, acl.c)."""
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
        await session.execute(ddl("set_role", role=quoted(grant.grantor)))
    await session.execute(
        ddl(statement, database=quoted(database), privilege=grant.privilege, grantee=grantee, option=option)
    )
    if as_role:
        await session.execute(ddl("reset_role"))


async def _state(session: Administrator, database: str, role: str, where: str) -> asyncpg.Record:
    """The database's connection limit, owner and privileges, and the role's login. Raises NotFound."""
    now = await session.fetchrow(_SQL["fence_state"], database, role)
    if now is None or now["connection_limit"] is None:
        raise NotFound(f"there is no database {database} on {where}")
    if now["can_login"] is None:
        raise NotFound(f"there is no role {role} on {where}")
    return now


async def require_nothing_prepared(session: Administrator, database: str, where: str) -> None:
    """Raise Incompatible, naming them, if transactions of the database wait for COMMIT PREPARED."""
    prepared = await session.fetch(_SQL["prepared_transactions"], database)
    if prepared:
        named = ", ".join(f"{row['gid']!r} of {row['owner']}" for row in prepared)
        raise Incompatible(
            f"database {database} on {where} has prepared transactions ({named}): they are still open, and no "
            "dump would hold their rows. COMMIT PREPARED or ROLLBACK PREPARED them and replay the upgrade"
        )
