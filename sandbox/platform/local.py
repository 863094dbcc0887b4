"""The complete platform on one machine: broker, databases, database-service, instances, and a consumer.

Everything is real and private: free ports on loopback, a directory of its own, and child processes that end
with this one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx

from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from sandbox.platform.database_service import DatabaseService, Switches
from sandbox.platform.tables import Platform, create_platform
from sandbox.postgres.files import programs_since
from sandbox.postgres.pool import start_odoo_pool
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode
from sandbox.supervisor import runtime
from sandbox.supervisor.node import SupervisorNode
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, give_back_port, wait_until
from sandbox.system.processes import Child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from sandbox.postgres.tenants import Tenant

ROOT = Path(__file__).parents[2]
RABBITMQ = ROOT / "rabbitmq"
READY_SECONDS = 30.0
STOP_SECONDS = 60.0

ODOO_CONF = """\
; Written at the first boot, then edited by hand.
[options]
addons_path = /opt/bitnami/odoo/addons
# the database
db_host = {host}
db_port = {port}
db_name = {database}
db_user = {user}
db_password = {password}
Proxy_Mode = True
limit_time_real = 150
workers = 0
"""


@dataclass(frozen=True)
class Site:
    """One customer's instance.

    Attributes:
        id: the instance's id; `customer` its owner's.
        url: where it serves.
        directory: its directory on the shared storage.
        service: name of its service.
    """

    id: UUID
    customer: UUID
    tenant: Tenant
    url: str
    directory: Path
    service: str

    @property
    def conf(self) -> Path:
        """Its odoo.conf."""
        return self.directory / "conf" / "odoo.conf"


@dataclass
class LocalPlatform:
    """Everything around the consumer.

    Attributes:
        directory: holds all files.
        pool: the shared PostgreSQL server; `pool_id` is its row.
        platform: the platform's own databases, on a server of their own.
        database_service: makes dedicated servers; its switches can be set.
    """

    directory: Path
    broker: BrokerNode
    pool: Cluster
    pool_id: UUID
    platform: Platform
    supervisor: SupervisorNode
    database_service: DatabaseService
    database_service_url: str
    secret_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    _ports: set[int] = field(default_factory=set)
    _clients: Path | None = None

    def prepare_for_warm_moves(self) -> bool:
        """Let dedicated servers that are made from now on, and consumers, be of a version that moves warm.

        Returns:
            whether there is one on this machine.
        """
        programs = programs_since(APPLIES_AS_OWNER_SINCE)
        if programs is None:
            return False
        self.database_service.programs = self._clients = programs
        return True

    @property
    def data_root(self) -> Path:
        """The shared storage with the instances' directories."""
        return self.directory / "odoo_instances"

    @property
    def backup_root(self) -> Path:
        """The directory for backups."""
        return self.directory / "backups"

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """The address of a server of the records: here it is the one in the record."""
        return host, port

    def settings(self, **more: str) -> dict[str, str]:
        """The consumer's settings as environment variables, `more` on top (without the prefix REHOME_)."""
        given = {
            "AMQP_URL": self.broker.url(),
            "PLATFORM_DSN": self.platform.instance_dsn,
            "BILLING_DSN": self.platform.billing_dsn,
            "DATABASE_SERVICE_URL": self.database_service_url,
            "DATA_ROOT": str(self.data_root),
            "BACKUP_ROOT": str(self.backup_root),
            "SECRET_KEY": self.secret_key,
            "RUNTIME": runtime.RUNTIME,
            "LONGEST_RETRY": "1s",
            "START_TIMEOUT": "60",
            **({"PG_BIN": str(self._clients)} if self._clients else {}),
            **more,
        }
        return {
            **{f"REHOME_{name}": value for name, value in given.items()},
            runtime.SUPERVISOR_URL: self.supervisor.url,
            "PYTHONPATH": str(ROOT),  # for the runtime, which is the sandbox's
        }

    async def add_site(self, tenant: Tenant, **columns: object) -> Site:
        """Make an instance for a tenant whose database is on the pool, and start it."""
        instance, customer = uuid4(), uuid4()
        port = free_port()  # reserved even while the instance is down
        self._ports.add(port)
        service = f"odoo-{tenant.database}-{instance.hex[:8]}"
        site = Site(
            instance,
            customer,
            tenant,
            f"http://{LOOPBACK}:{port}",
            self.data_root / f"odoo_data_{tenant.database}_{instance.hex[:8]}",
            service,
        )
        lay_out(site, self.pool.host, self.pool.port)
        await self.platform.add_instance(
            tenant.database,
            id=instance,
            customer_id=customer,
            db_server_id=self.pool_id,
            db_host=self.pool.host,
            db_port=self.pool.port,
            db_user=tenant.role,
            db_type="shared",
            service_name=service,
            internal_url=site.url,
            **columns,
        )
        await self.supervisor.create(**self._service(site, port))
        return site

    async def remove_service(self, site: Site) -> None:
        """Remove the instance's service, and release its port."""
        await self.supervisor.http.delete(f"/services/{site.service}")
        self._give_back(httpx.URL(site.url).port or 0)

    def give_back_ports(self) -> None:
        """Release the instances' ports."""
        for port in tuple(self._ports):
            self._give_back(port)

    def _give_back(self, port: int) -> None:
        self._ports.discard(port)
        give_back_port(port)

    async def wait_until_serving(self, site: Site, *, limit: float = READY_SECONDS) -> None:
        """Return when the instance answers."""
        async with plain_http() as http:

            async def answers() -> bool:
                try:
                    return (await http.get(f"{site.url}/web/health")).status_code == httpx.codes.OK
                except httpx.HTTPError:
                    return False

            await wait_until(
                answers, what=f"instance {site.tenant.database} to serve", limit=limit, pause=0.05
            )

    @asynccontextmanager
    async def consumer(
        self,
        name: str = "consumer",
        *,
        module: Sequence[str] = ("rehome_consumer", "run"),
        settings: Mapping[str, str] | None = None,
        page: str | None = "/readyz",
    ) -> AsyncIterator[Child]:
        """A consumer as a process of its own, ready to handle events; stopped with SIGTERM at the end.

        Args:
            name: of its log.
            module: that runs it.
            settings: more of them.
            page: of its own that must say that all is well before the block begins; None: it only has to run.
        """
        port = free_port()
        environment = {**self.settings(HTTP_PORT=str(port), HTTP_HOST=LOOPBACK), **(settings or {})}
        child = await Child.start(
            name,
            [sys.executable, "-m", *module],
            log=self.directory / f"{name}.log",
            env={**os.environ, **environment},
            directory=ROOT,
        )
        try:
            if page is not None:
                await _until_well(child, port, page)
            yield child
        finally:
            await child.stop(limit=STOP_SECONDS)
            give_back_port(port)

    def _service(self, site: Site, port: int) -> dict[str, Any]:
        return {
            "name": site.service,
            "command": [sys.executable, "-m", "sandbox.odoo.instance"],
            "labels": {"saasodoo.instance.id": str(site.id), "saasodoo.customer.id": str(site.customer)},
            "env": {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "ODOO_SKIP_BOOTSTRAP": "yes",
                "ODOO_HTTP_PORT": str(port),
                "ODOO_DATABASE_HOST": self.pool.host,
                "ODOO_DATABASE_PORT_NUMBER": str(self.pool.port),
                "ODOO_DATABASE_NAME": site.tenant.database,
                "ODOO_DATABASE_USER": site.tenant.role,
                "ODOO_DATABASE_PASSWORD": site.tenant.password,
            },
            "instance_dir": str(site.directory),
            "limits": {"cpu": 1.0, "memory": "4G"},
            "restart_delay_seconds": 0.5,
        }


