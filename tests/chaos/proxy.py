"""A proxy to the state database that can lose the commit of a step or its answer: the consumer cannot know its result.

The engine commits a step with one statement. asyncpg prepares it once for each connection (Parse), and names it when it
runs (Bind).
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from rehome_consumer.sql import load
from sandbox.system.net import LOOPBACK, pass_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMIT: Final = load("journal")["finish"].encode()
ANSWER_SECONDS = 5.0

Cut = Literal["request", "answer"]


@dataclass
class Proxy:
    """Passes everything on between its clients and one server.

    Attributes:
        armed: what of the next commit of a step is lost, together with its connection: the `request`, so that the
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
        named: bytes | None = None  # the statement that commits, on this connection
        with contextlib.suppress(OSError):
            there, to_server = await asyncio.open_connection(*self.server)
            back = asyncio.ensure_future(pass_on(there, writer))
            try:
                while data := await reader.read(65536):
                    if (at := data.find(COMMIT)) >= 0:
                        named = data[:at].rpartition(b"P")[2][4:-1]
                    if self.armed is None or named is None or _bind(named) not in data:
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


def _bind(name: bytes) -> bytes:
    """How a Bind message goes on after its length: the unnamed portal, and the statement."""
    return b"\0" + name + b"\0"


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
