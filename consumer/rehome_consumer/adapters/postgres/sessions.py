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
from rehome_consumer.adapters.common.postgres_errors import NOT_A_POOLER, translated
from rehome_consumer.adapters.postgres import database_settings
from rehome_consumer.adapters.postgres.kinds import Administrator, TenantSession
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.context import claim_check, current_migration
from rehome_consumer.errors import Incompatible, NotFound
from rehome_consumer.network.tls import PostgresTls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from uuid import UUID

    from rehome_consumer.model import Credentials, Server

    Raw: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Resolve: TypeAlias = Callable[[str, int], tuple[str, int]]

MAINTENANCE: Final = "postgres"
"""The database for work on the server itself; every server has it (initdb makes it)."""

APPLICATION_PREFIX: Final = "rehome:"
"""How the application names of rehome's sessions and client programs begin."""

PREFER_TLS: Final = PostgresTls()
"""Encrypted where the server offers it, its certificate not checked: what libpq does by default."""

KEEPALIVE_SETTINGS: Final = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10"}
"""Settings of every session of rehome's. The server notices a lost consumer within minutes, and Swarm's virtual
addresses, which forget a connection after 15 silent minutes, do not forget an idle one."""

TRANSACTION_TIMEOUT_SINCE: Final = 17
"""Major version; older servers do not know the setting, so it cannot be sent where a session begins."""

_transport: Final = attrgetter(
    "_transport"
)  # asyncpg has no option for keep-alive, and no access to its socket

_IDLE_SECONDS, _INTERVAL_SECONDS, _PROBES = 30, 10, 6  # the same from the client: a dead server is noticed
_CLOSE_SECONDS = 5.0
_ANSWER_SECONDS = 5.0  # what a server may take beyond its own time limit before it counts as unreachable


