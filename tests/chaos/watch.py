"""Looking at a customer all through an experiment: who lets the tenant write, and what processes show."""

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
LOOKS_AT_ARGUMENTS = 3
"""A process begins as a copy of its parent: its own arguments are there from the second look on."""
GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

# Doors: databases that the tenant's data may be in, and ordinary roles that may log in and own or reach them.
# Our own short-lived role of a restore is no door of the tenant's.
OPEN = """
    SELECT EXISTS (
        SELECT FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
        WHERE NOT r.rolsuper AND r.rolcanlogin AND r.rolname NOT LIKE 'rehome\\_%'
          AND d.datallowconn AND d.datconnlimit <> 0 AND (d.datname = $1 OR $2)
    )
"""
INSIDE = """
    SELECT count(*) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
    WHERE NOT r.rolsuper AND r.rolname NOT LIKE 'rehome\\_%' AND (a.datname = $1 OR r.rolname = $2 OR $3)
"""


@dataclass
class Look:
    """One server as it was at a moment: whether the tenant may come in, and how many of it are inside."""

    open: bool
    inside: int


@dataclass
class Watch:
    """Samples in the background; used as ``async with``.

    Attributes:
        looks: how many times both servers were seen.
        both_open: moments at which the tenant could write to either server.
        shown: secrets (by their names) that a process showed in its arguments.
    """

    arena: Arena
    site: Site
    looks: int = 0
    both_open: int = 0
    both_inside: int = 0
    shown: set[str] = field(default_factory=set)
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
        self._tasks = [asyncio.create_task(self._doors()), asyncio.create_task(self._arguments())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _doors(self) -> None:
        """Target, source, target: what was open before and after was open in between."""
        open_now: list[asyncpg.Connection[asyncpg.Record]] = []
        try:
            while True:
                await asyncio.sleep(PAUSE_SECONDS)
                try:
                    await self._look_at_doors(open_now)
                except GONE:
                    _close(open_now)
        finally:
            _close(open_now)

    async def _look_at_doors(self, open_now: list[asyncpg.Connection[asyncpg.Record]]) -> None:
        """Once; `open_now` has the connections to source and target, as far as there are any."""
        if not open_now:
            open_now.append(await open_connection(self.arena.local.pool.dsn(), timeout=CONNECT_SECONDS))
        if len(open_now) == 1:
            target = await self._target()
            if target is None:
                await asyncio.sleep(NO_TARGET_PAUSE_SECONDS)
                return
            open_now.append(target)
        source, target = open_now
        first = await self._look(target, everything=True)
        middle = await self._look(source, everything=False)
        last = await self._look(target, everything=True)
        self.looks += 1
        self.both_open += first.open and middle.open and last.open
        self.both_inside += bool(min(first.inside, middle.inside, last.inside))

    async def _target(self) -> asyncpg.Connection[asyncpg.Record] | None:
        server = await self.arena.dedicated(self.site)
        if server is None:
            return None
        self.secrets["the dedicated server's password"] = recognisable(server["admin_password"])
        return await administrator(server)

    async def _look(self, server: asyncpg.Connection[asyncpg.Record], *, everything: bool) -> Look:
        """A dedicated server has one tenant: there any database (`everything`) is its."""
        tenant = self.site.tenant
        return Look(
            await server.fetchval(OPEN, tenant.database, everything),
            await server.fetchval(INSIDE, tenant.database, tenant.role, everything),
        )

    async def _arguments(self) -> None:
        """Program and arguments of every process of the machine, as everybody can read them."""
        looks: Counter[str] = Counter()
        while True:
            lines = command_lines(looks)
            self.shown |= {
                name
                for name, secret in self.secrets.items()
                if any(secret.encode() in line for line in lines)
            }
            await asyncio.sleep(ARGUMENTS_PAUSE_SECONDS)


def command_lines(looks: Counter[str]) -> list[bytes]:
    """Those of every process that was looked at fewer than a few times: arguments do not change after a start.

    Args:
        looks: how often each process (by its number) was looked at; brought up to date.
    """
    there = {name for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208 - ten times a second
    for name in looks.keys() - there:
        del looks[name]
    lines = []
    for name in there:
        if looks[name] >= LOOKS_AT_ARGUMENTS:
            continue
        looks[name] += 1
        with contextlib.suppress(OSError):
            lines.append(Path("/proc", name, "cmdline").read_bytes())
    return lines


def recognisable(secret: str) -> str:
    """A part of a secret that stays the same in every spelling: quoted, escaped, in a URL or in JSON.

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
