"""The sandbox's process manager behaves as Swarm does."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.supervisor.node import SupervisorNode
from sandbox.system.net import wait_until

LIMIT = 15
FOREVER = ["sleep", "600"]
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]
SLOW_TO_STOP = [
    "sh",
    "-c",
    """trap 'while [ ! -e "$RELEASE" ]; do sleep 0.05; done; exit 0' TERM
    echo up; while :; do sleep 0.05; done""",
]


class Node(SupervisorNode):
    """A supervisor with one service, `odoo-shop`, and waits for its tasks."""

    async def run(self, **spec: Any) -> dict[str, Any]:
        return await self.create(
            **{"name": "odoo-shop", "command": FOREVER, "restart_delay_seconds": 0.1, **spec}
        )

    async def shop(self) -> dict[str, Any]:
        return await self.show("odoo-shop")

    async def tasks(self, state: str = "running") -> list[dict[str, Any]]:
        return [task for task in (await self.shop())["tasks"] if task["state"] == state]

    async def wait_tasks(self, count: int, state: str = "running", printed: str = "") -> list[dict[str, Any]]:
        """Wait until at least so many tasks are in this state, and each has printed a line with `printed`."""

        async def there() -> bool:
            tasks = await self.tasks(state)
            return len(tasks) >= count and all(printed in " ".join(task["log_tail"]) for task in tasks)

        await wait_until(there, what=f"{count} tasks {state} that printed {printed!r}", limit=LIMIT)
        return await self.tasks(state)

    async def wait_stopped(self) -> list[dict[str, Any]]:
        async def none_runs() -> bool:
            return not await self.tasks()

        await wait_until(none_runs, what="all tasks to end", limit=LIMIT)
        return await self.tasks("exited")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(tmp_path, cpus=4)
    await node.start()
    yield node
    await node.close()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def wait_ended(pid: int) -> None:
    async def ended() -> bool:
        return not lives(pid)

    await wait_until(ended, what=f"process {pid} to end", limit=LIMIT)


async def test_a_created_service_runs_one_task_with_its_environment(node: Node, tmp_path: Path) -> None:
    command = ["sh", "-c", 'echo "$GREETING from $INSTANCE_DIR"; exec sleep 600']
    await node.run(command=command, env={"GREETING": "hello"}, instance_dir=str(tmp_path))
    (task,) = await node.wait_tasks(1, printed=f"hello from {tmp_path}")
    assert lives(task["pid"])
    assert task["exit_code"] is None


async def test_unknown_fields_of_a_definition_stay(node: Node) -> None:
    labels = {"traefik.http.routers.shop.rule": "Host(`shop.example.com`)"}
    await node.run(labels=labels, networks=["saasodoo-network"], limits={"cpu": 1.5, "pids": 100})
    spec = (await node.shop())["spec"]
    assert spec["labels"] == labels
    assert spec["networks"] == ["saasodoo-network"]
    assert spec["limits"] == {"cpu": 1.5, "memory": None, "pids": 100}


async def test_services_are_found_by_their_labels(node: Node) -> None:
    await node.run(name="a", labels={"customer": "1", "kind": "odoo"})
    await node.run(name="b", labels={"customer": "2", "kind": "odoo"})
    answer = await node.http.get("/services", params=[("label", "kind=odoo"), ("label", "customer=2")])
    assert [service["spec"]["name"] for service in answer.json()] == ["b"]


async def test_an_unknown_service_is_not_found(node: Node) -> None:
    answer = await node.http.get("/services/odoo-nobody")
    assert (answer.status_code, answer.text) == (404, "service odoo-nobody not found")


async def test_a_taken_name_is_refused(node: Node) -> None:
    await node.run()
    answer = await node.http.post("/services", json={"name": "odoo-shop", "command": FOREVER})
    assert answer.status_code == 409


async def test_a_wrong_definition_is_refused_without_repeating_its_values(node: Node) -> None:
    body = {"name": "odoo-shop", "command": [], "env": {"PASSWORD": ["hunter2"]}}
    answer = await node.http.post("/services", json=body)
    assert answer.status_code == 400
    assert "env.PASSWORD" in answer.text
    assert "hunter2" not in answer.text


async def test_an_update_with_a_stale_version_changes_nothing(node: Node) -> None:
    first = await node.run()
    await node.change("odoo-shop", labels={"by": "an operator"})
    answer = await node.http.put(
        "/services/odoo-shop", params={"version": first["version"]}, json=first["spec"]
    )
    assert (answer.status_code, answer.text) == (409, "update out of sequence")
    assert (await node.shop())["spec"]["labels"] == {"by": "an operator"}


async def test_changed_labels_leave_the_task_alone(node: Node) -> None:
    await node.run()
    (before,) = await node.wait_tasks(1)
    changed = await node.change("odoo-shop", labels={"new": "label"})
    assert [task["id"] for task in changed["tasks"]] == [before["id"]]
    assert await node.tasks() == [before]


@pytest.mark.parametrize("change", [{"env": {"A": "2"}}, {"limits": {"cpu": 2.0}}, {"force": 1}])
async def test_a_changed_template_replaces_the_task_and_counts_the_version_up_twice(
    node: Node, change: dict[str, Any]
) -> None:
    await node.run(env={"A": "1"})
    (old,) = await node.wait_tasks(1)
    changed = await node.change("odoo-shop", **change)

    async def replaced() -> bool:
        return [task["id"] for task in await node.tasks()] not in ([], [old["id"]])

    await wait_until(replaced, what="a new task", limit=LIMIT)
    after = await node.shop()
    assert after["version"] == changed["version"] + 1
    assert not lives(old["pid"])
    (new,) = await node.tasks()
    assert new["template_version"] == after["template_version"] == changed["version"]


async def test_a_replacement_waits_for_the_old_task_to_end(node: Node, tmp_path: Path) -> None:
    release = tmp_path / "release"
    await node.run(command=SLOW_TO_STOP, env={"RELEASE": str(release)}, stop_grace_seconds=600)
    (old,) = await node.wait_tasks(1, printed="up")
    changed = await node.change("odoo-shop", force=1)
    assert [(task["id"], task["desired"]) for task in changed["tasks"]] == [(old["id"], "running")]
    release.touch()
    await node.wait_tasks(1, "exited")
    (new,) = await node.wait_tasks(1)
    assert new["id"] != old["id"]


async def test_from_zero_to_one_does_not_wait_for_the_old_task(node: Node, tmp_path: Path) -> None:
    release = tmp_path / "release"
    await node.run(command=SLOW_TO_STOP, env={"RELEASE": str(release)}, stop_grace_seconds=600)
    (old,) = await node.wait_tasks(1, printed="up")
    await node.change("odoo-shop", replicas=0)
    await node.change("odoo-shop", replicas=1)
    both = await node.wait_tasks(2, printed="up")
    assert [task["id"] == old["id"] for task in both] == [True, False]
    assert [task["desired"] for task in both] == ["shutdown", "running"]
    release.touch()


async def test_scaled_to_zero_the_task_gets_sigterm_and_is_not_started_again(node: Node) -> None:
    await node.run(command=["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"])
    await node.wait_tasks(1, printed="up")
    await node.change("odoo-shop", replicas=0)
    (ended,) = await node.wait_stopped()
    assert ended["exit_code"] == 7


async def test_a_task_that_ignores_sigterm_is_killed_after_its_grace(node: Node) -> None:
    await node.run(command=DEAF, stop_grace_seconds=0.2)
    await node.wait_tasks(1, printed="deaf")
    await node.change("odoo-shop", replicas=0)
    (ended,) = await node.wait_stopped()
    assert ended["exit_code"] == 137


async def test_what_a_task_left_behind_ends_with_it(node: Node) -> None:
    await node.run(command=["sh", "-c", "sleep 600 & echo $!; wait"])
    (task,) = await node.wait_tasks(1)

    async def printed() -> bool:
        return bool((await node.tasks())[0]["log_tail"])

    await wait_until(printed, what="the task to print its child's pid", limit=LIMIT)
    (task,) = await node.tasks()
    await node.change("odoo-shop", replicas=0)
    await wait_ended(int(task["log_tail"][0]))


async def test_a_changed_environment_starts_nothing_at_zero_replicas(node: Node) -> None:
    await node.run(replicas=0)
    await node.change("odoo-shop", env={"A": "2"})
    await node.change("odoo-shop", force=1)
    changed = await node.change("odoo-shop", replicas=0)
    assert changed["tasks"] == []
    assert changed["spec"]["env"] == {"A": "2"}


async def test_an_update_that_leaves_out_replicas_starts_a_stopped_service(node: Node) -> None:
    service = await node.run(replicas=0)
    spec = {key: value for key, value in service["spec"].items() if key != "replicas"}
    answer = await node.http.put("/services/odoo-shop", params={"version": service["version"]}, json=spec)
    assert answer.json()["spec"]["replicas"] == 1
    await node.wait_tasks(1)


async def test_a_task_that_exits_is_started_again_and_shows_its_exit_code_and_last_lines(node: Node) -> None:
    await node.run(command=["sh", "-c", "seq 30; echo no odoo.conf; exit 255"])
    tasks = await node.wait_tasks(3, "exited")
    assert {task["exit_code"] for task in tasks} == {255}
    assert tasks[0]["log_tail"] == [*(str(n) for n in range(12, 31)), "no odoo.conf"]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"limits": {"cpu": 8}}, "Range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"instance_dir": "/nowhere/shop"}, "bind source path does not exist: /nowhere/shop"),
    ],
)
async def test_what_the_node_cannot_run_is_rejected_with_the_reason(
    node: Node, spec: dict[str, Any], error: str
) -> None:
    await node.run(**spec)
    task, *_ = await node.wait_tasks(1, "exited")
    assert (task["error"], task["pid"], task["exit_code"]) == (error, None, None)


async def test_an_unknown_program_ends_with_127(node: Node) -> None:
    await node.run(command=["no-such-program"])
    task, *_ = await node.wait_tasks(1, "exited")
    assert task["exit_code"] == 127


async def test_a_deleted_service_is_removed_at_once_and_its_task_ends_soon(node: Node) -> None:
    await node.run()
    (task,) = await node.wait_tasks(1)
    assert (await node.http.delete("/services/odoo-shop")).status_code == 204
    assert (await node.http.get("/services/odoo-shop")).status_code == 404
    await wait_ended(task["pid"])


async def test_services_survive_a_killed_supervisor_and_tasks_do_not(node: Node) -> None:
    await node.run(env={"PASSWORD": "pässwörd"})
    before = await node.change("odoo-shop", labels={"still": "there"})
    (task,) = await node.wait_tasks(1)
    await node.kill()
    await wait_ended(task["pid"])
    await node.start()
    after = await node.shop()
    assert {key: after[key] for key in after if key != "tasks"} == {
        key: before[key] for key in before if key != "tasks"
    }
    await node.wait_tasks(1)


async def test_definitions_are_readable_by_their_owner_alone(node: Node) -> None:
    await node.run(env={"PASSWORD": "secret"})
    (file,) = (node.directory / "services").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (node.directory / "services").stat().st_mode & 0o777 == 0o700


async def test_sigterm_stops_every_task_before_the_supervisor_ends(node: Node) -> None:
    await node.run()
    (task,) = await node.wait_tasks(1)
    assert await node.stop() == 0
    assert not lives(task["pid"])
