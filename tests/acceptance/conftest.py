"""A complete platform, once for all acceptance tests; each test has its own tenants and its own consumer."""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import LocalPlatform, Site, local_platform
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.pool import add_odoo_tenant
from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from sandbox.system.net import wait_until
from tests.support.command_line import Answer, command

MakeSite = Callable[..., Awaitable[Site]]

LIMIT = 120
PLAN = "premium-monthly"


class Cli:
    """The command line as operators run it: a process of its own."""

    def __init__(self, local: LocalPlatform) -> None:
        self._local = local

    async def __call__(self, *arguments: object, **settings: str) -> Answer:
        return await command(
            *arguments, environment={**os.environ, **self._local.settings(), **settings}, limit=LIMIT
        )


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
def rehome(local: LocalPlatform) -> Cli:
    return Cli(local)


async def until_states(rehome: Cli, instance: object, wanted: set[str]) -> list[dict[str, Any]]:
    """The instance's migrations once their states are these; as `rehome status` lists them."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await rehome("status", instance, "--json")).json
        return {str(one["state"]) for one in found} == wanted

    await wait_until(there, what=f"the states {wanted}", limit=LIMIT, pause=0.5)
    return found
