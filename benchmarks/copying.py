"""One Odoo database from one server to another: the manual way against rehome, interleaved.

The manual way is what the platform does today: a plain pg_dump into a file, then psql. Rehome's is what the steps
`back_up` and `restore` do, in their order and with what they do at the same time, without and with the
verification.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from benchmarks import reading
from benchmarks.client_programs import LIMIT_SECONDS, client_program
from benchmarks.report import MEBIBYTE, Table, median, say
from benchmarks.stopwatch import Stopwatch
from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.adapters.state.facts import MemoryFacts
from rehome_consumer.model import Credentials, OwnershipTag, Secret, Server
from rehome_consumer.steps.support.comparing import Fingerprinted, differences
from sandbox.postgres.databases import create_database, create_role, drop_database
from sandbox.postgres.pool import start_odoo_pool
from sandbox.postgres.server import SUPERUSER, Cluster, programs
from sandbox.postgres.tenants import Tenant, inflate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Literal

DURABLE: Final = {"fsync": "on", "full_page_writes": "on"}
"""The sandbox's servers need not survive a power cut; the measured ones are set as in production."""
DEDICATED: Final = {**DURABLE, "wal_level": "replica"}
JOBS: Final = 4
PARTS: Final = (
    "back_up: pg_dump", "back_up: rows counted meanwhile", "back_up: seal",
    "restore: backup checked", "restore: role and empty database", "restore: pg_restore",
    "restore: ANALYZE", "restore: source read meanwhile", "restore: target read", "all",
)  # fmt: skip


@dataclass
class Stage:
    """Source and target server, the tenant, and a place for dumps."""

    pool: Cluster
    dedicated: Cluster
    tenant: Tenant
    place: Path

    async def manually(self) -> Stopwatch:
        """Plain SQL through a file."""
        watch = Stopwatch()
        file = self.place / "dump.sql"
        with watch.part("all"):
            await create_role(self.dedicated, self.tenant.role, self.tenant.password)
            await create_database(self.dedicated, self.tenant.database, owner=self.tenant.role)
            with watch.part("pg_dump"):
                await client_program(self.pool, "pg_dump", self.tenant.database, f"--file={file}")
            with watch.part("psql"):
                await client_program(
                    self.dedicated,
                    "psql",
                    self.tenant.database,
                    "-X",
                    "-q",
                    "-v",
                    "ON_ERROR_STOP=1",
                    f"--file={file}",
                )
        file.unlink()
        return watch

    async def with_rehome(self, *, verify: bool) -> Stopwatch:
        """As the steps do it, without the journal and the broker."""
        watch = Stopwatch()
        sessions, facts = Sessions(), MemoryFacts()
        copier = PgCopier(BackupPlace(self.place, threads=JOBS), programs(), sessions=sessions, jobs=JOBS)
        databases, verifier = PostgresDatabases(sessions), PostgresVerifier(sessions, jobs=JOBS)
        source, target = (
            server_row("pool", "shared", self.pool),
            server_row("dedicated", "dedicated", self.dedicated),
        )
        name, role, backup_id = self.tenant.database, self.tenant.role, str(uuid4())
        tag = OwnershipTag(uuid4(), 1, "scratch")
        with watch.part("all"), watch.programs():
            async with asyncio.TaskGroup() as together:
                together.create_task(copier.dump(source, name, role, backup_id, facts))
                with watch.part("back_up: rows counted meanwhile"):
                    rows = await verifier.row_counts(source, name, role)
            with watch.part("back_up: seal"):
                await copier.seal(backup_id, rows, {})
            with watch.part("restore: backup checked"):
                backup = await copier.backup(backup_id)
            if backup is None:
                raise RuntimeError("the backup that was just sealed is missing")
            with watch.part("restore: role and empty database"):
                like = await databases.database_facts(source, name, role)
                await databases.make_role(
                    target, Credentials(role, Secret(self.tenant.password)), like.role, like.grantees
                )
                await databases.make_scratch(target, "scratch", like, role, tag)
            async with asyncio.TaskGroup() as together:
                together.create_task(copier.restore(target, "scratch", backup, role, facts))
                if verify:
                    with watch.part("restore: source read meanwhile"):
                        before = await verifier.fingerprint(source, name, role)
            if verify:
                with watch.part("restore: target read"):
                    found = await differences(
                        verifier,
                        Fingerprinted(source, name, role, before),
                        Fingerprinted(
                            target, "scratch", role, await verifier.fingerprint(target, "scratch", role)
                        ),
                    )
                if found:
                    raise RuntimeError(f"the copy differs: {found[0]}")
            await databases.promote(target, "scratch", name, role, replace(tag, state="verified"))
        for program, part in (
            ("pg_dump", "back_up: pg_dump"),
            ("pg_restore", "restore: pg_restore"),
            ("vacuumdb", "restore: ANALYZE"),
        ):
            watch.seconds[part] = watch.seconds[program]
        await copier.discard(backup_id)
        return watch

    async def measured(self, way: Callable[[], Awaitable[Stopwatch]]) -> Stopwatch:
        """Measure one way, with a clean target and after a checkpoint."""
        for cluster in (self.pool, self.dedicated):
            async with cluster.connect() as connection:
                await connection.execute("CHECKPOINT", timeout=LIMIT_SECONDS)
        try:
            return await way()
        finally:
            await drop_database(self.dedicated, self.tenant.database)
            async with self.dedicated.connect() as connection:
                await connection.execute(f'DROP ROLE IF EXISTS "{self.tenant.role}"')


