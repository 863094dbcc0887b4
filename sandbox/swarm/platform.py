"""The whole platform on a swarm: pool, platform's databases, database-service, instances and consumer as services.

RabbitMQ alone stays a process of this machine; service `rabbitmq` is a hatch to it. Everything names everything
else by service names, as in production; whoever looks on from outside goes through doors.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx

from sandbox.platform.local import RABBITMQ, Site, lay_out
from sandbox.platform.tables import Platform, create_platform
from sandbox.postgres.pool import add_odoo_tenant
from sandbox.postgres.server import programs
from sandbox.rabbitmq.node import BrokerNode
from sandbox.swarm import definitions
from sandbox.swarm.api import CONSUMER_IMAGE
from sandbox.swarm.definitions import SECOND, bind, definition
from sandbox.swarm.doors import Doors
from sandbox.swarm.engine import PrivateEngine
from sandbox.swarm.hatch import hatch
from sandbox.swarm.logs import follow
from sandbox.swarm.postgres_server import PORT
from sandbox.swarm.root import PYTHON
from sandbox.swarm.servers import start_odoo_pool, start_server
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant
    from sandbox.swarm.api import SandboxEngine

POOL, PLATFORM = "postgres-pool-1", "postgres-platform"
BROKER, DATABASE_SERVICE, CONSUMER = "rabbitmq", "database-service", "rehome"
AMQP_PORT, DATABASE_SERVICE_PORT, CONSUMER_PORT = 5672, 8010, 8080
READY_SECONDS = 120.0
STOP_SECONDS = 60.0
IMAGES_OWN = ("rehome_consumer", "run")

_CAP_LIMITS = "UPDATE plan_entitlements SET cpu_limit = least(cpu_limit, $1)"


@dataclass
class SwarmPlatform:
    """Everything around the consumer; what `sandbox.platform.local.LocalPlatform` is with processes.

    Attributes:
        directory: holds all files.
        pool: the shared PostgreSQL server as seen from outside; `pool_id` is its row.
        platform: the platform's own databases, as seen from outside.
    """

    directory: Path
    engine: SandboxEngine
    doors: Doors
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
        host, port = self.doors.resolve(DATABASE_SERVICE, DATABASE_SERVICE_PORT)
        return f"http://{host}:{port}"

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """Where a service is for whoever is not on the overlay network."""
        return self.doors.resolve(host, port)

    def settings(self, **more: str) -> dict[str, str]:
        """Settings for the command line outside of the network, `more` on top (without the prefix REHOME_)."""
        return self._settings(
            AMQP_URL=self.broker.url(),
            PLATFORM_DSN=self.platform.instance_dsn,
            BILLING_DSN=self.platform.billing_dsn,
            DATABASE_SERVICE_URL=self.database_service_url,
            HOST_MAP="{}={}:{}".format(POOL, *self.doors.resolve(POOL, PORT)),
            **more,
        )

    async def add_site(self, tenant: Tenant, **columns: object) -> Site:
        """Make an instance for a tenant whose database is on the pool, and start it."""
        instance, customer = uuid4(), uuid4()
        service = f"odoo-{tenant.database}-{instance.hex[:8]}"
        host, port = self.doors.resolve(service, definitions.ODOO_PORT)
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

    async def wait_until_serving(self, site: Site, *, limit: float = READY_SECONDS) -> None:
        """Return when the instance answers."""
        await _wait_for(f"{site.url}/web/health", f"instance {site.tenant.database} to serve", limit)

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
            module: what to run in place of the image's own `rehome run`: a module with its arguments.
            settings: environment variables on top.
        """
        mounted = (self.data_root, self.backup_root, self.engine.way_in)
        made = definition(
            CONSUMER,
            self.network,
            image=CONSUMER_IMAGE,
            command=() if module == IMAGES_OWN else [PYTHON, "-m", *module],
            env={**self._inside_settings(), **(settings or {})},
            mounts=[bind(path, str(path)) for path in mounted],
        )
        container = made["TaskTemplate"]["ContainerSpec"]
        container["User"] = "root"  # as the owner of the instances' directories
        container["StopGracePeriod"] = int(STOP_SECONDS * SECOND)
        await self.engine.ask("POST", "services/create", made)
        following = asyncio.create_task(follow(self.engine, CONSUMER, self.directory / f"{name}.log"))
        try:
            host, port = self.doors.resolve(CONSUMER, CONSUMER_PORT)
            await _wait_for(f"http://{host}:{port}/health", "the consumer to be ready", READY_SECONDS)
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self.engine.ask("DELETE", f"services/{CONSUMER}", allowed=(404,))
            await wait_until(self._consumer_gone, what="the consumer to end", limit=STOP_SECONDS, pause=0.1)

    async def _consumer_gone(self) -> bool:
        wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.name={CONSUMER}"]})}
        return not await self.engine.ask("GET", "containers/json", params=wanted)

    def _inside_settings(self) -> dict[str, str]:
        """The consumer's settings on the overlay network: services by their names."""
        inside = {self.platform.cluster.port: f"{PLATFORM}:{PORT}", self.broker.port: f"{BROKER}:{AMQP_PORT}"}

        def moved(url: str) -> str:
            for port, there in inside.items():
                url = url.replace(f"127.0.0.1:{port}", there)
            return url

        return self._settings(
            AMQP_URL=moved(self.broker.url()),
            PLATFORM_DSN=moved(self.platform.instance_dsn),
            BILLING_DSN=moved(self.platform.billing_dsn),
            DATABASE_SERVICE_URL=f"http://{DATABASE_SERVICE}:{DATABASE_SERVICE_PORT}",
            HTTP_PORT=str(CONSUMER_PORT),
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
        engine: one that was created, and that the caller destroys; by default a private one is made.

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
        doors = Doors(engine)
        stack.push_async_callback(doors.close)
        network = await engine.network()
        pool, cluster = await asyncio.gather(
            *(
                start(engine, name, directory / name, password=secrets.token_urlsafe(24), reach=doors.resolve)
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
        made = SwarmPlatform(directory, engine, doors, network, broker, pool, pool_id, platform)
        made.data_root.mkdir()
        made.backup_root.mkdir()
        await _open_hatch(stack, made)
        await _start_database_service(made)
        yield made


async def _grant_no_more_than(platform: Platform, cpus: int) -> None:
    """A node takes no task whose limit is above its cores, and a plan's may be above this machine's."""
    async with platform.cluster.connect(platform.billing_database) as connection:
        await connection.execute(_CAP_LIMITS, cpus)


async def _open_hatch(stack: AsyncExitStack, local: SwarmPlatform) -> None:
    """Service `rabbitmq`: the way out to the node on this machine."""
    place = local.directory / "hatch"
    place.mkdir()
    await stack.enter_async_context(hatch(place / "amqp.sock", local.broker.port))
    command = [PYTHON, "-m", "sandbox.swarm.hatch", str(AMQP_PORT), "/hatch/amqp.sock"]
    made = definition(BROKER, local.network, command=command, mounts=[bind(place, "/hatch")])
    await local.engine.ask("POST", "services/create", made)


async def _start_database_service(local: SwarmPlatform) -> None:
    """The service that makes services; it gets the socket, and the place for its servers' data."""
    place, way_in = local.directory / "dedicated", local.engine.way_in
    place.mkdir(mode=0o711)
    dsn = local.platform.cluster.dsn(local.platform.instance_database)
    env = {
        "DATABASE_SERVICE_PLATFORM_DSN": dsn.replace(
            f"127.0.0.1:{local.platform.cluster.port}", f"{PLATFORM}:{PORT}"
        )
    }
    arguments = [str(DATABASE_SERVICE_PORT), str(local.engine.socket), str(place)]
    made = definition(
        DATABASE_SERVICE,
        local.network,
        command=[PYTHON, "-m", "sandbox.swarm.database_service", *arguments],
        env=env,
        mounts=[bind(way_in, str(way_in)), bind(place, str(place))],
    )
    await local.engine.ask("POST", "services/create", made)
    url = f"{local.database_service_url}/"
    await _wait_for(url, "database-service to serve", READY_SECONDS, status=httpx.codes.NOT_FOUND)


async def _wait_for(url: str, what: str, limit: float, *, status: int = httpx.codes.OK) -> None:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:

        async def answers() -> bool:
            with suppress(httpx.HTTPError):
                return (await http.get(url)).status_code == status
            return False

        await wait_until(answers, what=what, limit=limit, pause=0.1)
