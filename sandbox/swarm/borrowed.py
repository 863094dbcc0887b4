"""The engine at DOCKER_HOST, borrowed for the sandbox: used if it is suitable, and left as it was.

What the sandbox makes there has fixed names. When one of them exists already, of a real platform or of a
sandbox that was killed, the engine is not used: so nothing that others made is ever changed or removed. At the
end all services on the sandbox's network are removed (database-service makes some, too), then network and images.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import httpx

from sandbox.swarm.api import CONSUMER_IMAGE, IMAGE, NETWORK, SandboxEngine
from sandbox.swarm.images import import_images
from sandbox.system.net import wait_until

SERVICES = ("postgres-pool-1", "postgres-platform", "rabbitmq", "database-service", "rehome")
OLDEST_API = (1, 41)
REMOVE_LIMIT_SECONDS = 60.0

_SCHEME = "unix://"
_SERVICE = "com.docker.swarm.service.id"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (source: unix(7), SO_PEERCRED)


class UnsuitableEngineError(Exception):
    """The engine cannot, or must not, be used; the text says why."""


class BorrowedEngine(SandboxEngine):
    """An engine that others use as well."""

    def __init__(self, host: str, directory: Path) -> None:
        """No request is sent yet.

        Args:
            host: in the form of DOCKER_HOST.
            directory: for the images' root for a moment; the daemon must see it.

        Raises:
            UnsuitableEngineError: `host` is no socket of this machine.
        """
        if not host.startswith(_SCHEME):
            raise UnsuitableEngineError("it is not a socket of this machine (unix://...)")
        super().__init__(Path(host.removeprefix(_SCHEME)))
        self._directory = directory
        self._root: Path | None = None
        self._network: str | None = None

    @property
    def root(self) -> Path:
        """The daemon's file system.

        Raises:
            UnsuitableEngineError: it is not known yet, or cannot be reached.
        """
        if self._root is None:
            raise UnsuitableEngineError("the daemon's file system is not known")
        return self._root

    @property
    def socket_mount(self) -> Path:
        """The socket alone: its directory is not the sandbox's."""
        return self.socket

    async def create(self) -> None:
        """Check that the engine is suitable, then make network and images.

        Raises:
            UnsuitableEngineError: it is not; nothing was made.
        """
        try:
            await self._require_suitable()
            made = await self.ask(
                "POST", "networks/create", {"Name": NETWORK, "Driver": "overlay", "Attachable": True}
            )
            self._network = str(made["Id"])
            await import_images(self, self._directory)
        except (httpx.HTTPError, OSError, RuntimeError, KeyError, ValueError) as error:
            await self._remove_all()
            raise UnsuitableEngineError(str(error) or type(error).__name__) from error
        except BaseException:
            await self._remove_all()
            raise

    async def destroy(self) -> None:
        """Remove what was made, and nothing else."""
        try:
            await self._remove_all()
        finally:
            await self.http.aclose()

    async def _require_suitable(self) -> None:
        version = (await self.ask("GET", "version"))["ApiVersion"]
        if tuple(map(int, version.split("."))) < OLDEST_API:
            raise UnsuitableEngineError(f"its API {version} is older than {OLDEST_API[0]}.{OLDEST_API[1]}")
        swarm = (await self.ask("GET", "info"))["Swarm"]
        if swarm.get("LocalNodeState") != "active" or not swarm.get("ControlAvailable"):
            raise UnsuitableEngineError("it is no manager of a swarm (docker swarm init)")
        if swarm.get("Nodes") != 1:
            raise UnsuitableEngineError("its swarm has other nodes, which do not see this machine's files")
        if os.geteuid() != 0:
            raise UnsuitableEngineError("reaching its containers needs root")
        self._root = Path(f"/proc/{await asyncio.to_thread(_listener, self.socket)}/root")
        if not (self._root / self._directory.relative_to("/")).is_dir():
            raise UnsuitableEngineError(f"its daemon does not see {self._directory} of this machine")
        if taken := await self._taken():
            raise UnsuitableEngineError(f"it has these already: {', '.join(taken)}")

    async def _taken(self) -> list[str]:
        networks = {network["Name"] for network in await self.ask("GET", "networks")}
        services = {service["Spec"]["Name"] for service in await self.ask("GET", "services")}
        images = {tag for image in await self.ask("GET", "images/json") for tag in image["RepoTags"] or ()}
        return [
            *(f"network {name}" for name in (NETWORK,) if name in networks),
            *(f"service {name}" for name in SERVICES if name in services),
            *(f"image {name}" for name in (IMAGE, CONSUMER_IMAGE) if name in images),
        ]

    async def _remove_all(self) -> None:
        if self._network is None:
            return
        services = await self._services()
        for service in services:
            await self.ask("DELETE", f"services/{service}", allowed=(404,))
        await wait_until(
            lambda: self._ended(services),
            what="the services' containers to end",
            limit=REMOVE_LIMIT_SECONDS,
            pause=0.2,
        )
        await wait_until(
            self._removed, what=f"network {NETWORK} to be removed", limit=REMOVE_LIMIT_SECONDS, pause=0.2
        )
        for image in (CONSUMER_IMAGE, IMAGE):
            await self.ask("DELETE", f"images/{image}", allowed=(404,))
        self._network = None

    async def _services(self) -> set[str]:
        """Ids of the services on the sandbox's network: nobody else knew it."""
        return {
            service["ID"]
            for service in await self.ask("GET", "services")
            if any(
                on["Target"] == self._network for on in service["Spec"]["TaskTemplate"].get("Networks") or ()
            )
        }

    async def _ended(self, services: set[str]) -> bool:
        """Whether no container of these is left: those of a removed service run on for their stop grace."""
        containers = await self.ask("GET", "containers/json", params={"all": "1"})
        return not any(container["Labels"].get(_SERVICE) in services for container in containers)

    async def _removed(self) -> bool:
        """Remove the network; the engine agrees a moment before it does so."""
        await self.http.delete(f"/networks/{self._network}")
        return all(network["Id"] != self._network for network in await self.ask("GET", "networks"))


async def borrowed(host: str | None, directory: Path) -> tuple[BorrowedEngine | None, str]:
    """The engine at `host`, ready, if it is suitable; and a message about it (empty when no host is named)."""
    if not host:
        return None, ""
    engine: BorrowedEngine | None = None
    try:
        engine = BorrowedEngine(host, directory)
        await engine.create()
    except UnsuitableEngineError as error:
        if engine is not None:
            await engine.http.aclose()
        return None, f"the engine at DOCKER_HOST={host} is not used, but a private one: {error}"
    return engine, f"on the engine at DOCKER_HOST={host}, which is left as it was"


def _listener(path: Path) -> int:
    """Pid of the process that made the socket."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(path))
        pid: int = _CREDENTIALS.unpack(
            asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[0]
    if pid == 0:
        raise UnsuitableEngineError("its daemon's process cannot be seen from here")
    return pid
