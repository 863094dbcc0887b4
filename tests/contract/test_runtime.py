"""Port `Runtime`, held by the fake and by real processes under a supervisor alike."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import CrashLoop, Incompatible, NotFound, TimedOut
from rehome_events.parts import Limits
from sandbox.supervisor.node import SupervisorNode
from tests.contract.runtime_stages import CPUS, MISSING_CONF, FakeStage, Stage, new_instance, process_stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from rehome_consumer.model import Instance
    from rehome_consumer.ports.steps import Runtime

LIMITS = Limits(cpu_limit=1.0, memory_limit="8G", storage_limit="50G")


@pytest.fixture(params=["fake", "processes"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    node = SupervisorNode(tmp_path, cpus=CPUS)
    await node.start()
    async with process_stage(node, tmp_path) as processes:
        yield processes
    await node.kill()
    await node.close()


async def test_it_says_that_it_is_ready(stage: Stage) -> None:
    await stage.runtime.require_ready()


async def test_a_service_is_found_with_what_steps_need(stage: Stage) -> None:
    instance = await stage.add(env={"ODOO_DATABASE_HOST": "pool"}, limits={"cpu": 0.5, "memory": "4G"})
    service = await stage.runtime.find(instance)
    assert service.name == instance.service
    assert service.id
    assert service.replicas == 1
    assert [task.running for task in service.running] == [True]
    assert service.env["ODOO_DATABASE_HOST"] == "pool"
    assert service.limits == Limits(cpu_limit=0.5, memory_limit="4G")
    assert service.spec["networks"] == ["saasodoo-network"]


async def test_a_service_of_another_name_is_found_by_its_instance_label(stage: Stage) -> None:
    instance = await stage.add(name="odoo-renamed-by-hand")
    assert (await stage.runtime.find(instance)).name == "odoo-renamed-by-hand"


CALLS: dict[str, Callable[[Runtime, Instance], Coroutine[Any, Any, Any]]] = {
    "find": lambda runtime, instance: runtime.find(instance),
    "look ahead": lambda runtime, instance: runtime.require_can_run(instance, None),
    "begin to stop": lambda runtime, instance: runtime.begin_stop(instance),
    "stop": lambda runtime, instance: runtime.stop(instance),
    "configure": lambda runtime, instance: runtime.configure(instance, {"A": "1"}),
    "start": lambda runtime, instance: runtime.start(instance, 1, None),
    "resize": lambda runtime, instance: runtime.resize(instance, LIMITS),
    "restore": lambda runtime, instance: runtime.restore_spec(instance, {"name": instance.service}),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_service_that_is_not_there_is_named(stage: Stage, call: str) -> None:
    instance = new_instance()
    with pytest.raises(NotFound, match=instance.service) as caught:
        await CALLS[call](stage.runtime, instance)
    assert str(instance.id) in str(caught.value)


async def test_a_stop_ends_when_nothing_runs_and_a_second_one_changes_nothing(stage: Stage) -> None:
    instance = await stage.add()
    await stage.runtime.stop(instance)
    stopped = await stage.runtime.find(instance)
    assert (stopped.replicas, stopped.running) == (0, ())
    await stage.runtime.stop(instance)
    assert await stage.runtime.find(instance) == stopped


async def test_a_stop_that_was_only_begun_is_not_waited_for_until_somebody_does(stage: Stage) -> None:
    instance = await stage.add("deaf")
    await stage.runtime.start(instance, 1, None)
    for _ in range(2):
        await stage.runtime.begin_stop(instance)
    begun = await stage.runtime.find(instance)
    assert (begun.replicas, len(begun.running)) == (0, 1)
    await stage.runtime.configure(instance, {"ODOO_DATABASE_HOST": "dedicated"})
    await stage.runtime.stop(instance)
    assert (await stage.runtime.find(instance)).running == ()
    assert await stage.exit_codes(instance) == [137]


async def test_a_start_is_over_when_what_ends_has_ended(stage: Stage) -> None:
    instance = await stage.add("deaf")
    first = await stage.runtime.start(instance, 1, None)
    await stage.runtime.begin_stop(instance)
    second = await stage.runtime.start(instance, 1, None)
    assert second.task != first.task
    assert [task.id for task in (await stage.runtime.find(instance)).running] == [second.task]


async def test_a_start_beside_what_ends_does_not_wait_for_it(stage: Stage) -> None:
    instance = await stage.add("deaf", stop_grace_seconds=30)
    first = await stage.runtime.start(instance, 1, None)
    await stage.runtime.begin_stop(instance)
    second = await stage.runtime.start(instance, 1, None, beside=True)
    assert second.task != first.task
    running = {task.id for task in (await stage.runtime.find(instance)).running}
    assert running == {first.task, second.task}


async def test_a_task_that_ignores_sigterm_is_stopped_all_the_same(stage: Stage) -> None:
    instance = await stage.add("deaf")
    await stage.runtime.start(instance, 1, None)
    await stage.runtime.stop(instance)
    assert (await stage.runtime.find(instance)).running == ()
    assert await stage.exit_codes(instance) == [137]


async def test_a_stop_that_takes_too_long_names_the_tasks_that_still_run(stage: Stage) -> None:
    instance = await stage.add_unstoppable()
    (task,) = (await stage.runtime.find(instance)).running
    with pytest.raises(TimedOut, match=f"service {instance.service} to stop; still run: {task.id}"):
        await stage.runtime.stop(instance)


async def test_configuring_a_stopped_service_sets_its_variables_and_starts_nothing(stage: Stage) -> None:
    instance = await stage.add(replicas=0, env={"KEPT": "yes", "ODOO_DATABASE_HOST": "pool"})
    before = await stage.runtime.find(instance)
    await stage.runtime.configure(instance, {"ODOO_DATABASE_HOST": "dedicated", "NEW": "a%b"})
    after = await stage.runtime.find(instance)
    assert after.env == {**before.env, "ODOO_DATABASE_HOST": "dedicated", "NEW": "a%b"}
    assert {**after.spec, "env": before.spec["env"]} == before.spec
    assert after.running == ()


async def test_a_running_service_is_configured_by_a_new_task(stage: Stage) -> None:
    instance = await stage.add()
    first = await stage.runtime.start(instance, 1, None)
    await stage.runtime.configure(instance, {"ODOO_DATABASE_HOST": "dedicated"})
    second = await stage.runtime.start(instance, 1, None)
    assert second.task != first.task


async def test_a_start_applies_limits_and_returns_when_the_task_serves(stage: Stage) -> None:
    instance = await stage.add(replicas=0, limits={"cpu": 0.5, "memory": "4G", "pids": 100})
    healthy = await stage.runtime.start(instance, 1, LIMITS)
    service = await stage.runtime.find(instance)
    assert [task.id for task in service.running] == [healthy.task]
    assert (service.replicas, healthy.service_id) == (1, service.id)
    assert service.spec["limits"] == {"cpu": 1.0, "memory": "8G", "pids": 100}
    assert healthy.internal_url == healthy.url
    assert healthy.at.tzinfo is not None


async def test_a_start_without_limits_keeps_them(stage: Stage) -> None:
    instance = await stage.add(replicas=0, limits={"cpu": 0.5, "memory": "4G"})
    await stage.runtime.start(instance, 1, None)
    assert (await stage.runtime.find(instance)).limits == Limits(cpu_limit=0.5, memory_limit="4G")


async def test_an_instance_that_serves_already_is_not_restarted(stage: Stage) -> None:
    instance = await stage.add(replicas=0)
    first = await stage.runtime.start(instance, 1, LIMITS)
    assert (await stage.runtime.start(instance, 1, LIMITS)).task == first.task


async def test_a_start_that_was_cut_off_is_completed_by_the_next(stage: Stage) -> None:
    instance = await stage.add(replicas=0)
    cut_off = asyncio.create_task(stage.runtime.start(instance, 1, LIMITS))
    await asyncio.sleep(0)
    cut_off.cancel()
    await asyncio.gather(cut_off, return_exceptions=True)
    healthy = await stage.runtime.start(instance, 1, LIMITS)
    assert [task.id for task in (await stage.runtime.find(instance)).running] == [healthy.task]


async def test_a_crash_loop_is_reported_with_exit_code_and_last_lines(stage: Stage) -> None:
    instance = await stage.add("crashing", replicas=0)
    with pytest.raises(CrashLoop) as caught:
        await stage.runtime.start(instance, 1, None)
    assert instance.service in str(caught.value)
    assert "exit code 255" in str(caught.value)
    assert MISSING_CONF in str(caught.value)


async def test_a_task_that_answers_and_ends_does_not_count_as_healthy(stage: Stage) -> None:
    instance = await stage.add("ending after a first round of answers", replicas=0)
    with pytest.raises(CrashLoop, match="exit code 3"):
        await stage.runtime.start(instance, 1, None)


async def test_a_single_crash_is_no_crash_loop(stage: Stage) -> None:
    instance = await stage.add("crashing once", replicas=0)
    healthy = await stage.runtime.start(instance, 1, None)
    assert await stage.exit_codes(instance) == [255]
    assert [task.id for task in (await stage.runtime.find(instance)).running] == [healthy.task]


async def test_a_slow_start_is_no_crash_loop(stage: Stage) -> None:
    instance = await stage.add("slow", replicas=0)
    healthy = await stage.runtime.start(instance, 1, None)
    assert await stage.exit_codes(instance) == []
    assert [task.id for task in (await stage.runtime.find(instance)).running] == [healthy.task]


async def test_an_instance_that_never_gets_healthy_times_out_saying_what_it_answered(stage: Stage) -> None:
    instance = await stage.add("unhealthy")
    with pytest.raises(TimedOut, match=f"service {instance.service} to serve.*HTTP 503"):
        await stage.runtime.start(instance, 1, None)


async def test_limits_above_the_nodes_are_refused_with_the_nodes_words(stage: Stage) -> None:
    instance = await stage.add(replicas=0)
    with pytest.raises(Incompatible, match=f"there are only {stage.cpus} CPUs available"):
        await stage.runtime.start(instance, 1, Limits(cpu_limit=2.0 * stage.cpus))


async def test_limits_above_the_nodes_are_found_out_while_the_instance_serves(stage: Stage) -> None:
    instance = await stage.add(limits={"cpu": 0.5})
    served_by = (await stage.runtime.start(instance, 1, None)).task
    before = await stage.runtime.find(instance)
    with pytest.raises(Incompatible, match=f"there are only {stage.cpus} CPUs available") as caught:
        await stage.runtime.require_can_run(instance, Limits(cpu_limit=2.0 * stage.cpus))
    assert instance.service in str(caught.value)
    assert await stage.runtime.find(instance) == before
    assert [task.id for task in before.running] == [served_by]


async def test_limits_that_the_definition_has_already_are_compared_with_the_node_too(stage: Stage) -> None:
    instance = await stage.add(replicas=0, limits={"cpu": 2.0 * stage.cpus})
    with pytest.raises(Incompatible, match="CPUs available"):
        await stage.runtime.require_can_run(instance, None)
    await stage.runtime.require_can_run(instance, Limits(cpu_limit=0.5))


@pytest.mark.parametrize("replicas", [0, 1])
async def test_looking_ahead_changes_and_starts_nothing(stage: Stage, replicas: int) -> None:
    instance = await stage.add(replicas=replicas)
    if replicas:
        await stage.runtime.start(instance, 1, None)
    before = await stage.runtime.find(instance)
    assert await stage.runtime.require_can_run(instance, Limits(cpu_limit=0.5, memory_limit="64M")) == ()
    assert await stage.runtime.find(instance) == before


async def test_a_restored_definition_is_exactly_what_it_was(stage: Stage) -> None:
    instance = await stage.add(
        env={"ODOO_DATABASE_HOST": "pool"}, limits={"cpu": 0.5, "memory": "4G"}, force=3
    )
    before = await stage.runtime.find(instance)
    original = json.loads(json.dumps(before.spec))
    await stage.runtime.stop(instance)
    await stage.runtime.configure(instance, {"ODOO_DATABASE_HOST": "dedicated", "NEW": "1"})
    await stage.runtime.start(instance, 1, LIMITS)
    await stage.runtime.restore_spec(instance, original)
    await stage.runtime.stop(instance)
    stopped = await stage.runtime.find(instance)
    assert stopped.spec == {**original, "replicas": 0}
    assert stopped.running == ()
    await stage.runtime.restore_spec(instance, original)
    assert await stage.runtime.find(instance) == stopped
    await stage.runtime.start(instance, before.replicas, None)
    assert (await stage.runtime.find(instance)).spec == original


EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "begin to stop": ({"replicas": 1}, {"replicas": 0}),
    "stop": ({"replicas": 1}, {"replicas": 0}),
    "configure": ({"replicas": 0}, {"A": "1"}),
    "start": ({"replicas": 0}, {"replicas": 1}),
    "resize": ({"replicas": 0}, {"cpu": 1.0}),
}


@pytest.mark.parametrize("call", EXPECTED)
async def test_an_update_by_someone_else_in_the_middle_stays(stage: Stage, call: str) -> None:
    initially, expected = EXPECTED[call]
    instance = await stage.add(**initially)
    labels = {**(await stage.runtime.find(instance)).spec["labels"], "operator": "was here"}
    stage.change_before_next_update(instance, labels=labels)
    await CALLS[call](stage.runtime, instance)
    spec = (await stage.runtime.find(instance)).spec
    assert spec["labels"] == labels
    assert expected.items() <= {"replicas": spec["replicas"], **spec["env"], **spec["limits"]}.items()


async def test_resizing_a_running_instance_leaves_it_serving_with_the_new_limits(stage: Stage) -> None:
    instance = await stage.add(limits={"cpu": 0.5, "memory": "4G"})
    warnings = await stage.runtime.resize(instance, LIMITS)
    assert [word in " ".join(warnings) for word in ("restarted", "storage limit 50G")] == [True, True]
    service = await stage.runtime.find(instance)
    assert service.limits == Limits(cpu_limit=1.0, memory_limit="8G")
    assert len(service.running) == 1
    assert await stage.runtime.resize(instance, Limits(cpu_limit=1.0)) == ()
    assert (await stage.runtime.find(instance)).running == service.running


async def test_resizing_a_stopped_instance_starts_nothing(stage: Stage) -> None:
    instance = await stage.add(replicas=0)
    assert await stage.runtime.resize(instance, Limits(cpu_limit=1.0, memory_limit="8G")) == ()
    service = await stage.runtime.find(instance)
    assert (service.limits.cpu_limit, service.replicas, service.running) == (1.0, 0, ())
