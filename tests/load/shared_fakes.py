"""A thousand small platforms in files: what is slow in a move is a fake, shared by all consumers through the disk.

Each migration has a file with its `Site` (its part of the pool, its dedicated server, its service). A call of
a port reads the file, calls the fake and writes the file, under a lock; a process that is killed meanwhile has
done nothing, one that is killed a moment later has done all of it. The platform's rows are real.
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
from uuid import uuid4

import asyncpg

from rehome_consumer.context import current_migration
from rehome_consumer.model import Provisioned
from tests.fakes.world import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.model import Server
    from tests.fakes.site import Site

LOCK_PAUSE = 0.005
SECONDS = {"copier.dump": 0.3, "copier.restore": 0.3, "database_service.provision": 0.3, "runtime.start": 0.2}
"""What these calls take."""
RECORDED = ("runtime.begin_stop", "copier.dump", "copier.seal")
"""Calls whose beginning and end are recorded."""
REHEARSAL = "verifier.with_snapshot"
"""Recorded, too."""
DEADLY = "runtime.find"
"""The call that kills every consumer which makes it for the poison."""

REGISTER = """
    INSERT INTO db_servers (id, name, host, port, server_type, max_instances, status, admin_user, admin_password,
                            dedicated_to_customer_id, dedicated_to_instance_id, postgres_version)
    VALUES ($1, $2, $3, $4, 'dedicated', 1, 'active', $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True)
class SharedSites:
    """The files.

    Attributes:
        directory: contains them, and the file `calls` with two lines for each recorded call.
    """

    directory: Path
    _in_process: dict[UUID, asyncio.Lock] = field(default_factory=dict)

    def put(self, migration: UUID, site: Site, *, poison: bool = False) -> None:
        """Write a new site."""
        self._file(migration).write_bytes(pickle.dumps(site))
        if poison:
            self._file(migration).with_suffix(".poison").touch()

    def get(self, migration: UUID) -> Site:
        """The site as it is now, for reading."""
        found: Site = pickle.loads(self._file(migration).read_bytes())  # noqa: S301 - written by `put`
        return found

    def is_poison(self, migration: UUID) -> bool:
        """Whether its upgrade kills consumers."""
        return self._file(migration).with_suffix(".poison").exists()

    @asynccontextmanager
    async def open(self, migration: UUID) -> AsyncIterator[Site]:
        """The site for one call, locked; a call that fails or dies changes nothing."""
        path = self._file(migration)
        async with self._in_process.setdefault(migration, asyncio.Lock()):
            with path.with_suffix(".lock").open("w") as lock:
                while not _locked(lock.fileno()):  # noqa: ASYNC110 - the other process sends no signal
                    await asyncio.sleep(LOCK_PAUSE)
                site = self.get(migration)
                yield site
                new = path.with_suffix(".new")
                new.write_bytes(pickle.dumps(site))
                new.replace(path)

    def record(self, edge: str, call: str, pool: str, migration: UUID) -> None:
        """One line, complete even if several processes write at once."""
        line = f"{time.monotonic()} {os.getpid()} {edge} {call} {pool} {migration}\n".encode()
        descriptor = os.open(self._calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def calls(self) -> Iterator[tuple[float, int, str, str, str, str]]:
        """What was recorded, in order: seconds, pid, `begin` or `end`, call, pool, migration."""
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


class SharedPort:
    """A port of the site whose migration the caller works for."""

    def __init__(self, sites: SharedSites, name: str) -> None:
        self._sites = sites
        self._name = name

    def __getattr__(self, method: str) -> Any:
        call = f"{self._name}.{method}"

        async def play(*arguments: Any, **named: Any) -> Any:
            migration = current_migration.get()
            assert migration is not None, f"{call} outside a step"
            if call == DEADLY and self._sites.is_poison(migration):
                os.kill(os.getpid(), signal.SIGKILL)
            pool = self._sites.get(migration).pool.name if call in RECORDED else ""
            if pool:
                self._sites.record("begin", call, pool, migration)
            await asyncio.sleep(SECONDS.get(call, 0))
            async with self._sites.open(migration) as site:
                result = await getattr(getattr(site, self._name), method)(*arguments, **named)
            if pool:
                self._sites.record("end", call, pool, migration)
            return result

        return play


class SharedVerifier(SharedPort):
    """Held snapshots: whoever holds one calls other ports meanwhile."""

    def __init__(self, sites: SharedSites) -> None:
        super().__init__(sites, "verifier")

    async def with_snapshot(
        self, server: Server, database: str, _role: str, work: Callable[[str], Awaitable[Any]]
    ) -> Any:
        """The snapshot is in the site's file; one that a killed process held stays there, and is used no more."""
        migration = current_migration.get()
        assert migration is not None
        snapshot = uuid4().hex
        self._sites.record("begin", REHEARSAL, server.name, migration)
        async with self._sites.open(migration) as site:
            site.world.snapshots[snapshot] = copied(site.world.database(server, database))
        try:
            return await work(snapshot)
        finally:
            async with self._sites.open(migration) as site:
                del site.world.snapshots[snapshot]
            self._sites.record("end", REHEARSAL, server.name, migration)


class SharedDatabaseService(SharedPort):
    """database-service: its servers have rows in the real `db_servers`, too."""

    def __init__(self, sites: SharedSites, dsn: str) -> None:
        super().__init__(sites, "database_service")
        self._dsn = dsn

    async def provision(self, instance_id: UUID, customer_id: UUID, plan_tier: str) -> Provisioned:
        """One server per instance; a second call returns the same."""
        migration = current_migration.get()
        assert migration is not None
        await asyncio.sleep(SECONDS["database_service.provision"])
        async with self._sites.open(migration) as site:
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
