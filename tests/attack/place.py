"""The platform on servers of chosen versions, whose autovacuum runs all the time and whose logs are kept."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sandbox.platform.local import local_platform
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import create_odoo_tenant
from sandbox.system.accounts import database_account, give
from tests.chaos.arena import Arena, running_arena

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sandbox.demo.chaos import Orders
    from sandbox.platform.subscriber import Subscriber
    from sandbox.postgres.tenants import Tenant
    from tests.chaos.arena import Arrivals
    from tests.support.postgres_versions import Pair

BUSY_AUTOVACUUM: Final[Mapping[str, str]] = {
    "autovacuum_naptime": "1s",
    "autovacuum_analyze_threshold": "1",
    "autovacuum_analyze_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "0",
    "autovacuum_max_workers": "4",
}
"""A tenant's index functions run all the time, whoever is connected."""
KEPT_LOGS: Final = "dedicated-logs"


@dataclass
class Place(Arena):
    """The arena of the fault tests, with servers of chosen versions.

    Attributes:
        pair: the versions.
        marks: directory that every server's account may write to; it must be empty in the end.
    """

    pair: Pair = field(kw_only=True)
    marks: Path = field(kw_only=True)

    async def make_odoo_tenant(self, tenant: Tenant) -> None:
        """A role and a database with Odoo's demonstration data, restored: these pools have no template."""
        await create_odoo_tenant(self.local.pool, tenant)

    def logs(self) -> dict[str, Path]:
        """Every server's log; those of dedicated servers are kept after the servers."""
        local = self.local
        kept = sorted((local.directory / KEPT_LOGS).glob("*"))
        return {
            "the pool": local.pool.log,
            "the state database's server": local.platform.cluster.log,
            **{f"a dedicated server ({log.name})": log for log in kept},
        }

    def rest(self) -> None:
        """Settings of one test do not apply to the next."""
        self.settings.clear()
        self.settings["REHOME_PG_BIN"] = str(self.pair.clients)


@asynccontextmanager
async def place(directory: Path, pair: Pair) -> AsyncIterator[Place]:
    """Start it; tests add consumers and customers."""
    marks, logs = _open_directory(directory / "marks"), _open_directory(directory / KEPT_LOGS)

    async def start_pool(where: Path) -> Cluster:
        cluster = await Cluster.create(
            where, password=secrets.token_urlsafe(24), settings=BUSY_AUTOVACUUM, programs=pair.pool
        )
        await cluster.start()
        return cluster

    async with local_platform(directory, [], start_pool=start_pool) as local:
        local.database_service.programs = pair.dedicated
        local.database_service.settings = {
            **BUSY_AUTOVACUUM,
            "logging_collector": "on",
            "log_directory": str(logs),
            "log_filename": "server-%Y.log",
        }

        def build(subscriber: Subscriber, orders: Orders, arrivals: Arrivals) -> Place:
            return Place(local, subscriber, orders, arrivals=arrivals, pair=pair, marks=marks)

        async with running_arena(directory, local.broker.url(), build) as made:
            yield made


def _open_directory(path: Path) -> Path:
    path.mkdir(mode=0o711)
    path.chmod(0o755)
    give(path, database_account())
    return path
