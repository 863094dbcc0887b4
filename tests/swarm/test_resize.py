"""New limits for a running instance: it goes on serving, and nothing else in its definition changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.swarm import resizing
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.errors import CrashLoop, Incompatible
from rehome_events.parts import Limits
from sandbox.swarm.definitions import bind, definition
from sandbox.swarm.root import PYTHON
from sandbox.system.net import wait_until
from tests.swarm import prober
from tests.swarm.shop import Shop
from tests.swarm.stage import LIMIT

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster
    from tests.swarm.stage import SwarmStage

LIMITS = Limits(cpu_limit=1.0, memory_limit="1G")


class Customer:
    """Sends requests to an instance all the time, from inside the overlay network."""

    def __init__(self, stage: SwarmStage, shop: Shop) -> None:
        self._stage = stage
        self._shop = shop
        self._directory = stage.directory / "customer"

    async def start(self) -> None:
        self._directory.mkdir()
        program = Path(prober.__file__)
        command = [PYTHON, "-S", f"/program/{program.name}", self._shop.instance.service, "8069", "/answers"]
        mounts = [bind(program.parent, "/program", read_only=True), bind(self._directory, "/answers")]
        name = f"customer-of-{self._shop.instance.service}"
        await self._stage.create(definition(name, self._stage.network, command=command, mounts=mounts))
        await self.wait_for_answers(5)

    async def wait_for_answers(self, more: int) -> None:
        """Wait until so many more requests were answered, with whatever result."""
        before = len(self.answers())

        async def asked() -> bool:
            return len(self.answers()) >= before + more

        await wait_until(asked, what="a customer's requests", limit=LIMIT)

    def answers(self) -> list[str]:
        file = self._directory / "answers"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
async def checked_shop(stage: SwarmStage, servers: dict[str, Cluster]) -> Shop:
    """An instance with a health check in its definition."""
    shop = await Shop.open(stage, health_check=True)
    await stage.swarm.start(shop.instance, 1, None)
    return shop


async def test_an_instance_with_a_health_check_serves_every_request_while_it_is_resized(
    checked_shop: Shop, stage: SwarmStage
) -> None:
    before = await stage.spec(checked_shop.instance)
    customer = Customer(stage, checked_shop)
    await customer.start()
    assert await stage.swarm.resize(checked_shop.instance, LIMITS) == ()
    await customer.wait_for_answers(10)
    assert set(customer.answers()) == {"ok"}
    assert await stage.spec(checked_shop.instance) == edit.with_limits(before, LIMITS)
    (task,) = (await stage.swarm.find(checked_shop.instance)).running
    (container,) = await stage.containers(checked_shop.instance)
    details = await stage.engine.ask("GET", f"containers/{container}/json")
    assert details["Config"]["Labels"]["com.docker.swarm.task.id"] == task.id
    assert (details["HostConfig"]["NanoCpus"], details["HostConfig"]["Memory"]) == (1_000_000_000, 1024**3)


async def test_limits_that_the_node_does_not_have_leave_the_instance_as_it_was(
    checked_shop: Shop, stage: SwarmStage
) -> None:
    before, running = await stage.spec(checked_shop.instance), await stage.containers(checked_shop.instance)
    with pytest.raises(Incompatible, match=f"there are only {stage.cpus} CPUs available"):
        await stage.swarm.resize(checked_shop.instance, Limits(cpu_limit=2.0 * stage.cpus))
    assert await stage.spec(checked_shop.instance) == before
    assert await stage.containers(checked_shop.instance) == running
    await stage.swarm.start(checked_shop.instance, 1, None)
    assert await stage.containers(checked_shop.instance) == running


async def test_an_instance_that_cannot_run_with_its_new_limits_keeps_its_old_ones(
    checked_shop: Shop, stage: SwarmStage
) -> None:
    before, running = await stage.spec(checked_shop.instance), await stage.containers(checked_shop.instance)
    with pytest.raises(CrashLoop, match="exit code"):
        await stage.swarm.resize(checked_shop.instance, Limits(memory_limit="8M"))
    assert await stage.spec(checked_shop.instance) == before
    assert await stage.containers(checked_shop.instance) == running


async def test_a_resize_that_was_cut_off_is_finished_by_the_next(
    checked_shop: Shop, stage: SwarmStage
) -> None:
    before = await stage.spec(checked_shop.instance)
    resize = asyncio.create_task(stage.swarm.resize(checked_shop.instance, LIMITS))

    async def started() -> bool:
        return resizing.is_started(await stage.spec(checked_shop.instance))

    await wait_until(started, what="the update", limit=LIMIT)
    resize.cancel()
    await asyncio.gather(resize, return_exceptions=True)
    assert await stage.swarm.resize(checked_shop.instance, LIMITS) == ()
    assert await stage.spec(checked_shop.instance) == edit.with_limits(before, LIMITS)


async def test_an_instance_that_occupies_a_port_of_its_node_is_restarted_with_a_warning(
    stage: SwarmStage,
) -> None:
    instance = await stage.add()

    def published(spec: dict[str, Any]) -> dict[str, Any]:
        port = {"Protocol": "tcp", "TargetPort": 8069, "PublishedPort": 18069, "PublishMode": "host"}
        return {**spec, "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}}

    await stage.edit(instance, published)
    await stage.swarm.start(instance, 1, None)
    before = await stage.spec(instance)
    (warning,) = await stage.swarm.resize(instance, LIMITS)
    assert "was restarted" in warning
    assert await stage.spec(instance) == edit.with_limits(before, LIMITS)


async def test_a_storage_limit_that_cannot_be_enforced_is_a_warning_that_names_the_directory(
    stage: SwarmStage,
) -> None:
    instance = await stage.add(replicas=0)
    (warning,) = await stage.swarm.resize(instance, Limits(storage_limit="50G"))
    directory = stage.directory / instance.directory
    assert warning.startswith(f"the storage limit 50G is not enforced on {directory}: ")
