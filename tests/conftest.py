"""Real servers for the tests: private, on loopback, started for the first test that needs them, removed at the end."""

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from sandbox.platform.tables import Platform, create_platform
from sandbox.postgres.databases import drop_database
from sandbox.postgres.pool import add_odoo_tenant, start_odoo_pool
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.scratch import remove_scratch_directory, scratch_directory
from tests.support import stalls
from tests.support.postgres_versions import Pair, pair

settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")
"""How long an example takes says more about what else the machine does than about the code; `make fuzz` finds new ones.
"""

_RABBITMQ = Path(__file__).parent.parent / "rabbitmq"


class TinyTenantFactory(Protocol):
    """Makes tiny tenants on a server, the session's first by default; they are dropped after the test."""

    async def __call__(self, *, on: Cluster | None = None, large_object: bool = True) -> Tenant: ...


class OdooTenantFactory(Protocol):
    """Makes tenants with Odoo's demonstration data on `odoo_pool`; they are dropped after the test."""

    async def __call__(self) -> Tenant: ...


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory for servers: user postgres cannot enter pytest's own."""
    directory = scratch_directory("rehome-tests")
    yield directory
    remove_scratch_directory(directory)


@pytest.fixture
def quick_files(scratch: Path) -> Iterator[Path]:
    """A directory for one test, beside the servers: a backup flushes each of its files, which takes a disk long."""
    directory = scratch / f"files-{secrets.token_hex(4)}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _nobody_tells_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the tests, such as pytest-xdist, sets COLUMNS; what is printed must not depend on it."""
    monkeypatch.delenv("COLUMNS", raising=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which servers the tests are run on."""
    parser.addoption(
        "--postgresql",
        default="",
        metavar="POOL-DEDICATED",
        help="PostgreSQL versions of pool and dedicated server, such as 15-18 (default: both as Debian has it)",
    )
    parser.addoption(
        "--stalls",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="hold up each test's event loop for so long, at some of its turns, as a busy machine does (such as 0.12)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register what options ask for."""
    if config.getoption("--stalls"):
        config.pluginmanager.register(stalls.Stalls(config.getoption("--stalls")))


@pytest.fixture(scope="session")
def versions(request: pytest.FixtureRequest, scratch: Path) -> Pair:
    """PostgreSQL programs of the pool, of the dedicated server, and of the consumer."""
    return pair(request.config.getoption("--postgresql"), scratch)


@pytest.fixture(scope="session")
async def pg(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A running PostgreSQL server, as a pool."""
    cluster = await Cluster.create(scratch / "pg", password=nasty_password(), programs=versions.pool)
    await cluster.start()
    yield cluster
    await cluster.destroy()


@pytest.fixture(scope="session")
async def second_pg(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """Another one, as a dedicated server."""
    cluster = await Cluster.create(
        scratch / "second_pg", password=nasty_password(), programs=versions.dedicated
    )
    await cluster.start()
    yield cluster
    await cluster.destroy()


@pytest.fixture(scope="session")
async def odoo_pool(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    """A running PostgreSQL server on which tenants with Odoo's data are made quickly."""
    cluster = await start_odoo_pool(
        scratch / "odoo_pool", [], password=nasty_password(), programs=versions.pool
    )
    yield cluster
    await cluster.destroy()


@pytest.fixture(scope="session")
async def broker(scratch: Path) -> AsyncIterator[BrokerNode]:
    """A running RabbitMQ node with the project's topology; user guest may do everything."""
    node = await BrokerNode.create(
        scratch / "broker",
        definitions=_RABBITMQ / "definitions.json",
        conf=_RABBITMQ / "rabbitmq.conf",
    )
    await node.start()
    yield node
    await node.destroy()


@pytest.fixture(scope="module")
async def platform(pg: Cluster) -> AsyncIterator[Platform]:
    """The platform's databases on `pg`, new for each test module."""
    suffix = secrets.token_hex(4)
    platform = await create_platform(
        pg,
        password=nasty_password(),
        instance_database=f"instance_{suffix}",
        billing_database=f"billing_{suffix}",
    )
    yield platform
    await drop_database(pg, platform.instance_database)
    await drop_database(pg, platform.billing_database)


@pytest.fixture
async def tiny_tenant(pg: Cluster) -> AsyncIterator[TinyTenantFactory]:
    """Makes tiny tenants."""
    made: list[tuple[Cluster, Tenant]] = []

    async def make(*, on: Cluster | None = None, large_object: bool = True) -> Tenant:
        tenant = Tenant(f"tiny_{secrets.token_hex(4)}")
        made.append((on or pg, tenant))
        await create_tiny_tenant(on or pg, tenant, large_object=large_object)
        return tenant

    yield make
    for cluster, tenant in made:
        await drop_database(cluster, tenant.database)


@pytest.fixture
async def odoo_tenant(odoo_pool: Cluster) -> AsyncIterator[OdooTenantFactory]:
    """Makes tenants with Odoo's demonstration data."""
    made: list[Tenant] = []

    async def make() -> Tenant:
        tenant = Tenant(f"odoo_{secrets.token_hex(4)}")
        made.append(tenant)
        await add_odoo_tenant(odoo_pool, tenant)
        return tenant

    yield make
    for tenant in made:
        await drop_database(odoo_pool, tenant.database)
