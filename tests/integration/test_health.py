"""A consumer's health and `/metrics`: few queries for many callers, and no client can block the answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import SettingsError, Unreachable
from rehome_consumer.network import http_server
from rehome_consumer.network.http_server import Shared
from rehome_consumer.ports.readiness import Cause
from rehome_consumer.process import health
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx


DOCKERFILE = Path(__file__).parent.parent.parent / "Dockerfile"


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
    journal: Journal,
    port: int,
    host: str = LOOPBACK,
    missing: tuple[Cause, ...] = (),
    *,
    was_ready: bool = True,
    in_hand: int = 3,
) -> AsyncIterator[None]:
    connected = asyncio.Event()
    connected.set()
    consumer: Any = SimpleNamespace(
        journal=journal,
        connection=SimpleNamespace(connected=connected),
        worker=SimpleNamespace(in_hand=in_hand),
        readiness=SimpleNamespace(missing=missing, was_ready=was_ready),
    )
    settings: Any = SimpleNamespace(http_port=port, http_host=host)
    async with health.served_when_connected(settings, consumer):
        yield


async def get(port: int, path: str = "/healthz", **more: Any) -> httpx.Response:
    async with plain_http(timeout=60) as client:
        return await client.get(f"http://{LOOPBACK}:{port}{path}", **more)


async def silent(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(sent)
    return reader, writer


async def test_it_reports_the_state_of_the_consumer(port: int) -> None:
    answer = await get(port)
    assert (answer.status_code, answer.text) == (200, "ok\n")
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
        assert [(await get(found, path)).status_code for path in ("/healthz", "/startupz")] == [200, 200]
        assert "rehome_not_ready 2.0" in (await get(found, "/metrics")).text
    give_back_port(found)


async def test_a_consumer_that_lacks_nothing_is_ready(port: int) -> None:
    answer = await get(port, "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "causes": []})
    assert "rehome_not_ready 0.0" in (await get(port, "/metrics")).text


async def test_one_that_was_never_ready_has_not_started(journal: Journal) -> None:
    found = free_port()
    missing = (Cause("data_root", "it is not mounted"),)
    async with served(journal, found, missing=missing, was_ready=False):
        answer = await get(found, "/startupz")
        assert (answer.status_code, answer.json()["causes"][0]["cause"]) == (503, "data_root")
        assert (await get(found)).status_code == 200
    give_back_port(found)


async def test_one_that_was_never_ready_is_not_replaced_in_the_middle_of_a_step(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (minutes,) = re.findall(r"--start-period=(\d+)m ", DOCKERFILE.read_text())
    assert 60 * int(minutes) == health.START_SECONDS
    monkeypatch.setattr(health, "START_SECONDS", 0.0)
    found = free_port()
    missing = (Cause("data_root", "it is not mounted"),)
    for in_hand, status in ((1, 200), (0, 503)):
        async with served(journal, found, missing=missing, was_ready=False, in_hand=in_hand):
            assert (await get(found, "/startupz")).status_code == status
            assert (await get(found, "/readyz")).status_code == 503
    give_back_port(found)


async def health_check(port: int) -> int:
    """The command of the image's health check: its exit code."""
    (line,) = re.findall(r"^ +CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    command = json.loads(line)
    assert command[:2] == ["python", "-c"]
    code = command[2].replace("timeout=10", "timeout=2")
    assert code != command[2]
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, "REHOME_HTTP_PORT": str(port)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await asyncio.wait_for(child.wait(), 60)


async def test_a_stuck_event_loop_fails_the_health_check_of_the_image(journal: Journal) -> None:
    found, looping, let_go, done = free_port(), threading.Event(), threading.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def consumer() -> None:
        loops.append(asyncio.get_running_loop())
        async with served(journal, found):
            looping.set()
            while not done.is_set():  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(consumer()))
    thread.start()
    try:
        assert await asyncio.to_thread(looping.wait, 60)
        assert await health_check(found) == 0
        # Something in the loop never returns: connections are accepted by the kernel, and not answered
        loops[0].call_soon_threadsafe(let_go.wait, 60)
        assert await health_check(found) != 0
        let_go.set()
        assert await health_check(found) == 0
    finally:
        let_go.set()
        done.set()
        await asyncio.to_thread(thread.join, 60)
        give_back_port(found)


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
        # It need not be restarted for that, and is no replacement for one that works
        assert (await get(found)).status_code == 200
        assert (await get(found, "/startupz")).json() == answer.json()
        assert (await get(found, "/startupz")).status_code == 503
    give_back_port(found)


async def test_an_unreachable_journal_is_reported(port: int, journal: Journal) -> None:
    journal.error = Unreachable("state database: no answer")
    assert (await get(port)).status_code == 200
    assert "rehome_outbox_oldest_unsent_seconds NaN" in (await get(port, "/metrics")).text


async def test_many_concurrent_callers_cost_one_query(
    port: int, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "FRESH", 1000.0)  # 40 answers may take seconds on a busy machine
    journal.may_answer.clear()
    async with asyncio.TaskGroup() as together:
        asking = [together.create_task(get(port, "/metrics")) for _ in range(40)]
        await asyncio.wait_for(journal.was_asked.wait(), 60)
        journal.may_answer.set()
    assert [task.result().status_code for task in asking] == [200] * 40
    assert journal.asked == 1


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


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "])
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
    reader, writer = await silent(port, b"GET /healthz HTTP/1.1\r\nX: ")
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
    reader, writer = await silent(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in answers
    writer.close()


async def test_garbage_is_refused_and_the_next_request_answered(port: int) -> None:
    reader, writer = await silent(port, b"\x16\x03\x01\x02\x00" * 100 + b"\r\n\r\n")
    await reader.read()
    writer.close()
    assert (await get(port)).status_code == 200
    async with plain_http() as client:
        assert (
            await client.post(f"http://{LOOPBACK}:{port}/healthz", content=b"x" * 100_000)
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


@pytest.mark.parametrize("host", ["127.0.0.0/8", "127.0.0.2, 127.0.0.0/8", "127.0.0.1/32,127.0.0.1"])
async def test_it_listens_on_several_addresses_and_on_its_own_in_a_network(
    journal: Journal, host: str
) -> None:
    found = free_port()
    async with served(journal, found, host):
        assert (await get(found)).status_code == 200
        if "127.0.0.2" in host:
            async with plain_http(timeout=60) as client:
                assert (await client.get(f"http://127.0.0.2:{found}/healthz")).status_code == 200
    give_back_port(found)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1,203.0.113.0/24", "this machine has no address in 203.0.113.0/24"),
        ("127.0.0.1/8", "127.0.0.1/8 has host bits set"),
        ("nowhere/24", "'nowhere/24' does not appear to be"),
    ],
)
async def test_a_network_that_it_is_not_in_is_reported(journal: Journal, host: str, why: str) -> None:
    found = free_port()
    with pytest.raises(
        SettingsError, match=re.escape(f"REHOME_HTTP_HOST={host} REHOME_HTTP_PORT={found}: {why}")
    ):
        async with served(journal, found, host):
            pass
    async with served(journal, found):  # nothing of it still listens
        assert (await get(found)).status_code == 200
    give_back_port(found)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait until the connection ends."""
    try:
        while await reader.read(1000):
            pass
    except ConnectionError:
        pass
    return True
