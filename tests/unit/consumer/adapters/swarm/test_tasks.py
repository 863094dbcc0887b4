"""What the states of Swarm's tasks mean: over or not, a crash or a slow start, hopeless or not."""

from __future__ import annotations

from typing import Any

import pytest

from rehome_consumer.adapters.swarm.diagnosis import Diagnosis, ending, is_exhausted
from rehome_consumer.adapters.swarm.tasks import SwarmTask
from rehome_consumer.errors import Incompatible

TEMPLATE: dict[str, Any] = {
    "ContainerSpec": {"Image": "odoo:19"},
    "Resources": {},
    "ForceUpdate": 0,
    "RestartPolicy": {"Condition": "any"},
    "Runtime": "container",
}
SPEC = {"Name": "odoo-shop", "TaskTemplate": TEMPLATE}
NO_ROOM = "no suitable node (insufficient resources on 1 node)"


def task(
    identity: str,
    state: str = "running",
    desired: str = "running",
    error: str = "",
    exit_code: int | None = None,
    **template: Any,
) -> SwarmTask:
    """A task as the engine tells it; its own template lacks `Runtime`."""
    own = {name: value for name, value in {**TEMPLATE, **template}.items() if name != "Runtime"}
    status: dict[str, Any] = {"State": state, "Err": error}
    if exit_code is not None:
        status["ContainerStatus"] = {"ContainerID": f"c-{identity}", "ExitCode": exit_code}
    return SwarmTask.read(
        {"ID": identity, "CreatedAt": identity, "Spec": own, "Status": status, "DesiredState": desired}
    )


def diagnosis(*earlier: str, room_limit: float = 60, **policy: Any) -> Diagnosis:
    template = {**TEMPLATE, "RestartPolicy": {"Condition": "any", **policy}}
    return Diagnosis("odoo-shop", {**SPEC, "TaskTemplate": template}, earlier, room_limit)


def crashed(identity: str, exit_code: int = 255, **more: Any) -> SwarmTask:
    return task(identity, "failed", "shutdown", f"task: non-zero exit ({exit_code})", exit_code, **more)


@pytest.mark.parametrize("state", ["complete", "shutdown", "failed", "rejected", "orphaned", "remove"])
def test_a_task_in_a_last_state_is_over(state: str) -> None:
    assert task("t1", state).over


@pytest.mark.parametrize(
    "state", ["new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"]
)
def test_a_task_that_may_still_run_is_not_over(state: str) -> None:
    assert not task("t1", state, "remove").over
    assert task("t1", state, "remove").as_task().running


def test_a_task_that_is_being_stopped_does_not_serve_although_it_runs() -> None:
    assert not task("t1", "running", "shutdown").serving


def test_a_task_is_of_a_definition_when_container_resources_and_force_are_the_same() -> None:
    assert task("t1").made_from(SPEC)
    assert task("t1", RestartPolicy={"Condition": "none"}).made_from(SPEC)
    assert not task("t1", ForceUpdate=1).made_from(SPEC)
    assert not task("t1", Resources={"Limits": {"NanoCPUs": 1}}).made_from(SPEC)
    assert not task("t1", ContainerSpec={"Image": "odoo:18"}).made_from(SPEC)


def test_addresses_are_those_of_overlay_networks_without_the_one_for_published_ports() -> None:
    ingress = {"Network": {"Spec": {"Ingress": True}}, "Addresses": ["10.0.0.3/24"]}
    overlay = {"Network": {"Spec": {"Name": "saasodoo-network"}}, "Addresses": ["10.0.1.4/24"]}
    read = SwarmTask.read({"ID": "t1", "NetworksAttachments": [ingress, overlay]})
    assert read.addresses == ("10.0.1.4",)


def test_one_crash_or_two_are_no_loop() -> None:
    looking = diagnosis()
    looking.look([crashed("t1"), crashed("t2"), task("t3", "starting")])
    assert looking.crash is None


