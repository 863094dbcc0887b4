"""A complete platform, once for all acceptance tests; each test has its own tenants and its own consumer."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import ROOT, LocalPlatform, Site, local_platform
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.pool import add_odoo_tenant
from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from sandbox.system.net import wait_until
from sandbox.system.processes import Child
from tests.support.command_server import LONGEST_SECONDS

MakeSite = Callable[..., Awaitable[Site]]

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

    def __init__(self, local: LocalPlatform, directory: Path, server: Path) -> None:
        self._local = local
        self._directory = directory
        self._server = server

    async def __call__(self, *arguments: object, **settings: str) -> Answer:
        out, err = (self._directory / f"{secrets.token_hex(8)}.{kind}" for kind in ("out", "err"))
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {**os.environ, **self._local.settings(), **settings},
            "out": str(out),
            "err": str(err),
        }
        reader, writer = await asyncio.open_unix_connection(self._server)
        try:
            async with asyncio.timeout(LONGEST_SECONDS + 10):
                writer.write(orjson.dumps(order) + b"\n")
                code = int(await reader.readline())
        finally:
            writer.close()
        return Answer(code, out.read_text(), err.read_text())


@pytest.fixture(scope="session")
async def command_server(scratch: Path) -> AsyncIterator[Path]:
    """The socket of the server that runs the command line's processes."""
    path = scratch / "commands"
    module = [sys.executable, "-m", "tests.support.command_server", str(path)]
    child = await Child.start("commands", module, log=scratch / "commands.log", directory=ROOT)

    async def up() -> bool:
        child.require_alive()
        return path.exists()

    await wait_until(up, what="the command line's server", limit=LIMIT)
    yield path
    await child.kill()


@pytest.fixture(scope="session")
async def local(scratch: Path) -> AsyncIterator[LocalPlatform]:
    directory = scratch / "platform"
    directory.mkdir(mode=0o711)
    async with local_platform(directory, []) as platform:
        yield platform


@pytest.fixture
async def make_site(local: LocalPlatform) -> AsyncIterator[MakeSite]:
    """Creates a customer with a database on the pool, Odoo's or a tiny one, and an instance that serves."""
    local.database_service.switches = Switches()
    made: list[Site] = []

    async def make(*, odoo: bool = True, **columns: object) -> Site:
        tenant = Tenant(f"t{secrets.token_hex(4)}")
        await (add_odoo_tenant if odoo else create_tiny_tenant)(local.pool, tenant)
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
        await local.remove_service(site)


@pytest.fixture
async def subscriber(local: LocalPlatform) -> AsyncIterator[Subscriber]:
    async with Subscriber(local.broker.url()) as subscriber:
        yield subscriber


@pytest.fixture
def billing(local: LocalPlatform) -> Billing:
    return Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)


@pytest.fixture
def rehome(local: LocalPlatform, tmp_path: Path, command_server: Path) -> Cli:
    return Cli(local, tmp_path, command_server)


async def until_states(rehome: Cli, instance: object, wanted: set[str]) -> list[dict[str, Any]]:
    """The instance's migrations once their states are these; as `rehome status` lists them."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await rehome("status", instance, "--json")).json
        return {str(one["state"]) for one in found} == wanted

    await wait_until(there, what=f"the states {wanted}", limit=LIMIT, pause=0.2)
    return found
