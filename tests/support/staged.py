"""Fixtures of tests with two real servers: the servers, and a tenant on its way between them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from tests.contract.real_servers import RealStage
from tests.support.moves import Move
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.postgres.server import Cluster

__all__ = ["move", "rehearsing", "stage"]


@pytest.fixture
def stage(pg: Cluster, second_pg: Cluster, quick_files: Path) -> RealStage:
    """The two servers."""
    return RealStage(pg, second_pg, quick_files / "backups")


@pytest.fixture
async def move(stage: RealStage) -> AsyncIterator[Move]:
    """A tiny tenant on the pool, ready to be moved; removed afterwards."""
    move = Move(stage, await _tenant(stage, "moved"))
    await move.begin()
    yield move
    await move.remove()


@pytest.fixture
async def rehearsing(stage: RealStage) -> AsyncIterator[Rehearsing]:
    """A tiny tenant on the pool, ready to be rehearsed; removed afterwards."""
    made = Rehearsing(stage, await _tenant(stage, "rehearsed"))
    await made.begin()
    yield made
    await made.remove()


async def _tenant(stage: RealStage, name: str) -> Tenant:
    tenant = Tenant(f"{name}_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    return tenant
