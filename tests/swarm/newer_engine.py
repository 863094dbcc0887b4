"""An engine of another release, as far as its API versions go: a proxy in front of the real one."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from sandbox.system.net import LOOPBACK, free_port, give_back_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.swarm.engine import PrivateEngine

VERSIONED = re.compile(r"^/v(\d+)\.(\d+)(/.*)$")
HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "host", "keep-alive"}


class OtherVersions:
    """Answers as an engine that has these versions of the API; what it lets through, the real engine answers.

    Attributes:
        versions: the oldest and the newest.
        asked: paths that were asked for.
    """

    def __init__(self, engine: PrivateEngine, oldest: tuple[int, int], newest: tuple[int, int]) -> None:
        self._engine = engine
        self._own = "1.41"
        self.versions = (oldest, newest)
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve for the length of the block; gives the address in the form of DOCKER_HOST."""
        self._own = (await self._engine.ask("GET", "version"))["ApiVersion"]
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        port = free_port()
        try:
            await web.TCPSite(runner, LOOPBACK, port).start()
            connector = aiohttp.UnixConnector(str(self._engine.socket))
            async with aiohttp.ClientSession(connector=connector) as self._session:
                yield f"tcp://{LOOPBACK}:{port}"
        finally:
            await runner.cleanup()
            give_back_port(port)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        oldest, newest = self.versions
        if request.path == "/version":
            return web.json_response(
                {"Version": "99.1.2", "ApiVersion": _text(newest), "MinAPIVersion": _text(oldest)}
            )
        match = VERSIONED.match(request.path)
        if match is None:
            return web.json_response({"message": "page not found"}, status=404)
        version = (int(match[1]), int(match[2]))
        # In the engine's own words (source: its version middleware).
        if version < oldest:
            why = (
                f"client version {_text(version)} is too old. Minimum supported API version is {_text(oldest)}, "
                "please upgrade your client to a newer version"
            )
            return web.json_response({"message": why}, status=400)
        if version > newest:
            why = f"client version {_text(version)} is too new. Maximum supported API version is {_text(newest)}"
            return web.json_response({"message": why}, status=400)
        return await self._forwarded(request, f"http://docker/v{self._own}{match[3]}")

    async def _forwarded(self, request: web.Request, url: str) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            url,
            params=request.query,
            data=await request.read(),
            headers={"Content-Type": request.headers.get("Content-Type", "application/json")},
        ) as answer:
            headers = {
                name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP
            }
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            return response


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