def application_name(migration_id: UUID | None) -> str:
    """The name under which sessions for this migration appear in `pg_stat_activity`."""
    return f"{APPLICATION_PREFIX}{migration_id or '-'}"


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
            statement_limit: seconds for one statement, unless `administrator` or `tenant` gets another limit.
            resolve: where a server's (host, port) is reached from here; by default there.
            tls: whether the connection is encrypted, and how the server's certificate is checked.

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
        schemas: Sequence[str] = (),
    ) -> AsyncIterator[Administrator]:
        """A session of the server's administrator for the length of the block.

        On another database than the maintenance one, no setting of that database applies to it.
        Errors are those of `rehome_consumer.errors` and start with `what`.

        Args:
            server: where; the administrator's login of `db_servers` is used.
            database: which database.
            what: what is being done and to what, such as "fencing acme on pool-1".
            limit: seconds for one statement; by default as the constructor says.
            beside: a session on the maintenance database that is open anyway, to read the database's settings.
            schemas: what follows pg_catalog in the session's search_path: only where the database holds nothing of a
                tenant's.

        Raises:
            NotFound: there is no such database.
            ClaimLost: the claim that the work is done under was lost meanwhile; nothing was done.
            Conflict: the database's settings changed at this moment.
            Incompatible: it has too many of them.
            Unreachable, TimedOut, Refused, Incompatible, Transient: as `translated` says.
        """
        overrides: dict[str, str] = {}
        if database != MAINTENANCE:
            overrides = (
                await database_settings.overrides(beside, database, what, server.name)
                if beside is not None
                else await self.overrides(server, database, what=what)
            )
        path = ", ".join(("pg_catalog", *map(quoted, schemas)))
        async with self._open(
            *(server, database, server.admin),
            what=what,
            limit=limit,
            overrides=overrides,
            settings={"search_path": path, "lc_messages": "C"},
        ) as connection:
            session = Administrator(connection)
            if database != MAINTENANCE:
                await database_settings.require_none_applied(session, database)
            yield session

    @asynccontextmanager
    async def replication(
        self, server: Server, database: str, *, what: str, limit: float
    ) -> AsyncIterator[Administrator]:
        """As `administrator`, for replication commands: it takes no arguments, and gives rows only by `copied`."""
        async with self._open(
            *(server, database, server.admin),
            what=what,
            limit=limit,
            overrides=await self.overrides(server, database, what=what),
            settings={"replication": "database", "idle_in_transaction_session_timeout": "0"},
        ) as connection:
            yield Administrator(connection)

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
        """A session of a short-lived login (`short_lived.short_lived_login`); otherwise as `administrator`.

        Args:
            server: where.
            database: the tenant's database.
            login: the short-lived role's.
            what: what is being done and to what.
            limit: seconds for one statement.
            settings: of the session; they win over those of database and role.
        """
        async with self._open(
            server, database, login, what=what, limit=limit, settings=settings or {}
        ) as connection:
            yield TenantSession(connection)

    async def overrides(self, server: Server, database: str, *, what: str) -> dict[str, str]:
        """As `database_settings.overrides`."""
        async with self.administrator(server, what=what) as session:
            return await database_settings.overrides(session, database, what, server.name)

    @asynccontextmanager
    async def _open(
        self,
        server: Server,
        database: str,
        login: Credentials,
        *,
        what: str,
        limit: float | None,
        overrides: Mapping[str, str] = MappingProxyType({}),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Raw]:
        """A connection. Of the same setting `settings` win over the values here, and these over `overrides`."""
        seconds = self._statement_limit if limit is None else limit
        asked = {
            **overrides,
            "application_name": application_name(current_migration.get()),
            "statement_timeout": f"{seconds * 1000:.0f}",
            **KEEPALIVE_SETTINGS,
            # A frozen consumer's connections stay open; its locks must not block another one.
            "idle_in_transaction_session_timeout": "30s",
            # A restore takes hours, and a session waits for it.
            "idle_session_timeout": "0",
            # Names in statements mean built-in objects, whatever a tenant has called its own.
            "search_path": "pg_catalog",
            "default_transaction_read_only": "off",
            **settings,
        }
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
                    server_settings=asked,
                )
            except asyncpg.InvalidCatalogNameError:
                raise NotFound(f"there is no database {database} on {server.name}") from None
            except asyncpg.InvalidAuthorizationSpecificationError as error:
                if login == server.admin or "pg_hba.conf" not in str(error):
                    raise
                raise Incompatible(
                    f"{what}: {server.name} at {host}:{port} rejects a short-lived role with the tenant's rights "
                    f"({error.args[0]}): let its pg_hba.conf admit members of the tenant's role from here (+NAME "
                    "instead of NAME, or all) and replay the upgrade"
                ) from None
            _keep_alive(connection)
            try:
                await _require_settings(connection, asked, what, server)
                if connection.get_server_version().major >= TRANSACTION_TIMEOUT_SINCE:
                    await connection.execute("SET transaction_timeout = 0")
                if (check := claim_check.get()) is not None:
                    await check()
                yield connection
            finally:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.close(timeout=_CLOSE_SECONDS)


async def _require_settings(connection: Raw, asked: Mapping[str, str], what: str, server: Server) -> None:
    """Refuse a server that ignored what the session asked for: a pooler may be told to (ignore_startup_parameters).

    One of the two is a setting that no pooler tracks, since servers do not report it. They are read by COPY: a session
    that takes replication commands knows no other way to give rows.
    """
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        chunks.append(chunk)

    names = ("search_path", "idle_in_transaction_session_timeout")
    values = ", ".join(f"pg_catalog.current_setting('{name}')" for name in names)
    await connection.copy_from_query(f"SELECT {values}", output=take)
    if b"".join(chunks).decode().rstrip("\n").split("\t") != [asked[name] for name in names]:
        raise Incompatible(
            f"{what}: {server.name} at {server.host}:{server.port} ignores the settings of a session (search_path, "
            f"time limits). {NOT_A_POOLER}"
        )


def _keep_alive(connection: Raw) -> None:
    """Probe a silent server (tcp(7)): a statement that may take hours would wait as long for a dead one."""
    wire = _transport(connection).get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
