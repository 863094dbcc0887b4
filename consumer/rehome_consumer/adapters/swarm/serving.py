"""When an instance serves: answers in a row from one task of the present definition, which goes on running."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.swarm import spec as edit
from rehome_consumer.adapters.swarm.diagnosis import Diagnosis, ending
from rehome_consumer.adapters.swarm.services import Services
from rehome_consumer.adapters.swarm.waiting import Wait
from rehome_consumer.errors import Conflict, CrashLoop
from rehome_consumer.model import Healthy

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.adapters.swarm.engine import Engine
    from rehome_consumer.adapters.swarm.health import HealthCheck
    from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
    from rehome_consumer.adapters.swarm.waiting import Watch
    from rehome_consumer.model import Instance
    from rehome_consumer.ports.steps import Clock

ANSWERS_IN_A_ROW: Final = 2

_SHOWN_LINES = 10


class ServingWait:
    """Waits until an instance serves. The arguments are those of `SwarmRuntime`, in seconds."""

    def __init__(
        self,
        engine: Engine,
        health: HealthCheck,
        clock: Clock,
        *,
        limit: float,
        room_limit: float,
        pause: float,
        settle: float,
        log_every: float,
    ) -> None:
        self._engine = engine
        self._services = Services(engine)
        self._health = health
        self._clock = clock
        self._limit = limit
        self._room_limit = room_limit
        self._pause = pause
        self._settle = settle
        self._log_every = log_every

    async def wait(self, instance: Instance, earlier: Collection[str], *, beside: bool = False) -> Healthy:
        """Wait for answers in a row from one task of this definition that goes on running.

        Args:
            instance: whose service it is.
            earlier: ids of tasks that do not belong to this start.
            beside: tasks that Swarm has been told to end may go on.

        Raises:
            CrashLoop, TimedOut, Incompatible: see `Runtime.start`.
            Conflict: someone else stopped or redefined the service.
        """
        service = await self._services.find(instance)
        wait = Wait(service.name, "serve", log_every=self._log_every)
        diagnosis = Diagnosis(service.name, service.spec, earlier, self._room_limit)
        answering: str | None = None
        answers = 0
        async with self._engine.following(service) as watch:
            while True:
                task = await self._candidate(instance, service, diagnosis, beside=beside)
                if task is None or task.id != answering:
                    answering, answers = (task.id if task is not None else None), 0
                if task is not None and answers == ANSWERS_IN_A_ROW:
                    return self._healthy(service, task)
                failure = "no task runs" if task is None else await self._health.failure(service, task)
                state = f"{failure or 'it has just started to'}; {diagnosis.describe()}"
                wait.check(state, limit=self._limit)
                answers = 0 if failure else answers + 1
                await self._until_next_look(watch, answers)

    async def _until_next_look(self, watch: Watch, answers: int) -> None:
        """Wait between two looks; after the last answer needed, long enough to see that the task goes on."""
        if answers == ANSWERS_IN_A_ROW:
            await asyncio.sleep(self._settle)
        else:
            await watch.pause(self._pause)

    async def _candidate(
        self, instance: Instance, started: SwarmService, diagnosis: Diagnosis, *, beside: bool
    ) -> SwarmTask | None:
        """The task to ask whether it serves; None while there is none, or an old one still runs (unless `beside`).

        Raises:
            Conflict: someone else stopped or redefined the service.
            CrashLoop, Incompatible: waiting longer does not help.
        """
        service = await self._services.find(instance)
        if not edit.replicas_of(service.spec):
            raise Conflict(f"service {service.name} was scaled to 0 by someone else while it was started")
        if service.spec["TaskTemplate"] != started.spec["TaskTemplate"]:
            raise Conflict(f"service {service.name} was redefined by someone else while it was started")
        tasks = await self._engine.tasks(service)
        diagnosis.observe(tasks)
        if diagnosis.crash is not None:
            lines = await self._engine.last_lines(diagnosis.crash, _SHOWN_LINES)
            raise CrashLoop(
                f"service {service.name} starts and ends again: {ending(diagnosis.crash)}; "
                f"{diagnosis.describe()}; last lines: {' | '.join(lines) or '(none)'}"
            )
        running = [task for task in tasks if task.state == "running" and (task.serving or not beside)]
        if not all(task.serving and task.made_from(service.spec) for task in running):
            return None
        return running[-1] if running else None

    def _healthy(self, service: SwarmService, task: SwarmTask) -> Healthy:
        url = self._health.url(service)
        return Healthy(
            task=task.id,
            url=url,
            at=self._clock.now(),
            service_id=service.id,
            internal_url=url,
            external_url=edit.external_url(service.spec),
        )
