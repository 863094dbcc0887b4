"""The whole platform once for all acceptance tests; each test brings tenants and a consumer of its own."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from sandbox.billing import Billing
from sandbox.database_service import Switches
from sandbox.local import ROOT, LocalPlatform, Site, local_platform
from sandbox.pool import add_odoo_tenant
from sandbox.subscriber import Subscriber
from sandbox.tenants import Tenant

MakeSite = Callable[..., Awaitable[Site]]

COMMAND_SECONDS = 60
LIMIT = 120
PLAN = "premium-monthly"


class Answer(NamedTuple):
    """What a run of the command line printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


class Cli:
    """The command line as operators run it: a process of its own."""

    def __init__(self, local: LocalPlatform) -> None:
        self._local = local

    async def __call__(self, *arguments: object, **settings: str) -> Answer:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumer", *(str(argument) for argument in arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._local.settings(), **settings},
            cwd=ROOT,
        )  # fmt: skip
        async with asyncio.timeout(COMMAND_SECONDS):
            out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="session")
async def local(scratch: Path) -> AsyncIterator[LocalPlatform]:
    directory = scratch / "platform"
    directory.mkdir(mode=0o711)
    async with local_platform(directory, []) as platform:
        yield platform


@pytest.fixture
async def make_site(local: LocalPlatform) -> AsyncIterator[MakeSite]:
    """Makes a customer with an Odoo database on the pool and an instance that serves."""
    local.database_service.switches = Switches()
    made: list[Site] = []

    async def make(**columns: object) -> Site:
        tenant = Tenant(f"t{secrets.token_hex(4)}")
        await add_odoo_tenant(local.pool, tenant)
        async with local.platform.cluster.connect(local.platform.instance_database) as platform:
            await platform.execute(
                "UPDATE db_servers SET current_instances = current_instances + 1 WHERE id = $1", local.pool_id
            )
        site = await local.add_site(tenant, **columns)
        made.append(site)
        await local.wait_until_serving(site)
        return site

    yield make
    for site in made:
        await local.supervisor.http.delete(f"/services/{site.service}")


@pytest.fixture
async def subscriber(local: LocalPlatform) -> AsyncIterator[Subscriber]:
    async with Subscriber(local.broker.url()) as subscriber:
        yield subscriber


@pytest.fixture
def billing(local: LocalPlatform) -> Billing:
    return Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)


@pytest.fixture
def rehome(local: LocalPlatform) -> Cli:
    return Cli(local)


async def until_states(rehome: Cli, instance: object, wanted: set[str]) -> list[dict[str, Any]]:
    """The instance's migrations once their states are these; as `rehome status` lists them."""
    found: list[dict[str, Any]] = []
    for _ in range(60):
        found = (await rehome("status", instance, "--json")).json
        if {str(one["state"]) for one in found} == wanted:
            break
    assert {one["state"] for one in found} == wanted
    return found
