"""One platform for each pair of versions; each test has a hostile tenant and a consumer of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandbox.platform.database_service import Switches
from tests.attack.attack import Attack
from tests.attack.place import Place, place
from tests.support.postgres_versions import PAIRS, pair


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every pair of versions, or the one that `--postgresql` names."""
    if "shared_place" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--postgresql")
        metafunc.parametrize("shared_place", [chosen] if chosen else PAIRS, indirect=True, scope="session")


@pytest.fixture(scope="session")
async def shared_place(request: pytest.FixtureRequest, scratch: Path) -> AsyncIterator[Place]:
    directory = scratch / f"attack-{request.param}"
    directory.mkdir(mode=0o711)
    async with place(directory, pair(request.param, scratch)) as made:
        yield made


@pytest.fixture
async def attack(shared_place: Place) -> AsyncIterator[Attack]:
    """A hostile tenant, not created yet, on a platform where nothing runs."""
    shared_place.rest()
    shared_place.local.database_service.switches = Switches()
    shared_place.orders.give(None)
    await shared_place.dead_letters()
    made = Attack(shared_place)
    yield made
    await made.close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark `representative` names the pairs of versions that it applies to, unless one pair is chosen for all."""
    if items and items[0].config.getoption("--postgresql"):
        return
    for item in items:
        called = getattr(item, "callspec", None)
        pair_name = called.params.get("shared_place") if called else None
        item.own_markers = [
            mark
            for mark in item.own_markers
            if mark.name != "representative" or not mark.args or pair_name in mark.args
        ]
