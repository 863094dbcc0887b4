"""Odoo-like instances, and failures of the supervisor itself, through the port `Runtime`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rehome_consumer.errors import Conflict, CrashLoop, Incompatible, TimedOut, Transient, Unreachable
from rehome_consumer.model import Instance
from sandbox.postgres.server import Cluster
from sandbox.supervisor.node import SupervisorNode
from sandbox.supervisor.runtime import ProcessRuntime
from sandbox.system.http import plain_http
from sandbox.system.net import free_port, wait_until
from sandbox.system.serving import serving
from tests.conftest import OdooTenantFactory
from tests.contract.runtime_stages import ProcessStage, WallClock, new_instance, process_stage
from tests.support.odoo import OdooInstance

LIMIT = 20
END = web.AppKey("end", asyncio.Event)


@dataclass
class Hosted:
    """An Odoo-like instance that a supervisor runs."""

    stage: ProcessStage
    instance: Instance
    odoo: OdooInstance

    @property
    def runtime(self) -> ProcessRuntime:
        return self.stage.runtime


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[ProcessStage]:
    node = SupervisorNode(tmp_path)
    await node.start()
    async with process_stage(node, tmp_path) as stage:
        yield stage
    await node.kill()
    await node.close()


@pytest.fixture
async def hosted(
    stage: ProcessStage, tmp_path: Path, odoo_pool: Cluster, odoo_tenant: OdooTenantFactory
) -> AsyncIterator[Hosted]:
    tenant = await odoo_tenant()
    instance = replace(new_instance(), database_name=tenant.database)
    directory = tmp_path / instance.directory
    directory.mkdir()
    odoo = OdooInstance(directory, odoo_pool, tenant)
    odoo.write_conf()
    await stage.node.create(
        name=instance.service,
        command=[sys.executable, "-m", "sandbox.odoo.instance"],
        instance_dir=str(directory),
        env={"ODOO_SKIP_BOOTSTRAP": "yes", "ODOO_HTTP_PORT": str(odoo.port)},
        restart_delay_seconds=0.05,
        replicas=0,
    )
    yield Hosted(stage, instance, odoo)
    await stage.runtime.stop(instance)
    await odoo.close()


async def test_a_started_instance_serves_from_the_database_that_odoo_conf_names(hosted: Hosted) -> None:
    healthy = await hosted.runtime.start(hosted.instance, 1, None)
    async with plain_http(healthy.url, timeout=10) as http:
        facts = (await http.get("/facts")).json()
    assert facts["database_uuid"] == hosted.odoo.tenant.uuid


async def test_a_stopped_instance_has_no_connection_left(hosted: Hosted) -> None:
    await hosted.runtime.start(hosted.instance, 1, None)
    assert len(await hosted.odoo.connections()) == 3
    await hosted.runtime.stop(hosted.instance)
    await hosted.odoo.wait_connections(0)


async def test_a_missing_odoo_conf_is_a_crash_loop_with_the_instances_own_words(hosted: Hosted) -> None:
    hosted.odoo.conf.unlink()
    with pytest.raises(CrashLoop, match=r"exit code 255.*No such file or directory"):
        await hosted.runtime.start(hosted.instance, 1, None)


async def test_a_database_that_refuses_the_instance_is_a_crash_loop_with_the_servers_words(
    hosted: Hosted,
) -> None:
    hosted.odoo.write_conf(password="wrong password")
    with pytest.raises(CrashLoop, match=r"exit code 1.*password authentication failed") as caught:
        await hosted.runtime.start(hosted.instance, 1, None)
    assert "wrong password" not in str(caught.value)


async def test_a_start_by_someone_else_in_the_middle_of_a_stop_is_a_conflict(stage: ProcessStage) -> None:
    instance = await stage.add("deaf", stop_grace_seconds=600)
    await stage.runtime.start(instance, 1, None)
    stopping = asyncio.create_task(stage.runtime.stop(instance))
    await wait_until(lambda: replicas_are(stage, instance, 0), what="the stop to begin", limit=LIMIT)
    await stage.change(instance, replicas=1)
    with pytest.raises(Conflict, match=f"{instance.service} was scaled up by someone else"):
        await stopping


async def test_a_stop_by_someone_else_in_the_middle_of_a_start_is_a_conflict(stage: ProcessStage) -> None:
    instance = await stage.add("slow", replicas=0, env={"TINY_SLOW": "600"})
    starting = asyncio.create_task(stage.runtime.start(instance, 1, None))
    await wait_until(lambda: replicas_are(stage, instance, 1), what="the start to begin", limit=LIMIT)
    await stage.change(instance, replicas=0)
    with pytest.raises(Conflict, match=f"{instance.service} was scaled to 0 by someone else"):
        await starting


async def replicas_are(stage: ProcessStage, instance: Instance, count: int) -> bool:
    return (await stage.runtime.find(instance)).replicas == count


async def test_two_services_with_one_instances_label_are_refused_by_name(stage: ProcessStage) -> None:
    instance = await stage.add(name="odoo-one", replicas=0)
    await stage.node.create(
        name="odoo-two",
        command=["sleep", "600"],
        labels={"saasodoo.instance.id": str(instance.id)},
        replicas=0,
    )
    with pytest.raises(Incompatible, match="odoo-one, odoo-two"):
        await stage.runtime.find(instance)


async def test_a_service_without_a_port_is_named(stage: ProcessStage) -> None:
    instance = new_instance()
    await stage.node.create(name=instance.service, command=["sleep", "600"])
    with pytest.raises(Incompatible, match=f"{instance.service} has no port in ODOO_HTTP_PORT"):
        await stage.runtime.start(instance, 1, None)


async def test_a_supervisor_that_is_not_there_is_unreachable(stage: ProcessStage) -> None:
    await stage.node.kill()
    with pytest.raises(Unreachable, match=r"the supervisor at 127\.0\.0\.1"):
        await stage.runtime.find(new_instance())


async def broken(_request: web.Request) -> web.Response:
    return web.Response(status=500, text="database is locked")


async def garbage(_request: web.Request) -> web.Response:
    return web.Response(text='{"id": "1", "spec": "hunter2"}')


async def silent(request: web.Request) -> web.Response:
    await request.app[END].wait()
    return web.Response()


async def set_end(application: web.Application) -> None:
    application[END].set()


Answer = Callable[[web.Request], Coroutine[Any, Any, web.Response]]


@pytest.mark.parametrize(
    ("answer", "error", "complaint"),
    [
        (broken, Transient, "HTTP 500 database is locked"),
        (garbage, Transient, "is wrong in: spec, tasks, template_version, version"),
        (silent, TimedOut, "no answer in time"),
    ],
)
async def test_a_failing_supervisor_is_a_passing_error(
    answer: Answer, error: type[Transient], complaint: str
) -> None:
    application = web.Application()
    application[END] = asyncio.Event()
    application.on_shutdown.append(set_end)
    application.router.add_get("/services/{name}", answer)
    port = free_port()
    async with (
        serving(application, port),
        plain_http(f"http://127.0.0.1:{port}", timeout=0.5 if answer is silent else LIMIT) as http,
    ):
        runtime = ProcessRuntime(http, WallClock(), health_limit=timedelta(seconds=1))
        with pytest.raises(error, match=complaint) as caught:
            await runtime.find(new_instance())
    assert "hunter2" not in str(caught.value)
