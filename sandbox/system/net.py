"""Ports that no other process takes, connections passed on, and waits with a limit."""

import asyncio
import atexit
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable

LOOPBACK = "127.0.0.1"

# Below the range from which Linux takes the source ports of outgoing connections (32768 and up), so that a
# port stays free between its choice and the moment its server listens.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000

# One bound socket per port handed out: a lock that the kernel releases when this process ends.
_reservations: dict[int, socket.socket] = {}


def free_port() -> int:
    """Choose a TCP port on loopback, reserved for this process until it ends.

    Processes that choose at the same time never get the same port: each choice binds a name in Linux's
    abstract socket namespace, which needs no file and ends with the process.

    Raises:
        OSError: no port between 20000 and 32000 is free.
    """
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT), 1000):
        if port in _reservations:
            continue
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            reservation.bind(f"\0rehome-sandbox-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOOPBACK, port))
        except OSError:
            reservation.close()
            continue
        _reservations[port] = reservation
        return port
    raise OSError(f"no free port between {_FIRST_PORT} and {_LAST_PORT} on {LOOPBACK}")


def give_back_port(port: int) -> None:
    """Let other processes choose ``port`` again; a port that was not chosen here is left alone."""
    reservation = _reservations.pop(port, None)
    if reservation is not None:
        reservation.close()


@atexit.register
def _give_all_back() -> None:
    for port in list(_reservations):
        give_back_port(port)


async def wait_until(
    ready: Callable[[], Awaitable[bool]], *, what: str, limit: float, pause: float = 0.02
) -> None:
    """Call ``ready`` again and again until it returns True.

    Args:
        ready: the question; the limit includes the time it takes.
        what: what is waited for, in the words of the error.
        limit: seconds in all.
        pause: seconds between two calls.

    Raises:
        TimeoutError: it did not return True within ``limit`` seconds; names ``what``.
    """
    started = time.monotonic()
    try:
        async with asyncio.timeout(limit):
            while True:
                if await ready():
                    return
                await asyncio.sleep(pause)
    except TimeoutError as error:
        waited = time.monotonic() - started
        raise TimeoutError(f"waited {waited:.1f} s for {what}") from error


async def accepts_connections(port: int, host: str = LOOPBACK) -> bool:
    """Whether something listens on ``port``."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read, until either end closes; then close the writer."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
