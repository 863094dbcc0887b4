"""What would be refused only after a stop is found out while the instance serves, on a real swarm."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import Incompatible, Transient
from rehome_events.parts import Limits
from sandbox.swarm.api import IMAGE
from sandbox.swarm.definitions import bind
from sandbox.swarm.root import PYTHON
from sandbox.system.net import wait_until
from tests.swarm.stage import LIMIT, SwarmStage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rehome_consumer.model import Instance
    from sandbox.swarm.engine import PrivateEngine

SECOND = 1_000_000_000
PORT = 18070


def template(**parts: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An edit of what tasks are made from."""
    return lambda spec: {**spec, "TaskTemplate": {**spec["TaskTemplate"], **parts}}


def container(**parts: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An edit of the container's part."""

    def edit(spec: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(spec)
        changed["TaskTemplate"]["ContainerSpec"].update(parts)
        return changed

    return edit


def published(spec: dict[str, Any]) -> dict[str, Any]:
    """With a port of its node."""
    port = {"Protocol": "tcp", "TargetPort": 8069, "PublishedPort": PORT, "PublishMode": "host"}
    return {**spec, "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}}


async def served(stage: SwarmStage, *edits: Callable[[dict[str, Any]], dict[str, Any]]) -> Instance:
    """An instance that serves, with these changes of its definition."""
    instance = await stage.add(replicas=0)
    for edit in edits:
        await stage.edit(instance, edit)
    await stage.swarm.start(instance, 1, None)
    return instance


async def refused(
    stage: SwarmStage, instance: Instance, kind: type[Exception], match: str, limits: Limits | None = None
) -> None:
    """Looking ahead raises this; and nothing of the service was changed, stopped or started."""
    before, running = await stage.inspect(instance), await stage.containers(instance)
    updates = stage.docker.updates
    with pytest.raises(kind, match=match) as caught:
        await stage.swarm.require_can_run(instance, limits)
    assert type(caught.value) is kind
    assert instance.service in str(caught.value)
    assert stage.docker.updates == updates
    assert await stage.containers(instance) == running
    assert (await stage.inspect(instance))["Spec"] == before["Spec"]


async def warned(stage: SwarmStage, instance: Instance, limits: Limits | None = None) -> str:
    """The only warning."""
    (warning,) = await stage.swarm.require_can_run(instance, limits)
    return warning


@pytest.fixture
async def node(engine: PrivateEngine) -> AsyncIterator[Node]:
    """The only node; it is as before after the test."""
    (found,) = await engine.ask("GET", "nodes")
    node = Node(engine, found["ID"], found["Description"]["Hostname"])
    yield node
    await node.change(Availability="active", Labels={})


class Node:
    """A node of the swarm, to be changed."""

    def __init__(self, engine: PrivateEngine, node: str, name: str) -> None:
        self._engine = engine
        self._id = node
        self.name = name

    async def change(self, **parts: Any) -> None:
        """Set these parts of its definition."""
        await self._engine.edit(f"nodes/{self._id}", lambda spec: {**spec, **parts})


async def test_an_instance_that_can_start_again_is_not_refused_and_nothing_is_warned_of(
    stage: SwarmStage,
) -> None:
    instance = await served(stage, template(Placement={"Constraints": ["node.role == manager"]}), published)
    assert await stage.swarm.require_can_run(instance, Limits(cpu_limit=1.0, memory_limit="256M")) == ()


async def test_more_cpus_than_any_node_has_are_refused(stage: SwarmStage, node: Node) -> None:
    instance = await served(stage)
    await refused(
        stage,
        instance,
        Incompatible,
        rf"with {2 * stage.cpus} CPUs: on {node.name}, .* only {stage.cpus} CPUs available",
        Limits(cpu_limit=2.0 * stage.cpus),
    )


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        (Limits(memory_limit="5M"), "with 5M of memory: Docker needs 6M at least"),
        (Limits(cpu_limit=0.005), r"with 0\.005 CPUs: Docker needs 0\.01 at least"),
    ],
)
async def test_less_than_docker_accepts_is_refused(stage: SwarmStage, limits: Limits, match: str) -> None:
    instance = await served(stage)
    await refused(stage, instance, Incompatible, match, limits)
    # and it is the engine that does not accept it
    with pytest.raises(Exception, match=r"cannot run|invalid|nimum"):
        await stage.swarm.resize(instance, limits)


@pytest.mark.parametrize(
    "constraint",
    ["node.labels.tier==odoo", "node.role!=manager", "node.hostname==elsewhere", "node.platform.os==windows"],
)
async def test_a_constraint_that_no_node_fulfils_is_refused(
    stage: SwarmStage, node: Node, constraint: str
) -> None:
    instance = await stage.add(replicas=0)
    await stage.edit(instance, template(Placement={"Constraints": [constraint]}))
    await refused(stage, instance, Incompatible, rf"no node fulfils {constraint} \(nodes: {node.name}\)")


async def test_constraints_are_judged_as_swarm_judges_them(stage: SwarmStage, node: Node) -> None:
    """Every service here starts, so every one of these constraints is fulfilled."""
    await node.change(Labels={"Tier": "Odoo"})
    fulfilled = [
        "node.labels.Tier==ODOO",
        "node.labels.tier!=odoo",
        "node.labels.none!=x",
        "NODE.ROLE == Manager",
        "node.platform.os==linux",
        "engine.labels.none!=x",
        f"node.hostname=={node.name.upper()}",
        "node.ip==127.0.0.0/8",
    ]
    instance = await served(stage, template(Placement={"Constraints": fulfilled}))
    assert await stage.swarm.require_can_run(instance, None) == ()


async def test_a_platform_that_no_node_has_is_refused(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    await stage.edit(
        instance, template(Placement={"Platforms": [{"OS": "windows", "Architecture": "amd64"}]})
    )
    await refused(stage, instance, Incompatible, "no node fulfils the platform of its image")


async def test_a_platform_is_the_same_under_its_other_name(stage: SwarmStage) -> None:
    platforms = [{"OS": "linux", "Architecture": name} for name in ("amd64", "arm64")]
    instance = await served(stage, template(Placement={"Platforms": platforms}))
    assert await stage.swarm.require_can_run(instance, None) == ()


@pytest.mark.parametrize("availability", ["drain", "pause"])
async def test_a_node_that_accepts_no_tasks_now_is_waited_for(
    stage: SwarmStage, node: Node, availability: str
) -> None:
    instance = await stage.add(replicas=0)
    await node.change(Availability=availability)
    await refused(stage, instance, Transient, f"could not start now: {node.name} is set to {availability}")
    await node.change(Availability="active")
    assert await stage.swarm.require_can_run(instance, None) == ()


async def test_a_reservation_above_every_node_is_refused(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    reserved = {"Reservations": {"NanoCPUs": 2 * stage.cpus * SECOND}}
    await stage.edit(instance, template(Resources=reserved))
    await refused(
        stage, instance, Incompatible, f"it reserves {2 * stage.cpus} CPUs .* has {stage.cpus} CPUs"
    )


async def test_room_that_others_have_reserved_is_waited_for_and_its_own_is_not_counted(
    stage: SwarmStage,
) -> None:
    most = int((stage.cpus - 0.5) * SECOND)
    greedy = template(Resources={"Reservations": {"NanoCPUs": most}})
    instance = await served(stage, greedy)
    assert await stage.swarm.require_can_run(instance, None) == ()
    other = await stage.add(replicas=0)
    await stage.edit(other, greedy)
    await refused(stage, other, Transient, r"it reserves .* has 0\.5 CPUs")


async def test_an_image_that_is_not_on_this_node_is_a_warning(
    stage: SwarmStage, engine: PrivateEngine
) -> None:
    await engine.ask("POST", f"images/{IMAGE}/tag", params={"repo": "shop-image", "tag": "18"})
    instance = await served(stage, container(Image="shop-image:18"))
    assert await stage.swarm.require_can_run(instance, None) == ()
    await engine.ask("DELETE", "images/shop-image:18")
    assert f"image shop-image:18 of service {instance.service} is not on this node" in await warned(
        stage, instance
    )


async def test_memory_above_every_nodes_is_a_warning(stage: SwarmStage) -> None:
    instance = await served(stage)
    warning = await warned(stage, instance, Limits(memory_limit="64T"))
    assert f"service {instance.service} is limited to 64T of memory" in warning


async def test_a_missing_directory_on_the_shared_storage_is_refused(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    (stage.directory / instance.directory).rename(stage.directory / "elsewhere")
    await refused(stage, instance, Incompatible, "bind source path does not exist: .*odoo_data_shop")


async def test_another_directory_than_that_of_odoo_conf_is_a_warning(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    elsewhere = stage.directory / "elsewhere"
    elsewhere.mkdir()
    await stage.edit(instance, container(Mounts=[bind(elsewhere, "/bitnami/odoo")]))
    warning = await warned(stage, instance)
    assert (
        f"mounts {elsewhere}, odoo.conf is replaced below {stage.directory / instance.directory}" in warning
    )


async def test_a_port_that_another_service_waits_for_is_refused(stage: SwarmStage) -> None:
    instance = await served(stage, published)
    other = await stage.add(replicas=0)
    await stage.edit(other, published)
    assert await stage.swarm.require_can_run(instance, None) == ()
    await stage.change(other, replicas=1)
    await wait_until(lambda: _waits(stage, other), what="a task without a node", limit=LIMIT)
    await refused(
        stage,
        instance,
        Incompatible,
        f"port {PORT} of every node that it may run on .* in mode host by {other.service}",
    )
    # and that other one does start when this one stops
    await stage.swarm.stop(instance)
    await stage.swarm.start(other, 1, None)


async def _waits(stage: SwarmStage, instance: Instance) -> bool:
    return any("host-mode port" in task["Status"].get("Err", "") for task in await stage.tasks(instance))


async def test_more_replicas_than_ports_of_nodes_are_a_warning(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    await stage.edit(instance, published)
    await stage.change(instance, replicas=2)
    await wait_until(lambda: _runs(stage, instance), what="a task", limit=LIMIT)
    assert "asks for 2 replicas, and 1 per node fit on 1 node(s)" in await warned(stage, instance)


async def _runs(stage: SwarmStage, instance: Instance) -> bool:
    return any(task["Status"]["State"] == "running" for task in await stage.tasks(instance))


async def test_a_service_whose_tasks_end_today_is_waited_for(stage: SwarmStage) -> None:
    instance = await stage.add("crashing", replicas=0)
    await stage.edit(instance, template(RestartPolicy={"Condition": "none"}))
    await stage.change(instance, replicas=1)
    await wait_until(lambda: _ended(stage, instance), what="the task to end", limit=LIMIT)
    await refused(stage, instance, Transient, "does not run now, .* exit code 255")


async def _ended(stage: SwarmStage, instance: Instance) -> bool:
    return any(task["Status"]["State"] == "failed" for task in await stage.tasks(instance))


async def test_a_service_that_is_killed_for_want_of_memory_may_be_given_more(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0, limits={"memory": "64M"})
    await stage.edit(instance, container(Command=[PYTHON, "-S", "-c", "b'x' * 10**9"]))
    await stage.edit(instance, template(RestartPolicy={"Condition": "none"}))
    await stage.change(instance, replicas=1)
    await wait_until(lambda: _ended(stage, instance), what="the task to end", limit=LIMIT)
    await refused(stage, instance, Transient, "does not run now, .*exit code 137")
    warning = await warned(stage, instance, Limits(memory_limit="512M"))
    assert "does not run now (exit code 137" in warning


async def test_a_service_whose_update_is_paused_is_refused_and_one_that_runs_all_the_same_warned_of(
    stage: SwarmStage,
) -> None:
    instance = await served(stage)
    failing = container(Command=["/nowhere/odoo"])

    def pausing(spec: dict[str, Any]) -> dict[str, Any]:
        config = {"Parallelism": 1, "FailureAction": "pause", "Order": "start-first", "Monitor": 5 * SECOND}
        changed = {**failing(spec), "UpdateConfig": config}
        return template(RestartPolicy={"Condition": "none"})(changed)

    good = await stage.spec(instance)
    await stage.edit(instance, pausing)
    await wait_until(lambda: _paused(stage, instance), what="the update to be paused", limit=LIMIT)
    await refused(stage, instance, Incompatible, "its last update is paused .* does not run: .*rollback")
    await stage.edit(instance, lambda _: good)

    async def serves() -> bool:
        return await stage.swarm.require_can_run(instance, None) == ()

    await wait_until(serves, what="the old definition", limit=LIMIT)


async def _paused(stage: SwarmStage, instance: Instance) -> bool:
    return bool((await stage.inspect(instance)).get("UpdateStatus", {}).get("State") == "paused")


async def test_a_proxy_of_before_these_requests_refuses_no_upgrade(stage: SwarmStage) -> None:
    instance = await served(stage)
    stage.docker.refused = "nodes"
    assert "is not known: Docker engine, GET /nodes: Forbidden" in await warned(stage, instance)
    stage.docker.refused = f"images/{IMAGE}/json"
    assert f"whether image {IMAGE} is on this node is not known" in await warned(stage, instance)


async def test_a_maximum_per_node_is_resized_with_a_restart_where_one_more_has_no_room(
    stage: SwarmStage,
) -> None:
    instance = await served(stage, template(Placement={"MaxReplicas": 1}))
    (before,) = await stage.containers(instance)
    (warning,) = await stage.swarm.resize(instance, Limits(cpu_limit=1.0))
    assert "was restarted" in warning
    assert await stage.containers(instance) != [before]
    assert await stage.swarm.require_can_run(instance, None) == ()


async def test_a_resize_that_was_cut_off_is_left_to_the_next_run(stage: SwarmStage) -> None:
    instance = await served(stage)
    resize = asyncio.create_task(stage.swarm.resize(instance, Limits(cpu_limit=1.0)))
    await wait_until(lambda: _resizes(stage, instance), what="the update", limit=LIMIT)
    resize.cancel()
    await asyncio.gather(resize, return_exceptions=True)
    assert "was started and not finished" in await warned(stage, instance, Limits(cpu_limit=1.0))
    await stage.swarm.resize(instance, Limits(cpu_limit=1.0))
    assert await stage.swarm.require_can_run(instance, None) == ()


async def _resizes(stage: SwarmStage, instance: Instance) -> bool:
    return "rehome.before-resize" in (await stage.spec(instance))["Labels"]
