"""The port `Runtime` on Docker Swarm: find, stop, configure, start, resize, put back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.swarm import quota
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.diagnosis import Diagnosis, ending, is_exhausted
from rehome_consumer.adapters.swarm.engine import Engine
from rehome_consumer.adapters.swarm.health import HealthCheck
from rehome_consumer.adapters.swarm.services import Services
from rehome_consumer.adapters.swarm.waiting import SAY_EVERY_SECONDS, Wait
from rehome_consumer.errors import Conflict, CrashLoop, Refused, TimedOut
from rehome_consumer.model import Healthy, Service

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import aiodocker
    import httpx

    from rehome_consumer.adapters.swarm.engine import Watch
    from rehome_consumer.adapters.swarm.spec import Spec
    from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
    from rehome_consumer.model import Instance
    from rehome_consumer.network.hosts import Resolve
    from rehome_consumer.ports.steps import Clock
    from rehome_events.parts import Limits

ODOO_PORT: Final = 8069
ANSWERS_IN_A_ROW: Final = 2

_SHOWN_LINES = 10
_ONE_PORT = (
    "the instance was restarted to apply its new CPU and memory limits: "
    "it holds a port of its node, so that no second task can run beside the old one"
)
_NO_HEALTH_CHECK = (
    "the instance's task was restarted, new before old, to apply its new CPU and memory limits; "
    "without a health check in the service's definition requests may have failed for seconds"
)


class SwarmRuntime:
    """Port `Runtime` on Docker Swarm.

    Errors of every method, besides those the port names: Unreachable (the engine does not answer, a
    restart's time long), Conflict (others change the service all the time, or undo what we wait for),
    Incompatible (the service is of a kind that cannot be stopped and started).
    """

    def __init__(
        self,
        docker: aiodocker.Docker,
        http: httpx.AsyncClient,
        clock: Clock,
        data_root: Path,
        *,
        resolve: Resolve = lambda host, port: (host, port),
        health_limit: timedelta = timedelta(minutes=5),
        stop_margin: timedelta = timedelta(seconds=30),
        room_limit: timedelta = timedelta(seconds=30),
        patience: timedelta = timedelta(seconds=60),
        pause: timedelta = timedelta(milliseconds=500),
        settle: timedelta = timedelta(seconds=1),
        say_every: timedelta = timedelta(seconds=SAY_EVERY_SECONDS),
        port: int = ODOO_PORT,
    ) -> None:
        """Speak to a manager of the swarm; opening and closing the clients is the caller's.

        Args:
            docker: see `rehome_consumer.adapters.swarm.engine.connected`.
            http: asks instances; with a time-out for one request.
            clock: for the moment an instance was found healthy.
            data_root: directory of the instances' directories, for storage limits.
            resolve: for a consumer outside of the overlay network: names to addresses.
            health_limit: how long an instance may take from its start until it serves.
            stop_margin: how long a stop may take beyond the service's own grace (SIGTERM alone comes
                2-3 seconds after the update).
            room_limit: how long Swarm may look for a node with room.
            patience: how long an engine may not answer, which a restart of the daemon takes.
            pause: between two looks while waiting; events shorten it.
            settle: how long a task that has answered must go on: an ended one is shown as running for a moment.
            say_every: how often a wait that goes on is told in the log.
            port: HTTP port of instances whose labels name none.
        """
        self._engine = Engine(docker, patience=patience.total_seconds())
        self._services = Services(self._engine)
        self._health = HealthCheck(http, resolve, port)
        self._clock = clock
        self._data_root = data_root
        self._health_limit = health_limit.total_seconds()
        self._stop_margin = stop_margin.total_seconds()
        self._room_limit = room_limit.total_seconds()
        self._pause = pause.total_seconds()
        self._settle = settle.total_seconds()
        self._say_every = say_every.total_seconds()

    async def find(self, instance: Instance) -> Service:
        """The instance's service: by its recorded name, else by the naming rule, else by its label."""
        service = await self._services.look(instance)
        return Service(
            name=service.name,
            id=service.id,
            replicas=edit.replicas_of(service.spec),
            running=await self._services.running(service),
            env=edit.env_of(service.spec),
            spec=service.spec,
            limits=edit.limits_of(service.spec),
        )

    async def stop(self, instance: Instance) -> None:
        """Ask for no replica and wait until neither a task nor a container is left."""
        await self._services.update(instance, lambda spec: edit.with_replicas(spec, 0))
        await self._until_stopped(instance)

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        """Set these variables. Swarm replaces a running task, and starts nothing that is stopped."""
        await self._services.update(instance, lambda spec: edit.with_env(spec, env))

    async def start(self, instance: Instance, replicas: int, limits: Limits | None) -> Healthy:
        """Ask for `replicas` with `limits`, in one update, and wait until the instance serves."""
        tasks = await self._engine.tasks(await self._services.look(instance))

        def started(spec: Mapping[str, Any]) -> Spec:
            wanted = edit.with_replicas(edit.with_limits(spec, limits), replicas)
            return edit.forced(wanted) if wanted == spec and is_exhausted(spec, tasks) else wanted

        changed = await self._services.update(instance, started)
        # Tasks that a task survived which serves by now tell of other days, not of this start.
        survived = any(task.serving for task in tasks)
        earlier = {task.id for task in tasks if changed or (survived and task.over)}
        return await self._until_healthy(instance, earlier)

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        """Apply CPU and memory in one rolling update, new task first; then storage.

        Raises:
            Incompatible, CrashLoop, TimedOut: no task runs with the new limits. The old limits are in force
                again, and the instance went on serving.
        """
        tasks = await self._engine.tasks(await self._services.look(instance))
        await self._services.update(instance, lambda spec: edit.resizing(spec, limits))
        service = await self._services.look(instance)
        warnings: list[str] = []
        if edit.is_resizing(service.spec):
            if edit.replicas_of(service.spec):
                warnings += await self._roll(instance, service, {task.id for task in tasks})
            await self._services.update(instance, edit.settled)
        if limits.storage_limit is not None:
            size = edit.size_bytes(limits.storage_limit)
            warning = await quota.hold_to(self._data_root / instance.directory, size, limits.storage_limit)
            warnings += [warning] if warning else []
        return tuple(warnings)

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        """The definition as `spec` has it, with no replica; waits until nothing runs."""
        await self._services.update(instance, lambda now: edit.restored(now, spec))
        await self._until_stopped(instance)

    async def _until_stopped(self, instance: Instance) -> None:
        service = await self._services.look(instance)
        wait = Wait(service.name, "stop", say_every=self._say_every)
        async with self._engine.following(service) as watch:
            while True:
                service = await self._services.look(instance)
                if edit.replicas_of(service.spec):
                    raise Conflict(
                        f"service {service.name} was scaled up by somebody else while it was stopped"
                    )
                running = await self._services.running(service)
                if not running:
                    return
                still = ", ".join(task.id for task in running)
                limit = edit.stop_grace_seconds(service.spec) + self._stop_margin
                wait.go_on(f"still run: {still}", limit=limit)
                await watch.pause(self._pause)

    async def _roll(self, instance: Instance, service: SwarmService, earlier: Collection[str]) -> list[str]:
        """Wait until the rolling update is through; when it cannot be, take the new limits back.

        Returns:
            Warnings, where the instance may not have served all the time.
        """
        try:
            await self._until_healthy(instance, earlier)
        except (Refused, TimedOut):
            await self._services.update(instance, edit.unresized)
            raise
        if edit.has_host_port(service.spec):
            return [_ONE_PORT]
        if not edit.has_health_check(service.spec):
            return [_NO_HEALTH_CHECK]
        return []

    async def _until_healthy(self, instance: Instance, earlier: Collection[str]) -> Healthy:
        """Wait for answers in a row from one task of this definition that goes on running.

        Args:
            instance: whose service.
            earlier: tasks whose end says nothing about the present definition.
        """
        service = await self._services.look(instance)
        wait = Wait(service.name, "serve", say_every=self._say_every)
        diagnosis = Diagnosis(service.name, service.spec, earlier, self._room_limit)
        witness: str | None = None
        answers = 0
        async with self._engine.following(service) as watch:
            while True:
                task = await self._candidate(instance, service, diagnosis)
                if task is None or task.id != witness:
                    witness, answers = (task.id if task is not None else None), 0
                if task is not None and answers == ANSWERS_IN_A_ROW:
                    return self._proof(service, task)
                failure = "no task runs" if task is None else await self._health.failure(service, task)
                said = f"{failure or 'it just began to'}; {diagnosis.told()}"
                wait.go_on(said, limit=self._health_limit)
                answers = 0 if failure else answers + 1
                await self._between(watch, answers)

    async def _between(self, watch: Watch, answers: int) -> None:
        """Wait between two looks: shortly between two answers, longer after the last one."""
        if answers == ANSWERS_IN_A_ROW:
            await asyncio.sleep(self._settle)
        else:
            await watch.pause(self._pause)

    async def _candidate(
        self, instance: Instance, started: SwarmService, diagnosis: Diagnosis
    ) -> SwarmTask | None:
        """The task that may prove that the instance serves; None while there is none or an old one lingers.

        Raises:
            Conflict: somebody else stopped or redefined the service.
            CrashLoop, Incompatible: what waiting longer cannot mend.
        """
        service = await self._services.look(instance)
        if not edit.replicas_of(service.spec):
            raise Conflict(f"service {service.name} was scaled to 0 by somebody else while it was started")
        if service.spec["TaskTemplate"] != started.spec["TaskTemplate"]:
            raise Conflict(f"service {service.name} was redefined by somebody else while it was started")
        tasks = await self._engine.tasks(service)
        diagnosis.look(tasks)
        if diagnosis.crash is not None:
            lines = await self._engine.last_lines(diagnosis.crash, _SHOWN_LINES)
            raise CrashLoop(
                f"service {service.name} starts and ends again: {ending(diagnosis.crash)}; "
                f"{diagnosis.told()}; last lines: {' | '.join(lines) or '(none)'}"
            )
        running = [task for task in tasks if task.state == "running"]
        if not all(task.serving and task.made_from(service.spec) for task in running):
            return None
        return running[-1] if running else None

    def _proof(self, service: SwarmService, task: SwarmTask) -> Healthy:
        url = self._health.url(service)
        return Healthy(
            task=task.id,
            url=url,
            at=self._clock.now(),
            service_id=service.id,
            internal_url=url,
            external_url=edit.external_url(service.spec),
        )
