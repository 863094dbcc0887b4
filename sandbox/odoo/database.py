"""The instance's three connections, and the few statements by which a migration is checked.

The tables are Odoo 19's: `res_partner` (whose `autopost_bills` is NOT NULL and without a default),
`res_users`, `ir_config_parameter`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from typing import TypeAlias

    from sandbox.odoo.conf import DatabaseOptions

    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

CONNECT_TRIES = 3
CONNECT_LIMIT_SECONDS = 5.0
RETRY_SECONDS = 0.5
BUS_CHANNEL = "imbus"
APPLICATION_NAME = "odoo"
DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

CREATE_PARTNER = """
    INSERT INTO res_partner
        (id, commercial_partner_id, name, complete_name, ref, type, active, autopost_bills, create_date)
    SELECT id, id, $1, $1, $2, 'contact', true, 'ask', now() AT TIME ZONE 'utc'
      FROM nextval(pg_get_serial_sequence('res_partner', 'id')) AS id
    RETURNING id
"""
FACTS = """
    SELECT (SELECT count(*) FROM res_users) AS users,
           (SELECT count(*) FROM res_partner) AS partners,
           (SELECT value FROM ir_config_parameter WHERE key = 'database.uuid') AS database_uuid,
           host(inet_server_addr()) AS db_host,
           inet_server_port() AS db_port,
           current_database()::text AS db_name,
           current_user::text AS db_user
"""


class DatabaseUnreachableError(Exception):
    """The instance could not connect to its database in a few tries."""


class OdooDatabase:
    """Two connections on the instance's database and one that listens on `postgres`.

    Lost connections are opened again: the pool's with the next request, the bus's every half second.
    """

    def __init__(self, options: DatabaseOptions, pool: Pool, bus: Connection) -> None:
        self._options = options
        self._pool = pool
        self._bus = asyncio.create_task(self._keep_listening(bus))

    @classmethod
    async def connect(cls, options: DatabaseOptions) -> OdooDatabase:
        """Open all three connections.

        Raises:
            DatabaseUnreachableError: none of the tries succeeded; has the server's last message.
        """
        failure: Exception | None = None
        for number in range(CONNECT_TRIES):
            if number:
                await asyncio.sleep(RETRY_SECONDS)
            try:
                bus = await _connect(options, "postgres")
                try:
                    pool = await _open_pool(options)
                except BaseException:
                    bus.terminate()
                    raise
                return cls(options, pool, bus)
            except DATABASE_ERRORS as error:
                failure = error
        where = f"{options.name} on {options.host}:{options.port} as {options.user}"
        raise DatabaseUnreachableError(
            f"cannot connect to {where} after {CONNECT_TRIES} tries: {type(failure).__name__}: {failure}"
        )

    async def ping(self) -> None:
        """Ask the database for a constant; any database error is raised as it is."""
        await self._pool.fetchval("SELECT 1")

    async def create_partner(self, *, name: str, token: str) -> int:
        """Insert a partner whose `ref` is the token; returns its id once the row is committed."""
        async with self._pool.acquire() as connection, connection.transaction():
            partner_id = await connection.fetchval(CREATE_PARTNER, name, token)
        return int(partner_id)

    async def count_partners(self, *, prefix: str) -> int:
        """How many partners have a name that starts with `prefix`."""
        count = await self._pool.fetchval(
            "SELECT count(*) FROM res_partner WHERE starts_with(name, $1)", prefix
        )
        return int(count)

    async def facts(self) -> dict[str, Any]:
        """Users, partners and uuid of the database, and the server as this connection sees it."""
        row = await self._pool.fetchrow(FACTS)
        return dict(row or {})

    async def close(self) -> None:
        """Close all connections; a server that does not answer is waited for a few seconds at most."""
        self._bus.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._bus
        try:
            async with asyncio.timeout(CONNECT_LIMIT_SECONDS):
                await self._pool.close()
        except DATABASE_ERRORS:
            self._pool.terminate()

    async def _keep_listening(self, bus: Connection | None) -> None:
        """Listen on the bus; a lost connection is opened again."""
        try:
            while True:
                try:
                    bus = bus or await _connect(self._options, "postgres")
                    await _listen_until_lost(bus)
                except DATABASE_ERRORS as error:
                    print(f"odoo: bus lost: {type(error).__name__}: {error}", flush=True)
                bus = None
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            if bus is not None:
                bus.terminate()


async def _connect(options: DatabaseOptions, database: str) -> Connection:
    return await asyncpg.connect(
        host=options.host,
        port=options.port,
        user=options.user,
        password=options.password,
        database=database,
        timeout=CONNECT_LIMIT_SECONDS,
        server_settings={"application_name": APPLICATION_NAME},
    )


async def _open_pool(options: DatabaseOptions) -> Pool:
    pool = asyncpg.create_pool(
        host=options.host,
        port=options.port,
        user=options.user,
        password=options.password,
        database=options.name,
        min_size=2,
        max_size=2,
        max_inactive_connection_lifetime=0,
        timeout=CONNECT_LIMIT_SECONDS,
        server_settings={"application_name": APPLICATION_NAME},
    )
    try:
        return await pool
    except BaseException:
        pool.terminate()
        raise


async def _listen_until_lost(bus: Connection) -> None:
    lost = asyncio.Event()
    bus.add_termination_listener(lambda _connection: lost.set())
    await bus.add_listener(BUS_CHANNEL, lambda *_notification: None)
    await lost.wait()
