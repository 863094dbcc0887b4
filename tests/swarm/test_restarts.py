"""The daemon stops, and starts again, in the middle of the runtime's work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.swarm.engine import Engine, connected
from rehome_consumer.errors import Unreachable
from sandbox.swarm.engine import private_engine
from sandbox.system.net import wait_until
from tests.swarm.stage import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from rehome_consumer.model import Instance
    from sandbox.swarm.engine import PrivateEngine
    from tests.swarm.stage import SwarmStage

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def engine(scratch: Path) -> AsyncIterator[PrivateEngine]:
    """An engine for this module alone.

    A killed daemon may leave the network's VXLAN interface behind, which a later one does not find: from then on
    no task of the network starts ("error creating vxlan interface: file exists").
    """
    async with private_engine(scratch / "engine-that-ends") as engine:
        yield engine


ENDS: dict[str, Callable[[PrivateEngine], Awaitable[None]]] = {
    "restarted": lambda engine: engine.stop(),
    "killed": lambda engine: engine.kill(),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_stop_survives_the_end_of_its_daemon(
    stage: SwarmStage, engine: PrivateEngine, end: str
) -> None:
    instance = await stage.add(env={"TINY_DEAF": "1"}, stop_grace_seconds=5)
    await stage.swarm.start(instance, 1, None)
    stopping = asyncio.create_task(stage.swarm.stop(instance))

    async def asked_for() -> bool:
        replicas: int = (await stage.spec(instance))["Mode"]["Replicated"]["Replicas"]
        return replicas == 0

    await wait_until(asked_for, what="no replica to be asked for", limit=LIMIT)
    await ENDS[end](engine)
    await engine.start()
    await stopping
    assert (await stage.swarm.find(instance)).replicas == 0
    assert await stage.containers(instance) == []


@pytest.mark.parametrize("end", ENDS)
async def test_a_start_survives_the_end_of_its_daemon(
    stage: SwarmStage, engine: PrivateEngine, end: str
) -> None:
    instance = await stage.add("slow", replicas=0, env={"TINY_SLOW": "2"})
    starting = asyncio.create_task(stage.swarm.start(instance, 1, None))
    await wait_until(lambda: _runs(stage, instance), what="a running task", limit=LIMIT)
    await ENDS[end](engine)
    await engine.start()
    healthy = await starting
    assert [task.id for task in (await stage.swarm.find(instance)).running] == [healthy.task]
    assert len(await stage.containers(instance)) == 1


async def test_an_update_without_a_daemon_is_made_when_it_is_back(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    instance = await stage.add(replicas=0)

    async def away_for_a_moment() -> None:
        await engine.kill()
        stage.background(engine.start())

    stage.docker.first = away_for_a_moment
    await stage.swarm.configure(instance, {"ODOO_DATABASE_HOST": "dedicated"})
    assert (await stage.swarm.find(instance)).env["ODOO_DATABASE_HOST"] == "dedicated"


@pytest.mark.parametrize("known", [True, False])
async def test_a_daemon_that_stays_away_is_named(
    stage: SwarmStage, engine: PrivateEngine, known: bool
) -> None:
    instance = await stage.add(replicas=0)
    if known:
        await stage.swarm.find(instance)
    await engine.kill()
    stage.impatient()
    asked = f"services/{instance.service}" if known else "version"
    try:
        with pytest.raises(Unreachable, match=f"Docker engine, GET /{asked}: Cannot connect"):
            await stage.swarm.find(instance)
    finally:
        await engine.start()


async def test_a_daemon_that_is_frozen_is_named_when_a_request_has_taken_too_long(
    stage: SwarmStage, engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await stage.add(replicas=0)
    monkeypatch.setattr("rehome_consumer.adapters.swarm.engine.REQUEST_SECONDS", 1.0)
    async with connected(engine.host) as docker:
        engine.freeze()
        try:
            with pytest.raises(Unreachable, match=r"no answer in 1 s \(repeated for 1 s\)"):
                await Engine(docker, patience=0.5).service(instance.service)
        finally:
            engine.thaw()


async def _runs(stage: SwarmStage, instance: Instance) -> bool:
    return any(task["Status"]["State"] == "running" for task in await stage.tasks(instance))
