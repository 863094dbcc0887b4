"""What a rehearsal costs: its own seconds, and what another tenant of the pool notices of it.

A neighbour's clients write and read on the same pool all the time. Windows without and with a rehearsal alternate, and
the latencies in both are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from benchmarks.client_programs import LIMIT_SECONDS
from benchmarks.copying import DEDICATED, DURABLE, server_row
from benchmarks.report import MEBIBYTE, Table, median, say
from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.replicator import PostgresReplicator
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.adapters.state.facts import MemoryFacts
from rehome_consumer.bootstrap import SystemClock
from rehome_consumer.facts import SOURCE, TARGET, TENANT_PASSWORD, TENANT_USER
from rehome_consumer.model import Instance, Policy, Secret
from rehome_consumer.move import Move
from rehome_consumer.ports.steps import Ports
from rehome_consumer.steps.support import rehearsal
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import new_event
from sandbox.postgres.pool import start_odoo_pool
from sandbox.postgres.server import Cluster, programs
from sandbox.postgres.tenants import Tenant, inflate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from rehome_consumer.model import Server
    from rehome_events.parts import Rehearsal

CLIENTS: Final = 2
PAUSE: Final = 0.02
"""Seconds a neighbour's client waits between transactions."""
WINDOW: Final = (5.0, 60.0)
"""Shortest and longest window without a rehearsal, in seconds."""
JOBS: Final = 4
NOTE: Final = "INSERT INTO bench_note (body) VALUES (repeat('x', 200))"
READ: Final = (
    "SELECT count(*), max(write_date) FROM (SELECT write_date FROM res_partner ORDER BY id LIMIT 40) AS shown"
)


@dataclass
class Neighbour:
    """Latencies (ms) of one window, and how long it lasted."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Such as 0.99."""
        return statistics.quantiles(self.latencies, n=1000, method="inclusive")[round(share * 1000) - 1]


class _Servers:
    """As much of the port `Platform` as a rehearsal reads."""

    def __init__(self, instance: Instance, *servers: Server) -> None:
        self._instance = instance
        self._servers = {one.id: one for one in servers}

    async def instance(self, _instance_id: UUID) -> Instance:
        return self._instance

    async def server(self, server_id: UUID) -> Server | None:
        return self._servers.get(server_id)


async def measure(directory: Path, scales: Sequence[float], repeats: int) -> list[Table]:
    """Rehearse databases of these scales `repeats` times, beside a neighbour."""
    costs = Table(
        "A rehearsal: seconds (median)",
        ("database, MB", "dump", "restore", "comparison", "all", "ms per MB", "runs"),
    )
    felt = Table(
        "What another tenant of the pool notices: ms per transaction, without and with a rehearsal in turn",
        (
            "database, MB",
            *("p50 without", "p50 with", "ratio", "p99 without", "p99 with", "ratio"),
            "transactions/s, ratio",
        ),
    )
    for number, scale in enumerate(scales):
        place = directory / f"scale-{number}"
        place.mkdir(mode=0o711)
        await _scale(place, scale, repeats, costs, felt)
    return [costs, felt]


async def _scale(directory: Path, scale: float, repeats: int, costs: Table, felt: Table) -> None:
    tenant, other = Tenant("acme"), Tenant("neighbour")
    pool = await start_odoo_pool(directory / "pool", [tenant, other], password=uuid4().hex, settings=DURABLE)
    dedicated = await Cluster.create(directory / "dedicated", password=uuid4().hex, settings=DEDICATED)
    await dedicated.start()
    (directory / "place").mkdir()
    try:
        if scale:
            await inflate(pool, tenant, scale=scale)
        async with pool.connect(tenant.database) as connection:
            await connection.execute("VACUUM (ANALYZE)", timeout=LIMIT_SECONDS)
            size = int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        async with pool.connect(other.database, user=other.role, password=other.password) as connection:
            await connection.execute("CREATE TABLE bench_note (id bigserial PRIMARY KEY, body text)")
        move = await _move(tenant, pool, dedicated, directory / "place")
        quiet, busy, results = Neighbour(), Neighbour(), []
        last = WINDOW[0]
        for _ in range(repeats):
            await _beside(pool, other, quiet, asyncio.sleep(min(max(last, WINDOW[0]), WINDOW[1])))
            began = time.monotonic()
            results.append(await _beside(pool, other, busy, _rehearse(move, size)))
            last = time.monotonic() - began
            say(f"rehearsal, scale {scale:g}: {last:.1f} s")
    finally:
        await dedicated.destroy()
        await pool.destroy()
    _report(costs, felt, size / MEBIBYTE, results, quiet, busy)


