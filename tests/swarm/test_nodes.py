"""Instances on another node than the manager's, whose list of containers does not have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import CrashLoop
from sandbox.swarm.engine import PORT, PrivateEngine
from sandbox.swarm.forwards import Forwards
from sandbox.swarm.images import import_images
from sandbox.system.net import wait_until
from sandbox.system.processes import run
from tests.contract.runtime_stages import MISSING_CONF
from tests.swarm.stage import LIMIT, SwarmStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_consumer.model import Instance

MANAGER, WORKER = "198.51.100.1", "198.51.100.2"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def nodes(scratch: Path) -> AsyncIterator[tuple[PrivateEngine, PrivateEngine]]:
    """A manager and a worker, each an engine in namespaces of its own, with a cable between them."""
    manager, worker = PrivateEngine(scratch / "manager"), PrivateEngine(scratch / "worker")
    try:
        await manager.begin()
        await worker.begin()
        await connect(manager, worker)
        await manager.make_swarm(MANAGER)
        token = (await manager.ask("GET", "swarm"))["JoinTokens"]["Worker"]
        join = {"ListenAddr": f"{WORKER}:{PORT}", "AdvertiseAddr": WORKER}
        await worker.ask(
            "POST", "swarm/join", {**join, "RemoteAddrs": [f"{MANAGER}:{PORT}"], "JoinToken": token}
        )
        await import_images(worker, worker.directory)
        yield manager, worker
    finally:
        await worker.destroy()
        await manager.destroy()


async def connect(one: PrivateEngine, other: PrivateEngine) -> None:
    """A pair of network devices, one in each engine's network."""
    await inside(
        one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(other.init)
    )
    for engine, address in ((one, MANAGER), (other, WORKER)):
        await inside(engine, "address", "add", f"{address}/24", "dev", "cable")
        await inside(engine, "link", "set", "cable", "up")


async def inside(engine: PrivateEngine, *command: str) -> None:
    await run(["nsenter", f"--target={engine.init}", "--net", "ip", *command], limit=10)


@pytest.fixture
async def far(nodes: tuple[PrivateEngine, PrivateEngine], tmp_path: Path) -> AsyncIterator[SwarmStage]:
    stage = await SwarmStage.open(nodes[0], tmp_path)
    yield stage
    await stage.close()


@pytest.fixture
async def forwards(nodes: tuple[PrivateEngine, PrivateEngine]) -> AsyncIterator[Forwards]:
    forwards = Forwards(nodes[1])
    yield forwards
    await forwards.close()


async def on_worker(stage: SwarmStage, behaviour: str = "healthy", **spec: Any) -> Instance:
    """A stopped instance that will run on the worker."""
    instance = await stage.add(behaviour, replicas=0, **spec)

    def placed(now: dict[str, Any]) -> dict[str, Any]:
        template = {**now["TaskTemplate"], "Placement": {"Constraints": ["node.role==worker"]}}
        return {**now, "TaskTemplate": template}

    await stage.edit(instance, placed)
    return instance


async def containers(engine: PrivateEngine, instance: Instance) -> list[str]:
    found = await engine.ask("GET", "containers/json")
    name = "com.docker.swarm.service.name"
    return [one["Id"] for one in found if one["Labels"].get(name) == instance.service]


async def test_a_stop_waits_for_a_container_on_another_node(
    far: SwarmStage, forwards: Forwards, nodes: tuple[PrivateEngine, PrivateEngine]
) -> None:
    manager, worker = nodes
    instance = await on_worker(far, env={"TINY_DEAF": "1"}, stop_grace_seconds=3)
    healthy = await far.with_forwards(forwards).start(instance, 1, None)
    assert (await containers(manager, instance), len(await containers(worker, instance))) == ([], 1)
    assert [task.id for task in (await far.swarm.find(instance)).running] == [healthy.task]
    stopping = asyncio.create_task(far.swarm.stop(instance))

    async def asked_for() -> bool:
        replicas: int = (await far.spec(instance))["Mode"]["Replicated"]["Replicas"]
        return replicas == 0

    await wait_until(asked_for, what="no replica to be asked for", limit=LIMIT)
    assert len(await containers(worker, instance)) == 1
    assert not stopping.done()
    await stopping
    assert await containers(worker, instance) == []


async def test_a_crash_on_another_node_is_reported_with_its_last_lines(
    far: SwarmStage, forwards: Forwards
) -> None:
    instance = await on_worker(far, "crashing")
    with pytest.raises(CrashLoop) as caught:
        await far.with_forwards(forwards).start(instance, 1, None)
    assert "exit code 255" in str(caught.value)
    assert MISSING_CONF in str(caught.value)
