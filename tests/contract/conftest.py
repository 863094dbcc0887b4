"""What the contract suites share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import nasty_password
from tests.contract.fake_servers import FakeStage
from tests.contract.platform_tables import FakeTables, PostgresTables, Tables
from tests.contract.real_servers import RealStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.platform.tables import Platform
    from tests.contract.servers import Stage
    from tests.support.postgres_versions import Pair


@pytest.fixture(scope="module")
async def real_tables(platform: Platform) -> AsyncIterator[PostgresTables]:
    """The platform's tables in PostgreSQL, seen through the consumer's own role."""
    async with (
        asyncpg.create_pool(platform.instance_dsn, min_size=0, max_size=4) as instances,
        asyncpg.create_pool(platform.billing_dsn, min_size=0, max_size=1) as billing,
    ):
        yield PostgresTables(platform, instances, billing)


@pytest.fixture(params=["fake", "postgresql"])
def tables(request: pytest.FixtureRequest, real_tables: PostgresTables) -> Tables:
    """The fake's tables, and the real ones."""
    return FakeTables() if request.param == "fake" else real_tables


@pytest.fixture(scope="session")
async def pool_server(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A pool that allows prepared transactions."""
    cluster = await Cluster.create(
        scratch / "pool_server",
        password=nasty_password(),
        settings={"max_prepared_transactions": "2"},
        programs=versions.pool,
    )
    await cluster.start()
    yield cluster
    await cluster.destroy()


@pytest.fixture(scope="session")
async def dedicated_server(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A server for one tenant, emptied after each test."""
    cluster = await Cluster.create(
        scratch / "dedicated_server", password=nasty_password(), programs=versions.dedicated
    )
    await cluster.start()
    yield cluster
    await cluster.destroy()


@pytest.fixture(params=["fake", "postgresql"])
async def stage(
    request: pytest.FixtureRequest, pool_server: Cluster, dedicated_server: Cluster, quick_files: Path
) -> AsyncIterator[Stage]:
    """A pool and a dedicated server: in memory, and real ones."""
    if request.param == "fake":
        yield FakeStage()
        return
    real = RealStage(pool_server, dedicated_server, quick_files / "backups")
    yield real
    await real.clean()
