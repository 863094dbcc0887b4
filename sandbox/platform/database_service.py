"""The service that creates dedicated PostgreSQL servers: real ones, behind the field's HTTP interface.

    DATABASE_SERVICE_PLATFORM_DSN=... python -m sandbox.platform.database_service --port PORT --directory DIR

| request | answer |
|---|---|
| `POST /api/database/provision-dedicated` `{instance_id, customer_id, plan_tier}` | 200, 400, 422, 500 |
| `DELETE /api/database/servers/{db_server_id}` | 204, 404 |
| `PUT /switches` (JSON, see `Switches`) | 200 the switches now in force |

As in the field a second call for one instance violates the servers' unique name and answers 500. The
servers are child processes of this one and end with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.postgres.databases import create_role, major_version
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.system.net import LOOPBACK, free_port, give_back_port
from sandbox.system.processes import ChildEndedError, CommandFailedError
from sandbox.system.serving import serving, until_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TIERS_WITH_DEDICATED_DATABASE = ("premium", "enterprise")
CONNECT_LIMIT_SECONDS = 10.0

REGISTER = """
    INSERT INTO db_servers
        (name, host, port, server_type, max_instances, status, admin_user, admin_password,
         dedicated_to_customer_id, dedicated_to_instance_id, provisioned_by)
    VALUES ($1, $2, $3, 'dedicated', 1, 'provisioning', $4, $5, $6, $7, 'database-service')
    RETURNING id
"""
ACTIVATE = """
    UPDATE db_servers SET status = 'active', health_status = 'healthy', postgres_version = $2,
           last_health_check = now(), provisioned_at = now()
     WHERE id = $1
"""
UNREGISTER = "DELETE FROM db_servers WHERE id = $1"


class Request(BaseModel):
    """What a caller asks for."""

    instance_id: UUID
    customer_id: UUID
    plan_tier: str

    @property
    def name(self) -> str:
        """The new server's name, unique per instance."""
        return f"postgres-dedicated-{self.instance_id.hex[:8]}"