async def measure(directory: Path, scale: float, repeats: int) -> list[Table]:
    """Each way `repeats` times, in turn.

    Args:
        directory: for servers and dumps.
        scale: of `sandbox.postgres.tenants.inflate`.
        repeats: rounds.
    """
    tenant = Tenant("acme")
    pool = await start_odoo_pool(directory / "pool", [tenant], password=uuid4().hex, settings=DURABLE)
    try:
        dedicated = await Cluster.create(directory / "dedicated", password=uuid4().hex, settings=DEDICATED)
        await dedicated.start()
        place = directory / "place"
        place.mkdir()
        try:
            return await _rounds(pool, dedicated, tenant, place, scale, repeats)
        finally:
            await dedicated.destroy()
    finally:
        await pool.destroy()


async def _rounds(
    pool: Cluster, dedicated: Cluster, tenant: Tenant, place: Path, scale: float, repeats: int
) -> list[Table]:
    if scale:
        await inflate(pool, tenant, scale=scale)
    async with pool.connect(tenant.database) as connection:
        await connection.execute("VACUUM (ANALYZE)", timeout=LIMIT_SECONDS)
        size = int(await connection.fetchval("SELECT pg_database_size(current_database())")) / MEBIBYTE
    stage = Stage(pool, dedicated, tenant, place)
    ways: dict[str, Callable[[], Awaitable[Stopwatch]]] = {
        "manual: plain pg_dump, psql": stage.manually,
        "rehome, not verified": lambda: stage.with_rehome(verify=False),
        "rehome, verified": lambda: stage.with_rehome(verify=True),
    }
    runs: dict[str, list[Stopwatch]] = {name: [] for name in ways}
    for number in range(repeats):
        for name, way in ways.items():
            runs[name].append(await stage.measured(way))
            say(f"copy, scale {scale:g}, round {number + 1}: {name}: {runs[name][-1].seconds['all']:.1f} s")
    source = server_row("pool", "shared", pool)
    rights = await reading.measure(Sessions(), source, tenant.database, tenant.role, JOBS, size)
    return [_compared(runs, size), _parts(runs["rehome, verified"], size), rights]


def _compared(runs: dict[str, list[Stopwatch]], size: float) -> Table:
    medians = {name: median(watch.seconds["all"] for watch in watches) for name, watches in runs.items()}
    base = next(iter(medians.values()))
    table = Table(f"Copy of a database of {size:.0f} MB", ("way", "seconds (median)", "ratio", "all runs"))
    for name, seconds in medians.items():
        each = ", ".join(f"{watch.seconds['all']:.1f}" for watch in runs[name])
        table.rows.append((name, seconds, seconds / base, each))
    return table


def _parts(watches: list[Stopwatch], size: float) -> Table:
    table = Table(
        f"Seconds per part, rehome, verified, {size:.0f} MB", ("part", "seconds (median)", "of all")
    )
    total = median(watch.seconds["all"] for watch in watches)
    for part in PARTS:
        seconds = median(watch.seconds[part] for watch in watches)
        table.rows.append((part, seconds, f"{seconds / total:.0%}"))
    return table


def server_row(name: str, kind: Literal["shared", "dedicated"], cluster: Cluster) -> Server:
    """A cluster's row of `db_servers`."""
    return Server(
        id=uuid4(),
        name=name,
        host=cluster.host,
        port=cluster.port,
        kind=kind,
        status="active",
        admin=Credentials(SUPERUSER, Secret(cluster.password)),
    )
