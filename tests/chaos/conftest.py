"""One platform for all faults of the outside world; each test brings a customer and a consumer of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.platform.database_service import Switches
from tests.chaos.arena import Arena, arena
from tests.chaos.moving import Move


@pytest.fixture(scope="session")
async def shared_arena(scratch: Path) -> AsyncIterator[Arena]:
    directory = scratch / "arena"
    directory.mkdir(mode=0o711)
    async with arena(directory) as made:
        yield made


@pytest.fixture
async def place(shared_arena: Arena) -> AsyncIterator[Arena]:
    """The platform at rest, without faults."""
    shared_arena.local.database_service.switches = Switches()
    shared_arena.settings.clear()
    shared_arena.orders.give(None)
    await shared_arena.dead_letters()
    yield shared_arena
    shared_arena.orders.release()
    await shared_arena.stop_consumers()


@pytest.fixture
async def move(place: Arena) -> AsyncIterator[Move]:
    """A customer who will be moved, and writes all the time."""
    made = Move(place)
    yield made
    await made.close()
