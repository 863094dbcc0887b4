"""The tenant's role on the dedicated server, and the short-lived one that restores its data.

Nothing is done to a role that is a superuser or owns a database that is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.adapters.postgres.activity import end_sessions
from consumer.adapters.postgres.marks import MAKING, Label, making_name, parse
from consumer.adapters.postgres.names import literal, quoted
from consumer.adapters.postgres.scram import verifier
from consumer.context import current_migration
from consumer.errors import Incompatible, NotFound, NotOurs
from consumer.model import Credentials, RoleFacts, Secret
from consumer.sql import load

if TYPE_CHECKING:
    from uuid import UUID

    from consumer.adapters.postgres.sessions import Connection

_SQL: Final = load("databases")

_ORDINARY: Final = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_CLOSED: Final = f"NOLOGIN {_ORDINARY} CONNECTION LIMIT -1 VALID UNTIL 'infinity'"


async def facts(connection: Connection, role: str, database: str, where: str) -> RoleFacts:
    """What the role may do, and which databases it owns besides `database`.

    Raises:
        NotFound: there is no such role.
    """
    row = await connection.fetchrow(_SQL["role"], role)
    if row is None:
        raise NotFound(f"there is no role {role} on {where}")
    owned = await connection.fetch(_SQL["databases_of"], role)
    others = tuple(found["name"] for found in owned if found["name"] != database)
    return RoleFacts(row["name"], row["superuser"], row["can_login"], others)


async def make(connection: Connection, credentials: Credentials, others: tuple[str, ...], where: str) -> None:
    """Make or correct the tenant's role, without login, and `others`, without login, where missing.

    A role that has its verified database already is left as it is: a late run must not lock a tenant out.

    Raises:
        Incompatible: the role is there and a superuser.
        NotOurs: it is there and owns a database that is not this migration's.
    """
    name = credentials.user
    async with connection.transaction():
        await connection.fetchval(_SQL["lock_role"], name)
        exists = await connection.fetchrow(_SQL["role"], name)
        if exists and exists["superuser"]:
            raise Incompatible(f"role {name} on {where} is a superuser: a tenant gets an ordinary role")
        owned = await _own(connection, name, where)
        if any(label.mark.state == "verified" for label in owned):
            return
        await connection.fetchrow(_SQL["quiet"])
        secret = literal(verifier(credentials.password.reveal()))
        verb = "ALTER" if exists else "CREATE"
        await connection.execute(f"{verb} ROLE {quoted(name)} {_CLOSED} PASSWORD {secret}")
        for other in others:
            if not await connection.fetchrow(_SQL["role"], other):
                await connection.execute(f"CREATE ROLE {quoted(other)} {_CLOSED}")


async def close(connection: Connection, role: str, where: str, *, limit: float) -> None:
    """No login for the role and no session of it; nothing when it does not exist.

    Raises:
        NotOurs: it is a superuser, or owns a database that is not this migration's.
        TimedOut: a session of it does not end; names it.
    """
    async with connection.transaction():
        await connection.fetchval(_SQL["lock_role"], role)
        exists = await connection.fetchrow(_SQL["role"], role)
        if exists is None:
            return
        if exists["superuser"]:
            raise NotOurs(f"role {role} on {where} is a superuser: it is left alone")
        await _own(connection, role, where)
        await connection.execute(f"ALTER ROLE {quoted(role)} NOLOGIN")
    what = f"closing role {role} on {where}"
    await end_sessions(connection, "tenants_sessions", "", role, limit=limit, what=what)


async def _own(connection: Connection, role: str, where: str) -> list[Label]:
    """The labels of the databases that the role owns, all of the migration at work (of any, if none is).

    One that a run left half made has none yet; it is known by its name.

    Raises:
        NotOurs: one carries no mark, or another migration's.
    """
    labels: list[Label] = []
    migration = current_migration.get()
    making = MAKING if migration is None else making_name(migration)
    for row in await connection.fetch(_SQL["databases_of"], role):
        if row["name"].startswith(making):
            continue
        label = parse(row["comment"])
        if label is None or migration not in (None, label.mark.migration_id):
            raise NotOurs(
                f"role {role} on {where} owns database {row['name']}, which is not this migration's: "
                "the role is left alone"
            )
        labels.append(label)
    return labels


def restorer_name(migration_id: UUID) -> str:
    """The role that restores for a migration."""
    return f"rehome_{migration_id.hex}"


async def make_restorer(connection: Connection, migration_id: UUID, tenant: str, password: Secret) -> None:
    """An ordinary role that may act as the tenant's and exists only while data is restored.

    So that whatever the tenant's own functions do during the restore (in indexes, checks, defaults), the
    session they run in has nobody's rights but the tenant's.
    """
    name = quoted(restorer_name(migration_id))
    await drop_restorer(connection, migration_id)
    async with connection.transaction():
        await connection.fetchrow(_SQL["quiet"])
        secret = literal(verifier(password.reveal()))
        await connection.execute(f"CREATE ROLE {name} {_ORDINARY} LOGIN PASSWORD {secret}")
        await connection.execute(f"GRANT {quoted(tenant)} TO {name}")


async def drop_restorer(connection: Connection, migration_id: UUID) -> None:
    """Remove it, if it is there. It owns nothing: it creates as the tenant."""
    await connection.execute(f"DROP ROLE IF EXISTS {quoted(restorer_name(migration_id))}")


async def lend_name(connection: Connection, role: str, name: str, migration_id: UUID) -> str:
    """Give the tenant's role the name it has on the source, until `return_name`; the name it has now.

    Where another role has that name already, the tenant's keeps its own. What a lost run left under that
    name carries our mark, and is dropped.
    """
    await drop_lent(connection, migration_id)
    if name == role or await connection.fetchrow(_SQL["role"], name):
        return role
    async with connection.transaction():
        await connection.execute(f"ALTER ROLE {quoted(role)} RENAME TO {quoted(name)}")
        await connection.execute(f"COMMENT ON ROLE {quoted(name)} IS {literal(_lent(migration_id))}")
    return name


async def return_name(connection: Connection, role: str, name: str) -> None:
    """Undo `lend_name`, which returned `name`."""
    if name == role:
        return
    async with connection.transaction():
        await connection.execute(f"ALTER ROLE {quoted(name)} RENAME TO {quoted(role)}")
        await connection.execute(f"COMMENT ON ROLE {quoted(role)} IS NULL")


async def drop_lent(connection: Connection, migration_id: UUID) -> None:
    """Drop a role that a lost run of this migration left under a lent name; its database is gone."""
    for row in await connection.fetch(_SQL["roles_commented"], _lent(migration_id)):
        await connection.execute(f"DROP ROLE {quoted(row['name'])}")


def _lent(migration_id: UUID) -> str:
    return f"rehome: under this name while migration {migration_id} restores"
