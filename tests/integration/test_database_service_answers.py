"""Every unusual answer of an HTTP service, and the adapter's error for it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.platform.database_service import LARGEST_ANSWER, HttpDatabaseService
from rehome_consumer.errors import NotFound, Refused, RehomeError, TimedOut, Transient, Unreachable
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

INSTANCE, CUSTOMER, SERVER = (UUID(int=number) for number in (1, 2, 3))

GOOD: dict[str, Any] = {
    "status": "provisioned",
    "db_server_id": str(SERVER),
    "db_host": "postgres-dedicated-1",
}
SECRET = "s3cret-%$;#="


def client(url: str) -> httpx.AsyncClient:
    return plain_http(url)


def http(status: int, body: bytes | dict[str, Any], *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + data


@asynccontextmanager
async def answering(answer: bytes | Handler, *, limit: float = 5.0) -> AsyncIterator[HttpDatabaseService]:
    """The adapter, against a server that gives this one answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with client(f"http://{LOOPBACK}:{port}/") as made:
            yield HttpDatabaseService(made, limit=limit)
    finally:
        server.close()


async def provision(service: HttpDatabaseService) -> Any:
    return await service.provision(INSTANCE, CUSTOMER, "premium")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"<html>Bad gateway</html>", "not JSON"),
        (b'{"status": "provis', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"null", "answer (model_type)"),
        (b"[]", "answer (model_type)"),
        ({}, "db_server_id (missing), db_host (missing)"),
        (GOOD | {"db_server_id": None, "db_password": SECRET}, "db_server_id (uuid_type)"),
        (GOOD | {"db_server_id": "1", "db_password": SECRET}, "db_server_id (uuid_parsing)"),
        (GOOD | {"db_host": "", "db_password": SECRET}, "db_host (string_pattern_mismatch)"),
        (GOOD | {"db_host": "a\nb", "db_password": SECRET}, "db_host (string_pattern_mismatch)"),
        (GOOD | {"db_port": "5432", "db_password": SECRET}, "db_port (int_type)"),
        (GOOD | {"db_port": 70000, "db_password": SECRET}, "db_port (less_than_equal)"),
        (GOOD | {"db_password": [SECRET]}, "db_password (string_type)"),
        (GOOD | {"status": "provisioning", "db_password": SECRET}, "not provisioned yet"),
        (json.dumps(GOOD | {"message": "x" * LARGEST_ANSWER}).encode(), f"more than {LARGEST_ANSWER} bytes"),
    ],
)
async def test_a_success_with_an_unusable_answer_may_have_made_the_server(
    body: bytes | dict[str, Any], complaint: str
) -> None:
    async with answering(http(200, body)) as service:
        with pytest.raises(Transient) as caught:
            await provision(service)
    assert complaint in str(caught.value)
    assert "may have made the server" in str(caught.value)
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"


async def test_an_answer_of_two_forms_is_understood_and_further_fields_are_ignored() -> None:
    long = GOOD | {"db_port": 6432, "db_user": "u", "db_password": SECRET, "more": [1]}
    async with answering(http(200, long)) as service:
        answer = await provision(service)
    assert (answer.db_server_id, answer.host, answer.port, answer.user) == (
        SERVER,
        GOOD["db_host"],
        6432,
        "u",
    )
    assert answer.password.reveal() == SECRET
    short = GOOD | {"db_port": None, "db_user": "", "db_password": ""}
    async with answering(http(201, short)) as service:
        answer = await provision(service)
    assert (answer.port, answer.user, answer.password) == (None, None, None)


