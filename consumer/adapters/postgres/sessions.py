"""Sessions on a PostgreSQL server as its administrator: named after the migration, bounded, always closed."""

from __future__ import annotations

import contextlib
import socket
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg

from consumer.adapters.postgres_errors import translated
from consumer.context import claim_check, current_migration
from consumer.errors import NotFound
from consumer.tls import PostgresTls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from uuid import UUID

    from consumer.model import Server

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Resolve: TypeAlias = Callable[[str, int], tuple[str, int]]

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
            statement_limit: seconds for one statement, unless `open` is told otherwise.
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
    async def open(
        self,
        server: Server,
        database: str = MAINTENANCE,
        *,
        what: str,
        limit: float | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Connection]:
        """A session for the length of the block; errors come out as ours and start with `what`.

        Args:
            server: where; its administrator's login is used.
            database: which database.
            what: what is being done and to what, such as "fencing acme on pool-1".
            limit: seconds for one statement; by default as the constructor says.
            settings: further server settings of the session; they win over those of database and role.

        Raises:
            NotFound: there is no such database.
            ClaimLost: the claim that the work is done under was lost meanwhile; nothing was done.
            Unreachable, TimedOut, Conflict, Refused, Incompatible, Transient: as `translated` says.
        """
        seconds = self._statement_limit if limit is None else limit
        host, port = self.address(server)
        with translated(f"{what}, server {server.name} at {host}:{port}"):
            try:
                connection = await asyncpg.connect(
                    host=host,
                    port=port,
                    user=server.admin.user,
                    password=server.admin.password.reveal(),
                    database=database,
                    ssl=self._ssl,
                    timeout=self._connect_limit,
                    command_timeout=seconds + _ANSWER_SECONDS,
                    server_settings={
                        "application_name": application_name(current_migration.get()),
                        "statement_timeout": f"{seconds * 1000:.0f}",
                        **KEPT_ALIVE,
                        # A frozen one's connections stay open; its locks must not stand in another's way.
                        "idle_in_transaction_session_timeout": "30s",
                        # The names in our statements are built-in ones, whatever a tenant has called its own.
                        "search_path": "pg_catalog",
                        "default_transaction_read_only": "off",
                        **(settings or {}),
                    },
                )
            except asyncpg.InvalidCatalogNameError:
                raise NotFound(f"there is no database {database} on {server.name}") from None
            _keep_alive(connection)
            try:
                if (check := claim_check.get()) is not None:
                    await check()
                yield connection
            finally:
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.close(timeout=_CLOSE_SECONDS)


def _keep_alive(connection: Connection) -> None:
    """Probe a silent server (tcp(7)): a statement that may take hours would wait as long for a dead one."""
    wire = _transport(connection).get_extra_info("socket")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _INTERVAL_SECONDS)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
