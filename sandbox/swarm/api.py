"""The engine's API over its socket, for what the sandbox itself creates: services, networks, images."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NETWORK = "saasodoo-network"
IMAGE = "rehome-sandbox:latest"
CONSUMER_IMAGE = "rehome-sandbox:consumer"

REQUEST_LIMIT_SECONDS = 120.0  # an image of 250 MB goes through one request
EDIT_TRIES = 20
EDIT_PAUSE_SECONDS = 0.1


class EngineApi:
    """Requests to an engine.

    Attributes:
        socket: where it listens.
        host: the same in the form of DOCKER_HOST.
        http: for requests that `ask` does not cover.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.host = f"unix://{socket}"
        self.http = httpx.AsyncClient(
            base_url="http://docker",  # without a version: the engine's own
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            timeout=REQUEST_LIMIT_SECONDS,
        )

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        allowed: tuple[int, ...] = (),
    ) -> Any:
        """A request to the engine's API; its JSON, or None for an empty answer or an `allowed` error.

        Raises:
            RuntimeError: the engine refuses; has its words.
        """
        answer = await self.http.request(method, f"/{path}", json=body, params=params)
        if answer.status_code in allowed:
            return None
        if answer.is_error:
            raise RuntimeError(f"{method} /{path}: {answer.status_code} {answer.text.strip()}")
        return answer.json() if answer.content else None

    async def edit(self, path: str, edit: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the definition of a service or a node by what `edit` makes of it.

        The manager changes objects by itself, a node's with each of its heartbeats that brings news; an update of a
        version that it has replaced since is read and made again.

        Raises:
            RuntimeError: the engine refuses, or the object never stays as it is for the time of two requests.
        """
        for tried in range(1, EDIT_TRIES + 1):
            now = await self.ask("GET", path)
            try:
                await self.ask(
                    "POST",
                    f"{path}/update",
                    edit(now["Spec"]),
                    params={"version": str(now["Version"]["Index"])},
                )
            except RuntimeError as error:
                if "update out of sequence" not in str(error) or tried == EDIT_TRIES:
                    raise
                await asyncio.sleep(EDIT_PAUSE_SECONDS)
            else:
                return

    async def network(self) -> str:
        """Id of the platform's overlay network."""
        return str((await self.ask("GET", f"networks/{NETWORK}"))["Id"])


class SandboxEngine(EngineApi, ABC):
    """An engine on this machine that the sandbox uses, with the platform's network and the sandbox's images."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The daemon's file system; it may be in another mount namespace."""

    @property
    @abstractmethod
    def socket_mount(self) -> Path:
        """What a container mounts, at the same path, to reach the engine at `socket`."""

    @abstractmethod
    async def create(self) -> None:
        """Create everything that services of the sandbox need."""

    @abstractmethod
    async def destroy(self) -> None:
        """Remove what `create` made, and every service on the network."""
