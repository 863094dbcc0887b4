"""A small HTTP server with limits, so that clients cannot exhaust it: it shares its event loop with the moves.

A connection carries one request, and ends after `LIFETIME` whatever it sends. At most `MOST` are open; a new one
closes the oldest. At most `PER_SECOND` are accepted per second; the others wait in the kernel. An answer is computed
once for all callers and is valid for a second (`Shared`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from aiohttp.web_protocol import RequestHandler

T = TypeVar("T")

log = logging.getLogger(__name__)

LIFETIME: Final = 10.0
"""Seconds in which a request must be read and answered."""
MOST: Final = 64
"""Connections open at a time."""
PER_SECOND: Final = 50
"""Connections accepted in a second."""
FRESH: Final = 1.0
"""Seconds for which an answer is valid."""
_BACKLOG: Final = 128


class Shared(Generic[T]):
    """A result that is computed once for all callers, at most once a second, or in `fresh` seconds."""

    def __init__(self, compute: Callable[[], Coroutine[Any, Any, T]], *, fresh: float | None = None) -> None:
        self._compute = compute
        self._fresh = fresh
        self._running: asyncio.Task[T] | None = None
        self._until = 0.0

    async def __call__(self) -> T:
        """The result, which may be so old; an error is shared as well, for a second."""
        clock = asyncio.get_running_loop().time
        if self._running is None or (self._running.done() and clock() >= self._until):
            self._running = asyncio.create_task(self._compute())
            self._running.add_done_callback(self._answered)
        return await asyncio.shield(self._running)  # the first caller may be cancelled meanwhile

    def forget(self) -> None:
        """Let whoever asks from now on get a result whose computation has not begun yet."""
        self._running = None

    def _answered(self, task: asyncio.Task[T]) -> None:
        # Asking for the exception also marks it as retrieved: there may be no caller left.
        failed = task.cancelled() or task.exception() is not None
        if task is not self._running:
            return
        fresh = FRESH if failed or self._fresh is None else self._fresh
        self._until = asyncio.get_running_loop().time() + fresh


class _Bounded(web.Server):
    """aiohttp's server with limits on the lifetime and the number of connections."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, access_log=None, lingering_time=0.0, keepalive_timeout=LIFETIME)
        self._open: dict[RequestHandler, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Start its timer; close the oldest where there are too many."""
        super().connection_made(handler, transport)
        if len(self._open) >= MOST:
            next(iter(self._open.values()))[0].abort()
        end = asyncio.get_running_loop().call_later(LIFETIME, transport.abort)
        self._open[handler] = (transport, end)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget it."""
        if handler in self._open:
            self._open.pop(handler)[1].cancel()
        super().connection_lost(handler, exc)


@asynccontextmanager
async def listening(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
) -> AsyncIterator[None]:
    """Answer requests on all addresses of `host` (see `listen`), for the length of the block.

    Raises:
        OSError: there is no such address, or the port is taken.
    """
    sockets = await listen(host, port)
    server = _Bounded(handler)
    accepting = [asyncio.create_task(_accept(one, server)) for one in sockets]
    try:
        yield
    finally:
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for one in sockets:
            one.close()
        server.pre_shutdown()
        await server.shutdown(1.0)


async def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of `host`.

    Args:
        host: names or addresses with commas between; a network such as 10.0.9.0/24 is this machine's address in it.
        port: on all of them.

    Raises:
        OSError: there is no such address, or the port is taken.
    """
    loop = asyncio.get_running_loop()
    found = []
    for given in names(host):
        name = _own_address(given) if "/" in given else given
        found += await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            sockets.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
            sockets[-1].setblocking(False)
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def names(host: str) -> list[str]:
    """The names, addresses and networks that stand in such a setting."""
    return [one.strip() for one in host.split(",")]


def _own_address(network: str) -> str:
    """The address from which this machine sends into a network, which must be in it. Nothing is sent.

    Raises:
        OSError: it has none there, or it is no network.
    """
    try:
        wanted = ip_network(network)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    family = socket.AF_INET if isinstance(wanted, IPv4Network) else socket.AF_INET6
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((str(wanted[1 % wanted.num_addresses]), 9))
        own = str(asking.getsockname()[0])
        if ip_address(own) in wanted:
            return own
    raise OSError(errno.EADDRNOTAVAIL, f"this machine has no address in {network}")


async def _accept(listener: socket.socket, server: _Bounded) -> None:
    """Accept one connection after the other, at most `PER_SECOND` per second."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(server, connection)
        except OSError as error:  # the client has closed it already, or there are no file descriptors left
            log.debug("http.not_accepted error=%s", error)
        await asyncio.sleep(1 / PER_SECOND)
