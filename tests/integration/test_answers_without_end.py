"""Nobody outside can fill the memory: an answer without end, or a too large one, is cut off and reported."""

from __future__ import annotations

import asyncio
import gzip
import sys
import tracemalloc
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from rehome_consumer.adapters.common import http_status
from rehome_consumer.adapters.rabbitmq import management, rabbitmqctl
from rehome_consumer.adapters.rabbitmq.management import Management
from rehome_consumer.adapters.rabbitmq.rabbitmqctl import Rabbitmqctl
from rehome_consumer.adapters.swarm import answers, connected
from rehome_consumer.adapters.swarm.engine import Engine
from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
from rehome_consumer.adapters.swarm.waiting import Watch
from rehome_consumer.errors import Refused, TimedOut, Transient
from rehome_consumer.rabbitmq.access import Change
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, wait_until
from tests.support.processes import have_ended

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Body = Callable[[asyncio.StreamWriter], Awaitable[None]]

SERVICE: Final = SwarmService("s1", 1, {"Name": "odoo-shop", "Labels": {}})
TASK: Final = SwarmTask.read({"ID": "t1"})
MIB: Final = 1024 * 1024
MUCH: Final = 120 * MIB
"""Bytes that the servers here send at most: a reader without a limit ends with that much in memory, not with all."""
LIMIT_SECONDS: Final = 30


