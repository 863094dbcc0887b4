"""One private engine for all tests of this directory; services come and go with each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.postgres.tenants import nasty_password
from sandbox.swarm.engine import private_engine
from sandbox.swarm.forwards import Forwards
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
    """A private Docker engine with a swarm of one node."""
    async with private_engine(scratch / "engine") as engine:
        yield engine


@pytest.fixture
async def stage(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[SwarmStage]:
    """Where tests add services; these are removed after the test."""
    stage = await SwarmStage.open(engine, tmp_path)
    yield stage
    await stage.close()


@pytest.fixture(scope="session")
async def servers(engine: PrivateEngine, scratch: Path) -> AsyncIterator[dict[str, Cluster]]:
    """A pool and a dedicated server as services, each with the shop's database."""
    forwards = Forwards(engine)
    servers = {}
    try:
        for name in (POOL, DEDICATED):
            password = nasty_password()
            servers[name] = await start_server(
                engine, name, scratch / name, password=password, reach=forwards.resolve
            )
            await fill(servers[name], name)
        yield servers
    finally:
        await forwards.close()


@pytest.fixture
async def shop(stage: SwarmStage, servers: dict[str, Cluster]) -> Shop:
    """An instance that serves from the pool."""
    shop = await Shop.open(stage)
    await stage.swarm.start(shop.instance, 1, None)
    return shop