def _report(
    costs: Table, felt: Table, size: float, results: list[Rehearsal], quiet: Neighbour, busy: Neighbour
) -> None:
    parts = [
        median(getattr(one, name) for one in results)
        for name in ("dump_seconds", "restore_seconds", "compare_seconds")
    ]
    total = sum(parts)
    costs.rows.append((f"{size:.0f}", *parts, total, f"{1000 * total / size:.0f}", len(results)))
    row: list[object] = [f"{size:.0f}"]
    for share in (0.5, 0.99):
        without, with_one = quiet.quantile(share), busy.quantile(share)
        row += [without, with_one, with_one / without]
    rates = [len(one.latencies) / one.seconds for one in (quiet, busy)]
    felt.rows.append((*row, rates[1] / rates[0]))


async def _rehearse(move: Move, size: int) -> Rehearsal:
    return (await rehearsal.rehearse(move, "full", size, cold="it is measured alone")).result


async def _beside(pool: Cluster, other: Tenant, found: Neighbour, work: Any) -> Any:
    """Do the work while the neighbour's clients do theirs."""
    async with _clients(pool, other, found):
        return await work


@contextlib.asynccontextmanager
async def _clients(pool: Cluster, other: Tenant, found: Neighbour) -> AsyncIterator[None]:
    async def client() -> None:
        async with pool.connect(other.database, user=other.role, password=other.password) as connection:
            while True:
                began = time.perf_counter()
                async with connection.transaction():
                    await connection.fetchrow(READ)
                    await connection.execute(NOTE)
                found.latencies.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(PAUSE)

    began = time.monotonic()
    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    try:
        yield
    finally:
        found.seconds += time.monotonic() - began
        for one in clients:
            one.cancel()
        ends = await asyncio.gather(*clients, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _move(tenant: Tenant, pool: Cluster, dedicated: Cluster, place: Path) -> Move:
    source, target = server_row("pool", "shared", pool), server_row("dedicated", "dedicated", dedicated)
    instance = Instance(uuid4(), uuid4(), tenant.database, "running", tenant.database, db_user=tenant.role)
    sessions = Sessions()
    unused: Any = None
    servers: Any = _Servers(instance, source, target)
    facts = MemoryFacts()
    await facts.remember(SOURCE, source.id)
    await facts.remember(TARGET, target.id)
    await facts.remember(TENANT_USER, tenant.role)
    await facts.remember(TENANT_PASSWORD, Secret(tenant.password))
    clock = SystemClock()
    ports = Ports(
        policy=Policy(),
        clock=clock,
        facts=facts,
        platform=servers,
        databases=PostgresDatabases(sessions),
        replicator=PostgresReplicator(sessions),
        copier=PgCopier(BackupPlace(place, threads=JOBS), programs(), sessions=sessions, jobs=JOBS),
        verifier=PostgresVerifier(sessions, jobs=JOBS),
        database_service=unused,
        odoo_conf=unused,
        runtime=unused,
        filestore=unused,
    )
    asked = PlanUpgraded(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        subscription_id=uuid4(),
        from_plan="standard",
        to_plan="premium",
        plan_tier="premium",
    )
    event = new_event(
        asked, subject=instance.id, id=uuid4(), time=clock.now(), migrationid=uuid4(), attempt=1
    )
    return Move(event, ports)
