"""Sessions on a PostgreSQL server, of either kind: named after the migration, bounded, always closed."""

from __future__ import annotations

import contextlib
import socket
from contextlib import asynccontextmanager
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

from rehome_consumer.adapters.common import scram_only
from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.postgres.kinds import Administrator, TenantSession
from rehome_consumer.context import claim_check, current_migration
from rehome_consumer.errors import Conflict, Incompatible, NotFound
from rehome_consumer.network.tls import PostgresTls
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from uuid import UUID

    from rehome_consumer.model import Credentials, Server

    Raw: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Resolve: TypeAlias = Callable[[str, int], tuple[str, int]]

_SQL: Final = administrator("databases")

MAINTENANCE: Final = "postgres"
"""The database for work on the server as a whole; every server has it (initdb makes it)."""

OURS: Final = "rehome:"
"""How the application names of our sessions and client programs begin."""

PREFER_TLS: Final = PostgresTls()
"""Encrypted where the server offers it, its certificate unchecked: what libpq does by default."""

KEPT_ALIVE: Final = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10"}
"""Settings of every session of ours. The server notices a lost consumer within minutes, and Swarm's virtual
addresses, which forget a connection after 15 silent minutes, do not forget an idle one."""

_transport: Final = attrgetter(
    "_transport"
)  # asyncpg has no option for keep-alive, and no door to its socket

_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 30, 10, 6  # the same from our side: a dead server is noticed
_CLOSE_SECONDS = 5.0
_MOST_BYTES = 8000  # of settings; a server takes 10,000 for all that opens a session (source: pqcomm.h)
_ANSWER_SECONDS = 5.0  # what a server may take beyond its own time limit before we call it gone


def application_name(migration_id: UUID | None) -> str:
    """The name under which sessions for this migration appear in `pg_stat_activity`."""
    return f"{OURS}{migration_id or '-'}"


def _as_it_is(host: str, port: int) -> tuple[str, int]:
    return host, port


