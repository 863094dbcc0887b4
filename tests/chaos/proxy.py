"""A proxy to the state database that can lose a COMMIT or its answer, so that the consumer cannot know its result."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from sandbox.system.net import LOOPBACK, pass_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMIT = b"COMMIT;"
ANSWER_SECONDS = 5.0

Cut = Literal["request", "answer"]


@dataclass
class Proxy:
    """Passes everything on between its clients and one server.

    Attributes:
        armed: what of the next COMMIT is lost, together with its connection: the `request`, so that the
            server never gets it, or the `answer`, so that the server has done it; None passes on all.
        cut: set once that has happened.
    """

    server: tuple[str, int]
    port: int = 0
    armed: Cut | None = None
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    def dsn(self, dsn: str) -> str:
        """The same database by way of this proxy."""
        parts = urlsplit(dsn)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@{LOOPBACK}:{self.port}"))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it."""
        with contextlib.suppress(OSError):
            there, to_server = await asyncio.open_connection(*self.server)
            back = asyncio.ensure_future(pass_on(there, writer))
            try:
                while data := await reader.read(65536):
                    if self.armed is None or COMMIT not in data:
                        to_server.write(data)
                        await to_server.drain()
                        continue
                    lost, self.armed = self.armed, None
                    back.cancel()
                    if lost == "answer":
                        to_server.write(data)
                        await asyncio.wait_for(there.read(65536), ANSWER_SECONDS)
                    self.cut.set()
                    break
            finally:
                back.cancel()
                to_server.close()
                writer.close()


@asynccontextmanager
async def proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy to this server."""
    made = Proxy((host, port))
    server = await asyncio.start_server(made.serve, LOOPBACK, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
