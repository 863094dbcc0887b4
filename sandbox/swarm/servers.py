"""PostgreSQL servers as services."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from sandbox.postgres.pool import packed_server, set_password
from sandbox.postgres.server import Cluster
from sandbox.swarm import definitions
from sandbox.swarm.postgres_server import PASSWORD_FILE, PORT
from sandbox.system.net import wait_until
from sandbox.system.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandbox.swarm.api import EngineApi

    Reach = Callable[[str, int], tuple[str, int]]

START_LIMIT_SECONDS = 90.0
NOT_YET = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError)


async def start_server(
    engine: EngineApi,
    name: str,
    directory: Path,
    *,
    password: str,
    reach: Reach = lambda host, port: (host, port),
    packed: Path | None = None,
) -> Cluster:
    """Start a PostgreSQL server as service `name` and wait until it takes connections.

    Args:
        engine: where it runs.
        name: of the service, and of the server in the overlay network.
        directory: for its data; made here.
        password: the superuser's.
        reach: a service's address for the caller; inside the overlay network that is its name.
        packed: data to start with, see `Cluster.pack`; `password` is the one in it.

    Returns:
        The server at the address where the caller reaches it; it is started and stopped as a service.
    """
    await asyncio.to_thread(_lay_out, directory, password)
    if packed is not None:
        await run(
            ["tar", "--extract", "--no-same-owner", f"--file={packed}", f"--directory={directory}"], limit=120
        )
    made = definitions.postgres(name, await engine.network(), directory=directory)
    await engine.ask("POST", "services/create", made)
    host, port = reach(name, PORT)
    server = Cluster(directory, port, password, host=host)

    async def answers() -> bool:
        with contextlib.suppress(*NOT_YET):
            async with server.connect():
                return True
        return False

    await wait_until(
        answers, what=f"service {name} to take connections", limit=START_LIMIT_SECONDS, pause=0.2
    )
    return server


async def start_odoo_pool(
    engine: EngineApi, name: str, directory: Path, *, password: str, reach: Reach
) -> Cluster:
    """As `start_server`, with the data that `sandbox.postgres.pool.add_odoo_tenant` needs."""
    packed = await packed_server()
    server = await start_server(
        engine, name, directory, password=packed.password, reach=reach, packed=packed.archive
    )
    await set_password(server, password)
    return server


def _lay_out(directory: Path, password: str) -> None:
    directory.mkdir(mode=0o711, parents=True)
    secret = directory / PASSWORD_FILE
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
