"""Answers of the engine, of an instance and of the storage, and the errors made of them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import aiodocker
import httpx
import pytest

from rehome_consumer.adapters.swarm import connected, quota
from rehome_consumer.adapters.swarm.answers import log_text
from rehome_consumer.adapters.swarm.failures import translated
from rehome_consumer.adapters.swarm.health import HealthCheck
from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
from rehome_consumer.errors import Incompatible, NotFound, SettingsError, TimedOut, Transient, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SERVICE = SwarmService("s1", 1, {"Name": "odoo-shop", "Labels": {}})
TASK = SwarmTask.read(
    {
        "ID": "t1",
        "NetworksAttachments": [
            {"Network": {"Spec": {"Name": "other"}}, "Addresses": ["10.0.5.9/24"]},
            {"Network": {"Spec": {"Name": "saasodoo-network"}}, "Addresses": ["10.0.1.2/24"]},
        ],
    }
)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (900, "Cannot connect to Docker Engine via unix:///x", Unreachable),
        (503, "This node is not a swarm manager.", Unreachable),
        (500, "rpc error: code = Unknown desc = The swarm does not have a leader.", Unreachable),
        (502, "Bad Gateway", Unreachable),
        (504, "Gateway Time-out", TimedOut),
        (404, "service x not found", NotFound),
        (404, "service odoo-deadline-7d9f2a54 not found", NotFound),
        (400, "client version 1.41 is too old. Minimum supported API version is 1.44", Unreachable),
        (400, "invalid JSON", Incompatible),
        (403, "Forbidden", Incompatible),
        (500, "rpc error: code = Unknown desc = update out of sequence", Transient),
        (500, "something else", Transient),
    ],
)
def test_an_error_of_the_engine_becomes_one_of_the_consumers_with_its_words(
    status: int, message: str, kind: type[Exception]
) -> None:
    error = translated("Docker engine, GET /services/x", aiodocker.DockerError(status, message))
    assert type(error) is kind
    assert str(error).startswith(f"Docker engine, GET /services/x: {message}")


async def test_an_address_that_docker_would_not_accept_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="DOCKER_HOST: nonsense"):
        async with connected("nonsense"):
            pass


def test_a_log_in_pieces_is_put_together() -> None:
    def piece(stream: int, text: bytes) -> bytes:
        return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text

    raw = piece(1, b"starting\n") + piece(2, "caf\u00e9 \xff\n".encode("latin-1")) + piece(1, b"last")
    assert log_text(raw).splitlines() == ["starting", "caf\ufffd \ufffd", "last"]
    assert log_text(raw + b"\x01\x00") == log_text(raw)


def check(
    answer: Callable[[httpx.Request], httpx.Response], resolve: dict[str, str] | None = None
) -> HealthCheck:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return HealthCheck(http, lambda host, port: ((resolve or {}).get(host, host), port), 8069)


async def test_a_task_is_asked_at_its_own_addresses_until_one_answers() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "10.0.5.9":
            raise httpx.ConnectTimeout("no route")
        return httpx.Response(200)

    assert await check(answer).failure(SERVICE, TASK) is None
    assert asked == ["http://10.0.5.9:8069/web/health", "http://10.0.1.2:8069/web/health"]


async def test_a_mapped_name_is_asked_at_the_address_in_the_map() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200)

    assert await check(answer, {"odoo-shop": "192.0.2.1"}).failure(SERVICE, TASK) is None
    assert asked == ["http://192.0.2.1:8069/web/health"]


async def test_an_odoo_without_a_health_page_is_asked_for_its_login_page() -> None:
    pages = {"/web/health": 404, "/web/login": 200}
    assert await check(lambda request: httpx.Response(pages[request.url.path])).failure(SERVICE, TASK) is None
    pages["/web/login"] = 303
    failure = await check(lambda request: httpx.Response(pages[request.url.path])).failure(SERVICE, TASK)
    assert failure == "/web/login: HTTP 303"


async def test_a_failing_health_page_is_not_overruled_by_the_login_page() -> None:
    pages = {"/web/health": 503, "/web/login": 200}
    failure = await check(lambda request: httpx.Response(pages[request.url.path])).failure(SERVICE, TASK)
    assert failure == "/web/health: HTTP 503"


def test_a_storage_limit_without_cephfs_or_directory_is_a_warning(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert asyncio.run(quota.enforce(missing, 1, "1G")) == (
        f"the storage limit 1G is not enforced on {missing}: there is no such directory on this node"
    )
    warning = asyncio.run(quota.enforce(tmp_path, 1, "1G"))
    assert warning is not None
    assert warning.startswith(f"the storage limit 1G is not enforced on {tmp_path}: ")


async def test_a_storage_limit_is_cephs_quota_on_the_instances_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []
    monkeypatch.setattr("os.setxattr", lambda *arguments: given.extend(arguments))
    assert await quota.enforce(tmp_path, 50 * 1024**3, "50G") is None
    assert given == [tmp_path, "ceph.quota.max_bytes", b"53687091200"]


async def test_a_storage_that_does_not_answer_is_not_waited_for_any_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = threading.Event()
    monkeypatch.setattr("os.setxattr", lambda *_: hung.wait(60))
    monkeypatch.setattr(quota, "STORAGE_SECONDS", 0.05)
    with pytest.raises(TimedOut, match=rf"setting ceph\.quota\.max_bytes of {tmp_path}"):
        await quota.enforce(tmp_path, 1, "1G")
    hung.set()
