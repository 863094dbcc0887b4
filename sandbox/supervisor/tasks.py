"""One task: a child process made from a service's definition, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sandbox.system.processes import Child, tail

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.supervisor.spec import Spec

# What a task inherits from the supervisor's own environment; all else comes from its definition.
_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH")
_KILLED_BY_SIGNAL = 128


class Task:
    """A task of a service, from the decision to start it until long after its end.

    Attributes:
        template_version: version of the definition that it was made from.
        running: true from the first moment on, so that no process is ever missing in the list of tasks.
        stopping: whether it was asked to end.
        replaced: whether it was asked to end so that its successor can start.
        error: why it could not be started at all.
    """

    def __init__(self, spec: Spec, template_version: int, logs: Path) -> None:
        self.id = uuid4().hex
        self.template_version = template_version
        self.running = True
        self.stopping = False
        self.replaced = False
        self.error: str | None = None
        self.log = logs / f"{self.id}.log"
        self._spec = spec
        self._child: Child | None = None
        self._started_at = datetime.now(UTC)
        self._ended_at: datetime | None = None
        self._background: list[asyncio.Task[None]] = []

    async def launch(self, *, cpus: float, ended: Callable[[Task], None]) -> None:
        """Start its process; what the node cannot run at all ends at once, with an `error`.

        Args:
            cpus: cores of this node.
            ended: called when it has ended.
        """
        self.log.touch(mode=0o600)
        self.error = _rejection(self._spec, cpus)
        if self.error is None:
            try:
                self._child = await Child.start(
                    f"task of {self._spec.name}",
                    self._spec.command,
                    log=self.log,
                    env=_environment(self._spec),
                )
            except OSError as error:
                self.error = f"cannot start a process: {error}"
        if self._child is None:
            self._end(ended)
            return
        self._background.append(asyncio.create_task(self._watch(self._child, ended)))
        if self.stopping:
            self._begin_to_end(self._child)

    def stop(self, *, replaced: bool) -> None:
        """Ask it to end: SIGTERM now, SIGKILL after the grace of its own definition."""
        self.stopping = True
        self.replaced = replaced
        if self._child is not None and self.running:
            self._begin_to_end(self._child)

    async def ended(self) -> None:
        """Return when its process has ended."""
        await asyncio.gather(*self._background)

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
        # A container ends completely: what its main process left behind in its session is killed, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        self._end(ended)

    def _begin_to_end(self, child: Child) -> None:
        self._background.append(asyncio.create_task(self._terminate(child)))

    async def _terminate(self, child: Child) -> None:
        await child.stop(limit=self._spec.stop_grace_seconds)

    def _end(self, ended: Callable[[Task], None]) -> None:
        self.running = False
        self._ended_at = datetime.now(UTC)
        ended(self)


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