@pytest.mark.parametrize(
    ("status", "body", "meaning", "complaint"),
    [
        (400, {"detail": "Plan 'basic' does not support it"}, Refused, "HTTP 400, Plan 'basic' does not"),
        (
            422,
            {"detail": [{"loc": ["body", "x"], "msg": "required", "input": SECRET}]},
            Refused,
            "body.x: required",
        ),
        (422, {"detail": {"odd": SECRET}}, Refused, "HTTP 422, without an explanation"),
        (401, {"detail": "who?"}, Refused, "check REHOME_DATABASE_SERVICE_URL"),
        (404, b"not found", NotFound, "check REHOME_DATABASE_SERVICE_URL"),
        (405, {}, NotFound, "check REHOME_DATABASE_SERVICE_URL"),
        (302, b"", Refused, "HTTP 302"),
        (307, b"", Refused, "check REHOME_DATABASE_SERVICE_URL"),
        (409, {"detail": "busy"}, Transient, "HTTP 409, busy"),
        (429, {"detail": "slow down"}, Transient, "HTTP 429"),
        (500, {"detail": f"duplicate key\nDETAIL: row ({SECRET})"}, Transient, "HTTP 500, duplicate key;"),
        (500, {"detail": f"no login: password={SECRET} u"}, Transient, "password=***"),
        (500, {"detail": f"postgresql://u:{SECRET}@host/x"}, Transient, "postgresql://u:***@host"),
        (503, b"<html>" + SECRET.encode(), Transient, "HTTP 503, without an explanation"),
        (599, [], Transient, "HTTP 599, without an explanation"),
    ],
)
async def test_a_refusal_has_the_services_words_and_no_secret(
    status: int, body: bytes | dict[str, Any], meaning: type[RehomeError], complaint: str
) -> None:
    async with answering(http(status, body, "Location: http://127.0.0.1:1/")) as service:
        with pytest.raises(meaning) as caught:
            await provision(service)
    assert complaint in str(caught.value)
    assert str(INSTANCE) in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("status", "done"), [(200, True), (204, True), (404, False), (405, False)])
async def test_a_server_is_given_back_where_the_service_can(status: int, done: bool) -> None:
    async with answering(http(status, b"")) as service:
        assert await service.give_back(SERVER) is done


@pytest.mark.parametrize(("status", "meaning"), [(400, Refused), (500, Transient)])
async def test_giving_back_may_fail_too(status: int, meaning: type[RehomeError]) -> None:
    async with answering(http(status, {"detail": "no"})) as service:
        with pytest.raises(meaning, match=f"take back server {SERVER}: HTTP {status}, no"):
            await service.give_back(SERVER)


async def test_a_service_that_is_not_there_is_unreachable_and_did_nothing() -> None:
    async with client(f"http://user:s3cret@{LOOPBACK}:{free_port()}") as made:
        service = HttpDatabaseService(made)
        with pytest.raises(Unreachable, match="does not answer") as caught:
            await provision(service)
    assert "may have" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["database-service:8000", "ftp://x", ""])
async def test_an_invalid_url_is_refused_with_its_setting(url: str) -> None:
    async with client(url) as made:
        with pytest.raises(Refused, match="check REHOME_DATABASE_SERVICE_URL"):
            await provision(HttpDatabaseService(made))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-x\r\n"])
async def test_a_connection_that_breaks_may_have_made_the_server(answer: bytes) -> None:
    async with answering(answer) as service:
        with pytest.raises(Unreachable, match=r"connection broke.*may have made the server"):
            await provision(service)


async def test_a_service_that_never_answers_may_have_made_the_server() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with answering(hang, limit=0.2) as service:
        with pytest.raises(TimedOut, match=r"no answer in 0\.2 s.*may have made the server"):
            await provision(service)


async def test_a_service_that_answers_byte_by_byte_is_not_waited_for_longer_than_the_limit() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

    async with answering(drip, limit=0.3) as service:
        with pytest.raises(TimedOut, match="may have made the server"):
            await provision(service)


async def test_an_answer_without_end_is_read_only_up_to_the_limit() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while sent < 1024 * LARGEST_ANSWER:
                writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
                await writer.drain()
                sent += 4096

    async with answering(flood) as service:
        with pytest.raises(Transient, match=f"more than {LARGEST_ANSWER} bytes"):
            await provision(service)
    assert sent < 1024 * LARGEST_ANSWER
