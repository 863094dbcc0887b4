"""A supervisor as a child process, with what a platform needs of its HTTP interface."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, accepts_connections, free_port, give_back_port, wait_until
from sandbox.system.processes import Child

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

START_LIMIT_SECONDS = 15.0
STOP_LIMIT_SECONDS = 60.0
REQUEST_LIMIT_SECONDS = 10.0


class SupervisorNode:
    """A supervisor process; its services are stored in its directory, so `start` after `stop` loads them again.

    Attributes:
        directory: definitions, logs of tasks, and `supervisor.log`.
        url: where it listens.
    """

    def __init__(self, directory: Path, *, cpus: float | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.http = plain_http(self.url, timeout=REQUEST_LIMIT_SECONDS)
        self._cpus = [] if cpus is None else ["--cpus", str(cpus)]
        self._child: Child | None = None

    async def start(self) -> None:
        """Start the process and wait until it listens.

        Raises:
            ChildEndedError: it ended instead; holds the end of its log.
            TimeoutError: it did not listen within 15 seconds.
        """
        where = ["--port", str(self.port), "--directory", str(self.directory)]
        child = await Child.start(
            "supervisor",
            [sys.executable, "-m", "sandbox.supervisor.manager", *where, *self._cpus],
            log=self.directory / "supervisor.log",
        )
        self._child = child

        async def listens() -> bool:
            child.require_alive()
            return await accepts_connections(self.port)

        await wait_until(listens, what="the supervisor to listen", limit=START_LIMIT_SECONDS)

    async def stop(self) -> int:
        """Let it stop all tasks and end; returns its exit code."""
        return 0 if self._child is None else await self._child.stop(limit=STOP_LIMIT_SECONDS)

    async def kill(self) -> None:
        """End it with SIGKILL; the kernel ends its tasks."""
        if self._child is not None:
            await self._child.kill()

    async def close(self) -> None:
        """Stop it and release its port."""
        await self.http.aclose()
        await self.stop()
        give_back_port(self.port)

    async def create(self, **spec: Any) -> dict[str, Any]:
        """Create a service (see `sandbox.supervisor.spec.Spec`); returns it with its tasks."""
        return _body(await self.http.post("/services", json=spec))

    async def show(self, name: str) -> dict[str, Any]:
        """A service with its tasks."""
        return _body(await self.http.get(f"/services/{name}"))

    async def change(self, name: str, **changes: Any) -> dict[str, Any]:
        """Update some fields of a service as an operator would; returns it with its tasks."""
        service = await self.show(name)
        spec = {**service["spec"], **changes}
        params = {"version": service["version"]}
        return _body(await self.http.put(f"/services/{name}", params=params, json=spec))


def _body(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise RuntimeError(f"the supervisor answered {answer.status_code}: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body
