"""One private engine for all tests of this directory; services come and go with each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sandbox.swarm.engine import PrivateEngine
from tests.swarm.stage import SwarmStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="session")
async def engine(scratch: Path) -> AsyncIterator[PrivateEngine]:
    """A Docker engine with a swarm of one node, which nobody else sees."""
    engine = PrivateEngine(scratch / "engine")
    try:
        await engine.create()
        yield engine
    finally:
        await engine.destroy()


@pytest.fixture
async def stage(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[SwarmStage]:
    """Where services are added; whatever was added is gone after the test."""
    stage = await SwarmStage.open(engine, tmp_path)
    yield stage
    await stage.close()
