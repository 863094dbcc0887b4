"""A hatch out of the overlay network: a service whose port leads to a server on the machine's loopback.

    python -m sandbox.swarm.hatch PORT SOCKET        inside: listens on PORT, hands through to the file SOCKET

Outside, `hatch` listens on that file and hands through to the server. A socket file crosses network
namespaces, which no route does.
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
async def hatch(socket: Path, port: int) -> AsyncIterator[None]:
    """Hand connections to the file `socket` through to `port` on loopback, for an `async with` block."""
    through = Through(lambda: asyncio.open_connection(LOOPBACK, port))
    server = await asyncio.start_unix_server(through.visit, socket)
    try:
        yield
    finally:
        server.close()
        await through.close()


class Through:
    """Hands bytes between a visitor and a connection that is opened for each."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._visits: set[asyncio.Task[None]] = set()

    async def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one visitor until either side hangs up; who cannot be connected is hung up on."""
        task = asyncio.current_task()
        if task is not None:
            self._visits.add(task)
            task.add_done_callback(self._visits.discard)
        # Cancelled by `close` alone; a visit that ended so would be reported as an error by asyncio.
        with contextlib.suppress(OSError, LookupError, RuntimeError, asyncio.CancelledError):
            there, back = await self._connect()
            try:
                await _both_ways(reader, writer, there, back)
            finally:
                back.close()
        writer.close()

    async def close(self) -> None:
        """Hang up on everybody."""
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)


async def _both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
) -> None:
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_pour(reader, back))
            ways.create_task(_pour(there, writer))
    except* OSError:
        pass  # one side hung up


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_CHUNK):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()


async def run(port: int, socket: Path) -> None:
    """The inside, until SIGTERM."""
    through = Through(lambda: asyncio.open_unix_connection(socket))
    server = await asyncio.start_server(through.visit, None, port)
    async with server:
        await until_stopped()
    await through.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), Path(sys.argv[2])))
