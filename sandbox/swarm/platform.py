"""The platform on a swarm: pool, platform's databases, database-service, instances and consumer as services.

RabbitMQ alone stays a process of this machine; service `rabbitmq` forwards to it. All parts use service names, as
in production; programs outside of the swarm reach them through forwarded ports.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from sandbox.platform.local import RABBITMQ, Site, lay_out
from sandbox.platform.tables import Platform, create_platform
from sandbox.postgres.pool import add_odoo_tenant
from sandbox.postgres.server import programs
from sandbox.rabbitmq.node import BrokerNode
from sandbox.swarm import definitions, services
from sandbox.swarm.engine import PrivateEngine
from sandbox.swarm.forwards import Forwards
from sandbox.swarm.postgres_server import PORT
from sandbox.swarm.root import PYTHON
from sandbox.swarm.servers import start_odoo_pool, start_server
from sandbox.system.net import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant
    from sandbox.swarm.api import SandboxEngine

POOL, PLATFORM = "postgres-pool-1", "postgres-platform"
IMAGES_OWN = ("rehome_consumer", "run")

_CAP_LIMITS = "UPDATE plan_entitlements SET cpu_limit = least(cpu_limit, $1)"


@dataclass
class SwarmPlatform:
    """Everything around the consumer, as `sandbox.platform.local.LocalPlatform` has it with processes.

    Attributes:
        directory: holds all files.
        pool: the shared PostgreSQL server as seen from outside; `pool_id` is its row.
        platform: the platform's own databases, as seen from outside.
    """

    directory: Path
    engine: SandboxEngine
    forwards: Forwards
    network: str
    broker: BrokerNode
    pool: Cluster
    pool_id: UUID
    platform: Platform
    secret_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @property
    def data_root(self) -> Path:
        """The shared storage with the instances' directories."""
        return self.directory / "odoo_instances"

    @property
    def backup_root(self) -> Path:
        """Where backups go."""
        return self.directory / "backups"

    @property
    def database_service_url(self) -> str:
        """database-service as seen from outside."""
        host, port = self.forwards.resolve(services.DATABASE_SERVICE, services.DATABASE_SERVICE_PORT)
        return f"http://{host}:{port}"

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """A service's address outside of the overlay network."""
        return self.forwards.resolve(host, port)

    def inside(self, url: str) -> str:
        """A URL or DSN of this machine as services use it: with service names."""
        places = {
            self.platform.cluster.port: f"{PLATFORM}:{PORT}",
            self.broker.port: f"{services.BROKER}:{services.AMQP_PORT}",
        }
        for port, place in places.items():
            url = url.replace(f"{LOOPBACK}:{port}", place)
        return url

    def settings(self, **more: str) -> dict[str, str]:
        """Settings for the command line outside of the network, and `more` (without the prefix REHOME_)."""
        return self._settings(
            AMQP_URL=self.broker.url(),
            PLATFORM_DSN=self.platform.instance_dsn,
            BILLING_DSN=self.platform.billing_dsn,
            DATABASE_SERVICE_URL=self.database_service_url,
            HOST_MAP="{}={}:{}".format(POOL, *self.forwards.resolve(POOL, PORT)),
            **more,
        )

    async def add_site(self, tenant: Tenant, **columns: object) -> Site:
        """Make an instance for a tenant whose database is on the pool, and start it."""
        instance, customer = uuid4(), uuid4()
        service = f"odoo-{tenant.database}-{instance.hex[:8]}"
        host, port = self.forwards.resolve(service, definitions.ODOO_PORT)
        directory = self.data_root / f"odoo_data_{tenant.database}_{instance.hex[:8]}"
        site = Site(instance, customer, tenant, f"http://{host}:{port}", directory, service)
        await asyncio.to_thread(lay_out, site, POOL, PORT)
        await self.platform.add_instance(
            tenant.database,
            id=instance,
            customer_id=customer,
            db_server_id=self.pool_id,
            db_host=POOL,
            db_port=PORT,
            db_user=tenant.role,
            db_type="shared",
            service_name=service,
            internal_url=f"http://{service}:{definitions.ODOO_PORT}",
            **columns,
        )
        made = definitions.odoo(
            service,
            self.network,
            directory=directory,
            env={
                "ODOO_DATABASE_HOST": POOL,
                "ODOO_DATABASE_PORT_NUMBER": str(PORT),
                "ODOO_DATABASE_NAME": tenant.database,
                "ODOO_DATABASE_USER": tenant.role,
                "ODOO_DATABASE_PASSWORD": tenant.password,
            },
            instance_id=instance,
            host=f"{tenant.database}.example.com",
        )
        made["TaskTemplate"]["ContainerSpec"]["Healthcheck"] = definitions.HEALTH_CHECK
        await self.engine.ask("POST", "services/create", made)
        return site

    async def wait_until_serving(self, site: Site, *, limit: float = services.READY_SECONDS) -> None:
        """Return when the instance answers."""
        await services.wait_for(f"{site.url}/web/health", f"instance {site.tenant.database} to serve", limit)

    @asynccontextmanager
    async def consumer(
        self,
        name: str = "consumer",
        *,
        module: Sequence[str] = IMAGES_OWN,
        settings: Mapping[str, str] | None = None,
    ) -> AsyncIterator[None]:
        """A consumer as a service, ready to handle events; its log is followed into the file `<name>.log`.

        Args:
            name: of the log.
            module: what to run instead of the image's own `rehome run`: a module with its arguments.
            settings: additional environment variables.
        """
        async with services.consumer(
            self.engine,
            self.network,
            self.forwards,
            command=() if module == IMAGES_OWN else [PYTHON, "-m", *module],
            env={**self.inside_settings(), **(settings or {})},
            directories=(self.data_root, self.backup_root, self.engine.socket_mount),
            log=self.directory / f"{name}.log",
        ):
            yield

    def inside_settings(self) -> dict[str, str]:
        """The consumer's settings on the overlay network: services by their names."""
        return self._settings(
            AMQP_URL=self.inside(self.broker.url()),
            PLATFORM_DSN=self.inside(self.platform.instance_dsn),
            BILLING_DSN=self.inside(self.platform.billing_dsn),
            DATABASE_SERVICE_URL=f"http://{services.DATABASE_SERVICE}:{services.DATABASE_SERVICE_PORT}",
            HTTP_PORT=str(services.CONSUMER_PORT),
            HTTP_HOST="0.0.0.0",  # noqa: S104 - in a container; asked from outside of it
            PG_BIN=str(programs()),
        )

    def _settings(self, **more: str) -> dict[str, str]:
        given = {
            "DATA_ROOT": str(self.data_root),
            "BACKUP_ROOT": str(self.backup_root),
            "SECRET_KEY": self.secret_key,
            "RUNTIME": "swarm",
            "LONGEST_RETRY": "1s",
            "START_TIMEOUT": "60",
            **more,
        }
        return {"DOCKER_HOST": self.engine.host, **{f"REHOME_{name}": value for name, value in given.items()}}