class Sessions:
    """Opens sessions; holds no connection itself, so every migration and adapter may share it."""

    def __init__(
        self,
        *,
        connect_limit: float = 10.0,
        statement_limit: float = 60.0,
        resolve: Resolve = _as_it_is,
        tls: PostgresTls = PREFER_TLS,
    ) -> None:
        """Take the limits.

        Args:
            connect_limit: seconds for a connection, login included.
            statement_limit: seconds for one statement, unless `administrator` or `tenant` is told otherwise.
            resolve: where a server's (host, port) is reached from here; as it is by default.
            tls: whether the way there is encrypted, and who vouches for the server.

        Raises:
            SettingsError: the file of root certificates cannot be used.
        """
        self._connect_limit = connect_limit
        self._statement_limit = statement_limit
        self._resolve = resolve
        self.tls = tls
        self._ssl = tls.argument()

    def address(self, server: Server) -> tuple[str, int]:
        """Where the server is reached from here."""
        return self._resolve(server.host, server.port)

    @asynccontextmanager
    async def administrator(
        self,
        server: Server,
        database: str = MAINTENANCE,
        *,
        what: str,
        limit: float | None = None,
        beside: Administrator | None = None,
    ) -> AsyncIterator[Administrator]:
        """A session of the server's administrator for the length of the block.

        On another database than the maintenance one, nothing that ALTER DATABASE SET says there applies to it.
        Errors come out as ours and start with `what`.

        Args:
            server: where; the administrator's login of `db_servers` is used.
            database: which database.
            what: what is being done and to what, such as "fencing acme on pool-1".
            limit: seconds for one statement; by default as the constructor says.
            beside: a session on the maintenance database that is open anyway, to ask what must not apply.

        Raises:
            NotFound: there is no such database.
            ClaimLost: the claim that the work is done under was lost meanwhile; nothing was done.
            Conflict: the database's settings changed at this moment.
            Incompatible: it has too many of them.
            Unreachable, TimedOut, Refused, Incompatible, Transient: as `translated` says.
        """
        under: dict[str, str] = {}
        if database != MAINTENANCE:
            under = (
                await _overrides(beside, database)
                if beside is not None
                else await self.overrides(server, database, what=what)
            )
        if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in under.items()) > _MOST_BYTES:
            raise Incompatible(
                f"{what}: database {database} on {server.name} has {len(under)} settings of its own, more than "
                "a session can be opened without: ALTER DATABASE ... RESET those that nobody needs, and replay the "
                "upgrade"
            )
        async with self._open(
            server, database, server.admin, what=what, limit=limit, under=under
        ) as connection:
            session = Administrator(connection)
            if database != MAINTENANCE and (applied := await session.fetch(_SQL["settings_applied"])):
                named = ", ".join(row["name"] for row in applied)
                raise Conflict(f"the settings of database {database} changed at this moment ({named})")
            yield session

    @asynccontextmanager
    async def tenant(
        self,
        server: Server,
        database: str,
        login: Credentials,
        *,
        what: str,
        limit: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[TenantSession]:
        """A session of a short-lived login (`short_lived.lent`); otherwise as `administrator`.

        Args:
            server: where.
            database: the tenant's database.
            login: the short-lived role's.
            what: what is being done and to what.
            limit: seconds for one statement.
            settings: of the session; they win over those of database and role.
        """
        async with self._open(
            server, database, login, what=what, limit=limit, over=settings or {}
        ) as connection:
            yield TenantSession(connection)

    async def overrides(self, server: Server, database: str, *, what: str) -> dict[str, str]:
        """What to send at the start of an administrator's session so that no setting of the database applies."""
        async with self.administrator(server, what=what) as session:
            return await _overrides(session, database)

    @asynccontextmanager
    async def _open(
        self,
        server: Server,
        database: str,
        login: Credentials,
        *,
        what: str,
        limit: float | None,
        under: Mapping[str, str] = MappingProxyType({}),
        over: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Raw]:
        """A connection; `under` are settings that ours win over, `over` win over ours."""
        seconds = self._statement_limit if limit is None else limit
        host, port = self.address(server)
        with translated(f"{what}, server {server.name} at {host}:{port}"):
            try:
                connection = await scram_only.connect(
                    host=host,
                    port=port,
                    user=login.user,
                    password=login.password.reveal(),
                    database=database,
                    ssl=self._ssl,
                    timeout=self._connect_limit,
                    command_timeout=seconds + _ANSWER_SECONDS,
                    server_settings={
                        **under,
                        "application_name": application_name(current_migration.get()),
                        "statement_timeout": f"{seconds * 1000:.0f}",
                        **KEPT_ALIVE,
                        # A frozen one's connections stay open; its locks must not stand in another's way.
                        "idle_in_transaction_session_timeout": "30s",
                        # A restore takes hours, and a session of ours waits for it.
                        "idle_session_timeout": "0",
                        # The names in our statements are built-in ones, whatever a tenant has called its own.
                        "search_path": "pg_catalog",
                        "default_transaction_read_only": "off",
                        **over,
                    },
                )
            except asyncpg.InvalidCatalogNameError:
                raise NotFound(f"there is no database {database} on {server.name}") from None
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                if login == server.admin or "pg_hba.conf" not in str(error):
                    raise
                raise Incompatible(
                    f"{what}: {server.name} at {host}:{port} keeps out a short-lived role with the tenant's rights "
                    f"({error.args[0]}): let its pg_hba.conf admit members of the tenant's role from here (+NAME "
                    "instead of NAME, or all) and replay the upgrade"
                ) from None
            _keep_alive(connection)
            try:
                if (check := claim_check.get()) is not None:
                    await check()
                yield connection
            finally:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.close(timeout=_CLOSE_SECONDS)


async def _overrides(session: Administrator, database: str) -> dict[str, str]:
    found = await session.fetch(_SQL["settings_of_database"], database)
    return {row["name"]: row["value"] for row in found}


def _keep_alive(connection: Raw) -> None:
    """Probe a silent server (tcp(7)): a statement that may take hours would wait as long for a dead one."""
    wire = _transport(connection).get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
