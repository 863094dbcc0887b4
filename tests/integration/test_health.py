"""`/health`, `/readyz` and `/metrics`: few queries for many callers, and no client can block the answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from rehome_consumer.errors import SettingsError, Unreachable
from rehome_consumer.network import http_server
from rehome_consumer.network.http_server import Shared
from rehome_consumer.ports.readiness import Cause
from rehome_consumer.process import health
from sandbox.system.net import LOOPBACK, free_port, give_back_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Journal:
    """Counts the queries; answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    async def oldest_unsent(self) -> float:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return 1.5


@pytest.fixture
async def journal() -> Journal:
    return Journal()


@pytest.fixture
async def port(journal: Journal) -> AsyncIterator[int]:
    found = free_port()
    async with served(journal, found):
        yield found
    give_back_port(found)


@asynccontextmanager
async def served(
    journal: Journal, port: int, host: str = LOOPBACK, missing: tuple[Cause, ...] = ()
) -> AsyncIterator[None]:
    connected = asyncio.Event()
    connected.set()
    consumer: Any = SimpleNamespace(
        journal=journal,
        connection=SimpleNamespace(connected=connected),
        worker=SimpleNamespace(in_hand=3),
        readiness=SimpleNamespace(missing=missing),
    )
    settings: Any = SimpleNamespace(http_port=port, http_host=host)
    async with health.served_when_connected(settings, consumer):
        yield


async def get(port: int, path: str = "/health", **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        return await client.get(f"http://{LOOPBACK}:{port}{path}", **more)


async def silent(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(sent)
    return reader, writer


async def test_it_reports_the_state_of_the_consumer(port: int) -> None:
    answer = await get(port)
    assert (answer.status_code, answer.json()) == (
        200,
        {"ok": True, "broker": True, "oldest_unsent_seconds": 1.5},
    )
    assert "rehome_deliveries_in_progress 3.0" in (await get(port, "/metrics")).text
    assert (await get(port, "/")).status_code == 404


async def test_what_a_consumer_lacks_is_named_and_is_no_reason_to_restart_it(journal: Journal) -> None:
    found = free_port()
    missing = (Cause("client_programs", "there is no vacuumdb"), Cause("runtime", "no answer"))
    async with served(journal, found, missing=missing):
        answer = await get(found, "/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "ready": False,
            "causes": [
                {"cause": "client_programs", "error": "there is no vacuumdb"},
                {"cause": "runtime", "error": "no answer"},
            ],
        }
        assert (await get(found, "/health")).status_code == 200
        assert "rehome_not_ready 2.0" in (await get(found, "/metrics")).text
    give_back_port(found)


async def test_a_consumer_that_lacks_nothing_is_ready(port: int) -> None:
    answer = await get(port, "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "causes": []})
    assert "rehome_not_ready 0.0" in (await get(port, "/metrics")).text


async def test_what_is_waited_for_at_the_start_is_named() -> None:
    found = free_port()
    settings: Any = SimpleNamespace(http_port=found, http_host=LOOPBACK)
    status = health.Status()
    async with health.served(settings, status):
        first = (await get(found, "/readyz")).json()["causes"]
        assert {one["error"] for one in first} == {"it was not looked at yet"}
        status.starting = Cause("broker", "RabbitMQ at 127.0.0.1:5672 did not answer within 30 s")
        answer = await get(found, "/readyz")
        assert (answer.status_code, [one["cause"] for one in answer.json()["causes"]]) == (503, ["broker"])
        assert "rehome_not_ready 1.0" in (await get(found, "/metrics")).text
        unhealthy = await get(found)
        assert (unhealthy.status_code, "RabbitMQ at" in unhealthy.json()["error"]) == (503, True)
    give_back_port(found)


async def test_an_unreachable_journal_is_reported(port: int, journal: Journal) -> None:
    journal.error = Unreachable("state database: no answer")
    answer = await get(port)
    assert (answer.status_code, answer.json()["error"]) == (503, "state database: no answer")
    assert "rehome_outbox_oldest_unsent_seconds NaN" in (await get(port, "/metrics")).text


async def test_many_concurrent_callers_cost_one_query(port: int, journal: Journal) -> None:
    journal.may_answer.clear()
    async with asyncio.TaskGroup() as together:
        asking = [together.create_task(get(port, path)) for path in ("/health", "/metrics") * 20]
        await asyncio.wait_for(journal.was_asked.wait(), 60)
        journal.may_answer.set()
    assert [task.result().status_code for task in asking] == [200] * 40
    assert journal.asked <= 2  # the last of them may have come when the answer was a second old


async def test_an_answer_is_valid_for_a_while_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def compute() -> int:
        nonlocal asked
        asked += 1
        return asked

    shared = Shared(compute)
    monkeypatch.setattr(http_server, "FRESH", 1000.0)
    assert [await shared() for _ in range(3)] == [1, 1, 1]
    shared = Shared(compute)
    monkeypatch.setattr(http_server, "FRESH", 0.0)
    assert [await shared() for _ in range(3)] == [2, 3, 4]


async def test_a_first_caller_that_is_cancelled_does_not_cancel_the_answer(journal: Journal) -> None:
    journal.may_answer.clear()
    shared = Shared(journal.oldest_unsent)
    first, second = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0)
    first.cancel()
    journal.may_answer.set()
    assert await second == 1.5


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: x\r\nX: "])
async def test_an_unfinished_request_is_closed(
    port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LIFETIME", 0.3)
    reader, writer = await silent(port, sent)
    try:
        assert await ended(reader)
    finally:
        writer.close()


async def test_a_request_that_arrives_slowly_is_closed_too(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "LIFETIME", 0.5)
    reader, writer = await silent(port, b"GET /health HTTP/1.1\r\nX: ")
    end = asyncio.create_task(ended(reader))
    while not end.done():
        writer.write(b"y")
        await asyncio.sleep(0.05)
    assert await end
    writer.close()


async def test_any_number_of_silent_connections_blocks_no_answer(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MOST", 8)
    monkeypatch.setattr(http_server, "LIFETIME", 1000.0)
    opened = [await silent(port) for _ in range(30)]
    try:
        assert (await get(port)).status_code == 200
        assert all([await ended(reader) for reader, _ in opened[:22]])  # the oldest were closed
    finally:
        for _, writer in opened:
            writer.close()


async def test_a_connection_carries_one_request(port: int) -> None:
    reader, writer = await silent(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in answers
    writer.close()


async def test_garbage_is_refused_and_the_next_request_answered(port: int) -> None:
    reader, writer = await silent(port, b"\x16\x03\x01\x02\x00" * 100 + b"\r\n\r\n")
    await reader.read()
    writer.close()
    assert (await get(port)).status_code == 200
    async with httpx.AsyncClient() as client:
        assert (
            await client.post(f"http://{LOOPBACK}:{port}/health", content=b"x" * 100_000)
        ).status_code == 405


async def test_a_port_that_is_taken_and_an_address_of_another_machine_are_reported(
    port: int, journal: Journal
) -> None:
    with pytest.raises(
        SettingsError, match=f"REHOME_HTTP_HOST=127.0.0.1 REHOME_HTTP_PORT={port}: Address already"
    ):
        async with served(journal, port):
            pass
    with pytest.raises(
        SettingsError, match=r"REHOME_HTTP_HOST=192\.0\.2\.1 REHOME_HTTP_PORT=\d+: Cannot assign"
    ):
        async with served(journal, port, "192.0.2.1"):
            pass


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait until the connection ends."""
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        pass
    return True
