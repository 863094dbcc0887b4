"""stack.yaml on a real swarm: a move through it, and updates of the consumers in the middle of one."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from rehome_consumer import saga
from sandbox.platform.billing import Billing
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.tenants import Tenant
from sandbox.swarm.platform import swarm_platform
from sandbox.system.net import wait_until
from tests.swarm.stack import CONSOLE, CONSUMER, CONSUMER_PORT, NAME, OPERATORS, PROXY, Stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.platform.local import Site
    from sandbox.swarm.engine import PrivateEngine
    from sandbox.swarm.platform import SwarmPlatform

LIMIT = 300
PLAN = "premium-monthly"
SHOP = Tenant("shop")
RUNNING = {CONSUMER: 2, CONSOLE: 1, PROXY: 1}
NEXT = "rehome-sandbox:next"
SLOW_START = 110
"""Seconds: longer than an update of both consumers, and than the grace time after it."""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
async def stack(engine: PrivateEngine, scratch: Path) -> AsyncIterator[Stack]:
    """The stack as deployed; removed at the end, and nothing of it may be left."""
    directory = scratch / "platform"
    directory.mkdir(mode=0o711)
    async with swarm_platform(directory, [SHOP], engine=engine) as platform:
        made = Stack(platform, scratch / "stack", more={"REHOME_START_TIMEOUT": "200"})
        await made.prepare()
        await made.deploy()
        await made.until_running(RUNNING)
        yield made
        await made.remove()
        await wait_until(lambda: is_removed(engine), what="the stack to be removed", limit=LIMIT)


@pytest.fixture
async def subscriber(stack: Stack) -> AsyncIterator[Subscriber]:
    async with Subscriber(stack.platform.broker.url()) as subscriber:
        yield subscriber


async def is_removed(engine: PrivateEngine) -> bool:
    label = json.dumps({"label": [f"com.docker.stack.namespace={NAME}"]})
    left = [
        await engine.ask("GET", what, params={"filters": label})
        for what in ("services", "networks", "configs")
    ]
    return not any(left)


async def test_every_part_is_ready_and_reached_from_where_it_should_be_alone(stack: Stack) -> None:
    consumers = await stack.addresses(CONSUMER)
    assert len(consumers) == 2
    for addresses in consumers:
        assert len(addresses) == 3
        for network, address in addresses.items():
            if network == OPERATORS:
                ready = await stack.page(address, CONSUMER_PORT, "/readyz")
                assert ready == (200, {"ready": True, "causes": []})
            else:  # tenants are in one of them
                with pytest.raises(httpx.TransportError):
                    await stack.page(address, CONSUMER_PORT, "/readyz")
    assert [part["error"] for part in (await stack.console("/readyz"))["parts"]] == [None, None]


async def test_whoever_may_look_at_the_services_sees_no_secret(stack: Stack) -> None:
    services = json.dumps([await stack.engine.ask("GET", f"services/{name}") for name in RUNNING])
    for name, value in stack.secrets().items():
        assert f'"SecretName": "{name}"' in services
        assert value not in services


async def slow_to_start(platform: SwarmPlatform, site: Site) -> None:
    """From its next start on the instance takes long to serve, and is not killed for it."""

    def edit(spec: dict[str, Any]) -> dict[str, Any]:
        container = spec["TaskTemplate"]["ContainerSpec"]
        container["Env"].append(f"ODOO_FAULT_SLOW_START={SLOW_START}")
        del container["Healthcheck"]
        return spec

    await platform.engine.edit(f"services/{site.service}", edit)


async def test_a_move_goes_on_through_a_rolling_update_of_all_consumers(
    stack: Stack, subscriber: Subscriber
) -> None:
    platform = stack.platform
    billing = Billing(platform.broker.url(), platform.platform.instance_dsn, platform.platform.billing_dsn)
    site = await platform.add_site(SHOP)
    await platform.wait_until_serving(site)
    before = await stack.running(CONSUMER)
    # Given a move whose instance is being started
    await billing.upgrade(site.id, PLAN)
    await subscriber.wait_for("migration.stopped", instance_id=site.id, limit=LIMIT)
    await slow_to_start(platform, site)
    restored = await subscriber.wait_for("migration.restored", instance_id=site.id, limit=LIMIT)
    # When another image is deployed
    repo, _, tag = NEXT.partition(":")
    await stack.engine.ask("POST", f"images/{stack.image}/tag", params={"repo": repo, "tag": tag})
    stack.image = NEXT
    await stack.deploy()
    await wait_until(
        lambda: are_replaced(stack), what="both consumers to be replaced", limit=LIMIT, pause=0.5
    )
    # Then both are replaced while the customer is down, each in order,
    assert "migration.started" not in subscriber.types(site.id)
    old = {task["ID"]: task for task in await stack.tasks(CONSUMER)}
    ends = [old[task["ID"]]["Status"] for task in before]
    assert [end["ContainerStatus"]["ExitCode"] for end in ends] == [0, 0]
    # the step is interrupted, and ends elsewhere
    await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    assert "worker.cut_off" in await stack.log(CONSUMER)
    # every event is sent once, and every step done once, at its first try
    told = subscriber.types(site.id)
    assert sorted(told) == sorted(set(told))
    assert not {"migration.failed", "migration.rolled_back"} & set(told)
    found = await stack.console(f"/api/v1/migrations/{restored.migrationid}")
    steps = [(step["step"], step["state"], step["tries"]) for step in found["steps"]]
    assert steps == [(step.name, "done", 0) for step in saga.MIGRATION if step is not saga.ROLL_BACK]
    # the instance was started once,
    started = [task for task in await stack.tasks(site.service) if is_on_its_own(task)]
    assert [task["Status"]["State"] for task in started] == ["running"]
    assert started[0]["CreatedAt"] < min(end["Timestamp"] for end in ends)
    # and nothing is left over
    assert await stack.console("/api/v1/dead-letters") == {"dead_letters": [], "in_queue": 0}

    async def handled() -> bool:
        return not any(queue["messages"] for queue in (await platform.broker.queues()).values())

    await wait_until(handled, what="all queues to be empty", limit=LIMIT)
    await wait_until(lambda: is_updated(stack), what="the update to end", limit=LIMIT)


def is_on_its_own(task: dict[str, Any]) -> bool:
    """Whether a task of the instance's was started with the dedicated server."""
    env = task["Spec"]["ContainerSpec"]["Env"]
    return any(one.startswith("ODOO_DATABASE_HOST=postgres-dedicated-") for one in env)