class Switches(BaseModel):
    """How the service misbehaves. By default it does not, and gives the field's short answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_seconds: float = Field(default=0, ge=0, description="before anything is done")
    fail_times: int = Field(default=0, ge=0, description="so many calls fail before anything is done")
    fail_status: int = Field(default=500, ge=400, le=599, description="the status that they answer")
    hang_seconds: float = Field(default=0, ge=0, description="between success and its answer")
    garbage: bool = Field(default=False, description="answer success with something that is no JSON")
    give_port: bool = Field(default=False, description="whether the answer holds db_port")
    give_login: bool = Field(
        default=False, description="whether a role is made, and the answer holds db_user and db_password"
    )


class DatabaseService:
    """The service, to be served by a process of its own or inside a test's.

    Attributes:
        switches: how it misbehaves from now on.
        calls: how many times a server was asked for.
        programs: of the PostgreSQL version that new servers are of; None is the newest installed.
        settings: for the ``postgresql.conf`` of new servers.
    """

    def __init__(
        self,
        directory: Path,
        platform_dsn: str,
        switches: Switches | None = None,
        *,
        programs: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.switches = switches or Switches()
        self.programs = programs
        self.settings = dict(settings or {})
        self.calls = 0
        self._directory = directory
        self._platform_dsn = platform_dsn
        self._clusters: dict[UUID, Cluster] = {}
        self._closing = asyncio.Event()

    def cluster(self, server_id: UUID) -> Cluster:
        """A server that was made here, for a test that damages it."""
        return self._clusters[server_id]

    def application(self) -> web.Application:
        """The routes of the table above."""
        application = web.Application()
        application.router.add_post("/api/database/provision-dedicated", self.provision)
        application.router.add_delete("/api/database/servers/{id}", self.remove)
        application.router.add_put("/switches", self.switch)
        return application

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[str]:
        """Serve for the length of an ``async with`` block, which gets the base URL; then end all servers."""
        try:
            async with serving(self.application(), port):
                try:
                    yield f"http://{LOOPBACK}:{port}"
                finally:
                    self._closing.set()
        finally:
            await asyncio.gather(*(cluster.destroy() for cluster in self._clusters.values()))

    async def provision(self, request: web.Request) -> web.Response:
        """Make a dedicated server; blocks until it is healthy."""
        self.calls += 1
        if self.switches.fail_times > 0:
            self.switches = self.switches.model_copy(update={"fail_times": self.switches.fail_times - 1})
            return _detail(self.switches.fail_status, "failing on purpose")
        try:
            wanted = Request.model_validate_json(await request.read())
        except ValidationError as error:
            return _detail(422, json.loads(error.json(include_url=False, include_input=False)))
        await self._pause(self.switches.delay_seconds)
        if wanted.plan_tier not in TIERS_WITH_DEDICATED_DATABASE:
            return _detail(400, f"Plan '{wanted.plan_tier}' does not support dedicated database")
        try:
            server_id, cluster = await self._make(wanted)
        except (asyncpg.PostgresError, ChildEndedError, CommandFailedError, OSError) as error:
            return _detail(500, f"Failed to provision dedicated server: {error}")
        answer = await self._success(wanted, server_id, cluster)
        await self._pause(self.switches.hang_seconds)
        if self.switches.garbage:
            return web.Response(text="<html>Bad gateway</html>", content_type="text/html")
        return web.json_response(answer)

    async def remove(self, request: web.Request) -> web.Response:
        """Stop a server and remove it, its data and its row."""
        try:
            server_id = UUID(request.match_info["id"])
            cluster = self._clusters.pop(server_id)
        except (ValueError, KeyError):
            return _detail(404, "no such dedicated server")
        await cluster.destroy()
        async with self._platform() as platform:
            await platform.execute(UNREGISTER, server_id)
        return web.Response(status=204)

    async def switch(self, request: web.Request) -> web.Response:
        """Set the switches; those not named get their defaults."""
        try:
            self.switches = Switches.model_validate_json(await request.read())
        except ValidationError as error:
            return _detail(422, json.loads(error.json(include_url=False)))
        return web.json_response(self.switches.model_dump())

    async def _make(self, wanted: Request) -> tuple[UUID, Cluster]:
        """Register the server, then make and start it; on failure its row and its data are removed."""
        port, password = free_port(), secrets.token_urlsafe(24)
        row = (wanted.name, LOOPBACK, port, SUPERUSER, password, wanted.customer_id, wanted.instance_id)
        async with self._platform() as platform, contextlib.AsyncExitStack() as undo:
            undo.callback(give_back_port, port)
            server_id: UUID = await platform.fetchval(REGISTER, *row)
            undo.push_async_callback(platform.execute, UNREGISTER, server_id)
            cluster = await Cluster.create(
                self._directory / wanted.name,
                password=password,
                port=port,
                programs=self.programs,
                settings=self.settings,
            )
            undo.push_async_callback(cluster.destroy)
            await cluster.start()
            await platform.execute(ACTIVATE, server_id, await major_version(cluster))
            undo.pop_all()
        self._clusters[server_id] = cluster
        return server_id, cluster

    async def _success(self, wanted: Request, server_id: UUID, cluster: Cluster) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "status": "provisioned",
            "db_server_id": str(server_id),
            "db_host": cluster.host,
            "message": "Dedicated database server provisioned successfully",
        }
        if self.switches.give_port:
            answer["db_port"] = cluster.port
        if self.switches.give_login:
            answer["db_user"] = f"odoo_{wanted.instance_id.hex[:8]}"
            answer["db_password"] = secrets.token_urlsafe(24)
            await create_role(cluster, answer["db_user"], answer["db_password"])
        return answer

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the service."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    @contextlib.asynccontextmanager
    async def _platform(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection = await asyncpg.connect(self._platform_dsn, timeout=CONNECT_LIMIT_SECONDS)
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_LIMIT_SECONDS)


def _detail(status: int, detail: object) -> web.Response:
    return web.json_response({"detail": detail}, status=status)


async def run(directory: Path, port: int, platform_dsn: str) -> None:
    """Serve until SIGTERM or SIGINT, then end all servers."""
    async with DatabaseService(directory, platform_dsn).serving(port):
        print(f"database-service: serving on port {port}", flush=True)
        await until_stopped()


def main() -> int:
    """The command line; 2 when the environment lacks the platform's DSN, 1 when the port is taken."""
    parser = argparse.ArgumentParser(
        prog="sandbox.platform.database_service", description="Makes dedicated servers."
    )
    parser.add_argument("--port", type=int, required=True, help="TCP port on loopback")
    parser.add_argument("--directory", type=Path, required=True, help="for the servers' data")
    arguments = parser.parse_args()
    if "DATABASE_SERVICE_PLATFORM_DSN" not in os.environ:
        print("database-service: set DATABASE_SERVICE_PLATFORM_DSN", file=sys.stderr)
        return 2
    try:
        asyncio.run(run(arguments.directory, arguments.port, os.environ["DATABASE_SERVICE_PLATFORM_DSN"]))
    except OSError as error:
        print(f"database-service: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
