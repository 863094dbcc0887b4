"""One private engine for all tests of this directory; services come and go with each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.tenants import nasty_password
from sandbox.swarm.doors import Doors
from sandbox.swarm.engine import private_engine
from sandbox.swarm.servers import start_server
from tests.swarm.shop import DEDICATED, POOL, Shop, fill
from tests.swarm.stage import SwarmStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from sandbox.swarm.engine import PrivateEngine


@pytest.fixture(scope="session")
async def engine(scratch: Path) -> AsyncIterator[PrivateEngine]:
    """A Docker engine with a swarm of one node, which nobody else sees."""
    async with private_engine(scratch / "engine") as engine:
        yield engine


@pytest.fixture
async def stage(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[SwarmStage]:
    """Where services are added; whatever was added is gone after the test."""
    stage = await SwarmStage.open(engine, tmp_path)
    yield stage
    await stage.close()


@pytest.fixture(scope="session")
async def servers(engine: PrivateEngine, scratch: Path) -> AsyncIterator[dict[str, Cluster]]:
    """A pool and a dedicated server as services, each with the shop's database."""
    doors = Doors(engine)
    servers = {}
    try:
        for name in (POOL, DEDICATED):
            password = nasty_password()
            servers[name] = await start_server(
                engine, name, scratch / name, password=password, reach=doors.resolve
            )
            await fill(servers[name], name)
        yield servers
    finally:
        await doors.close()


@pytest.fixture
async def shop(stage: SwarmStage, servers: dict[str, Cluster]) -> Shop:
    """An instance that serves from the pool."""
    shop = await Shop.open(stage)
    await stage.swarm.start(shop.instance, 1, None)
    return shop
