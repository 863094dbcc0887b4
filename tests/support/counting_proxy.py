"""A proxy before PostgreSQL that counts the round trips which go through it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandbox.system.net import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WAITED_FOR: Final = frozenset(b"SQ")
"""Messages after which a client waits for the server: Sync of the extended protocol, Query of the simple one."""


@dataclass
class Counts:
    """What went through.

    Attributes:
        trips: messages after which the client waits.
        connections: opened so far.
    """

    port: int = 0
    trips: int = 0
    connections: int = 0


@asynccontextmanager
async def counting(host: str, port: int) -> AsyncIterator[Counts]:
    """Listen on a port of this machine; what is sent there goes to the server, and its answers come back."""
    counts = Counts()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        counts.connections += 1
        server, to_server = await asyncio.open_connection(host, port)
        copying = asyncio.create_task(_copied(server, to_client))
        tasks.add(copying)
        try:
            await _counted(client, to_server, counts)
        finally:
            to_server.close()
            to_client.close()

    listening = await asyncio.start_server(connected, LOOPBACK, 0)
    counts.port = listening.sockets[0].getsockname()[1]
    try:
        yield counts
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _copied(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        to.write(data)
        await to.drain()
    to.close()


async def _counted(client: asyncio.StreamReader, to_server: asyncio.StreamWriter, counts: Counts) -> None:
    """The start-up message has no type; every later one is a letter, its length, and its content."""
    try:
        size = await client.readexactly(4)
        to_server.write(size + await client.readexactly(int.from_bytes(size) - 4))
        while True:
            head = await client.readexactly(5)
            to_server.write(head + await client.readexactly(int.from_bytes(head[1:]) - 4))
            counts.trips += head[0] in WAITED_FOR
    except (asyncio.IncompleteReadError, ConnectionError):
        return
