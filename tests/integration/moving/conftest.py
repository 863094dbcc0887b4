"""Tenants on their way between two real servers."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from tests.contract.real_servers import RealStage
from tests.support.moves import Move

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.postgres.server import Cluster


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
