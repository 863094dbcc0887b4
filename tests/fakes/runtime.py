"""Services and their tasks in memory: no process, and no time passes in a call.

A task whose end was only asked for (`begin_stop`) goes on: until a call that waits for its end, or for ENDING.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rehome_consumer.errors import CrashLoop, Incompatible, NotFound, TimedOut, Unreachable
from rehome_consumer.model import Healthy, Service, Task
from rehome_events.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehome_consumer.model import Instance

LABEL = "saasodoo.instance.id"
TEMPLATE = ("env", "limits", "force")
KILLED, TERMINATED = 137, 0
ENDING = timedelta(seconds=10)
"""How long a task goes on that was asked to end."""


@dataclass(frozen=True)
class Behaviour:
    """What becomes of a task that is started.

    Attributes:
        exit_code: it ends with this code before it has answered twice; None runs on.
        said: its last lines.
        status: what it answers over HTTP while it runs.
        deaf: it ignores SIGTERM and is killed after the grace.
        immortal: not even a kill ends it.
    """

    exit_code: int | None = None
    said: tuple[str, ...] = ()
    status: int = 200
    deaf: bool = False
    immortal: bool = False


@dataclass
class FakeTask:
    """A task; `exit_code` is None while it runs, `asked` is when it was asked to end; `foreign`: another started it."""

    id: str
    behaviour: Behaviour
    exit_code: int | None = None
    asked: datetime | None = None
    foreign: bool = False

    def end(self) -> None:
        """It ends as its behaviour says."""
        if not self.behaviour.immortal:
            self.exit_code = KILLED if self.behaviour.deaf else TERMINATED


@dataclass
class FakeService:
    """A service, its definition and every task that it ever had."""

    id: str
    spec: dict[str, Any]
    tasks: list[FakeTask] = field(default_factory=list)
    updates: int = 0

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.spec["name"])

    @property
    def running(self) -> list[FakeTask]:
        """Tasks that have not ended."""
        return [task for task in self.tasks if task.exit_code is None]

    @property
    def staying(self) -> list[FakeTask]:
        """Those of them that nobody has asked to end."""
        return [task for task in self.running if task.asked is None]


class FakeRuntime:
    """Port `Runtime`.

    Attributes:
        services: by name.
        behave: asked at each start of a task what becomes of it; look at the world and decide.
        answers: what a running task answers over HTTP now; by default its behaviour's status.
        before_update: called once, before the next update is made: another process is faster.
        cpus: cores of the only node.
        warnings: of every look ahead.
        now: the present.
        reachable: whether it answers.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.services: dict[str, FakeService] = {}
        self.behave: Callable[[FakeService], Behaviour] = lambda _service: Behaviour()
        self.answers: Callable[[FakeTask], int] = lambda task: task.behaviour.status
        self.before_update: Callable[[], None] | None = None
        self.cpus = 64.0
        self.warnings: tuple[str, ...] = ()
        self.now = now
        self.reachable = True

    def add(self, name: str, **spec: Any) -> FakeService:
        """A new service; started when it asks for a replica, which is the default."""
        default: dict[str, Any] = {"labels": {}, "env": {}, "limits": {}, "replicas": 1, "force": 0}
        service = FakeService(id=f"service-{len(self.services) + 1}", spec={"name": name, **default, **spec})
        self.services[name] = service
        if service.spec["replicas"]:
            self._run(service)
        return service

    def reap(self) -> None:
        """Tasks that were asked to end long enough ago have ended."""
        for service in self.services.values():
            for task in service.running:
                if task.asked is not None and self.now() - task.asked >= ENDING:
                    task.end()

    def change(self, name: str, **changes: Any) -> None:
        """An update by another process."""
        service = self.services[name]
        before = len(service.tasks)
        self._take_over(service, {**service.spec, **changes})
        for task in service.tasks[before:]:
            task.foreign = True

    async def require_ready(self) -> None:
        if not self.reachable:
            raise Unreachable("what runs the instances does not answer")

    async def find(self, instance: Instance) -> Service:
        await self.require_ready()
        service = self._look(instance)
        spec = copy.deepcopy(service.spec)
        return Service(
            name=service.name,
            id=service.id,
            replicas=spec["replicas"],
            running=tuple(Task(task.id, running=True) for task in service.running),
            env=spec["env"],
            spec=spec,
            limits=Limits(cpu_limit=spec["limits"].get("cpu"), memory_limit=spec["limits"].get("memory")),
        )

    async def require_can_run(self, instance: Instance, limits: Limits | None) -> tuple[str, ...]:
        service = self._look(instance)
        self._require_cpus(service, _limited(service.spec, limits))
        return self.warnings

    async def begin_stop(self, instance: Instance) -> None:
        self._ask_to_end(instance)
        self._update(instance, lambda spec: {**spec, "replicas": 0})

    async def stop(self, instance: Instance) -> None:
        self._stopped(self._update(instance, lambda spec: {**spec, "replicas": 0}))

    async def configure(self, instance: Instance, env: Mapping[str, str]) -> None:
        self._update(instance, lambda spec: {**spec, "env": {**spec["env"], **env}})

    async def start(
        self, instance: Instance, replicas: int, limits: Limits | None, *, beside: bool = False
    ) -> Healthy:
        service = self._update(instance, lambda spec: {**_limited(spec, limits), "replicas": replicas})
        if not beside:
            self._wait_for_those_asked_to_end(service)
        return self._healthy(service)

    async def resize(self, instance: Instance, limits: Limits) -> tuple[str, ...]:
        before = [task.id for task in self._look(instance).running]
        service = self._update(instance, lambda spec: _limited(spec, limits))
        warnings = []
        if service.spec["replicas"] and [task.id for task in service.running] != before:
            self._healthy(service)
            warnings.append("the instance was restarted to apply its new CPU and memory limits")
        if limits.storage_limit is not None:
            warnings.append(f"the storage limit {limits.storage_limit} is not enforced")
        return tuple(warnings)

    async def restore_spec(self, instance: Instance, spec: Mapping[str, Any]) -> None:
        definition = copy.deepcopy(dict(spec))
        self._ask_to_end(instance)
        self._update(instance, lambda _: {**definition, "replicas": 0})

    def _ask_to_end(self, instance: Instance) -> None:
        service = self._look(instance)
        for task in service.staying if self.reachable else ():
            task.asked = self.now()

    def _look(self, instance: Instance) -> FakeService:
        self.reap()
        if instance.service in self.services:
            return self.services[instance.service]
        for service in self.services.values():
            if service.spec["labels"].get(LABEL) == str(instance.id):
                return service
        raise NotFound(f"no service {instance.service}, and none with label {LABEL}={instance.id}")

    def _update(self, instance: Instance, change: Callable[[dict[str, Any]], dict[str, Any]]) -> FakeService:
        if not self.reachable:
            raise Unreachable("what runs the instances does not answer")
        faster, self.before_update = self.before_update, None
        if faster is not None:
            faster()
        service = self._look(instance)
        self._take_over(service, change(service.spec))
        return service

    def _take_over(self, service: FakeService, spec: dict[str, Any]) -> None:
        if spec == service.spec:
            return
        replaced = any(spec[key] != service.spec[key] for key in TEMPLATE)
        service.updates += 1
        service.spec = copy.deepcopy(spec)
        if replaced or not spec["replicas"]:
            for task in service.staying:
                task.end()
        if spec["replicas"] and not service.staying:
            self._run(service)

    def _run(self, service: FakeService) -> FakeTask:
        behaviour = self.behave(service)
        task = FakeTask(f"{service.id}-task-{len(service.tasks) + 1}", behaviour, behaviour.exit_code)
        service.tasks.append(task)
        return task

    def _wait_for_those_asked_to_end(self, service: FakeService) -> None:
        for task in service.running:
            if task.asked is not None:
                task.end()

    def _stopped(self, service: FakeService) -> None:
        self._wait_for_those_asked_to_end(service)
        if service.running:
            tasks = ", ".join(task.id for task in service.running)
            raise TimedOut(f"waited for service {service.name} to stop; still run: {tasks}")

    def _require_cpus(self, service: FakeService, spec: dict[str, Any]) -> None:
        if (spec["limits"].get("cpu") or 0) > self.cpus:
            raise Incompatible(
                f"service {service.name} cannot run: there are only {self.cpus:g} CPUs available"
            )

    def _healthy(self, service: FakeService) -> Healthy:
        """Play the restarts until a task answers, for ever, or three have ended."""
        self._require_cpus(service, service.spec)
        ended = 0
        while not service.staying:
            task = self._run(service)
            ended += task.exit_code is not None
            if ended == 3:
                how = f"exit code {task.exit_code}; last lines: {' | '.join(task.behaviour.said)}"
                raise CrashLoop(f"service {service.name} starts and ends again: {how}")
        task = service.staying[-1]
        if (status := self.answers(task)) != 200:
            raise TimedOut(f"waited for service {service.name} to serve (HTTP {status})")
        url = f"http://{service.name}:8069"
        return Healthy(task=task.id, url=url, at=self.now(), service_id=service.id, internal_url=url)


def _limited(spec: dict[str, Any], limits: Limits | None) -> dict[str, Any]:
    if limits is None:
        return spec
    wanted = {"cpu": limits.cpu_limit, "memory": limits.memory_limit}
    return {**spec, "limits": {**spec["limits"], **{k: v for k, v in wanted.items() if v is not None}}}
