"""What the states of Swarm's tasks mean: over or not, a crash or a slow start, permanent or passing."""

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
    """A task as the engine reports it; its own template lacks `Runtime`."""
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
    found = diagnosis()
    found.observe([crashed("t1"), crashed("t2"), task("t3", "starting")])
    assert found.crash is None


def test_three_crashes_are_a_loop_even_when_the_engine_has_forgotten_the_first() -> None:
    found = diagnosis()
    found.observe([crashed("t1"), task("t2")])
    found.observe([crashed("t2"), task("t3")])
    found.observe([crashed("t3", 3), task("t4", "ready", "ready")])
    assert found.crash is not None
    assert (found.crash.id, found.crash.exit_code) == ("t3", 3)


def test_earlier_tasks_and_those_of_another_definition_do_not_count() -> None:
    found = diagnosis("t1", "t2")
    found.observe(
        [crashed("t1"), crashed("t2"), crashed("t3"), *(crashed(f"o{n}", ForceUpdate=7) for n in range(5))]
    )
    assert found.crash is None


def test_a_task_that_was_asked_to_stop_is_no_crash() -> None:
    found = diagnosis()
    found.observe([task(f"t{n}", "shutdown", "shutdown", exit_code=137) for n in range(5)])
    assert found.crash is None


def test_a_service_that_swarm_never_restarts_is_given_up_after_one_end() -> None:
    found = diagnosis(Condition="none")
    for _ in range(2):
        found.observe([crashed("t1")])
    assert found.crash is not None


def test_the_moment_between_an_end_and_its_successor_does_not_count_as_given_up() -> None:
    found = diagnosis(Condition="on-failure", MaxAttempts=1)
    found.observe([crashed("t1")])
    found.observe([crashed("t1"), task("t2", "pending")])
    found.observe([crashed("t1"), crashed("t2")])
    assert found.crash is None


@pytest.mark.parametrize(
    "error",
    [
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        'invalid mount config for type "bind": bind source path does not exist: /data/shop',
        "Minimum memory limit allowed is 6MB",
    ],
)
def test_what_the_node_will_never_accept_is_reported_at_once(error: str) -> None:
    with pytest.raises(Incompatible, match="service odoo-shop cannot run") as caught:
        diagnosis().observe([task("t1", "rejected", "shutdown", error)])
    assert error in str(caught.value)


def test_a_missing_image_is_reported_when_it_was_missing_twice() -> None:
    found = diagnosis()
    missing = [task(f"t{n}", "rejected", "shutdown", "No such image: odoo:19") for n in range(2)]
    found.observe(missing[:1])
    with pytest.raises(Incompatible, match="No such image: odoo:19"):
        found.observe(missing)


def test_a_lack_of_room_is_reported_when_it_has_lasted() -> None:
    unplaced = task("t1", "pending", "running", NO_ROOM)
    diagnosis().observe([unplaced])
    with pytest.raises(Incompatible, match="no suitable node"):
        diagnosis(room_limit=0).observe([unplaced])


def test_room_that_a_stopping_task_still_takes_is_waited_for() -> None:
    unplaced = task("t2", "pending", "running", NO_ROOM)
    diagnosis(room_limit=0).observe([task("t1", "running", "shutdown"), unplaced])


def test_a_service_is_exhausted_when_nothing_is_left_and_nothing_will_come() -> None:
    never = {"TaskTemplate": {**TEMPLATE, "RestartPolicy": {"Condition": "none"}}}
    assert is_exhausted(never, [crashed("t1")])
    assert not is_exhausted(never, [crashed("t1"), task("t2", "pending")])
    assert not is_exhausted(never, [])
    assert not is_exhausted(SPEC, [crashed("t1")])


def test_an_ending_is_reported_with_its_usual_meaning() -> None:
    assert "odoo.conf" in ending(crashed("t1", 255))
    assert ending(crashed("t1", 1)) == "exit code 1"
    assert ending(task("t1", "rejected", error="No such image: x")) == "No such image: x"
    joining = task("t1", "failed", "shutdown", "network sandbox join failed", 128)
    assert ending(joining) == "exit code 128 (network sandbox join failed)"
    assert ending(crashed("t1", 128)) == "exit code 128"


def test_a_time_out_says_what_the_tasks_did() -> None:
    found = diagnosis()
    found.observe([crashed("t1", 1), task("t2", "preparing")])
    assert found.describe() == "tasks: t2 (preparing); 1 ended by themselves, the last one: exit code 1"
