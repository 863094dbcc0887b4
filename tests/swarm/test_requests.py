"""The runtime sends only the requests that docs/swarm.md lists: through the proxy documented there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from rehome_consumer.errors import CrashLoop, Incompatible, NotFound
from rehome_events.parts import Limits
from tests.contract.runtime_stages import new_instance
from tests.swarm.proxy import proxy, rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.swarm.engine import PrivateEngine
    from tests.swarm.stage import SwarmStage


@pytest.fixture
async def guarded(stage: SwarmStage, engine: PrivateEngine) -> AsyncIterator[str]:
    """The address of a proxy, through which alone the runtime reaches the engine from now on."""
    async with proxy(stage.directory / "proxy", engine.socket) as host:
        await stage.reach_engine_at(host)
        yield host


async def test_the_documented_proxy_allows_all_requests_and_has_no_rule_too_many(
    stage: SwarmStage, guarded: str
) -> None:
    await stage.swarm.require_ready()
    instance = await stage.add("crashing once", limits={"cpu": 0.5})
    original = (await stage.swarm.find(instance)).spec
    await stage.swarm.start(instance, 1, None)
    await stage.swarm.resize(instance, Limits(cpu_limit=1.0))
    assert await stage.swarm.require_can_run(instance, None) == ()
    await stage.swarm.stop(instance)
    await stage.swarm.configure(instance, {"TINY_CRASHES": "1000"})
    with pytest.raises(CrashLoop, match="last lines: odoo"):
        await stage.swarm.start(instance, 1, None)
    await stage.swarm.restore_spec(instance, original)
    with pytest.raises(NotFound):
        await stage.swarm.find(new_instance())
    asked = stage.docker.asked
    assert any(one.endswith("/events") for one in asked)
    assert [rule for rule in rules() if not any(re.match(rule, one) for one in asked)] == []
    assert guarded.startswith("tcp://")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1.41/secrets"),
        ("GET", "/v1.41/services/postgres-pool-1"),
        ("GET", "/v1.41/containers/odoo/json"),
        ("GET", "/v1.41/images/json"),
        ("GET", "/v1.41/images/../containers/odoo/json"),
        ("GET", "/v1.41/images/odoo%2F..%2F..%2Fcontainers%2Fodoo/json"),
        ("GET", "/v1.41/nodes/n1"),
        ("POST", "/v1.41/images/create"),
        ("GET", "/v1.41/services/odoo-shop/../postgres-pool-1"),
        ("POST", "/v1.41/services/create"),
        ("POST", "/v1.41/services/postgres-pool-1/update"),
        ("POST", "/v1.41/services/odoo-shop%2F..%2Fpostgres-pool-1/update"),
        ("POST", "/v1.41/containers/create"),
        ("POST", "/v1.41/containers/odoo/exec"),
        ("DELETE", "/v1.41/services/odoo-shop"),
    ],
)
async def test_the_documented_proxy_refuses_everything_else(guarded: str, method: str, path: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        url = httpx.URL(guarded.replace("tcp", "http")).copy_with(raw_path=path.encode())
        answer = await http.request(method, url)
    assert answer.status_code == httpx.codes.FORBIDDEN


async def test_a_request_that_a_proxy_refuses_is_named(stage: SwarmStage) -> None:
    instance = await stage.add(replicas=0)
    stage.docker.refused = "/update"
    with pytest.raises(
        Incompatible, match=rf"POST /services/{instance.service}/update.*HTTP 403.*docs/swarm\.md"
    ):
        await stage.swarm.configure(instance, {"A": "1"})
