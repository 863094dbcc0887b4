"""Short-lived roles in a server's catalogues: how they are created, recognized and dropped. See `short_lived`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import asyncpg

from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

log = logging.getLogger(__name__)

_SQL: Final = administrator("databases")
_END_SECONDS: Final = 20.0


def prefix(migration_id: UUID) -> str:
    """How the names of a migration's short-lived roles begin."""
    return f"rehome_{migration_id.hex}_"


async def create(
    session: Administrator,
    name: str,
    verifier: str,
    *,
    tenant: str,
    database: str,
    bypass_row_security: bool,
    max_sessions: int,
    seconds: float,
) -> None:
    """Create a role with the tenant's rights, which may connect to its database even while that is fenced.

    Whatever the server's language is, its messages are in English: which of them are final, and what in them is data,
    is told by their words (`server_words`). The tenant's code cannot change that: it takes a superuser.

    Args:
        session: on the maintenance database.
        name: the role's.
        verifier: of its password.
        tenant: the role whose rights it gets.
        database: the tenant's.
        bypass_row_security: whether it reads rows that policies hide.
        max_sessions: how many may be open at a time.
        seconds: until it expires.
    """
    expiry = await session.fetchval(_SQL["seconds_from_now"], seconds)
    async with session.transaction():
        await session.fetchrow(_SQL["keep_out_of_log"])
        await session.execute(
            ddl(
                "create_short_lived_role",
                role=quoted(name),
                row_security="BYPASSRLS" if bypass_row_security else "NOBYPASSRLS",
                sessions=str(max_sessions),
                until=literal(expiry),
                verifier=literal(verifier),
            )
        )
        await session.execute(ddl("grant_role", role=quoted(tenant), member=quoted(name)))
        await session.fetchval(_SQL["lock_role"], database)
        state = await session.fetchrow(_SQL["fence_state"], database, tenant)
        if state is not None and state["closed"]:
            await session.execute(
                ddl(
                    "grant_on_database",
                    privilege="CONNECT",
                    database=quoted(database),
                    grantee=quoted(name),
                    option="",
                )
            )
            await session.execute(ddl("set_connection_limit", database=quoted(database), sessions="-1"))


async def prepare_reading(inside: Administrator, database: str, tenant: str) -> bool:
    """Let the tenant's role use the schemas that it may use as the database's owner only.

    That right is not revoked again: the owner has it anyway. `pg_read_all_data` would be no solution: it opens
    `pg_authid`, and with it everybody's password verifiers, to the tenant's code.

    Returns:
        Whether a reader must bypass row security.
    """
    async with inside.transaction():
        await inside.fetchval(_SQL["lock_role"], database)
        needs = await inside.fetchrow(_SQL["reading_needs"], tenant)
        for schema in needs["schemas"] if needs else ():
            await inside.execute(ddl("grant_schema_usage", schema=quoted(schema), role=quoted(tenant)))
    return bool(needs and needs["bypass"])


async def is_unchanged(session: Administrator, name: str, verifier: str) -> bool:
    """Whether the role has the password and the settings it was created with, or is missing."""
    found = await session.fetchrow(_SQL["short_lived_role"], name)
    return found is None or (found["verifier"] == verifier and not found["has_settings"])


async def drop_all(sessions: Sessions, server: Server, session: Administrator, migration_id: UUID) -> int:
    """Drop every short-lived role that a migration has; returns how many."""
    found = await session.fetch(_SQL["short_lived_names"], prefix(migration_id).removesuffix("_"))
    for row in found:
        await drop(sessions, server, session, row["name"])
    return len(found)


async def drop(sessions: Sessions, server: Server, session: Administrator, name: str) -> bool:
    """End the role's sessions, take away what it has, and drop it; nothing where it does not exist.

    Returns:
        Whether it was dropped. Code that runs as this role can grant it something by itself, which nobody can revoke
        but with the database: then the role stays, without login, until that database is dropped.
    """
    if await session.fetchrow(_SQL["short_lived_role"], name) is None:
        return True
    try:
        await _drop(sessions, server, session, name)
    except ClaimLost:
        raise
    except asyncpg.DependentObjectsStillExistError as error:
        log.warning("role.stays role=%s server=%s why=%s", name, server.name, error.detail or error)
        return False
    except (asyncpg.UndefinedObjectError, RehomeError):
        if await session.fetchrow(_SQL["short_lived_role"], name) is not None:
            raise  # otherwise another run, the one that it belonged to, has dropped it meanwhile
    return True


async def _drop(sessions: Sessions, server: Server, session: Administrator, name: str) -> None:
    role = quoted(name)
    await session.execute(ddl("forbid_login", role=role))
    await end_sessions(
        session, "sessions_of_role", name, limit=_END_SECONDS, what=f"dropping role {name} on {server.name}"
    )
    await _reassign_objects(sessions, server, session, name)
    async with session.transaction():
        for row in await session.fetch(_SQL["databases_with_connect"], name):
            database = row["database"]
            await session.fetchval(_SQL["lock_role"], database)
            await session.execute(ddl("revoke_all_on_database", database=quoted(database), grantee=role))
            state = await session.fetchrow(_SQL["fence_state"], database, name)
            fenced = state is not None and state["closed"]  # one that was unfenced meanwhile stays open
            if fenced and not await session.fetch(_SQL["short_lived_with_connect"], database):
                await session.execute(ddl("set_connection_limit", database=quoted(database), sessions="0"))
        # Other privileges on databases, granted by code in them.
        await session.execute(ddl("drop_owned", role=role))
        await session.execute(ddl("drop_role", role=role))


async def _reassign_objects(sessions: Sessions, server: Server, session: Administrator, name: str) -> None:
    """What code created as this role goes to the tenant's role; what it was granted is revoked."""
    tenant = await session.fetchval(_SQL["tenant_role_of"], name)
    for row in await session.fetch(_SQL["databases_with_objects_of"], name):
        what = f"taking away what role {name} has in {row['name']}"
        async with sessions.administrator(server, row["name"], what=what) as inside, inside.transaction():
            if tenant is not None:
                await inside.execute(ddl("reassign_owned", role=quoted(name), heir=quoted(tenant)))
            await inside.execute(ddl("drop_owned", role=quoted(name)))
