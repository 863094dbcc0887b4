"""What a customer feels of a move: gaps in the writes of a client that never pauses, each way in turn.

The ways: a plain restart of the instance; what the platform does today (plain SQL through a file, states looked at
every two seconds, the server made while the instance is down); the same by hand as well as PostgreSQL's programs can
(the server is there already, parallel, nothing is waited for longer than it lasts); and rehome. Only rehome verifies.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from benchmarks.client_programs import LIMIT_SECONDS, client_program
from benchmarks.customer import PARTS, Customer, Felt, Marks
from benchmarks.report import MEBIBYTE, Table, median, say
from sandbox.demo.chaos import DIRECTORY, Orders
from sandbox.platform.billing import Billing
from sandbox.platform.local import local_platform
from sandbox.platform.subscriber import ENDS, Subscriber
from sandbox.postgres.databases import create_database, create_role, drop_database, quoted
from sandbox.postgres.pool import add_odoo_tenant, start_odoo_pool
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, inflate, set_uuid
from sandbox.system.net import wait_until
from sandbox.system.processes import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox.platform.local import LocalPlatform, Site

DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}
"""The sandbox's servers need not survive a power cut; the measured ones are set as in production."""
DEDICATED: Final = {**DURABLE, "wal_level": "replica"}
PLAN: Final = "premium-monthly"
JOBS: Final = 4
TODAYS_POLLING: Final = 2.0
CLOSE_POLLING: Final = 0.05
WAYS: Final = frozenset({"restart", "today", "hand", "rehome", "warm"})
RESTART: Final = "a plain restart"
TODAY: Final = "today: plain pg_dump, psql"


@dataclass(frozen=True)
class Odoo:
    """How slow the stand-in is, in seconds: measured on Odoo 19 under Swarm, a stop takes 4, a start 3."""

    stop: float
    start: float

    @property
    def env(self) -> dict[str, str]:
        """For the instance's service."""
        return {"ODOO_FAULT_SLOW_STOP": f"{self.stop}", "ODOO_FAULT_SLOW_START": f"{self.start}"}


