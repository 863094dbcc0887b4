"""The port `Runtime` on Docker Swarm: find, look ahead, stop, configure, start, resize, restore."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.adapters.swarm import quota, resizing
from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.diagnosis import is_exhausted
from rehome_consumer.adapters.swarm.engine import Engine
from rehome_consumer.adapters.swarm.foresight import Foresight
from rehome_consumer.adapters.swarm.health import HealthCheck
from rehome_consumer.adapters.swarm.services import Services
from rehome_consumer.adapters.swarm.serving import ServingWait
from rehome_consumer.adapters.swarm.waiting import LOG_EVERY_SECONDS, Wait
from rehome_consumer.errors import Conflict, Refused, TimedOut
from rehome_consumer.model import Service

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import aiodocker
    import httpx

    from rehome_consumer.adapters.swarm.spec import Spec
    from rehome_consumer.adapters.swarm.tasks import SwarmService
    from rehome_consumer.model import Healthy, Instance
    from rehome_consumer.network.hosts import Resolve
    from rehome_consumer.ports.steps import Clock
    from rehome_events.parts import Limits

ODOO_PORT: Final = 8069

_ONE_AT_A_TIME = (
    "the instance was restarted to apply its new CPU and memory limits: it occupies a port of its node, or as "
    "many run as the nodes may have, so that no second task can run beside the old one"
)
_NO_HEALTH_CHECK = (
    "the instance's task was restarted, new before old, to apply its new CPU and memory limits; "
    "without a health check in the service's definition requests may have failed for seconds"
)


class SwarmRuntime:
    """Port `Runtime` on Docker Swarm.

    Errors of every method, besides those the port names: Unreachable (the engine does not answer for
    longer than a restart takes), Conflict (others change the service all the time, or undo what is waited
    for), Incompatible (the service is of a kind that cannot be stopped and started).
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
        log_every: timedelta = timedelta(seconds=LOG_EVERY_SECONDS),
        port: int = ODOO_PORT,
    ) -> None:
        """Use a manager of the swarm; the caller opens and closes the clients.

        Args:
            docker: see `rehome_consumer.adapters.swarm.engine.connected`.
            http: for requests to instances; with a time-out for one request.
            clock: for the time at which an instance was found healthy.
            data_root: directory of the instances' directories, for storage limits.
            resolve: for a consumer outside of the overlay network: names to addresses.
            health_limit: how long an instance may take from its start until it serves.
            stop_margin: how long a stop may take beyond the service's own grace (SIGTERM alone comes
                2-3 seconds after the update).
            room_limit: how long Swarm may search for a node with room.
            patience: how long an engine may fail to answer; a restart of the daemon takes some seconds.
            pause: between two looks while waiting; events shorten it.
            settle: how long a task must go on after its answers: one that ended is listed as running for a moment.
            log_every: how often a wait that goes on is reported in the log.
            port: HTTP port of instances whose labels give none.
        """
        self._engine = Engine(docker, patience=patience.total_seconds())
        self._services = Services(self._engine)
        self._serving = ServingWait(
            self._engine,
            HealthCheck(http, resolve, port),
            clock,
            limit=health_limit.total_seconds(),
            room_limit=room_limit.total_seconds(),
            pause=pause.total_seconds(),
            settle=settle.total_seconds(),
            log_every=log_every.total_seconds(),
        )
        self._foresight = Foresight(self._engine, data_root)
        self._data_root = data_root
        self._stop_margin = stop_margin.total_seconds()
        self._pause = pause.total_seconds()
        self._log_every = log_every.total_seconds()

    async def require_ready(self) -> None:
        """Return when the engine answers, and is a manager. Raises Unreachable, Incompatible."""
        await self._engine.require_manager()

    async def find(self, instance: Instance) -> Service:
        """The instance's service: by its recorded name, else by the naming rule, else by its label."""
        service = await self._services.find(instance)
        return Service(
            name=service.name,
            id=service.id,
            replicas=edit.replicas_of(service.spec),
            running=await self._services.running(service),
            env=edit.env_of(service.spec),
            spec=service.spec,
            limits=edit.limits_of(service.spec),
        )

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        """Compare the definition that `start` would send with the nodes, and with what its tasks do now."""
        return await self._foresight.require_can_run(instance, limits)

    async def begin_stop(self, instance: Instance) -> None:
        """Ask for no replica. SIGTERM comes 2-3 seconds later."""
        await self._services.update(instance, lambda spec: edit.with_replicas(spec, 0))

    async def stop(self, instance: Instance) -> None:
        """Ask for no replica and wait until neither a task nor a container is left."""
        await self.begin_stop(instance)
        await self._until_stopped(instance)

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        """Set these variables. Swarm replaces a running task, and starts nothing that is stopped."""
        await self._services.update(instance, lambda spec: edit.with_env(spec, env))

    async def start(
        self, instance: Instance, replicas: int, limits: Limits | None, *, beside: bool = False
    ) -> Healthy:
        """Ask for `replicas` with `limits`, in one update, and wait until the instance serves.

        A service that occupies a port of its node, or of which no more may run, waits for its old tasks all the same.
        Without room for two Swarm itself waits: for as long as a node may be looked for.
        """
        if beside and not await self._may_run_beside(instance):
            await self._until_none_ends(instance)
            beside = False
        tasks = await self._engine.tasks(await self._services.find(instance))

        def started(spec: Mapping[str, Any]) -> Spec:
            wanted = edit.with_replicas(edit.with_limits(spec, limits), replicas)
            return edit.forced(wanted) if wanted == spec and is_exhausted(spec, tasks) else wanted

        changed = await self._services.update(instance, started)
        # A task that serves by now has outlived these ended tasks: they do not belong to this start.
        survived = any(task.serving for task in tasks)
        earlier = {task.id for task in tasks if changed or (survived and task.over)}
        return await self._serving.wait(instance, earlier, beside=beside)

    async def _may_run_beside(self, instance: Instance) -> bool:
        """Whether two of its tasks can run at a time."""
        service = await self._services.find(instance)
        return not edit.host_ports(service.spec) and not edit.max_per_node(service.spec)

    async def _until_none_ends(self, instance: Instance) -> None:
        """Wait for tasks that were asked to end; nothing while others serve."""
        if not edit.replicas_of((await self._services.find(instance)).spec):
            await self._until_stopped(instance)

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        """Apply CPU and memory in one rolling update, new task first; then storage.

        Raises:
            Incompatible, CrashLoop, TimedOut: no task runs with the new limits. The old limits apply again, and
                the instance went on serving.
        """
        service = await self._services.find(instance)
        tasks = await self._engine.tasks(service)
        beside = await self._foresight.has_room_for_one_more(service)
        await self._services.update(instance, lambda spec: resizing.started(spec, limits, beside=beside))
        service = await self._services.find(instance)
        warnings: list[str] = []
        if resizing.is_started(service.spec):
            if edit.replicas_of(service.spec):
                warnings += await self._roll(instance, service, {task.id for task in tasks})
            await self._services.update(instance, resizing.finished)
        if limits.storage_limit is not None:
            size = edit.size_bytes(limits.storage_limit)
            warning = await quota.enforce(self._data_root / instance.directory, size, limits.storage_limit)
            warnings += [warning] if warning else []
        return tuple(warnings)

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        """The definition as `spec` has it, with no replica."""
        await self._services.update(instance, lambda present: edit.restored(present, spec))

    async def _until_stopped(self, instance: Instance) -> None:
        service = await self._services.find(instance)
        wait = Wait(service.name, "stop", log_every=self._log_every)
        async with self._engine.following(service) as watch:
            while True:
                service = await self._services.find(instance)
                if edit.replicas_of(service.spec):
                    raise Conflict(
                        f"service {service.name} was scaled up by someone else while it was stopped"
                    )
                running = await self._services.running(service)
                if not running:
                    return
                names = ", ".join(task.id for task in running)
                limit = edit.stop_grace_seconds(service.spec) + self._stop_margin
                wait.check(f"still run: {names}", limit=limit)
                await watch.pause(self._pause)

    async def _roll(self, instance: Instance, service: SwarmService, earlier: Collection[str]) -> list[str]:
        """Wait until the rolling update is done; when it fails, restore the old limits.

        Returns:
            Warnings, where the instance may have been unreachable in between.
        """
        try:
            await self._serving.wait(instance, earlier)
        except (Refused, TimedOut):
            await self._services.update(instance, resizing.undone)
            raise
        if resizing.stops_first(service.spec):
            return [_ONE_AT_A_TIME]
        if not edit.has_health_check(service.spec):
            return [_NO_HEALTH_CHECK]
        return []