def lay_out(site: Site, host: str, port: int) -> None:
    """Make an instance's directory on the shared storage: odoo.conf and a filestore.

    Args:
        site: the instance.
        host: of the server with its database, as odoo.conf shall name it.
        port: of that server.
    """
    site.conf.parent.mkdir(parents=True)
    site.conf.touch(mode=0o640)
    site.conf.write_text(
        ODOO_CONF.format(
            host=host,
            port=port,
            database=site.tenant.database,
            user=site.tenant.role,
            password=site.tenant.password,
        ),
        encoding="utf-8",
    )
    filestore = site.directory / "data" / "filestore" / site.tenant.database / "ab"
    filestore.mkdir(parents=True)
    (filestore / "ab12cd34").write_bytes(b"an attachment")


@asynccontextmanager
async def local_platform(
    directory: Path,
    tenants: Sequence[Tenant],
    *,
    switches: Switches | None = None,
    start_pool: Callable[[Path], Awaitable[Cluster]] | None = None,
) -> AsyncIterator[LocalPlatform]:
    """Start everything but the consumer; the tenants' databases are on the pool, with Odoo's demo data.

    Args:
        directory: an existing directory that user postgres may pass through.
        tenants: get their databases; `LocalPlatform.add_site` makes their instances.
        switches: how database-service misbehaves.
        start_pool: makes and starts another pool in a directory; `tenants` are not made there.
    """

    async def pool_server() -> Cluster:
        if start_pool is not None:
            return await start_pool(directory / "pool")
        return await start_odoo_pool(directory / "pool", tenants, password=secrets.token_urlsafe(24))

    async with AsyncExitStack() as stack:
        broker = await BrokerNode.create(
            directory / "broker",
            definitions=RABBITMQ / "definitions.json",
            conf=RABBITMQ / "rabbitmq.conf",
        )
        stack.push_async_callback(broker.destroy)
        supervisor = SupervisorNode(directory)
        stack.push_async_callback(supervisor.close)
        async with asyncio.TaskGroup() as together:
            together.create_task(broker.start())
            together.create_task(supervisor.start())
            pooling = together.create_task(pool_server())
            stack.push_async_callback(_destroy, pooling)
            platforming = together.create_task(_platform_server(directory / "platform"))
            stack.push_async_callback(_destroy, platforming)
        platform = await create_platform(platforming.result(), password=secrets.token_urlsafe(24))
        pool = pooling.result()
        pool_id = await platform.add_server(
            "postgres-pool-1", pool, max_instances=50, current_instances=len(tenants)
        )
        service = DatabaseService(
            directory / "dedicated", platform.cluster.dsn(platform.instance_database), switches
        )
        service_port = free_port()
        stack.callback(give_back_port, service_port)
        url = await stack.enter_async_context(service.serving(service_port))
        made = LocalPlatform(directory, broker, pool, pool_id, platform, supervisor, service, url)
        stack.callback(made.give_back_ports)
        made.data_root.mkdir()
        made.backup_root.mkdir()
        yield made


async def _platform_server(directory: Path) -> Cluster:
    cluster = await Cluster.create(directory, password=secrets.token_urlsafe(24))
    await cluster.start()
    return cluster


async def _destroy(starting: asyncio.Task[Cluster]) -> None:
    """Destroy the server if it was started."""
    if starting.done() and not starting.cancelled() and starting.exception() is None:
        await starting.result().destroy()


async def _until_well(child: Child, port: int, page: str) -> None:
    async with plain_http(timeout=2) as http:

        async def well() -> bool:
            child.require_alive()
            try:
                return (await http.get(f"http://{LOOPBACK}:{port}{page}")).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

        await wait_until(well, what=f"{child.name} to be ready", limit=READY_SECONDS, pause=0.05)
