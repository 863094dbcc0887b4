"""One task: a child process made from a service's definition, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from sandbox.children import Child, tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.supervisor_spec import Spec

# What a task inherits of the supervisor's own environment; all else comes from its definition.
_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH")
_KILLED_BY_SIGNAL = 128


class Task:
    """A task of a service, from its start to long after its end.

    Attributes:
        template_version: version of the definition that it was made from.
        stopping: whether it was asked to end.
        replaced: whether it was asked to end to make room for its successor.
        error: why it could not be started at all.
    """

    def __init__(self, spec: Spec, template_version: int, log: Path) -> None:
        self.id = log.stem
        self.template_version = template_version
        self.stopping = False
        self.replaced = False
        self.error: str | None = None
        self.log = log
        self._spec = spec
        self._child: Child | None = None
        self._started_at = datetime.now(UTC)
        self._ended_at: datetime | None = None
        self._ends: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        spec: Spec,
        template_version: int,
        *,
        logs: Path,
        cpus: float,
        ended: Callable[[Task], None],
    ) -> Self:
        """Start a task; what the node cannot run at all becomes a task that has ended with an `error`.

        Args:
            spec: what to run.
            template_version: version of the definition.
            logs: directory for its log file.
            cpus: cores of this node.
            ended: called when it has ended.
        """
        task = cls(spec, template_version, logs / f"{uuid4().hex}.log")
        task.log.touch(mode=0o600)
        task.error = _rejection(spec, cpus)
        if task.error is None:
            child = await Child.start(
                f"task of {spec.name}", spec.command, log=task.log, env=_environment(spec)
            )
            task._child = child
            task._ends.append(asyncio.create_task(task._watch(child, ended)))
        else:
            task._ended_at = datetime.now(UTC)
            ended(task)
        return task

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._ended_at is None

    def stop(self, *, replaced: bool) -> None:
        """Ask it to end: SIGTERM now, SIGKILL after the grace of its own definition."""
        self.stopping = True
        self.replaced = replaced
        if self._child is not None and self.running:
            self._ends.append(asyncio.create_task(self._end(self._child)))

    async def ended(self) -> None:
        """Return when its process is gone."""
        await asyncio.gather(*self._ends)

    def view(self) -> dict[str, Any]:
        """The task as it goes over HTTP; a process that a signal ended has exit code 128 + signal."""
        code = None if self.running or self._child is None else self._child.process.returncode
        return {
            "id": self.id,
            "pid": self._child.pid if self._child is not None else None,
            "state": "running" if self.running else "exited",
            "desired": "shutdown" if self.stopping else "running",
            "template_version": self.template_version,
            "exit_code": code if code is None or code >= 0 else _KILLED_BY_SIGNAL - code,
            "error": self.error,
            "started_at": self._started_at.isoformat(),
            "ended_at": self._ended_at.isoformat() if self._ended_at is not None else None,
            "log_tail": tail(self.log).splitlines(),
        }

    async def _watch(self, child: Child, ended: Callable[[Task], None]) -> None:
        await child.process.wait()
        # A container ends whole: what its main process left behind in its session goes too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        self._ended_at = datetime.now(UTC)
        ended(self)

    async def _end(self, child: Child) -> None:
        await child.stop(limit=self._spec.stop_grace_seconds)


def _environment(spec: Spec) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if spec.instance_dir is not None:
        environment["INSTANCE_DIR"] = str(spec.instance_dir)
    return {**environment, **spec.env}


def _rejection(spec: Spec, cpus: float) -> str | None:
    """Why this node cannot run it, in Docker's words."""
    if spec.limits.cpu is not None and spec.limits.cpu > cpus:
        return f"Range of CPUs is from 0.01 to {cpus:.2f}, as there are only {cpus:g} CPUs available"
    if spec.instance_dir is not None and not spec.instance_dir.is_dir():
        return f"bind source path does not exist: {spec.instance_dir}"
    return None
