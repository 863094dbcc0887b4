"""A process manager on loopback HTTP, in place of Docker Swarm.

    python -m sandbox.supervisor.manager --port PORT --directory DIR [--cpus N]

Definitions are stored in files and survive a restart; tasks are child processes and never outlive it.

| request | answer |
|---|---|
| `GET /node` | 200 `{cpus}`: what this node has |
| `GET /services?label=k=v` (repeatable) | 200, a list of services with their tasks |
| `GET /services/{name}` | 200 `{id, version, template_version, spec, tasks}`, 404 |
| `POST /services` (a definition) | 201 the service, 409 when the name is taken, 400 |
| `PUT /services/{name}?version=N` (a complete definition) | 200 the service, 409 when N is stale, 404, 400 |
| `DELETE /services/{name}` | 204 at once, its task may run on for its grace; 404 |

An answer with status 400 or more is plain text that says what is wrong; for a stale version "update out of sequence".
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from sandbox.supervisor.service import ManagedService
from sandbox.supervisor.spec import Record, ServiceFiles, Spec, StaleVersionError
from sandbox.system.serving import serving, until_stopped

# More than any plan grants, so that a small machine can act as a big node.
DEFAULT_CPUS = 64.0


class Supervisor:
    """All services of one directory, and their HTTP interface."""

    def __init__(self, directory: Path, *, cpus: float = DEFAULT_CPUS) -> None:
        self._files = ServiceFiles(directory / "services")
        self._logs = directory / "logs"
        self._logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cpus = cpus
        self._services: dict[str, ManagedService] = {}
        self._removals: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Load every stored service; those with a replica start."""
        for record in self._files.load():
            self._manage(record)

    async def close(self) -> None:
        """Stop every task, each with its own grace; definitions stay on disk."""
        services = [service.close() for service in self._services.values()]
        await asyncio.gather(*services, *self._removals)

    def application(self) -> web.Application:
        """The routes of the table above."""
        application = web.Application()
        application.router.add_get("/node", self.node)
        application.router.add_get("/services", self.list)
        application.router.add_post("/services", self.create)
        application.router.add_get("/services/{name}", self.show)
        application.router.add_put("/services/{name}", self.update)
        application.router.add_delete("/services/{name}", self.delete)
        return application

    async def node(self, _: web.Request) -> web.Response:
        """What this node has."""
        return web.json_response({"cpus": self._cpus})

    async def list(self, request: web.Request) -> web.Response:
        """Services that carry all of the labels in the query."""
        labels = dict(label.partition("=")[::2] for label in request.query.getall("label", []))
        found = [service for service in self._services.values() if service.record.has_labels(labels)]
        return web.json_response([service.view() for service in found])

    async def show(self, request: web.Request) -> web.Response:
        """One service with its tasks."""
        return web.json_response(self._find(request).view())

    async def create(self, request: web.Request) -> web.Response:
        """A new service; it starts at once unless it asks for no replica."""
        spec = await _definition(request)
        if spec.name in self._services:
            raise web.HTTPConflict(text="name conflicts with an existing object")
        record = Record.new(spec)
        self._files.save(record)
        return web.json_response(self._manage(record).view(), status=201)

    async def update(self, request: web.Request) -> web.Response:
        """A complete new definition, for the version that the caller names."""
        service = self._find(request)
        spec = await _definition(request)
        version = request.query.get("version", "")
        if not version.isdigit() or spec.name != service.record.spec.name:
            raise web.HTTPBadRequest(text="an update needs ?version=N and keeps the name")
        try:
            service.update(spec, int(version))
        except StaleVersionError as error:
            raise web.HTTPConflict(text=str(error)) from None
        return web.json_response(service.view())

    async def delete(self, request: web.Request) -> web.Response:
        """Remove the service; its task is stopped in the background."""
        service = self._find(request)
        del self._services[service.record.spec.name]
        self._files.remove(service.record)
        removal = asyncio.create_task(service.close())
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)
        return web.Response(status=204)

    def _manage(self, record: Record) -> ManagedService:
        service = ManagedService(record, self._files, logs=self._logs, cpus=self._cpus)
        self._services[record.spec.name] = service
        return service

    def _find(self, request: web.Request) -> ManagedService:
        name = request.match_info["name"]
        if name not in self._services:
            raise web.HTTPNotFound(text=f"service {name} not found")
        return self._services[name]


async def _definition(request: web.Request) -> Spec:
    """The definition in the body; 400 names the fields that are wrong, never their values."""
    try:
        return Spec.model_validate_json(await request.read())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise web.HTTPBadRequest(text=f"wrong definition: {wrong}") from None


async def run(directory: Path, port: int, cpus: float) -> None:
    """Supervise until SIGTERM or SIGINT, then stop every task."""
    supervisor = Supervisor(directory, cpus=cpus)
    supervisor.open()
    try:
        async with serving(supervisor.application(), port):
            print(f"supervisor: serving on port {port}", flush=True)
            await until_stopped()
    finally:
        await supervisor.close()


def main() -> int:
    """The command line; 1 when the port is taken."""
    parser = argparse.ArgumentParser(
        prog="sandbox.supervisor.manager", description="A small process manager."
    )
    parser.add_argument("--port", type=int, required=True, help="TCP port on loopback")
    parser.add_argument("--directory", type=Path, required=True, help="where definitions and logs are stored")
    parser.add_argument(
        "--cpus", type=float, default=DEFAULT_CPUS, help="cores that this node claims to have"
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.directory, arguments.port, arguments.cpus))
    except OSError as error:
        print(f"supervisor: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