@asynccontextmanager
async def swarm_platform(
    directory: Path, tenants: Sequence[Tenant], *, engine: SandboxEngine | None = None
) -> AsyncIterator[SwarmPlatform]:
    """Start everything but the consumer; the tenants' databases are on the pool, with Odoo's demo data.

    Args:
        directory: an existing directory that other accounts may pass through.
        tenants: whose databases to make; `SwarmPlatform.add_site` makes their instances.
        engine: one that the caller has created and destroys; by default a private one is made.

    Raises:
        EngineMissingError: no Docker engine can run here.
    """
    async with AsyncExitStack() as stack:
        starting: list[Awaitable[None]] = []
        if engine is None:
            engine = PrivateEngine(directory / "engine")
            stack.push_async_callback(engine.destroy)
            starting.append(engine.create())
        conf, definitions_file = RABBITMQ / "rabbitmq.conf", RABBITMQ / "definitions.json"
        broker = await BrokerNode.create(directory / "broker", definitions=definitions_file, conf=conf)
        stack.push_async_callback(broker.destroy)
        await asyncio.gather(broker.start(), *starting)
        forwards = Forwards(engine)
        stack.push_async_callback(forwards.close)
        network = await engine.network()
        pool, cluster = await asyncio.gather(
            *(
                start(
                    engine, name, directory / name, password=secrets.token_urlsafe(24), reach=forwards.resolve
                )
                for start, name in ((start_odoo_pool, POOL), (start_server, PLATFORM))
            )
        )
        for tenant in tenants:
            await add_odoo_tenant(pool, tenant)
        platform = await create_platform(cluster, password=secrets.token_urlsafe(24))
        await _grant_no_more_than(platform, (await engine.ask("GET", "info"))["NCPU"])
        pool_id = await platform.add_server(
            POOL, pool, host=POOL, port=PORT, max_instances=50, current_instances=len(tenants)
        )
        made = SwarmPlatform(directory, engine, forwards, network, broker, pool, pool_id, platform)
        made.data_root.mkdir()
        made.backup_root.mkdir()
        await stack.enter_async_context(
            services.broker_gateway(engine, network, directory / "gateway", broker.port)
        )
        await services.start_database_service(
            engine,
            network,
            directory / "dedicated",
            platform_dsn=made.inside(cluster.dsn(platform.instance_database)),
            url=made.database_service_url,
        )
        yield made


async def _grant_no_more_than(platform: Platform, cpus: int) -> None:
    """A node takes no task whose limit is above its cores, and a plan's may be above this machine's."""
    async with platform.cluster.connect(platform.billing_database) as connection:
        await connection.execute(_CAP_LIMITS, cpus)