@dataclass
class Stage:
    """A platform whose pool has a neighbour and a large database; each way gets a copy of that."""

    local: LocalPlatform
    neighbour: Tenant
    large: Tenant
    odoo: Odoo
    provisioning: float
    settings: dict[str, str]
    beside: Path | None = None
    ways: frozenset[str] = WAYS
    _made: int = 0
    _servers: list[Cluster] = field(default_factory=list)

    async def measured(self, way: Callable[[Site, Marks], Awaitable[str]]) -> Felt:
        """Move a customer of its own this way; `way` returns the DSN of the database where the writes must be."""
        self._made += 1
        tenant = Tenant(f"shop{self._made}")
        pool = self.local.pool
        await create_role(pool, tenant.role, tenant.password)
        await create_database(
            pool,
            tenant.database,
            owner=tenant.role,
            template=self.large.database,
            options="STRATEGY file_copy",
        )
        async with pool.connect(tenant.database) as connection:
            await connection.execute(
                f"REASSIGN OWNED BY {quoted(self.large.role)} TO {quoted(tenant.role)}", timeout=LIMIT_SECONDS
            )
        await set_uuid(pool, tenant)
        site = await self._slow_site(tenant)
        async with pool.connect() as connection:
            await connection.execute("CHECKPOINT", timeout=LIMIT_SECONDS)
        customer = Customer(site.url, pool, self.neighbour)
        try:
            async with customer.feels() as marks:
                dsn = await way(site, marks)
            await customer.require_nothing_lost(dsn)
        finally:
            await self.local.remove_service(site)
            await drop_database(pool, tenant.database)
            while self._servers:
                await self._servers.pop().destroy()
        if customer.felt is None:
            raise RuntimeError("nothing was measured")
        return customer.felt

    async def restarted(self, site: Site, marks: Marks) -> str:
        """The definition is changed, the process manager replaces the task: stop first, as is the default."""
        with marks.part("start"):
            await self.local.supervisor.change(site.service, force=1)
            await self._until_serving(site, CLOSE_POLLING)
        return self._dsn(self.local.pool, site)

    async def as_today(self, site: Site, marks: Marks) -> str:
        """The instance is down for all of it."""
        await self._stopped(site, marks, TODAYS_POLLING)
        dedicated = await self._server(site)
        await asyncio.sleep(self.provisioning)
        file = self.local.directory / "dump.sql"
        with marks.part("copy"):
            await client_program(self.local.pool, "pg_dump", site.tenant.database, f"--file={file}")
            await client_program(
                dedicated, "psql", site.tenant.database, "-X", "-q", "-v", "ON_ERROR_STOP=1", f"--file={file}"
            )
        file.unlink()
        await self._started(site, dedicated, marks, TODAYS_POLLING)
        return self._dsn(dedicated, site)

    async def by_hand(self, site: Site, marks: Marks) -> str:
        """The server is there; dump and restore in parallel, uncompressed."""
        dedicated = await self._server(site)
        await self._stopped(site, marks, CLOSE_POLLING)
        dump = self.local.directory / "dump"
        with marks.part("copy"):
            jobs = f"--jobs={JOBS}"
            await client_program(
                self.local.pool,
                "pg_dump",
                site.tenant.database,
                "--format=directory",
                "--compress=0",
                jobs,
                f"--file={dump}",
            )
            await client_program(
                dedicated,
                "pg_restore",
                site.tenant.database,
                jobs,
                "--no-owner",
                f"--role={site.tenant.role}",
                str(dump),
            )
        await run(["rm", "-r", dump], limit=LIMIT_SECONDS)
        await self._started(site, dedicated, marks, CLOSE_POLLING)
        return self._dsn(dedicated, site)

    async def with_rehome(
        self, site: Site, marks: Marks, checkout: Path | None = None, **settings: str
    ) -> str:
        """Billing's event, and the consumer; another checkout's, where one is given."""
        local = self.local
        billing = Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)
        orders = local.directory / "orders"
        orders.mkdir(exist_ok=True)
        reached = Orders(orders).reached
        reached.write_text("")
        more = {f"REHOME_{name}": value for name, value in {**self.settings, **settings}.items()}
        if checkout is not None:
            more["PYTHONPATH"] = os.pathsep.join(
                map(str, (checkout / "consumer", checkout / "events", Path.cwd()))
            )
        async with (
            Subscriber(local.broker.url()) as subscriber,
            local.consumer(module=("sandbox.demo.chaos",), settings={DIRECTORY: str(orders), **more}),
        ):
            await billing.upgrade(site.id, PLAN)
            last: Any = await subscriber.wait_for(*ENDS, instance_id=site.id, limit=LIMIT_SECONDS)
            if last.type != "migration.completed":
                raise RuntimeError(f"the move ended in {last.type}: {getattr(last.data, 'reason', '')}")
            wanted = "warm" if settings.get("STRATEGY") == "auto" else "cold"
            if last.data.strategy != wanted:
                raise RuntimeError(f"the move was {last.data.strategy}, not {wanted}: see {local.directory}")
        marks.read(reached)
        dedicated = local.database_service.cluster(last.data.target.id)
        return self._dsn(dedicated, site)

    async def _slow_site(self, tenant: Tenant) -> Site:
        local = self.local
        site = await local.add_site(tenant)
        spec = (await local.supervisor.show(site.service))["spec"]
        await local.supervisor.change(site.service, env={**spec["env"], **self.odoo.env})
        await self._until_serving(site, CLOSE_POLLING)
        return site

    async def _until_serving(self, site: Site, polling: float) -> None:
        """Until the task of the present definition is the only one, and serves."""

        async def alone() -> bool:
            service = await self.local.supervisor.show(site.service)
            running = [task for task in service["tasks"] if task["state"] == "running"]
            return len(running) == 1 and running[0]["template_version"] == service["template_version"]

        await wait_until(alone, what="the new task to be the only one", limit=LIMIT_SECONDS, pause=polling)
        await self.local.wait_until_serving(site, limit=LIMIT_SECONDS)

    async def _stopped(self, site: Site, marks: Marks, polling: float) -> None:
        async def nothing_runs() -> bool:
            service = await self.local.supervisor.show(site.service)
            return not any(task["state"] == "running" for task in service["tasks"])

        with marks.part("stop"):
            await self.local.supervisor.change(site.service, replicas=0)
            await asyncio.sleep(polling)
            await wait_until(nothing_runs, what="the instance to stop", limit=LIMIT_SECONDS, pause=polling)

    async def _started(self, site: Site, server: Cluster, marks: Marks, polling: float) -> None:
        with marks.part("start"):
            text = site.conf.read_text(encoding="utf-8")
            site.conf.write_text(
                text.replace(f"db_port = {self.local.pool.port}", f"db_port = {server.port}"),
                encoding="utf-8",
            )
            await self.local.supervisor.change(site.service, replicas=1)
            await asyncio.sleep(polling)
            await self._until_serving(site, polling)

    async def _server(self, site: Site) -> Cluster:
        """A dedicated server with the role and an empty database; how long it takes to make is not measured."""
        place = self.local.directory / f"by-hand-{site.tenant.database}"
        made = await Cluster.create(place, password=uuid4().hex, settings=DEDICATED)
        self._servers.append(made)
        await made.start()
        await create_role(made, site.tenant.role, site.tenant.password)
        await create_database(made, site.tenant.database, owner=site.tenant.role)
        async with made.connect(site.tenant.database) as connection:
            await connection.execute(f"ALTER SCHEMA public OWNER TO {quoted(site.tenant.role)}")
        return made

    def _dsn(self, cluster: Cluster, site: Site) -> str:
        return cluster.dsn(site.tenant.database)


