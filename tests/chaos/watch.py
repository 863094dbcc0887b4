"""Observing a customer during an experiment: which servers let the tenant write, and process arguments."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from sandbox.postgres.connections import open_connection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena

PAUSE_SECONDS = 0.03
NO_TARGET_PAUSE_SECONDS = 0.1
CONNECT_SECONDS = 5.0
ARGUMENTS_PAUSE_SECONDS = 0.15
READS_PER_PROCESS = 3
"""A process begins as a copy of its parent: its own arguments are there at the second reading."""
UNREACHABLE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

# Databases that the tenant's data may be in, and ordinary roles that may log in and own or reach them.
# The consumer's own short-lived roles do not count.
OPEN = """
    SELECT EXISTS (
        SELECT FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
        WHERE NOT r.rolsuper AND r.rolcanlogin AND r.rolname NOT LIKE 'rehome\\_%'
          AND d.datallowconn AND d.datconnlimit <> 0 AND (d.datname = $1 OR $2)
    )
"""
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
    WHERE NOT r.rolsuper AND r.rolname NOT LIKE 'rehome\\_%' AND (a.datname = $1 OR r.rolname = $2 OR $3)
"""


@dataclass
class ServerAccess:
    """One server at one moment: whether the tenant may connect, and how many of its sessions there are."""

    open: bool
    sessions: int


@dataclass
class Watch:
    """Samples in the background; used as ``async with``.

    Attributes:
        observations: how many times both servers were observed.
        both_open: of these, how many times the tenant could write to both.
        both_in_use: how many times it had sessions on both.
        in_arguments: secrets (by their names) that were in a process's arguments.
    """

    arena: Arena
    site: Site
    observations: int = 0
    both_open: int = 0
    both_in_use: int = 0
    in_arguments: set[str] = field(default_factory=set)
    secrets: dict[str, str] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        tenant, local = self.site.tenant, self.arena.local
        self.secrets = {
            "the tenant's password": recognisable(tenant.password),
            "the pool's password": recognisable(local.pool.password),
            "the platform's password": recognisable(local.platform.password),
            "the platform superuser's password": recognisable(local.platform.cluster.password),
            "the key": recognisable(local.secret_key),
        }
        self._tasks = [
            asyncio.create_task(self._watch_access()),
            asyncio.create_task(self._watch_arguments()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch_access(self) -> None:
        connections: list[asyncpg.Connection[asyncpg.Record]] = []
        try:
            while True:
                await asyncio.sleep(PAUSE_SECONDS)
                try:
                    await self._observe_access(connections)
                except UNREACHABLE:
                    _close(connections)
        finally:
            _close(connections)

    async def _observe_access(self, connections: list[asyncpg.Connection[asyncpg.Record]]) -> None:
        """Target, source, target: a target that is open before and after was open in between.

        `connections` has those to source and target, as far as they are open.
        """
        if not connections:
            connections.append(await open_connection(self.arena.local.pool.dsn(), timeout=CONNECT_SECONDS))
        if len(connections) == 1:
            target = await self._target()
            if target is None:
                await asyncio.sleep(NO_TARGET_PAUSE_SECONDS)
                return
            connections.append(target)
        source, target = connections
        first = await self._access(target, any_database=True)
        middle = await self._access(source, any_database=False)
        last = await self._access(target, any_database=True)
        self.observations += 1
        self.both_open += first.open and middle.open and last.open
        self.both_in_use += bool(min(first.sessions, middle.sessions, last.sessions))

    async def _target(self) -> asyncpg.Connection[asyncpg.Record] | None:
        server = await self.arena.dedicated(self.site)
        if server is None:
            return None
        self.secrets["the dedicated server's password"] = recognisable(server["admin_password"])
        return await administrator(server)

    async def _access(
        self, server: asyncpg.Connection[asyncpg.Record], *, any_database: bool
    ) -> ServerAccess:
        """On a dedicated server any database is the tenant's."""
        tenant = self.site.tenant
        return ServerAccess(
            await server.fetchval(OPEN, tenant.database, any_database),
            await server.fetchval(SESSIONS, tenant.database, tenant.role, any_database),
        )

    async def _watch_arguments(self) -> None:
        """Program and arguments of every process of the machine, which every user can read."""
        reads: Counter[str] = Counter()
        while True:
            lines = command_lines(reads)
            self.in_arguments |= {
                name
                for name, secret in self.secrets.items()
                if any(secret.encode() in line for line in lines)
            }
            await asyncio.sleep(ARGUMENTS_PAUSE_SECONDS)


def command_lines(reads: Counter[str]) -> list[bytes]:
    """Those of every process that was read fewer than a few times: arguments do not change after a start.

    Args:
        reads: how often each process (by its pid) was read; updated.
    """
    running = {name for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - ten times a second
    for name in reads.keys() - running:
        del reads[name]
    lines = []
    for name in running:
        if reads[name] >= READS_PER_PROCESS:
            continue
        reads[name] += 1
        with contextlib.suppress(OSError):
            lines.append(Path("/proc", name, "cmdline").read_bytes())
    return lines


def recognisable(secret: str) -> str:
    """A part of a secret that is the same in every encoding: quoted, escaped, in a URL or in JSON.

    The sandbox's passwords begin with twelve random letters, digits, hyphens and underscores.
    """
    return secret[:12]


async def administrator(
    server: Mapping[str, Any], database: str = "postgres"
) -> asyncpg.Connection[asyncpg.Record]:
    """A connection to the server of a row of `db_servers`."""
    return await open_connection(
        host=server["host"],
        port=server["port"],
        user=server["admin_user"],
        password=server["admin_password"],
        database=database,
        timeout=CONNECT_SECONDS,
    )


def _close(connections: list[asyncpg.Connection[asyncpg.Record]]) -> None:
    while connections:
        connections.pop().terminate()
