"""The fence: no login for the tenant's role, no connection to its database, nobody left inside.

A superuser passes both, so the fence refuses to stand around one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.adapters.postgres.activity import end_sessions, wait_until_entered
from consumer.adapters.postgres.names import quoted
from consumer.errors import Incompatible, NotFound
from consumer.model import Fence
from consumer.sql import load

if TYPE_CHECKING:
    import asyncpg

    from consumer.adapters.postgres.sessions import Connection

_SQL: Final = load("databases")


async def state(connection: Connection, database: str, role: str, where: str) -> Fence:
    """How both are now; `ended` counts the connections there are.

    Raises:
        NotFound: there is no such database or role.
    """
    now = await _doors(connection, database, role, where)
    sessions = await connection.fetch(_SQL["tenants_sessions"], database, role)
    return Fence(now["connection_limit"], now["can_login"], len(sessions))


async def put_up(connection: Connection, database: str, role: str, where: str, *, limit: float) -> None:
    """Close both doors, end who is inside, return when nobody is.

    Args:
        connection: the administrator's, on the maintenance database.
        database: the tenant's.
        role: the tenant's.
        where: the server's name, for errors.
        limit: seconds.

    Raises:
        NotFound: there is no such database or role.
        Incompatible: the role is a superuser, or prepared transactions are pending.
        TimedOut: somebody is still connected; names who.
    """
    if (await _doors(connection, database, role, where))["superuser"]:
        raise Incompatible(f"role {role} on {where} is a superuser: no fence holds it")
    await _require_nothing_prepared(connection, database, where)
    async with connection.transaction():
        await connection.execute(f"ALTER ROLE {quoted(role)} NOLOGIN")
        await connection.execute(f"ALTER DATABASE {quoted(database)} CONNECTION LIMIT 0")
    # Who passed the doors before they were closed is seen from here on: first who is still entering.
    await wait_until_entered(connection, database, limit=limit)
    what = f"fencing {database} on {where}"
    await end_sessions(connection, "tenants_sessions", database, role, limit=limit, what=what)
    await _require_nothing_prepared(connection, database, where)


async def take_down(connection: Connection, database: str, role: str, before: Fence) -> None:
    """Both doors as they were."""
    login = "LOGIN" if before.can_login else "NOLOGIN"
    async with connection.transaction():
        await connection.execute(
            f"ALTER DATABASE {quoted(database)} CONNECTION LIMIT {before.connection_limit:d}"
        )
        await connection.execute(f"ALTER ROLE {quoted(role)} {login}")


async def _doors(connection: Connection, database: str, role: str, where: str) -> asyncpg.Record:
    """The database's connection limit and the role's login. Raises NotFound."""
    now = await connection.fetchrow(_SQL["fence_state"], database, role)
    if now is None or now["connection_limit"] is None:
        raise NotFound(f"there is no database {database} on {where}")
    if now["can_login"] is None:
        raise NotFound(f"there is no role {role} on {where}")
    return now


async def _require_nothing_prepared(connection: Connection, database: str, where: str) -> None:
    prepared = await connection.fetch(_SQL["prepared"], database)
    if prepared:
        named = ", ".join(f"{row['gid']!r} of {row['owner']}" for row in prepared)
        raise Incompatible(
            f"database {database} on {where} has prepared transactions ({named}): they are still open, and no "
            "dump would hold their rows. COMMIT PREPARED or ROLLBACK PREPARED them and replay the upgrade"
        )
