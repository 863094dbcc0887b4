"""A stop on a real swarm ends when no container of the service is left, whatever else happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import Conflict, TimedOut
from sandbox.swarm.api import IMAGE
from sandbox.system.net import wait_until
from tests.swarm.stage import LIMIT

if TYPE_CHECKING:
    from sandbox.swarm.engine import PrivateEngine
    from tests.swarm.stage import SwarmStage

SERVICE_LABEL = "com.docker.swarm.service.id"


async def stray_container(engine: PrivateEngine, service: str) -> str:
    """A running container of a service without a task; returns its id."""
    body: dict[str, Any] = {
        "Image": IMAGE,
        "Cmd": ["sleep", "600"],
        "Labels": {SERVICE_LABEL: service},
        "HostConfig": {"NetworkMode": "none", "AutoRemove": True},
    }
    made = await engine.ask("POST", "containers/create", body)
    await engine.ask("POST", f"containers/{made['Id']}/start")
    return str(made["Id"])


async def test_an_empty_list_of_tasks_is_no_stop_while_a_container_runs(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    instance = await stage.add()
    await stage.swarm.start(instance, 1, None)
    stray = await stray_container(engine, (await stage.inspect(instance))["ID"])
    stopping = asyncio.create_task(stage.swarm.stop(instance))

    async def no_task() -> bool:
        return not await stage.tasks(instance)

    await wait_until(no_task, what="an empty list of tasks", limit=LIMIT)
    running = (await stage.swarm.find(instance)).running
    assert [task.id for task in running] == [f"container {stray[:12]}"]
    assert not stopping.done()
    await engine.ask("POST", f"containers/{stray}/kill")
    await stopping


async def test_a_container_without_a_task_is_named_when_it_will_not_end(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    instance = await stage.add(replicas=0)
    stray = await stray_container(engine, (await stage.inspect(instance))["ID"])
    stage.impatient(stop_margin=-9.5)
    with pytest.raises(TimedOut, match=f"still run: container {stray[:12]}"):
        await stage.swarm.stop(instance)
    await engine.ask("POST", f"containers/{stray}/kill")


async def test_no_container_is_left_when_a_stop_is_over(stage: SwarmStage) -> None:
    instance = await stage.add()
    await stage.swarm.start(instance, 1, None)
    await stage.swarm.stop(instance)
    assert await stage.containers(instance) == []


async def test_a_service_that_someone_scales_up_in_the_middle_of_a_stop_is_a_conflict(
    stage: SwarmStage,
) -> None:
    instance = await stage.add(env={"TINY_DEAF": "1"})
    await stage.swarm.start(instance, 1, None)
    stopping = asyncio.create_task(stage.swarm.stop(instance))
    await wait_until(lambda: _scaled_to_0(stage, instance), what="no replica to be asked for", limit=LIMIT)
    await stage.change(instance, replicas=1)
    with pytest.raises(Conflict, match="was scaled up by someone else"):
        await stopping


async def test_a_stop_reacts_to_events(stage: SwarmStage) -> None:
    instance = await stage.add()
    await stage.swarm.start(instance, 1, None)
    async with asyncio.timeout(LIMIT):
        await stage.goes_by_events().stop(instance)
    assert await stage.containers(instance) == []


async def test_a_stop_looks_again_at_intervals_when_there_are_no_events(stage: SwarmStage) -> None:
    instance = await stage.add()
    await stage.swarm.start(instance, 1, None)
    stage.docker.refused = "events"
    await stage.swarm.stop(instance)
    assert await stage.containers(instance) == []


async def _scaled_to_0(stage: SwarmStage, instance: Any) -> bool:
    replicas: int = (await stage.spec(instance))["Mode"]["Replicated"]["Replicas"]
    return replicas == 0
