"""What the tests on a real swarm use: instances with their services, and updates by others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiodocker
import aiohttp

from rehome_consumer.adapters.swarm import SwarmRuntime
from sandbox.swarm.api import NETWORK
from sandbox.swarm.definitions import SECOND, bind, definition
from sandbox.swarm.forwards import Forwards
from sandbox.swarm.root import PYTHON
from sandbox.system.http import plain_http
from sandbox.system.net import wait_until
from tests.contract.runtime_stages import BEHAVIOURS, WallClock, new_instance
from tests.support import tiny_instance
from tests.swarm.neutral import NeutralRuntime, as_swarm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.model import Instance
    from rehome_consumer.network.hosts import Resolve
    from sandbox.swarm.engine import PrivateEngine

LIMIT = 60
PORT = 8069


class Interrupted(aiodocker.Docker):
    """Runs `first` once before the next update is sent, so that an update by someone else comes before it.

    Attributes:
        updates: how many were sent.
        refused: end of a path that is refused, as by a proxy.
        asked: every method and path that was sent.
    """

    first: Callable[[], Awaitable[None]] | None = None
    updates = 0
    refused: str | None = None

    def __init__(self, host: str) -> None:
        super().__init__(url=host, timeout=aiohttp.ClientTimeout(total=30))
        self.asked: set[str] = set()

    async def _do_query(self, path: Any, method: str, **arguments: Any) -> aiohttp.ClientResponse:
        if self.refused is not None and str(path).endswith(self.refused):
            raise aiodocker.DockerError(403, "Forbidden")
        answer = await super()._do_query(path, method, **arguments)
        version = f"/{self.api_version}" if arguments.get("versioned_api", True) else ""
        self.asked.add(f"{method} {version}/{path}")
        return answer

    async def _query_json(self, path: Any, method: str = "GET", **arguments: Any) -> Any:
        if str(path).endswith("/update"):
            first, self.first = self.first, None
            if first is not None:
                await first()
            self.updates += 1
        return await super()._query_json(path, method, **arguments)


class SwarmStage:
    """Tiny programs, or whatever a test defines, as services of the private engine.

    Attributes:
        runtime: the port, with definitions in the form of the contract suite (see `neutral`).
        swarm: the same without conversion.
        docker: the runtime's own client.
    """

    def __init__(self, engine: PrivateEngine, directory: Path, network: str, cpus: int) -> None:
        self.engine = engine
        self.network = network
        self.cpus = cpus
        self.docker = Interrupted(engine.host)
        self.http = plain_http()
        self.forwards = Forwards(engine)
        self.directory = directory
        self.swarm = self._runtime()
        self._since = str(int(time.time()))
        self._made: list[str] = []
        self._background: list[asyncio.Future[None]] = []

    @classmethod
    async def open(cls, engine: PrivateEngine, directory: Path) -> Self:
        info = await engine.ask("GET", "info")
        return cls(engine, directory, await engine.network(), info["NCPU"])

    @property
    def runtime(self) -> NeutralRuntime:
        return NeutralRuntime(self.swarm, {self.network: NETWORK})

    async def reach_engine_at(self, host: str) -> None:
        """From now on the runtime uses the engine at this address."""
        await self.docker.close()
        self.docker = Interrupted(host)
        self.swarm = self._runtime()

    def impatient(self, *, stop_margin: float = 0) -> None:
        """From now on wait only a moment: for tests of the error when a wait ends."""
        self.swarm = self._runtime(health_limit=0.5, stop_margin=stop_margin, patience=0.5)

    def talkative(self) -> SwarmRuntime:
        """A runtime that logs at every look that it goes on waiting."""
        return self._runtime(log_every=0)

    def goes_by_events(self) -> SwarmRuntime:
        """A runtime whose interval between two looks is longer than a test may take."""
        return self._runtime(pause=10 * LIMIT)

    def with_forwards(self, forwards: Forwards) -> SwarmRuntime:
        """A runtime that reaches tasks of another node."""
        return self._runtime(resolve=forwards.resolve_addresses)

    def from_outside(self) -> SwarmRuntime:
        """A runtime that reaches services by a map of their names, as outside of the overlay network."""
        return self._runtime(resolve=self.forwards.resolve)

    def _runtime(
        self,
        *,
        resolve: Resolve | None = None,
        health_limit: float = LIMIT,
        stop_margin: float = 30,
        patience: float = LIMIT,
        log_every: float = LIMIT,
        pause: float = 0.1,
    ) -> SwarmRuntime:
        return SwarmRuntime(
            self.docker,
            self.http,
            WallClock(),
            self.directory,
            resolve=resolve or self.forwards.resolve_addresses,
            health_limit=timedelta(seconds=health_limit),
            stop_margin=timedelta(seconds=stop_margin),
            room_limit=timedelta(seconds=2),
            patience=timedelta(seconds=patience),
            pause=timedelta(seconds=pause),
            log_every=timedelta(seconds=log_every),
        )

    async def add(self, behaviour: str = "healthy", **spec: Any) -> Instance:
        instance = new_instance()
        (self.directory / instance.directory).mkdir()
        program = Path(tiny_instance.__file__)
        made = definition(
            spec.pop("name", instance.service),
            self.network,
            command=[PYTHON, "-S", f"/program/{program.name}"],
            mounts=[
                bind(self.directory / instance.directory, "/bitnami/odoo"),
                bind(program.parent, "/program", read_only=True),
            ],
            labels={"saasodoo.instance.id": str(instance.id), "traefik.enable": "true"},
        )
        container = made["TaskTemplate"]["ContainerSpec"]
        container["StopGracePeriod"] = int(0.3 * SECOND) if behaviour == "deaf" else 10 * SECOND
        made["TaskTemplate"]["RestartPolicy"]["Delay"] = SECOND // 20
        env = {"ODOO_SKIP_BOOTSTRAP": "yes", "TINY_ADDRESS": "0.0.0.0", **BEHAVIOURS[behaviour][1]}  # noqa: S104
        changes = {**spec, "env": {**env, **spec.get("env", {})}}
        await self.create(as_swarm(made, changes))
        if behaviour == "unhealthy":
            await wait_until(
                lambda: self._has_printed(instance, tiny_instance.SERVING), what="serving", limit=LIMIT
            )
            self.impatient()
        return instance

    async def add_unstoppable(self) -> Instance:
        """An instance with a stop grace of ten minutes, of which the runtime waits none."""
        instance = await self.add("healthy", env={"TINY_DEAF": "1"}, stop_grace_seconds=600)
        await self.swarm.start(instance, 1, None)
        self.impatient(stop_margin=-600)
        return instance

    async def create(self, spec: dict[str, Any]) -> str:
        """Create a service; returns its id."""
        answer = await self.engine.ask("POST", "services/create", spec)
        self._made.append(answer["ID"])
        return str(answer["ID"])

    async def inspect(self, instance: Instance) -> dict[str, Any]:
        service: dict[str, Any] = await self.engine.ask("GET", f"services/{instance.service}")
        return service

    async def spec(self, instance: Instance) -> dict[str, Any]:
        """The service's complete definition as Swarm has it."""
        service = await self.inspect(instance)
        spec: dict[str, Any] = service["Spec"]
        return spec

    async def change(self, instance: Instance, **changes: Any) -> None:
        await self.edit(instance, lambda spec: as_swarm(spec, changes))

    async def edit(self, instance: Instance, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """An update by someone else."""
        await self.engine.edit(f"services/{instance.service}", edit)

    def change_before_next_update(self, instance: Instance, **changes: Any) -> None:
        self.docker.first = lambda: self.change(instance, **changes)

    async def exit_codes(self, instance: Instance) -> list[int | None]:
        """From the engine's events: a stopped service's tasks are forgotten at once."""
        label = f"com.docker.swarm.service.name={instance.service}"
        wanted = {"type": ["container"], "event": ["die"], "label": [label]}
        params = {"filters": json.dumps(wanted), "since": self._since, "until": str(time.time())}
        answer = await self.engine.http.get("/events", params=params)
        events = [json.loads(line) for line in answer.text.splitlines()]
        return [int(event["Actor"]["Attributes"]["exitCode"]) for event in events]

    async def tasks(self, instance: Instance) -> list[dict[str, Any]]:
        """All tasks that the swarm still lists, oldest first."""
        wanted = {"filters": json.dumps({"service": [instance.service]})}
        tasks = await self.engine.ask("GET", "tasks", params=wanted)
        return sorted(tasks, key=lambda task: str(task["CreatedAt"]))

    async def containers(self, instance: Instance) -> list[str]:
        """Ids of the service's containers that run."""
        wanted = {"label": [f"com.docker.swarm.service.name={instance.service}"]}
        containers = await self.engine.ask("GET", "containers/json", params={"filters": json.dumps(wanted)})
        return [container["Id"] for container in containers]

    async def log(self, instance: Instance) -> str:
        """The output of the service's tasks."""
        answer = await self.engine.http.get(
            f"/services/{instance.service}/logs", params={"stdout": "1", "stderr": "1"}
        )
        return answer.text

    def background(self, work: Awaitable[None]) -> None:
        """Run this in the background; `close` waits for it."""
        self._background.append(asyncio.ensure_future(work))

    async def close(self) -> None:
        await asyncio.gather(*self._background)
        await self.docker.close()
        await self.forwards.close()
        await self.http.aclose()
        await self.remove_services()

    async def remove_services(self) -> None:
        """Remove every service that was added, and kill its containers."""
        for service in self._made:
            await self.engine.ask("DELETE", f"services/{service}", allowed=(404,))
            wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.id={service}"]})}
            for container in await self.engine.ask("GET", "containers/json", params=wanted):
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    await self.engine.ask("POST", f"containers/{container['Id']}/kill")

    async def _has_printed(self, instance: Instance, line: str) -> bool:
        return line in await self.log(instance)