async def are_replaced(stack: Stack) -> bool:
    """Whether new ones alone run; the update goes on, since Swarm watches the last one for a while."""
    alive = [
        task for task in await stack.tasks(CONSUMER) if task["Status"]["State"] in ("running", "starting")
    ]
    return [task["Spec"]["ContainerSpec"]["Image"] for task in alive] == [NEXT, NEXT]


async def is_updated(stack: Stack) -> bool:
    return await stack.update_state(CONSUMER) == "completed"


@pytest.mark.long
async def test_a_release_that_does_not_start_is_rolled_back(stack: Stack) -> None:
    before = [task["ID"] for task in await stack.running(CONSUMER)]
    stack.more["REHOME_WORKERS"] = "many"
    await stack.deploy()
    del stack.more["REHOME_WORKERS"]

    async def rolled_back() -> bool:
        return await stack.update_state(CONSUMER) == "rollback_completed"

    await wait_until(rolled_back, what="the update to be rolled back", limit=LIMIT, pause=0.5)
    # The old ones have worked all the time
    assert [task["ID"] for task in await stack.running(CONSUMER)] == before
    assert "REHOME_WORKERS: " in await stack.log(CONSUMER)


@pytest.mark.long
async def test_a_release_that_does_not_get_ready_replaces_none_that_works(stack: Stack) -> None:
    before = [task["ID"] for task in await stack.running(CONSUMER)]
    stack.more["REHOME_PG_BIN"] = "/nowhere"
    await stack.deploy()
    del stack.more["REHOME_PG_BIN"]

    async def says_why() -> bool:
        return "there is no program /nowhere/" in await stack.log(CONSUMER)

    await wait_until(says_why, what="the new consumer to say what it lacks", limit=LIMIT)
    await asyncio.sleep(40)  # longer than a health check that passes, and the delay after it
    assert await stack.update_state(CONSUMER) == "updating"
    assert [task["ID"] for task in await stack.running(CONSUMER)] == before
    # and is replaced by one that is right
    await stack.deploy()

    await wait_until(lambda: is_updated(stack), what="the update to end", limit=LIMIT, pause=0.5)
    await stack.until_running(RUNNING)
