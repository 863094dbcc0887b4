"""Serving an aiohttp application, on loopback by default, inside a process or as the program itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from aiohttp import web

from sandbox.system.net import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FINISH_LIMIT_SECONDS = 10.0


@contextlib.asynccontextmanager
async def serving(
    application: web.Application, port: int, *, share_port: bool = False, address: str = LOOPBACK
) -> AsyncIterator[None]:
    """Serve for the length of an ``async with`` block; running requests get 10 seconds to finish.

    Args:
        application: what to serve.
        port: TCP port.
        share_port: let several processes listen on it, each getting some of the connections.
        address: the one to listen on; in a container that is not loopback.

    Raises:
        OSError: the port is taken.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=FINISH_LIMIT_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port, reuse_port=share_port).start()
        yield
    finally:
        await runner.cleanup()


async def until_stopped(*signals: signal.Signals) -> None:
    """Return when one of the signals (default: SIGTERM and SIGINT) arrives."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    chosen = signals or (signal.SIGTERM, signal.SIGINT)
    for number in chosen:
        loop.add_signal_handler(number, arrived.set)
    try:
        await arrived.wait()
    finally:
        for number in chosen:
            loop.remove_signal_handler(number)
