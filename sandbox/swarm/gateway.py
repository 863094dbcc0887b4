"""Forwarding out of the overlay network: a service whose port leads to a server on the machine's loopback.

    python -m sandbox.swarm.gateway PORT SOCKET      inside: listens on PORT, forwards to the file SOCKET

Outside, `gateway` listens on that file and forwards to the server. A socket file connects network namespaces
between which there is no route.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.system.net import LOOPBACK
from sandbox.system.serving import until_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 1 << 16


@contextlib.asynccontextmanager
async def gateway(socket: Path, port: int) -> AsyncIterator[None]:
    """Forward connections to the file `socket` to `port` on loopback, for an `async with` block."""
    forwarder = Forwarder(lambda: asyncio.open_connection(LOOPBACK, port))
    server = await asyncio.start_unix_server(forwarder.serve, socket)
    try:
        yield
    finally:
        server.close()
        await forwarder.close()


class Forwarder:
    """Passes bytes between a client and a connection that is opened for it."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._served: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side closes; without a connection for it, it is closed at once."""
        task = asyncio.current_task()
        if task is not None:
            self._served.add(task)
            task.add_done_callback(self._served.discard)
        # Cancelled by `close` alone; asyncio would report a task that ended so as an error.
        with contextlib.suppress(OSError, LookupError, RuntimeError, asyncio.CancelledError):
            there, back = await self._connect()
            try:
                await _both_ways(reader, writer, there, back)
            finally:
                back.close()
        writer.close()

    async def close(self) -> None:
        """Close all connections."""
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
) -> None:
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_copy(reader, back))
            ways.create_task(_copy(there, writer))
    except* OSError:
        pass  # one side closed


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_CHUNK):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()


async def run(port: int, socket: Path) -> None:
    """Forward inside the overlay network, until SIGTERM."""
    forwarder = Forwarder(lambda: asyncio.open_unix_connection(socket))
    server = await asyncio.start_server(forwarder.serve, None, port)
    async with server:
        await until_stopped()
    await forwarder.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