async def spaces(writer: asyncio.StreamWriter) -> None:
    """White space, which is the beginning of any JSON document, and nothing else."""
    for _ in range(MUCH // MIB):
        writer.write(b" " * MIB)
        await writer.drain()


async def trickle(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


def head(status: int = 200, *headers: str, kind: str = "application/json") -> bytes:
    lines = (f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", "Connection: close", *headers)
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def serving(start: bytes, body: Body, path: Path | None = None) -> AsyncIterator[Any]:
    """A server that answers everything so, and Docker's question for its version as Docker does."""
    working: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /version"):
                writer.write(head() + b'{"ApiVersion": "1.41"}')
            else:
                writer.write(start)
                await body(writer)
        except ConnectionError:
            writer.transport.abort()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(handle(reader, writer))
        working.add(task)
        task.add_done_callback(working.discard)

    server = await (
        asyncio.start_unix_server(begin, path) if path else asyncio.start_server(begin, LOOPBACK, 0)
    )
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


@asynccontextmanager
async def engine(tmp_path: Path, start: bytes, body: Body = spaces) -> AsyncIterator[Engine]:
    """The engine's client, on a Unix socket behind which this server is."""
    async with (
        serving(start, body, tmp_path / "docker.sock"),
        connected(f"unix://{tmp_path}/docker.sock") as made,
    ):
        yield Engine(made, patience=60)


@pytest.fixture(autouse=True)
def _memory_is_bounded() -> Any:
    """Server and client share this process: what either holds at most counts."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * MIB, f"{peak // MIB} MiB"


@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize(
    ("ask", "path"),
    [
        (lambda engine: engine.service("odoo-shop"), "GET /v1.41/services/odoo-shop"),
        (lambda engine: engine.services(label=["a=b"]), "GET /v1.41/services"),
        (lambda engine: engine.tasks(SERVICE), "GET /v1.41/tasks"),
        (lambda engine: engine.containers(SERVICE), "GET /v1.41/containers/json"),
        (lambda engine: engine.update(SERVICE, SERVICE.spec), "POST /v1.41/services/odoo-shop/update"),
    ],
)
@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_of_the_engine_without_end_is_cut_off(
    tmp_path: Path, ask: Callable[[Engine], Awaitable[Any]], path: str, status: int
) -> None:
    async with engine(tmp_path, head(status)) as made:
        with pytest.raises(Transient) as caught:
            await ask(made)
    assert (
        str(caught.value) == f"Docker engine, {path}: the answer has more than {answers.LARGEST_ANSWER} bytes"
    )


async def test_an_answer_of_the_engine_that_says_its_size_is_cut_off_too(tmp_path: Path) -> None:
    async with engine(tmp_path, head(200, f"Content-Length: {MUCH}")) as made:
        with pytest.raises(Transient, match=f"more than {answers.LARGEST_ANSWER} bytes"):
            await made.tasks(SERVICE)


async def test_a_large_answer_within_the_limit_is_read(tmp_path: Path) -> None:
    async def list_of_tasks(writer: asyncio.StreamWriter) -> None:
        writer.write(b'[{"ID": "t1", "Other": "' + b"x" * (answers.LARGEST_ANSWER - 100) + b'"}]')
        await writer.drain()

    async with engine(tmp_path, head(), list_of_tasks) as made:
        assert [task.id for task in await made.tasks(SERVICE)] == ["t1"]


async def test_an_answer_of_the_engine_that_grows_by_unpacking_is_not_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b" " * 4 * answers.LARGEST_ANSWER)

    async def bomb(writer: asyncio.StreamWriter) -> None:
        writer.write(packed)
        await writer.drain()

    async with engine(tmp_path, head(200, "Content-Encoding: gzip"), bomb) as made:
        with pytest.raises(Transient, match="no JSON"):
            await made.tasks(SERVICE)


async def test_an_error_of_the_engine_without_a_message_is_refused_as_no_json(tmp_path: Path) -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        writer.write(b"{}")

    async with engine(tmp_path, head(500), nothing) as made:
        with pytest.raises(Transient, match="no JSON"):
            await made.tasks(SERVICE)


async def test_a_log_without_end_is_replaced_by_a_line_that_says_so(tmp_path: Path) -> None:
    async with engine(tmp_path, head(kind="application/vnd.docker.multiplexed-stream")) as made:
        (line,) = await made.last_lines(TASK, 10)
    assert (
        line
        == f"Docker engine, GET /v1.41/tasks/t1/logs: the answer has more than {answers.LARGEST_LOG} bytes"
    )


async def test_lines_of_a_log_are_cut_in_number_and_length(tmp_path: Path) -> None:
    async def log(writer: asyncio.StreamWriter) -> None:
        for number in range(100):
            text = f"{number} ".encode() + b"x" * 5000 + b"\n"
            writer.write(b"\x01\x00\x00\x00" + len(text).to_bytes(4, "big") + text)
        await writer.drain()

    async with engine(tmp_path, head(), log) as made:
        lines = await made.last_lines(TASK, 10)
    assert [line.split()[0] for line in lines] == [str(number) for number in range(90, 100)]
    assert {len(line) for line in lines} == {answers.LONGEST_LOG_LINE}


async def test_an_event_without_end_ends_the_stream_and_waiting_continues_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def events(writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"Action": "start"}\n')
        await spaces(writer)

    async def logged() -> bool:
        return "events_given_up" in caplog.text

    async with engine(tmp_path, head(), events) as made, made.following(SERVICE) as watch:
        assert isinstance(watch, Watch)
        await watch.pause(20)
        await wait_until(logged, what="the stream to be given up", limit=10)
        async with asyncio.timeout(5):
            await watch.pause(0.05)
    assert (
        "engine.events_given_up service=odoo-shop error=Docker engine, GET /v1.41/events: "
        f"an event has more than {answers.LONGEST_EVENT} bytes" in caplog.text
    )


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_what_an_instance_answers_beside_its_status_is_not_read(status: int) -> None:
    async with serving(head(status), spaces) as (host, port), plain_http() as http:
        failure = await http_status.failure(http, f"http://{host}:{port}/web/health")
    assert failure == (None if status == 200 else f"HTTP {status}")


async def test_headers_of_an_instance_without_end_are_given_up() -> None:
    async def headers(writer: asyncio.StreamWriter) -> None:
        for _ in range(MUCH // MIB):
            writer.write(b"X-More: " + b"x" * MIB)
            await writer.drain()

    start = b"HTTP/1.1 200 OK\r\n"
    async with serving(start, headers) as (host, port), plain_http() as http:
        failure = await http_status.failure(http, f"http://{host}:{port}/web/health")
    assert failure is not None
    assert failure.startswith("RemoteProtocolError")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (200, f": the answer to GET definitions has more than {management.LARGEST_ANSWER} bytes"),
        (500, " answered 500 to GET definitions: "),
    ],
)
async def test_an_answer_of_the_management_api_without_end_is_cut_off(status: int, message: str) -> None:
    async with serving(head(status), spaces) as (host, port), plain_http() as http:
        with pytest.raises(Refused) as caught:
            await Management(f"http://{host}:{port}", http).definitions()
    assert str(caught.value) == f"management API at http://{host}:{port}{message}"


async def test_an_answer_of_the_management_api_that_trickles_is_given_up() -> None:
    async with serving(head(), trickle) as (host, port), plain_http() as http:
        with pytest.raises(TimedOut, match=r"the answer to GET definitions did not end in 0\.5 s"):
            await Management(f"http://{host}:{port}", http, limit=0.5).definitions()


@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize(
    ("stream", "limit"),
    [("stdout", rabbitmqctl.LARGEST_OUTPUT), ("stderr", rabbitmqctl.LARGEST_ERROR_OUTPUT)],
)
async def test_what_rabbitmqctl_prints_without_end_is_cut_off(
    tmp_path: Path, stream: str, limit: int
) -> None:
    program = tmp_path / "prints.py"
    program.write_text(f"import sys\nwhile True: sys.{stream}.write(' ' * 65536)")
    with pytest.raises(Refused) as caught:
        await Rabbitmqctl(f"{sys.executable} {program}").definitions()
    assert str(caught.value) == f"rabbitmqctl export_definitions printed more than {limit} bytes"


@pytest.mark.timeout(LIMIT_SECONDS)
async def test_a_rabbitmqctl_that_exceeds_its_time_limit_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmqctl, "_SECONDS", 0.5)
    program = tmp_path / "waits.py"
    program.write_text("import sys, time\nprint(' ' * 1000000, flush=True)\ntime.sleep(1000)")
    with pytest.raises(TimedOut, match=r"rabbitmqctl export_definitions did not end within 0\.5 s"):
        await Rabbitmqctl(f"{sys.executable} {program}").definitions()


@pytest.mark.timeout(LIMIT_SECONDS)
async def test_what_a_rabbitmqctl_started_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ's is a shell script, and Debian's starts that through su(1), in another session."""
    monkeypatch.setattr(rabbitmqctl, "_SECONDS", 2)
    program = tmp_path / "rabbitmqctl"
    program.write_text(f"#!/bin/sh\nsetsid sh -c 'echo $$ > {tmp_path}/erlang; exec sleep 1000' & wait\n")
    program.chmod(0o755)
    with pytest.raises(TimedOut):
        await Rabbitmqctl(str(program)).make(Change("", "add_user", "crm"), "secret")

    erlang = int(await asyncio.to_thread((tmp_path / "erlang").read_text))
    await wait_until(have_ended(erlang), what="the worker to end", limit=10)
