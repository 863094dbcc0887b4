"""Instances as plain processes under the sandbox's supervisor: the port `Runtime` over its HTTP interface.

The supervisor keeps a definition per service, with a version that an update must name, and restarts a task
that ended. It lists a task from the decision to start it until its process has ended: when no task runs,
no process does.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Conflict, CrashLoop, Incompatible, NotFound, SettingsError, TimedOut
from sandbox.supervisor.client import INSTANCE_LABEL, ProcessService, Services
from sandbox.system.http import plain_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from typing import Any

    import httpx

    from rehome_consumer.model import Healthy, Instance, Service
    from rehome_consumer.ports.steps import Clock
    from rehome_consumer.settings import Settings
    from rehome_events.parts import Limits

RUNTIME: Final = "sandbox.supervisor.runtime:connected"
"""The value of REHOME_RUNTIME for it."""
SUPERVISOR_URL: Final = "SANDBOX_SUPERVISOR_URL"
REQUEST_SECONDS: Final = 30.0

UPDATE_TRIES = 10
CRASHES_IN_A_LOOP = 3
ANSWERS_IN_A_ROW = 2
HEALTH_PATHS = ("/web/health", "/web/login")


@asynccontextmanager
async def connected(settings: Settings, clock: Clock) -> AsyncIterator[ProcessRuntime]:
    """The runtime on the supervisor at SANDBOX_SUPERVISOR_URL; the consumer opens it (see REHOME_RUNTIME).

    Raises:
        SettingsError: the variable is not set.
    """
    url = os.environ.get(SUPERVISOR_URL)
    if not url:
        raise SettingsError(f"{SUPERVISOR_URL} is missing: where the supervisor is, http://host:port")
    async with plain_http(url, timeout=REQUEST_SECONDS) as http:
        yield ProcessRuntime(
            http,
            clock,
            health_limit=timedelta(seconds=settings.start_timeout),
            stop_margin=timedelta(seconds=settings.stop_margin),
        )


class ProcessRuntime:
    """Port `Runtime` on the sandbox's supervisor.

    Errors of every method, besides those the port names: Unreachable and TimedOut (the supervisor does not
    answer), Transient (its answer is unusable), Conflict (others change the service all the time, or undo
    what is waited for).
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        health_limit: timedelta = timedelta(minutes=5),
        stop_margin: timedelta = timedelta(seconds=15),
        pause: timedelta = timedelta(milliseconds=50),
    ) -> None:
        """Use the supervisor at the base URL of `http`, which the caller opens and closes.

        Args:
            http: with the supervisor's URL and a time-out for one request.
            clock: for the time at which an instance was found healthy.
            health_limit: how long an instance may take from its start until it serves.
            stop_margin: how long a stop may take beyond the service's own grace.
            pause: between two looks while waiting.
        """
        self._services = Services(http)
        self._clock = clock
        self._health_limit = health_limit.total_seconds()
        self._stop_margin = stop_margin.total_seconds()
        self._pause = pause.total_seconds()

    async def require_ready(self) -> None:
        """Return when the supervisor answers."""
        await self._services.require_ready()

    async def find(self, instance: Instance) -> Service:
        """The instance's service: by its name, else by the label with the instance's id."""
        return (await self._find(instance)).as_service()

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        """Compare the limits with the node's cores; the supervisor refuses nothing else."""
        service = await self._find(instance)
        wanted, cpus = _limited(service.spec, limits)["limits"].get("cpu") or 0, await self._services.cpus()
        if wanted > cpus:
            raise Incompatible(
                f"service {service.name} cannot run with {wanted:g} CPUs: there are only {cpus:g} CPUs available"
            )
        return ()

    async def begin_stop(self, instance: Instance) -> None:
        """Ask for no replica. SIGTERM comes at once."""
        await self._update(instance, lambda spec: {**spec, "replicas": 0})

    async def stop(self, instance: Instance) -> None:
        """Ask for no replica and wait until no task runs: the service's grace plus a margin at most."""
        await self.begin_stop(instance)
        await self._until_stopped(instance)

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        """Set these variables. The supervisor replaces a running task, and starts nothing that is stopped."""
        await self._update(instance, lambda spec: {**spec, "env": {**spec["env"], **env}})

    async def start(
        self, instance: Instance, replicas: int, limits: Limits | None, *, beside: bool = False
    ) -> Healthy:
        """Ask for `replicas` with `limits`, in one update, and wait until the instance serves."""
        earlier = {task.id for task in (await self._find(instance)).tasks}
        await self._update(instance, lambda spec: {**_limited(spec, limits), "replicas": replicas})
        return await self._until_healthy(instance, earlier, beside=beside)

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        """Apply CPU and memory; a running task is replaced, and the instance serves again when this returns."""
        before = await self._find(instance)
        after = await self._update(instance, lambda spec: _limited(spec, limits))
        warnings = []
        if after.template_version != before.template_version and after.spec["replicas"]:
            await self._until_healthy(instance, {task.id for task in before.tasks})
            warnings.append("the instance was restarted to apply its new CPU and memory limits")
        if limits.storage_limit is not None:
            warnings.append(f"the storage limit {limits.storage_limit} is not enforced on plain processes")
        return tuple(warnings)

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        """The definition as `spec` has it, with no replica."""
        await self._update(instance, lambda _: {**spec, "replicas": 0})

    async def _find(self, instance: Instance) -> ProcessService:
        found = await self._services.by_name(instance.service)
        if found is not None:
            return found
        labelled = await self._services.by_label(INSTANCE_LABEL, str(instance.id))
        if len(labelled) > 1:
            names = ", ".join(service.name for service in labelled)
            raise Incompatible(f"several services carry the label {INSTANCE_LABEL}={instance.id}: {names}")
        if not labelled:
            raise NotFound(
                f"no service is named {instance.service}, and none has the label {INSTANCE_LABEL}={instance.id}"
            )
        return labelled[0]

    async def _update(
        self, instance: Instance, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> ProcessService:
        """Change the present definition; an update by someone else in between is read and stays."""
        for _ in range(UPDATE_TRIES):
            service = await self._find(instance)
            spec = change(service.spec)
            if spec == service.spec:
                return service
            updated = await self._services.update(service, spec)
            if updated is not None:
                return updated
        raise Conflict(f"service {service.name} was changed by others during {UPDATE_TRIES} updates in a row")

    async def _until_stopped(self, instance: Instance) -> None:
        started = time.monotonic()
        while True:
            service = await self._find(instance)
            running = service.running()
            if service.spec["replicas"]:
                raise Conflict(f"service {service.name} was scaled up by someone else while it was stopped")
            if not running:
                return
            waited = time.monotonic() - started
            if waited > service.stop_grace_seconds + self._stop_margin:
                names = ", ".join(f"{task.id} (pid {task.pid})" for task in running)
                raise TimedOut(
                    f"waited {waited:.1f} s for service {service.name} to stop; still run: {names}"
                )
            await asyncio.sleep(self._pause)

    async def _until_healthy(self, instance: Instance, earlier: set[str], *, beside: bool = False) -> Healthy:
        """Wait for answers in a row from one task, and check that it still runs afterwards.

        Args:
            instance: whose service it is.
            earlier: ids of tasks that do not belong to this start.
            beside: tasks that were asked to end may go on.
        """
        started = time.monotonic()
        answering: str | None = None
        answers = 0
        while True:
            service = await self._find(instance)
            if not service.spec["replicas"]:
                raise Conflict(f"service {service.name} was scaled to 0 by someone else while it was started")
            _raise_if_permanent(service, earlier)
            task = service.sole_current_task(beside=beside)
            if task is None or task.id != answering:
                answering, answers = (task.id if task is not None else None), 0
            if task is not None and answers >= ANSWERS_IN_A_ROW:
                return service.healthy(task, self._services.url(service), self._clock.now())
            failure = "no task" if task is None else await self._services.failure(service, HEALTH_PATHS)
            waited = time.monotonic() - started
            if waited > self._health_limit:
                raise TimedOut(
                    f"waited {waited:.1f} s for service {service.name} to serve "
                    f"({failure or 'it has just started to'}): {service.describe(earlier)}"
                )
            if failure is None:
                answers += 1
            else:
                answers = 0
                await asyncio.sleep(self._pause)


def _limited(spec: dict[str, Any], limits: Limits | None) -> dict[str, Any]:
    """The definition with these limits; what is None stays as it is."""
    if limits is None:
        return spec
    wanted = {"cpu": limits.cpu_limit, "memory": limits.memory_limit}
    return {
        **spec,
        "limits": {
            **spec["limits"],
            **{name: value for name, value in wanted.items() if value is not None},
        },
    }


def _raise_if_permanent(service: ProcessService, earlier: set[str]) -> None:
    """Raise what does not pass by waiting: a task the node cannot run, or one that ends again and again."""
    ended = service.unasked_ends(earlier)
    for task in ended:
        if task.error is not None:
            raise Incompatible(f"service {service.name} cannot run: {task.error}")
    if len(ended) >= CRASHES_IN_A_LOOP:
        raise CrashLoop(f"service {service.name} starts and ends again: {service.describe(earlier)}")
