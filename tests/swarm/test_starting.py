"""A start on a real swarm: the error when it cannot succeed, and changes by others meanwhile."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import Conflict, CrashLoop, Incompatible, NotFound
from sandbox.swarm.api import IMAGE
from sandbox.system.net import wait_until
from tests.contract.runtime_stages import new_instance
from tests.swarm.stage import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rehome_consumer.model import Instance
    from sandbox.swarm.engine import PrivateEngine
    from tests.swarm.stage import SwarmStage

SECOND = 1_000_000_000


@pytest.fixture
async def other_image(engine: PrivateEngine) -> AsyncIterator[str]:
    """Another name of the sandbox's image; removing it leaves the image itself."""
    await engine.ask("POST", f"images/{IMAGE}/tag", params={"repo": "shop-image", "tag": "19"})
    yield "shop-image:19"
    await engine.ask("DELETE", "images/shop-image:19", allowed=(404,))


def container(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An edit of the container's part of a definition."""

    def edit(spec: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(spec)
        change(changed["TaskTemplate"]["ContainerSpec"])
        return changed

    return edit


async def test_a_service_with_a_port_of_its_node_is_not_started_beside_its_old_task(
    stage: SwarmStage,
) -> None:
    port = {"Protocol": "tcp", "TargetPort": 8069, "PublishedPort": 18071, "PublishMode": "host"}
    instance = await stage.add(replicas=0)
    await stage.edit(instance, lambda spec: {**spec, "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]}})
    first = await stage.swarm.start(instance, 1, None)
    await stage.swarm.begin_stop(instance)
    second = await stage.swarm.start(instance, 1, None, beside=True)
    assert second.task != first.task
    assert [task.id for task in (await stage.swarm.find(instance)).running] == [second.task]


async def test_an_image_that_was_removed_between_stop_and_start_is_named(
    stage: SwarmStage, engine: PrivateEngine, other_image: str
) -> None:
    instance = await stage.add()
    await stage.edit(instance, container(lambda part: part.update(Image=other_image)))
    await stage.swarm.start(instance, 1, None)
    await stage.swarm.stop(instance)
    await engine.ask("DELETE", f"images/{other_image}")
    with pytest.raises(
        Incompatible, match=f"service {instance.service} cannot run: No such image: {other_image}"
    ):
        await stage.swarm.start(instance, 1, None)


async def test_a_missing_directory_is_named(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    (stage.directory / instance.directory).rename(stage.directory / "elsewhere")
    with pytest.raises(Incompatible, match=r"bind source path does not exist: .*odoo_data_shop"):
        await stage.swarm.start(instance, 1, None)


async def test_a_lack_of_room_on_every_node_is_reported_in_swarms_words(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)

    def greedy(spec: dict[str, Any]) -> dict[str, Any]:
        reserved = {"NanoCPUs": 2 * stage.cpus * SECOND}
        template = {**spec["TaskTemplate"], "Resources": {"Reservations": reserved}}
        return {**spec, "TaskTemplate": template}

    await stage.edit(instance, greedy)
    with pytest.raises(Incompatible, match=r"no suitable node \(insufficient resources on 1 node\)"):
        await stage.swarm.start(instance, 1, None)


async def test_a_command_that_the_image_lacks_is_reported(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    await stage.edit(instance, container(lambda part: part.update(Command=["/nowhere/odoo"])))
    with pytest.raises((CrashLoop, Incompatible), match="/nowhere/odoo"):
        await stage.swarm.start(instance, 1, None)


async def test_a_service_that_swarm_will_not_restart_is_given_up_at_once_and_forced_by_the_next_start(
    stage: SwarmStage,
) -> None:
    instance = await stage.add("crashing once", replicas=0)
    await stage.edit(instance, _never_restarted)
    with pytest.raises(CrashLoop, match="exit code 255"):
        await stage.swarm.start(instance, 1, None)
    healthy = await stage.swarm.start(instance, 1, None)
    assert [task.id for task in (await stage.swarm.find(instance)).running] == [healthy.task]


def _never_restarted(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "TaskTemplate": {**spec["TaskTemplate"], "RestartPolicy": {"Condition": "none"}}}


async def a_slow_start(stage: SwarmStage) -> tuple[Instance, asyncio.Task[object]]:
    """An instance that never serves, with a start of it that is waiting for its task."""
    instance = await stage.add(replicas=0, env={"TINY_SLOW": "3600"})
    starting: asyncio.Task[object] = asyncio.create_task(stage.swarm.start(instance, 1, None))

    async def runs() -> bool:
        return any(task["Status"]["State"] == "running" for task in await stage.tasks(instance))

    await wait_until(runs, what="a running task", limit=LIMIT)
    return instance, starting


async def test_a_label_that_someone_adds_in_the_middle_of_a_start_stays(stage: SwarmStage) -> None:
    instance = await stage.add("slow", replicas=0)
    starting = asyncio.create_task(stage.swarm.start(instance, 1, None))

    async def started() -> bool:
        return bool(await stage.tasks(instance))

    await wait_until(started, what="a task", limit=LIMIT)
    await stage.change(instance, labels={"operator": "was here"})
    healthy = await starting
    assert (await stage.spec(instance))["Labels"]["operator"] == "was here"
    assert len(await stage.tasks(instance)) == 1
    assert healthy.service_id == (await stage.inspect(instance))["ID"]


async def test_a_definition_that_someone_changes_in_the_middle_of_a_start_is_a_conflict(
    stage: SwarmStage,
) -> None:
    instance, starting = await a_slow_start(stage)
    await stage.edit(instance, container(lambda part: part["Env"].remove("TINY_SLOW=3600")))
    with pytest.raises(Conflict, match="was redefined by someone else while it was started"):
        await starting
    healthy = await stage.swarm.start(instance, 1, None)
    assert healthy.task in [task.id for task in (await stage.swarm.find(instance)).running]


async def test_a_service_that_someone_stops_in_the_middle_of_a_start_is_a_conflict(
    stage: SwarmStage,
) -> None:
    instance, starting = await a_slow_start(stage)
    await stage.change(instance, replicas=0)
    with pytest.raises(Conflict, match="was scaled to 0 by someone else"):
        await starting


async def test_crashes_that_a_service_has_survived_are_no_crash_loop(stage: SwarmStage) -> None:
    instance = await stage.add(env={"TINY_CRASHES": "3"})

    async def serves() -> bool:
        tasks = await stage.tasks(instance)
        return len(tasks) == 4 and tasks[-1]["Status"]["State"] == "running"

    await wait_until(serves, what="the fourth task", limit=LIMIT)
    healthy = await stage.swarm.start(instance, 1, None)
    assert healthy.task == (await stage.tasks(instance))[-1]["ID"]


async def test_a_slow_start_is_waited_for_and_that_is_logged(
    stage: SwarmStage, caplog: pytest.LogCaptureFixture
) -> None:
    instance = await stage.add("slow", replicas=0)
    healthy = await stage.talkative().start(instance, 1, None)
    logged = [record.getMessage() for record in caplog.records if record.name.endswith("swarm.waiting")]
    assert any(
        line.startswith(f"wait.goes_on service={instance.service} for=serve ") and healthy.task in line
        for line in logged
    ), logged


async def test_an_answer_counts_only_when_no_earlier_task_still_runs(stage: SwarmStage) -> None:
    instance = await stage.add(stop_grace_seconds=3, env={"TINY_DEAF": "1"})
    before = await stage.swarm.start(instance, 1, None)
    await stage.change(instance, replicas=0)
    healthy = await stage.swarm.start(instance, 1, None)
    assert healthy.task != before.task
    assert len(await stage.containers(instance)) == 1


async def test_a_service_is_found_by_the_naming_rule_when_the_recorded_name_is_out_of_date(
    stage: SwarmStage,
) -> None:
    instance = await stage.add(replicas=0)
    renamed = replace(instance, service_name="odoo-of-long-ago")
    assert (await stage.swarm.find(renamed)).name == instance.service


async def test_a_service_that_carries_another_instances_label_is_not_used(
    stage: SwarmStage,
) -> None:
    instance = await stage.add(replicas=0)
    impostor = replace(new_instance(), service_name=instance.service)
    with pytest.raises(NotFound, match=f"{instance.service} carries the label .*{instance.id}"):
        await stage.swarm.stop(impostor)


async def test_a_name_that_no_service_can_have_is_not_asked_for(stage: SwarmStage) -> None:
    impostor = replace(new_instance(), service_name="../containers/json")
    with pytest.raises(NotFound, match="no service is named"):
        await stage.swarm.find(impostor)
    assert not any("containers" in asked for asked in stage.docker.asked)


async def test_an_id_is_no_name(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    identity = (await stage.inspect(instance))["ID"]
    asked_by_half_an_id = replace(new_instance(), service_name=identity[:8])
    with pytest.raises(NotFound):
        await stage.swarm.find(asked_by_half_an_id)


async def test_a_consumer_outside_of_the_network_asks_where_its_map_says(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    healthy = await stage.from_outside().start(instance, 1, None)
    assert healthy.url == f"http://{instance.service}:8069"
    assert [task.id for task in (await stage.swarm.find(instance)).running] == [healthy.task]
