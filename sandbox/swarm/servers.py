"""PostgreSQL servers as services of a private engine, seen from outside through doors."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from sandbox.net import wait_until
from sandbox.postgres import Cluster
from sandbox.swarm import definitions
from sandbox.swarm.postgres_server import PASSWORD_FILE, PORT

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.swarm.doors import Doors
    from sandbox.swarm.engine import PrivateEngine

START_LIMIT_SECONDS = 90.0
NOT_YET = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError)


async def start_server(
    engine: PrivateEngine, doors: Doors, name: str, network: str, directory: Path, *, password: str
) -> Cluster:
    """Start a PostgreSQL server as service `name` and wait until it takes connections.

    Args:
        engine: where it shall run.
        doors: lead to it.
        name: of the service, and of the server in the overlay network.
        network: id of the overlay network.
        directory: for its data; made here.
        password: the superuser's.

    Returns:
        The server as it is reached from outside: its host and port are a door's, and it is not ours to start.
    """
    await asyncio.to_thread(_lay_out, directory, password)
    await engine.ask("POST", "services/create", definitions.postgres(name, network, directory=directory))
    host, port = doors.resolve(name, PORT)
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


def _lay_out(directory: Path, password: str) -> None:
    directory.mkdir(mode=0o711, parents=True)
    secret = directory / PASSWORD_FILE
    secret.touch(mode=0o600)
    secret.write_text(password + "\n")
