"""One service: starts and stops tasks until they match its definition, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from sandbox.supervisor.tasks import Task

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.supervisor.spec import Record, ServiceFiles, Spec

ENDED_TASKS_LISTED = 10


class ManagedService:
    """A service and its tasks, as measured on Docker Swarm.

    A changed template stops the running task first and then starts its successor; that counts the version up
    once more. A service that is scaled to 0 and back does not wait: the old task may still be ending while
    the new one runs. A task that ends unasked is started again after the restart delay, without limit.
    """

    def __init__(self, record: Record, files: ServiceFiles, *, logs: Path, cpus: float) -> None:
        self.record = record
        self._files = files
        self._logs = logs
        self._cpus = cpus
        self._tasks: list[Task] = []
        self._start_after = 0.0
        self._replacing = False
        self._closing = False
        self._wake = asyncio.Event()
        self._loop = asyncio.create_task(self._converge_forever())

    def update(self, spec: Spec, version: int) -> None:
        """Apply a new definition; raises `StaleVersionError`."""
        self.record.update(spec, version)
        self._files.save(self.record)
        self._start_after = 0.0
        self._wake.set()

    def view(self) -> dict[str, Any]:
        """Definition, version and tasks (oldest first) as they go over HTTP."""
        return {**self.record.view(), "tasks": [task.view() for task in self._tasks]}

    async def close(self) -> None:
        """Start nothing more, stop every task and wait until they have ended."""
        self._closing = True
        self._wake.set()
        await self._loop
        for task in self._tasks:
            if not task.stopping:
                task.stop(replaced=False)
        await asyncio.gather(*(task.ended() for task in self._tasks))

    async def _converge_forever(self) -> None:
        while not self._closing:
            self._wake.clear()
            pause = await self._converge()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _converge(self) -> float | None:
        """Do what can be done now; returns the seconds until there is more to do, None until woken."""
        record = self.record
        current = next((task for task in self._tasks if task.running and not task.stopping), None)
        if current is not None:
            outdated = current.template_version != record.template_version
            if record.spec.replicas == 1 and not outdated:
                return None
            self._replacing = record.spec.replicas == 1
            current.stop(replaced=self._replacing)
        if record.spec.replicas == 0 or any(task.running and task.replaced for task in self._tasks):
            return None
        pause = self._start_after - time.monotonic()
        if pause > 0:
            return pause
        await self._start_task()
        return None

    async def _start_task(self) -> None:
        self._remove_old_tasks()
        task = Task(self.record.spec, self.record.template_version, self._logs)
        self._tasks.append(task)
        await task.launch(cpus=self._cpus, ended=self._task_ended)
        if self._replacing:
            self._replacing = False
            self.record.version += 1
            self._files.save(self.record)

    def _task_ended(self, task: Task) -> None:
        if not task.stopping:
            self._start_after = time.monotonic() + self.record.spec.restart_delay_seconds
        self._wake.set()

    def _remove_old_tasks(self) -> None:
        ended = [task for task in self._tasks if not task.running]
        for task in ended[: -ENDED_TASKS_LISTED + 1]:
            self._tasks.remove(task)
            task.log.unlink(missing_ok=True)
