"""The console as a process: its connections, its sockets, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.console import metrics
from rehome_consumer.console.access import Access
from rehome_consumer.console.acts import Acts
from rehome_consumer.console.app import application
from rehome_consumer.console.broker import linked
from rehome_consumer.console.context import Console
from rehome_consumer.console.live import Live
from rehome_consumer.errors import SettingsError
from rehome_consumer.network.http_server import Shared, listen
from rehome_consumer.operators.reader import Reader

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator

    from fastapi import FastAPI

    from rehome_consumer.settings import Settings

log = logging.getLogger(__name__)

CONNECTIONS: Final = 5
"""To the state database, at most: a browser more must cost the moves nothing."""
MOST: Final = 250
"""HTTP connections at a time."""
GRACE: Final = 3
"""Seconds that answers may take at the end."""


@asynccontextmanager
async def console_of(settings: Settings, access: Access) -> AsyncIterator[Console]:
    """Everything that the console is made of, connected to the state database.

    Raises:
        RehomeError: the state database does not answer.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(bootstrap.state_pool(settings, CONNECTIONS))
        views = PostgresJournalViews(pool)
        journal = bootstrap.journal(pool, settings)
        reader = Reader(pool, views)
        broker = await stack.enter_async_context(linked(settings))
        overview = Shared(reader.overview)
        live = Live(reader.changes, overview.forget)
        stack.push_async_callback(live.end)
        totals = Shared(lambda: metrics.totals(reader), fresh=metrics.TOTALS_FRESH)
        yield Console(
            access=access,
            reader=reader,
            broker=broker,
            live=live,
            overview=overview,
            queues=Shared(broker.queues),
            metrics=Shared(lambda: metrics.measured(reader, journal, broker, totals)),
            acts=Acts(settings, views, journal),
        )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: the port is taken, or who may use the console is not set.
        RehomeError: the state database does not answer.
    """
    access = Access(settings)
    try:
        sockets = await listen(settings.console_host, settings.console_port)
    except OSError as error:
        where = f"REHOME_CONSOLE_HOST={settings.console_host} REHOME_CONSOLE_PORT={settings.console_port}"
        raise SettingsError(f"{where}: {error.strerror or error}") from error
    try:
        async with console_of(settings, access) as console:
            if not console.access.closed:
                log.warning(
                    "console.open why=there are no tokens: whoever reaches loopback may read, nobody may act"
                )
            log.info("console.started host=%s port=%d", settings.console_host, settings.console_port)
            await serve(application(console), console, sockets)
    finally:
        for one in sockets:
            one.close()
    log.info("console.stopped")


async def serve(app: FastAPI, console: Console, sockets: list[socket.socket]) -> None:
    """Serve an application on these sockets until a signal comes."""
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="off",
        limit_concurrency=MOST, timeout_keep_alive=15, timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    server = _Server(config)
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def stop() -> None:
        server.should_exit = True
        ending.append(
            asyncio.create_task(console.live.end())
        )  # browsers' streams would wait for the grace time

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await server.serve(sockets=sockets)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """uvicorn's, which raises the signal again at its end: a supervisor would take that for a crash."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield
