"""`rehome console` as a process, and what `rehome run` has of it: nothing."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from rehome_consumer.console import server
from rehome_consumer.errors import SettingsError
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings
from sandbox.system.net import LOOPBACK, free_port, give_back_port
from tests.contract.journals import postgres_journal, state_database
from tests.support.console import READ, Seeds, bearer, console_process, environment, seeds

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from sandbox.postgres.server import Cluster

COMMAND = [sys.executable, "-m", "rehome_consumer", "console"]
LOADED = "import sys, rehome_consumer.__main__, rehome_consumer.commands.run; print(*sys.modules)"


async def keep_moving(made: Seeds, migration: UUID) -> None:
    for done in range(1000):
        await made.moves_on(migration, done)
        await asyncio.sleep(0.3)


async def test_it_serves_tells_browsers_of_changes_and_ends_in_order(pg: Cluster, scratch: Path) -> None:
    async with state_database(pg) as dsn, postgres_journal(dsn), seeds(dsn) as made:
        found = await made.migration("conf_rewritten", step="restore", step_state="running", progress=(1, 10))
        async with (
            console_process(dsn, scratch / "console.log") as (child, address),
            httpx.AsyncClient(base_url=address, headers=bearer(READ), timeout=20) as client,
        ):
            assert (await client.get("/readyz")).json() == {
                "ready": True,
                "parts": [{"part": "journal", "error": None}],
            }
            async with client.stream("GET", "/live") as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "retry: 3000"
                async with asyncio.TaskGroup() as together:
                    moving = together.create_task(keep_moving(made, found))
                    async with asyncio.timeout(20):
                        for _ in range(4):  # at the connection, of the first look, and of two changes
                            while await anext(lines) != "event: changed":
                                pass
                    moving.cancel()
                assert await child.stop() == 0  # also while a browser listens
                async for _ in lines:  # it ends
                    pass
    log = (scratch / "console.log").read_text()
    assert "console.started" in log
    assert "console.stopped" in log
    assert "Traceback" not in log
    assert READ not in log


async def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name, value in environment("postgresql://x/y", port).items():
        monkeypatch.setenv(name, value)
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, port):
        said = f"REHOME_CONSOLE_HOST=127.0.0.1 REHOME_CONSOLE_PORT={port}: Address already in use"
        with pytest.raises(SettingsError, match=said):
            await server.run(read_settings(needed=JOURNAL))
    give_back_port(port)


async def test_the_consumer_loads_nothing_of_the_console() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOADED, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    loaded = set(out.decode().split())
    assert "rehome_consumer.bootstrap" in loaded
    assert loaded & {"fastapi", "starlette", "uvicorn", "jinja2", "rehome_consumer.console"} == set()