def test_three_crashes_are_a_loop_even_when_the_engine_has_forgotten_the_first() -> None:
    looking = diagnosis()
    looking.look([crashed("t1"), task("t2")])
    looking.look([crashed("t2"), task("t3")])
    looking.look([crashed("t3", 3), task("t4", "ready", "ready")])
    assert looking.crash is not None
    assert (looking.crash.id, looking.crash.exit_code) == ("t3", 3)


def test_tasks_of_before_and_of_another_definition_do_not_count() -> None:
    looking = diagnosis("t1", "t2")
    looking.look(
        [crashed("t1"), crashed("t2"), crashed("t3"), *(crashed(f"o{n}", ForceUpdate=7) for n in range(5))]
    )
    assert looking.crash is None


def test_a_task_that_was_told_to_stop_is_no_crash() -> None:
    looking = diagnosis()
    looking.look([task(f"t{n}", "shutdown", "shutdown", exit_code=137) for n in range(5)])
    assert looking.crash is None


def test_a_service_that_is_never_restarted_is_given_up_after_one_end() -> None:
    looking = diagnosis(Condition="none")
    for _ in range(2):
        looking.look([crashed("t1")])
    assert looking.crash is not None


def test_the_moment_between_an_end_and_its_successor_is_no_giving_up() -> None:
    looking = diagnosis(Condition="on-failure", MaxAttempts=1)
    looking.look([crashed("t1")])
    looking.look([crashed("t1"), task("t2", "pending")])
    looking.look([crashed("t1"), crashed("t2")])
    assert looking.crash is None


@pytest.mark.parametrize(
    "error",
    [
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        'invalid mount config for type "bind": bind source path does not exist: /data/shop',
        "Minimum memory limit allowed is 6MB",
    ],
)
def test_what_the_node_will_never_take_is_told_at_once(error: str) -> None:
    with pytest.raises(Incompatible, match="service odoo-shop cannot run") as caught:
        diagnosis().look([task("t1", "rejected", "shutdown", error)])
    assert error in str(caught.value)


def test_a_missing_image_is_told_when_it_is_missed_twice() -> None:
    looking = diagnosis()
    missing = [task(f"t{n}", "rejected", "shutdown", "No such image: odoo:19") for n in range(2)]
    looking.look(missing[:1])
    with pytest.raises(Incompatible, match="No such image: odoo:19"):
        looking.look(missing)


def test_no_room_is_told_when_it_has_lasted() -> None:
    homeless = task("t1", "pending", "running", NO_ROOM)
    diagnosis().look([homeless])
    with pytest.raises(Incompatible, match="no suitable node"):
        diagnosis(room_limit=0).look([homeless])


def test_room_that_a_stopping_task_still_takes_is_waited_for() -> None:
    homeless = task("t2", "pending", "running", NO_ROOM)
    diagnosis(room_limit=0).look([task("t1", "running", "shutdown"), homeless])


def test_a_service_is_exhausted_when_nothing_is_left_and_nothing_will_come() -> None:
    never = {"TaskTemplate": {**TEMPLATE, "RestartPolicy": {"Condition": "none"}}}
    assert is_exhausted(never, [crashed("t1")])
    assert not is_exhausted(never, [crashed("t1"), task("t2", "pending")])
    assert not is_exhausted(never, [])
    assert not is_exhausted(SPEC, [crashed("t1")])


def test_an_ending_is_told_with_its_usual_meaning() -> None:
    assert "odoo.conf" in ending(crashed("t1", 255))
    assert ending(crashed("t1", 1)) == "exit code 1"
    assert ending(task("t1", "rejected", error="No such image: x")) == "No such image: x"
    joining = task("t1", "failed", "shutdown", "network sandbox join failed", 128)
    assert ending(joining) == "exit code 128 (network sandbox join failed)"
    assert ending(crashed("t1", 128)) == "exit code 128"


def test_what_tasks_did_is_told_for_a_time_out() -> None:
    looking = diagnosis()
    looking.look([crashed("t1", 1), task("t2", "preparing")])
    assert looking.told() == "tasks: t2 (preparing); 1 ended by themselves, the last one: exit code 1"