async def measure(
    directory: Path,
    scale: float,
    repeats: int,
    *,
    odoo: Odoo,
    provisioning: float,
    beside: Path | None = None,
    ways: frozenset[str] = WAYS,
) -> list[Table]:
    """Each way `repeats` times, in turn.

    Args:
        directory: for servers and dumps.
        scale: of `sandbox.postgres.tenants.inflate`; 0 is Odoo's demo data.
        repeats: rounds.
        odoo: how slow the instance is.
        provisioning: seconds that today's way waits for its server.
        beside: another checkout of this project, whose consumer is measured, too.
        ways: of WAYS, those that are measured.
    """
    neighbour, large = Tenant("neighbour"), Tenant("large")

    async def start_pool(place: Path) -> Cluster:
        return await start_odoo_pool(place, [neighbour], password=uuid4().hex, settings=DURABLE)

    async with local_platform(directory, [neighbour], start_pool=start_pool) as local:
        local.database_service.settings = DEDICATED
        if not local.prepare_for_warm_moves():
            ways -= {"warm"}
            say(
                "no PostgreSQL 16 or newer on this machine (scripts/setup-postgresql 17): warm is not measured"
            )
        await add_odoo_tenant(local.pool, large)
        if scale:
            await inflate(local.pool, large, scale=scale)
        async with local.pool.connect(large.database) as connection:
            await connection.execute("VACUUM (ANALYZE)", timeout=LIMIT_SECONDS)
            size = int(await connection.fetchval("SELECT pg_database_size(current_database())")) / MEBIBYTE
        async with local.pool.connect() as connection:
            await connection.execute(f"ALTER DATABASE {quoted(large.database)} OWNER TO postgres")
        stage = Stage(local, neighbour, large, odoo, provisioning, {"JOBS": str(JOBS)}, beside, ways)
        return await _rounds(stage, size, repeats)


async def _rounds(stage: Stage, size: float, repeats: int) -> list[Table]:
    beside = stage.beside
    every: list[tuple[str, str, Callable[[Site, Marks], Awaitable[str]]]] = [
        ("restart", RESTART, stage.restarted),
        ("today", TODAY, stage.as_today),
        ("hand", "by hand: pg_dump -Fd, pg_restore, parallel", stage.by_hand),
        ("rehome", "rehome, cold, careful", partial(stage.with_rehome, STRATEGY="cold")),
        ("rehome", "rehome, cold, quick", partial(stage.with_rehome, STRATEGY="cold", CUTOVER="quick")),
        ("warm", "rehome, warm, careful", partial(stage.with_rehome, STRATEGY="auto")),
        ("warm", "rehome, warm, quick", partial(stage.with_rehome, STRATEGY="auto", CUTOVER="quick")),
    ]
    if beside is not None:
        other = partial(stage.with_rehome, checkout=beside, STRATEGY="cold")
        every.insert(3, ("rehome", f"rehome in {beside.name}", other))
    ways = {name: way for kind, name, way in every if kind in stage.ways}
    felt: dict[str, list[Felt]] = {name: [] for name in ways}
    for number in range(repeats):
        for name, way in ways.items():
            felt[name].append(await stage.measured(way))
            say(f"downtime, {size:.0f} MB, round {number + 1}: {name}: {felt[name][-1].gap:.1f} s")
    return [_table(felt, size, stage)]


def _table(felt: dict[str, list[Felt]], size: float, stage: Stage) -> Table:
    rate = median(one.rate for each in felt.values() for one in each)
    table = Table(
        f"{size:.0f} MB, {rate:.0f} writes a second; stop of the instance {stage.odoo.stop:g} s, start "
        f"{stage.odoo.start:g} s; today's way waits {stage.provisioning:g} s for its server",
        ("way", "gap, s", *PARTS, "to a restart", "to today", "neighbour's p50, ms", "p99"),
    )
    gaps = {name: median(one.gap for one in each) for name, each in felt.items()}
    for name, each in felt.items():
        parts = [median(one.parts[part] for one in each) for part in PARTS]
        p50, p99 = (median(one.percentile(part) for one in each) for part in (0.5, 0.99))
        table.rows.append(
            (name, gaps[name], *parts, *(_ratio(gaps, name, base) for base in (RESTART, TODAY)), p50, p99)
        )
    return table


def _ratio(gaps: dict[str, float], name: str, base: str) -> float | str:
    return gaps[name] / gaps[base] if base in gaps else "-"
