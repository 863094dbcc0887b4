"""database-service on a swarm: makes dedicated PostgreSQL servers as services, through the Docker socket.

    DATABASE_SERVICE_PLATFORM_DSN=... python -m sandbox.swarm.database_service PORT SOCKET DIRECTORY

SOCKET is the engine's, DIRECTORY holds the servers' data, at the same path here as on the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.platform.database_service import ACTIVATE, REGISTER, UNREGISTER, DatabaseService, Request
from sandbox.postgres.databases import major_version
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.swarm.api import EngineApi
from sandbox.swarm.postgres_server import PORT
from sandbox.swarm.servers import start_server
from sandbox.system.serving import serving, until_stopped

if TYPE_CHECKING:
    from uuid import UUID


class SwarmServer(Cluster):
    """A server that is destroyed by removing its service; its data stays in its directory."""

    engine: EngineApi
    service: str

    async def destroy(self) -> None:
        """Remove the service."""
        await self.engine.ask("DELETE", f"services/{self.service}", allowed=(404,))


class SwarmDatabaseService(DatabaseService):
    """database-service whose servers are services of the swarm."""

    def __init__(self, directory: Path, platform_dsn: str, engine: EngineApi) -> None:
        super().__init__(directory, platform_dsn)
        self._engine = engine

    async def _make(self, asked: Request) -> tuple[UUID, Cluster]:
        password = secrets.token_urlsafe(24)
        row = (asked.name, asked.name, PORT, SUPERUSER, password, asked.customer_id, asked.instance_id)
        data = self._directory / f"{asked.name}-{secrets.token_hex(4)}"
        async with self._platform() as platform, contextlib.AsyncExitStack() as undo:
            server_id: UUID = await platform.fetchval(REGISTER, *row)
            undo.push_async_callback(platform.execute, UNREGISTER, server_id)
            server = SwarmServer(data, PORT, password, host=asked.name)
            server.engine, server.service = self._engine, asked.name
            undo.push_async_callback(server.destroy)
            await start_server(self._engine, asked.name, data, password=password)
            await platform.execute(ACTIVATE, server_id, await major_version(server))
            undo.pop_all()
        self._clusters[server_id] = server
        return server_id, server


async def run(port: int, socket: Path, directory: Path) -> None:
    """Serve until SIGTERM; the servers it made stay."""
    service = SwarmDatabaseService(directory, os.environ["DATABASE_SERVICE_PLATFORM_DSN"], EngineApi(socket))
    async with serving(service.application(), port, address="0.0.0.0"):  # noqa: S104, the overlay network alone
        print(f"database-service: serving on port {port}", flush=True)
        await until_stopped()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
