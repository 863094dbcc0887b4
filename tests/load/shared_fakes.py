"""A thousand small platforms in files: what is slow in a move is a fake, shared by all consumers through the disk.

Each migration has a file with its `Site` (its slice of the pool, its dedicated server, its service). A call of
a port reads it, plays on it and writes it back, under a lock; a process that is killed meanwhile has done
nothing, one that is killed a moment later has done all of it. The platform's rows are real.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pickle
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

from rehome_consumer.context import current_migration
from rehome_consumer.model import Provisioned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID

    from tests.fakes.site import Site

LOCK_PAUSE = 0.005
SECONDS = {"copier.dump": 0.3, "copier.restore": 0.3, "database_service.provision": 0.3, "runtime.start": 0.2}
"""What a call takes, besides playing it."""
NOTED = ("runtime.stop", "copier.dump", "copier.seal")
"""Calls whose beginning and end are written down."""
DEADLY = "runtime.find"
"""The call that kills every consumer which makes it for the poisonous instance."""

REGISTER = """
    INSERT INTO db_servers (id, name, host, port, server_type, max_instances, status, admin_user, admin_password,
                            dedicated_to_customer_id, dedicated_to_instance_id, postgres_version)
    VALUES ($1, $2, $3, $4, 'dedicated', 1, 'active', $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class Places:
    """The files.

    Attributes:
        directory: holds them, and `calls` with a line for each call noted.
    """

    directory: Path
    _inside: dict[UUID, asyncio.Lock] = field(default_factory=dict)

    def put(self, migration: UUID, site: Site, *, poison: bool = False) -> None:
        """A new platform."""
        self._file(migration).write_bytes(pickle.dumps(site))
        if poison:
            self._file(migration).with_suffix(".poison").touch()

    def get(self, migration: UUID) -> Site:
        """As it is now, to look at."""
        found: Site = pickle.loads(self._file(migration).read_bytes())  # noqa: S301 - we wrote it
        return found

    def is_poison(self, migration: UUID) -> bool:
        """Whether its upgrade kills consumers."""
        return self._file(migration).with_suffix(".poison").exists()

    @asynccontextmanager
    async def open(self, migration: UUID) -> AsyncIterator[Site]:
        """It, for one call; nobody else has it meanwhile. What fails or dies changes nothing."""
        path = self._file(migration)
        async with self._inside.setdefault(migration, asyncio.Lock()):
            with path.with_suffix(".lock").open("w") as lock:
                while not _locked(lock.fileno()):  # noqa: ASYNC110 - the other process tells nobody
                    await asyncio.sleep(LOCK_PAUSE)
                site = self.get(migration)
                yield site
                new = path.with_suffix(".new")
                new.write_bytes(pickle.dumps(site))
                new.replace(path)

    def note(self, edge: str, call: str, pool: str, migration: UUID) -> None:
        """One line, whole even if several processes write at once."""
        line = f"{time.monotonic()} {os.getpid()} {edge} {call} {pool} {migration}\n".encode()
        descriptor = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def calls(self) -> Iterator[tuple[float, int, str, str, str, str]]:
        """What was noted, in order: seconds, pid, `begin` or `end`, call, pool, migration."""
        for line in self._calls.read_text().splitlines():
            at, pid, edge, call, pool, migration = line.split()
            yield float(at), int(pid), edge, call, pool, migration

    @property
    def _calls(self) -> Path:
        return self.directory / "calls"

    def _file(self, migration: UUID) -> Path:
        return self.directory / f"{migration}.site"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Placed:
    """A port of the site of the migration that the caller works for."""

    def __init__(self, places: Places, name: str) -> None:
        self._places = places
        self._name = name

    def __getattr__(self, method: str) -> Any:
        call = f"{self._name}.{method}"

        async def play(*arguments: Any, **named: Any) -> Any:
            migration = current_migration.get()
            assert migration is not None, f"{call} outside a step"
            if call == DEADLY and self._places.is_poison(migration):
                os.kill(os.getpid(), signal.SIGKILL)
            pool = self._places.get(migration).pool.name if call in NOTED else ""
            if pool:
                self._places.note("begin", call, pool, migration)
            await asyncio.sleep(SECONDS.get(call, 0))
            async with self._places.open(migration) as site:
                result = await getattr(getattr(site, self._name), method)(*arguments, **named)
            if pool:
                self._places.note("end", call, pool, migration)
            return result

        return play


class PlacedService(Placed):
    """database-service: its servers stand in the real `db_servers`, too."""

    def __init__(self, places: Places, dsn: str) -> None:
        super().__init__(places, "database_service")
        self._dsn = dsn

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        """One server per instance; asked again it answers the same."""
        migration = current_migration.get()
        assert migration is not None
        await asyncio.sleep(SECONDS["database_service.provision"])
        async with self._places.open(migration) as site:
            server = await site.platform.dedicated_server(instance_id)
            if server is None:
                await site.database_service.provision(instance_id, customer_id, plan_tier)
                server = await site.platform.dedicated_server(instance_id)
            assert server is not None
        row = site.platform.servers[server.id]
        connection = await asyncpg.connect(self._dsn, timeout=10)
        try:
            await connection.execute(
                REGISTER,
                server.id, row["name"], row["host"], row["port"], row["admin_user"],
                row["admin_password"], customer_id, instance_id, row["postgres_version"],
            )  # fmt: skip
        finally:
            await connection.close(timeout=10)
        return Provisioned(server.id, server.host)
