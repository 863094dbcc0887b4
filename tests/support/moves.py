"""One tenant's way from a real pool to a real dedicated server, step by step, without the engine."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from rehome_consumer.model import Credentials, Secret
from rehome_consumer.steps.provision import as_before
from sandbox.postgres.databases import create_role, drop_database, quoted
from sandbox.postgres.tenants import Tenant, nasty_password
from tests.contract.servers import ProgressRecorder, new_tag, verified
from tests.support.comparing import compared
from tests.support.postgres_versions import has_icu

if TYPE_CHECKING:
    from rehome_consumer.model import Backup, Fence, OwnershipTag
    from sandbox.postgres.server import Cluster
    from tests.contract.real_servers import RealStage

VARIETY = (Path(__file__).parent / "variety.sql").read_text()
LIMIT = timedelta(seconds=30)


class Move:
    """One tenant's way from `stage.pool` to `stage.dedicated`, step by step."""

    def __init__(self, stage: RealStage, tenant: Tenant) -> None:
        self.stage = stage
        self.tenant = tenant
        self.login = Credentials(f"{tenant.role}_new", Secret(nasty_password()))
        self.tag: OwnershipTag = new_tag()
        self.scratch = f"{tenant.database}__rehome"
        self.before: Fence | None = None
        self._before: frozenset[str] = frozenset()

    async def begin(self) -> None:
        """Remember what other tests have left on the dedicated server, which they share."""
        self._before = await _left_over(self.stage.dedicated_cluster)

    async def left_over(self) -> frozenset[str]:
        """Short-lived roles and unfinished databases there, and open sessions of rehome."""
        return await _left_over(self.stage.dedicated_cluster) - self._before

    async def fence_and_back_up(self) -> Backup:
        stage, tenant = self.stage, self.tenant
        name = f"{self.tag.migration_id}-1"
        self.before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder())
        return await stage.copier.seal(name, {}, {})

    async def provision(self) -> None:
        stage = self.stage
        tenant = self.tenant
        found = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
        facts = as_before(self.before, found, tenant.role)
        await stage.databases.make_role(stage.dedicated, self.login, facts.role, facts.grantees)
        await stage.databases.make_scratch(stage.dedicated, self.scratch, facts, self.login.user, self.tag)

    async def restore(self, backup: Backup) -> None:
        await self.stage.copier.restore(
            self.stage.dedicated, self.scratch, backup, self.login.user, ProgressRecorder()
        )

    async def promote(self) -> None:
        await self.stage.databases.promote(
            self.stage.dedicated, self.scratch, self.tenant.database, self.login.user, verified(self.tag)
        )

    async def differences(self) -> list[str]:
        stage = self.stage
        return await compared(
            stage.verifier,
            (stage.pool, self.tenant.database, self.tenant.role),
            (stage.dedicated, self.scratch, self.login.user),
        )

    async def remove(self) -> None:
        for cluster in (self.stage.pool_cluster, self.stage.dedicated_cluster):
            for name in (self.tenant.database, self.scratch):
                await drop_database(cluster, name)
            async with cluster.connect() as connection:
                for role in (self.tenant.role, self.login.user):  # other tests read the comments on all roles
                    if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                        await connection.execute(f"COMMENT ON ROLE {quoted(role)} IS NULL")


async def add_variety(move: Move) -> str:
    """Create everything of `variety.sql` in the tenant's database; the name of another role that it mentions."""
    other = f"auditor_{secrets.token_hex(4)}"
    await create_role(move.stage.pool_cluster, other, nasty_password())
    script = VARIETY.replace("{tenant}", quoted(move.tenant.role)).replace("{other}", quoted(other))
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        try:
            await connection.execute("SELECT '<a/>'::xml")
        except asyncpg.FeatureNotSupportedError:  # a server that was built without libxml
            script = script.replace("document xml", "document text")
        if not await has_icu(move.stage.pool_cluster):
            script = script.replace("(provider = icu, locale = 'de-DE')", "(locale = 'C.UTF-8')")
        await connection.execute(script)
        with pytest.raises(asyncpg.UniqueViolationError):  # leaves an index that is not valid
            await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON import_log (at)")
    return other


async def _left_over(cluster: Cluster) -> frozenset[str]:
    async with cluster.connect() as connection:
        return frozenset(row[0] for row in await connection.fetch(_LEFT_OVER))


_LEFT_OVER = (
    "SELECT rolname FROM pg_roles WHERE rolname LIKE 'rehome\\_%' "
    "OR shobj_description(oid, 'pg_authid') LIKE 'rehome%' "
    "UNION ALL SELECT datname FROM pg_database WHERE datname LIKE 'rehome\\_making%' "
    "UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'rehome:%'"
)
