"""What the contract suite runs on: the fake, and a supervisor with real processes."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import httpx

from rehome_consumer.model import Instance
from sandbox.supervisor.runtime import ProcessRuntime
from sandbox.system.net import free_port, give_back_port, wait_until
from tests.fakes.runtime import Behaviour, FakeRuntime
from tests.support import tiny_instance
from tests.support.tiny_instance import SERVING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from rehome_consumer.ports import steps
    from sandbox.supervisor.node import SupervisorNode

CPUS = 8
MISSING_CONF = "odoo.conf is missing"

# How a service's tasks behave: for the fake, and for the tiny program.
BEHAVIOURS: dict[str, tuple[list[Behaviour], dict[str, str]]] = {
    "healthy": ([Behaviour()], {}),
    "deaf": ([Behaviour(deaf=True)], {"TINY_DEAF": "1"}),
    "slow": ([Behaviour()], {"TINY_SLOW": "0.5"}),
    "crashing": ([Behaviour(exit_code=255, said=(MISSING_CONF,))], {"TINY_CRASHES": "1000"}),
    "crashing once": ([Behaviour(exit_code=255), Behaviour()], {"TINY_CRASHES": "1"}),
    "unhealthy": ([Behaviour(status=503)], {"TINY_STATUS": "503"}),
    "ending after a first round of answers": ([Behaviour(exit_code=3)], {"TINY_ANSWERS": "2"}),
}


class Stage(Protocol):
    """What the suite needs besides the port itself."""

    @property
    def runtime(self) -> steps.Runtime: ...

    @property
    def cpus(self) -> int:
        """Cores of the only node."""
        ...

    async def add(self, behaviour: str = "healthy", **spec: Any) -> Instance:
        """A new instance with a service whose tasks behave so; the definition may be given in part."""
        ...

    async def add_unstoppable(self) -> Instance:
        """A running instance that does not end within any limit."""
        ...

    async def change(self, instance: Instance, **changes: Any) -> None:
        """An update by someone else."""
        ...

    def change_before_next_update(self, instance: Instance, **changes: Any) -> None:
        """The same, after the next inspection of the service and before the update made from it."""
        ...

    async def exit_codes(self, instance: Instance) -> list[int | None]:
        """Of the tasks that ended, oldest first."""
        ...


def new_instance() -> Instance:
    identity = uuid4()
    return Instance(
        id=identity,
        customer_id=uuid4(),
        name="Shop",
        status="running",
        database_name=f"shop_{identity.hex[:4]}",
    )


class FakeStage:
    cpus = CPUS

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.runtime.cpus = CPUS

    async def add(self, behaviour: str = "healthy", **spec: Any) -> Instance:
        return self._add(BEHAVIOURS[behaviour][0], **spec)

    async def add_unstoppable(self) -> Instance:
        return self._add([Behaviour(immortal=True)])

    def _add(self, behaviours: list[Behaviour], **spec: Any) -> Instance:
        instance = new_instance()
        self.runtime.behave = lambda service: behaviours[min(len(service.tasks), len(behaviours) - 1)]
        self.runtime.add(spec.pop("name", instance.service), **_labelled(instance, spec))
        return instance

    async def change(self, instance: Instance, **changes: Any) -> None:
        self.runtime.change(instance.service, **changes)

    def change_before_next_update(self, instance: Instance, **changes: Any) -> None:
        self.runtime.before_update = lambda: self.runtime.change(instance.service, **changes)

    async def exit_codes(self, instance: Instance) -> list[int | None]:
        return [
            task.exit_code
            for task in self.runtime.services[instance.service].tasks
            if task.exit_code is not None
        ]


class _Interrupted(httpx.AsyncHTTPTransport):
    """Runs `first` once before the next PUT is sent, so that an update by someone else comes before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Callable[[], Awaitable[None]] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT" and self.first is not None:
            first, self.first = self.first, None
            await first()
        return await super().handle_async_request(request)


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class ProcessStage:
    """Tiny programs under a real supervisor."""

    cpus = CPUS

    def __init__(self, node: SupervisorNode, directory: Path) -> None:
        self.node = node
        self.ports: list[int] = []
        self._directory = directory
        self._transport = _Interrupted()
        self.http = httpx.AsyncClient(base_url=node.url, transport=self._transport, timeout=10)
        self.runtime = ProcessRuntime(
            self.http,
            WallClock(),
            health_limit=timedelta(seconds=20),
            stop_margin=timedelta(seconds=10),
            pause=timedelta(milliseconds=20),
        )

    def impatient(self) -> None:
        """From now on wait only a moment: for tests of the error when a wait ends."""
        self.runtime = ProcessRuntime(
            self.http,
            WallClock(),
            health_limit=timedelta(seconds=0.5),
            stop_margin=timedelta(),
            pause=timedelta(milliseconds=20),
        )

    async def add(self, behaviour: str = "healthy", **spec: Any) -> Instance:
        instance = new_instance()
        directory = self._directory / instance.directory
        directory.mkdir()
        self.ports.append(free_port())
        env = {**BEHAVIOURS[behaviour][1], **spec.pop("env", {}), "ODOO_HTTP_PORT": str(self.ports[-1])}
        definition = {
            "name": instance.service,
            "command": [sys.executable, "-S", tiny_instance.__file__],
            "instance_dir": str(directory),
            "restart_delay_seconds": 0.05,
            "stop_grace_seconds": 0.3 if behaviour == "deaf" else 10,
            **_labelled(instance, spec),
        }
        await self.node.create(**definition, env=env)
        if behaviour == "unhealthy":
            await wait_until(
                lambda: self._has_printed(instance, SERVING), what="the instance to serve", limit=20
            )
            self.impatient()
        return instance

    async def _has_printed(self, instance: Instance, line: str) -> bool:
        service = await self.node.show(instance.service)
        return any(line in task["log_tail"] for task in service["tasks"])

    async def add_unstoppable(self) -> Instance:
        """The running task has the long grace it was made with; the service's is short by now."""
        instance = await self.add("healthy", env={"TINY_DEAF": "1"}, stop_grace_seconds=600)
        await self.runtime.start(instance, 1, None)
        await self.change(instance, stop_grace_seconds=0)
        self.impatient()
        return instance

    async def change(self, instance: Instance, **changes: Any) -> None:
        await self.node.change(instance.service, **changes)

    def change_before_next_update(self, instance: Instance, **changes: Any) -> None:
        self._transport.first = lambda: self.change(instance, **changes)

    async def exit_codes(self, instance: Instance) -> list[int | None]:
        service = await self.node.show(instance.service)
        return [task["exit_code"] for task in service["tasks"] if task["state"] == "exited"]


def _labelled(instance: Instance, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"saasodoo.instance.id": str(instance.id), "traefik.enable": "true"}
    return {"networks": ["saasodoo-network"], **spec, "labels": labels}


@asynccontextmanager
async def process_stage(node: SupervisorNode, directory: Path) -> AsyncIterator[ProcessStage]:
    stage = ProcessStage(node, directory)
    yield stage
    await stage.http.aclose()
    for port in stage.ports:
        give_back_port(port)
