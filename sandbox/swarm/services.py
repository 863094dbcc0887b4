"""Services around the instances: the consumer, database-service, and the gateway to RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import httpx

from sandbox.swarm.api import CONSUMER_IMAGE
from sandbox.swarm.definitions import SECOND, bind, definition
from sandbox.swarm.gateway import gateway
from sandbox.swarm.logs import follow
from sandbox.swarm.root import PYTHON
from sandbox.system.http import plain_http
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from sandbox.swarm.api import SandboxEngine
    from sandbox.swarm.forwards import Forwards

BROKER, DATABASE_SERVICE, CONSUMER = "rabbitmq", "database-service", "rehome"
AMQP_PORT, DATABASE_SERVICE_PORT, CONSUMER_PORT = 5672, 8010, 8080
READY_SECONDS = 120.0
STOP_SECONDS = 60.0


@asynccontextmanager
async def consumer(
    engine: SandboxEngine,
    network: str,
    forwards: Forwards,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    directories: Sequence[Path],
    log: Path,
) -> AsyncIterator[None]:
    """The consumer's service, ready to handle events, for an `async with` block.

    Args:
        engine: where it runs.
        network: id of the overlay network.
        forwards: for requests to its health page.
        command: what runs; empty for the image's own.
        env: its environment.
        directories: mounted at the same path.
        log: the file for its output.
    """
    made = definition(
        CONSUMER,
        network,
        image=CONSUMER_IMAGE,
        command=command,
        env=env,
        mounts=[bind(path, str(path)) for path in directories],
    )
    container = made["TaskTemplate"]["ContainerSpec"]
    container["User"] = "root"  # as the owner of the instances' directories
    container["StopGracePeriod"] = int(STOP_SECONDS * SECOND)

    async def ended() -> bool:
        wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.name={CONSUMER}"]})}
        return not await engine.ask("GET", "containers/json", params=wanted)

    await engine.ask("POST", "services/create", made)
    following = asyncio.create_task(follow(engine, CONSUMER, log))
    try:
        host, port = forwards.resolve(CONSUMER, CONSUMER_PORT)
        await wait_for(f"http://{host}:{port}/readyz", "the consumer to be ready", READY_SECONDS)
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await engine.ask("DELETE", f"services/{CONSUMER}", allowed=(404,))
        await wait_until(ended, what="the consumer to end", limit=STOP_SECONDS, pause=0.1)


@asynccontextmanager
async def broker_gateway(
    engine: SandboxEngine, network: str, directory: Path, port: int
) -> AsyncIterator[None]:
    """Service `rabbitmq`, which forwards to the node at this port of the machine, for an `async with` block.

    Args:
        engine: where it runs.
        network: id of the overlay network.
        directory: for the socket; made here.
        port: of the node on loopback.
    """
    await asyncio.to_thread(directory.mkdir)
    async with gateway(directory / "amqp.sock", port):
        command = [PYTHON, "-m", "sandbox.swarm.gateway", str(AMQP_PORT), "/gateway/amqp.sock"]
        made = definition(BROKER, network, command=command, mounts=[bind(directory, "/gateway")])
        await engine.ask("POST", "services/create", made)
        yield


async def start_database_service(
    engine: SandboxEngine, network: str, directory: Path, *, platform_dsn: str, url: str
) -> None:
    """The service that makes dedicated servers, as services; returns when it serves.

    Args:
        engine: where it runs; it gets the engine's socket.
        network: id of the overlay network.
        directory: for its servers' data; made here.
        platform_dsn: of the platform's database, as services use it.
        url: where it is reached from outside.
    """
    socket_mount = engine.socket_mount
    await asyncio.to_thread(directory.mkdir, 0o711)
    arguments = [str(DATABASE_SERVICE_PORT), str(engine.socket), str(directory)]
    made = definition(
        DATABASE_SERVICE,
        network,
        command=[PYTHON, "-m", "sandbox.swarm.database_service", *arguments],
        env={"DATABASE_SERVICE_PLATFORM_DSN": platform_dsn},
        mounts=[bind(socket_mount, str(socket_mount)), bind(directory, str(directory))],
    )
    await engine.ask("POST", "services/create", made)
    await wait_for(f"{url}/", "database-service to serve", READY_SECONDS, status=httpx.codes.NOT_FOUND)


async def wait_for(url: str, what: str, limit: float, *, status: int = httpx.codes.OK) -> None:
    """Return when a GET answers with this status.

    Args:
        url: where to ask.
        what: is waited for, for the error.
        limit: seconds.
        status: the answer's.

    Raises:
        TimeoutError: it does not within the limit.
    """
    async with plain_http() as http:

        async def answers() -> bool:
            with suppress(httpx.HTTPError):
                return (await http.get(url)).status_code == status
            return False

        await wait_until(answers, what=what, limit=limit, pause=0.1)
