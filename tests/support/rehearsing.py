"""A tenant on a real pool whose move is rehearsed on a real dedicated server, without the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg

from rehome_consumer.adapters.state.facts import MemoryFacts
from rehome_consumer.context import current_migration
from rehome_consumer.facts import NEW_PASSWORD, NEW_USER, SOURCE, TARGET, TENANT_PASSWORD, TENANT_USER
from rehome_consumer.model import Policy, Secret
from rehome_consumer.move import Move
from rehome_consumer.steps.support import rehearsal
from sandbox.postgres.databases import drop_database
from tests.fakes.clock import FakeClock
from tests.fakes.platform import FakePlatform
from tests.fakes.site import Site
from tests.support.events import upgrade

if TYPE_CHECKING:
    from rehome_consumer.model import Server
    from rehome_events.parts import Rehearsal
    from sandbox.postgres.tenants import Tenant
    from tests.contract.real_servers import RealStage


class _Platform(FakePlatform):
    """Knows the two real servers."""

    def __init__(self, *servers: Server) -> None:
        super().__init__()
        self._real = {server.id: server for server in servers}

    async def server(self, server_id: UUID) -> Server | None:
        return self._real.get(server_id)


class Rehearsing:
    """What is needed to rehearse the move of one tenant."""

    def __init__(self, stage: RealStage, tenant: Tenant, policy: Policy | None = None) -> None:
        self.stage = stage
        self.tenant = tenant
        platform = _Platform(stage.pool, stage.dedicated)
        instance = platform.add_instance(database_name=tenant.database, db_user=tenant.role)
        migration = uuid4()
        current_migration.set(migration)
        ports = replace(
            Site(FakeClock()).ports(MemoryFacts()),
            policy=policy or Policy(),
            platform=platform,
            databases=stage.databases,
            replicator=stage.replicator,
            copier=stage.copier,
            verifier=stage.verifier,
        )
        event = upgrade(instance).model_copy(update={"migrationid": migration, "attempt": 1})
        self.move = Move(event, ports)

    async def begin(self) -> None:
        """Record what earlier steps record."""
        facts = self.move.facts
        await facts.remember(SOURCE, self.stage.pool.id)
        await facts.remember(TARGET, self.stage.dedicated.id)
        await facts.remember(TENANT_USER, self.tenant.role)
        await facts.remember(TENANT_PASSWORD, Secret(self.tenant.password))
        await facts.remember(NEW_USER, f"{self.tenant.role}_new")
        await facts.remember(NEW_PASSWORD, Secret("of the new role"))

    async def run(self) -> Rehearsal | None:
        """Rehearse."""
        return await rehearsal.run(self.move)

    async def refusal(self, who: str, statements: str) -> tuple[int, str] | None:
        """Do it as the tenant or the superuser; returns the pool's major version and words where it refuses."""
        try:
            await (self.as_tenant if who == "tenant" else self.as_superuser)(statements)
        except asyncpg.PostgresError as error:
            async with self.stage.pool_cluster.connect() as connection:
                return connection.get_server_version().major, str(error)
        return None

    async def as_superuser(self, statements: str) -> None:
        """Change the tenant's database as the pool's administrator."""
        async with self.stage.pool_cluster.connect(self.tenant.database) as connection:
            await connection.execute(statements)

    async def as_tenant(self, statements: str) -> None:
        """Change it as the tenant."""
        async with self.stage.pool_cluster.connect(
            self.tenant.database, user=self.tenant.role, password=self.tenant.password
        ) as connection:
            await connection.execute(statements)

    async def left_over(self) -> list[str]:
        """What is left on both servers and at the backup place."""
        found = (
            [path.name for path in self.stage.backup_root.iterdir()]
            if self.stage.backup_root.exists()
            else []
        )
        for cluster in (self.stage.pool_cluster, self.stage.dedicated_cluster):
            async with cluster.connect() as connection:
                found += [row[0] for row in await connection.fetch(_LEFT_OVER, self.move.migration_id.hex)]
        return found

    async def remove(self) -> None:
        """Remove the tenant's database."""
        await drop_database(self.stage.pool_cluster, self.tenant.database)


_LEFT_OVER = (
    "SELECT rolname FROM pg_roles WHERE rolname LIKE 'rehome\\_' || $1 || '%' "
    "UNION ALL SELECT datname FROM pg_database WHERE datname LIKE '%' || substr($1, 1, 12) || '%' "
    "UNION ALL SELECT datname FROM pg_database WHERE datname LIKE '%' || $1 || '%' "
    "UNION ALL SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE '%' || $1 || '%' "
    "UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'rehome:%' || $1 || '%'"
)
