"""Two servers of the versions that `--postgresql` names, and tenants on their way between them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.databases import create_role, major_version, quoted
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import RealStage
from tests.support.moves import Move

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.postgres.server import Cluster

_SQL = Path(__file__).parent / "sql"
_SINCE = (17, 18)


@pytest.fixture
def stage(pg: Cluster, second_pg: Cluster, tmp_path: Path) -> RealStage:
    """The two servers."""
    return RealStage(pg, second_pg, tmp_path / "backups")


@pytest.fixture
async def move(stage: RealStage) -> AsyncIterator[Move]:
    """A tiny tenant on the pool, ready to be moved; removed afterwards."""
    tenant = Tenant(f"moved_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    move = Move(stage, tenant)
    await move.begin()
    yield move
    await move.remove()


async def add_newer_objects(cluster: Cluster, tenant: Tenant) -> str:
    """Create what only the newer versions have, as far as this server has it; the name of a role that it mentions."""
    other = f"auditor_{secrets.token_hex(4)}"
    await create_role(cluster, other, nasty_password())
    major = int(await major_version(cluster))
    async with cluster.connect(tenant.database, user=tenant.role, password=tenant.password) as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
        for since in _SINCE:
            if since <= major:
                script = (_SQL / f"since_{since}.sql").read_text()
                await connection.execute(script.replace("{other}", quoted(other)))
    return other
