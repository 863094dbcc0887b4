"""A pool and a dedicated server that is new enough for warm moves, and a tenant on its way between them."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from rehome_consumer.context import inner_probe
from rehome_consumer.facts import FENCE
from rehome_consumer.model import Policy
from rehome_consumer.steps.support import rehearsal
from sandbox.postgres.databases import major_version
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import RealStage
from tests.support.postgres_versions import pair
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres_versions import Pair

LIMIT = timedelta(seconds=20)
WARM = Policy(strategy="auto", sync_limit=timedelta(seconds=60), sync_last=LIMIT)


FOLLOWABLE = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
"""What makes a tiny tenant fit for a warm move; two of its tables have no key, and are lent a replica identity."""


FOLLOWED_BY = """
SELECT 'slot', slot_name::text FROM pg_replication_slots
UNION ALL SELECT 'subscription', subname::text FROM pg_subscription
UNION ALL SELECT 'publication', pubname::text FROM pg_publication
UNION ALL SELECT 'role', rolname::text FROM pg_roles WHERE rolname LIKE 'rehome\\_%'
"""
"""What a copy follows by, on a server and in the database of the session."""


@asynccontextmanager
async def new_enough(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A dedicated server that applies changes with the tenant's rights; skips the test where there is none."""
    for name in (versions.name, "15-17", "15-18"):
        try:
            programs = pair(name, scratch).dedicated
        except (FileNotFoundError, PackageNotFoundError):
            continue
        cluster = await Cluster.create(
            scratch / f"warm_{secrets.token_hex(4)}", password=nasty_password(), programs=programs
        )
        await cluster.start()
        if int(await major_version(cluster)) >= APPLIES_AS_OWNER_SINCE:
            yield cluster
            await cluster.destroy()
            return
        await cluster.destroy()
    pytest.skip(
        "warm moves need PostgreSQL 16 or newer, which is not on this machine: scripts/setup-postgresql 17"
    )


async def a_tenant(stage: RealStage, policy: Policy = WARM) -> Rehearsing:
    """A tiny tenant on the pool, ready to be moved."""
    tenant = Tenant(f"warm_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    made = Rehearsing(stage, tenant, policy)
    await made.begin()
    await made.as_tenant(FOLLOWABLE)
    return made


async def fenced(warmed: Rehearsing) -> None:
    """Nobody reaches the source any more, as after `stop`."""
    stage, tenant = warmed.stage, warmed.tenant
    before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    await warmed.move.facts.remember(FENCE, before)
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)


@pytest.fixture(scope="module")
async def warm_target(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A dedicated server to which a warm move may go."""
    async with new_enough(scratch, versions) as cluster:
        yield cluster


@pytest.fixture
async def warmed(
    second_pg: Cluster,
    pg: Cluster,
    warm_target: Cluster,
    tmp_path: Path,
) -> AsyncIterator[Rehearsing]:
    """A tiny tenant whose move would be warm."""
    made = await a_tenant(RealStage(pg, warm_target, tmp_path / "backups"))
    yield made
    inner_probe.set(None)
    await rehearsal.clear(made.move)
    await made.remove()
