"""One platform for many experiments: each gets a customer of its own; only the consumer is killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import aio_pika

from sandbox.demo.chaos import DIRECTORY, Orders
from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import READY_SECONDS, ROOT, LocalPlatform, Site, local_platform
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.databases import drop_database, quoted
from sandbox.postgres.pool import add_odoo_tenant
from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK, free_port, wait_until
from sandbox.system.processes import Child, run
from tests.chaos.consumers import Consumer
from tests.support.at_rest import take_dead_letters, under_way, waiting_messages
from tests.support.warm_stage import FOLLOWABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import asyncpg

    from rehome_events.envelope import CloudEvent

    Arrivals = list[tuple[float, CloudEvent[Any]]]

A = TypeVar("A", bound="Arena")

PLAN = "premium-monthly"
QUIET_SECONDS = 120.0
COMMAND_SECONDS = 60.0


@dataclass
class Arena:
    """A platform, a subscriber to everything, and the consumers that run at the moment.

    Attributes:
        local: the platform.
        subscriber: receives every event from the start on.
        orders: what the consumers are ordered to do.
        settings: further settings of consumers started from now on.
        arrivals: when (monotonic seconds) the subscriber got each event, repeats too.
    """

    local: LocalPlatform
    subscriber: Subscriber
    orders: Orders
    settings: dict[str, str] = field(default_factory=dict)
    arrivals: Arrivals = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    started: int = 0

    @property
    def billing(self) -> Billing:
        """Publishes upgrades."""
        local = self.local
        return Billing(local.broker.url(), local.platform.instance_dsn, local.platform.billing_dsn)

    @property
    def log(self) -> Path:
        """The log of all consumers."""
        return self.local.directory / "consumer.log"

    async def start_consumer(self, **settings: str) -> Consumer:
        """One more consumer, ready to handle events."""
        self.started += 1
        port = free_port()
        environment = self.consumer_environment(HTTP_PORT=str(port), HTTP_HOST=LOOPBACK)
        child = await Child.start(
            f"consumer {self.started}",
            [sys.executable, "-m", "sandbox.demo.chaos"],
            log=self.log,
            env={
                **os.environ,
                **environment,
                **self.settings,
                **settings,
                DIRECTORY: str(self.orders.directory),
            },
            directory=ROOT,
        )
        consumer = Consumer(child, port)
        self.consumers.append(consumer)

        async def ready() -> bool:
            child.require_alive()
            return await consumer.deliveries_in_hand() is not None

        await wait_until(ready, what=f"{child.name} to be ready", limit=READY_SECONDS, pause=0.05)
        return consumer

    def consumer_environment(self, **more: str) -> dict[str, str]:
        """Every consumer's environment, `more` on top (without the prefix REHOME_)."""
        return self.local.settings(**more)

    async def rehome(self, *words: str) -> str:
        """The output of an operator's command. Raises CommandFailedError when it does not exit with 0."""
        env = {**os.environ, **self.consumer_environment(), **self.settings}
        return await run([sys.executable, "-m", "rehome_consumer", *words], limit=COMMAND_SECONDS, env=env)

    async def ensure_consumer(self, site: Site) -> Consumer:
        """A consumer that can serve this customer; started if none is running."""
        self.consumers = [consumer for consumer in self.consumers if consumer.child.alive]
        return self.consumers[0] if self.consumers else await self.start_consumer()

    async def stop_consumers(self, limit: float = 60.0) -> None:
        """Stop all of them with SIGTERM."""
        await asyncio.gather(*(consumer.child.stop(limit=limit) for consumer in self.consumers))
        self.consumers.clear()

    async def make_site(self, *, odoo: bool = False, **columns: object) -> Site:
        """A customer whose instance serves; with Odoo's demonstration database, or a tiny one of many kinds."""
        tenant = Tenant(f"t{secrets.token_hex(4)}")
        await (self.make_odoo_tenant(tenant) if odoo else create_tiny_tenant(self.local.pool, tenant))
        if self.settings.get("REHOME_STRATEGY") == "auto":
            async with self.local.pool.connect(tenant.database) as connection:
                await connection.execute(FOLLOWABLE)
        async with self.platform() as platform:
            await platform.execute(
                "UPDATE db_servers SET current_instances = current_instances + 1 WHERE id = $1",
                self.local.pool_id,
            )
        site = await self.local.add_site(tenant, **columns)
        await self.local.wait_until_serving(site)
        return site

    async def make_odoo_tenant(self, tenant: Tenant) -> None:
        """A role and a database with Odoo's demonstration data."""
        await add_odoo_tenant(self.local.pool, tenant)

    async def remove_site(self, site: Site) -> None:
        """Remove the instance, its dedicated server, its database and its rows."""
        await self.remove_service(site)
        async with self.platform() as platform:
            home = await platform.fetchval(
                "DELETE FROM instances WHERE id = $1 RETURNING db_server_id", site.id
            )
            await platform.execute(
                "UPDATE db_servers SET current_instances = current_instances - 1 WHERE id = $1", home
            )
            servers = await platform.fetch(
                "SELECT id FROM db_servers WHERE dedicated_to_instance_id = $1", site.id
            )
        async with plain_http(self.local.database_service_url) as http:
            for server in servers:
                await http.delete(f"/api/database/servers/{server['id']}", timeout=60)
        await drop_database(self.local.pool, site.tenant.database)
        async with self.local.pool.connect() as pool:
            await pool.execute(f"DROP ROLE IF EXISTS {quoted(site.tenant.role)}")

    async def remove_service(self, site: Site) -> None:
        """Remove the instance's service."""
        await self.local.remove_service(site)

    async def definition(self, site: Site) -> dict[str, Any]:
        """The service's definition as a rollback must restore it: without the count of forced restarts."""
        spec: dict[str, Any] = (await self.local.supervisor.show(site.service))["spec"]
        return {**spec, "force": 0}

    async def service_environment(self, site: Site) -> dict[str, str]:
        """The service's environment."""
        env: dict[str, str] = (await self.definition(site))["env"]
        return env

    async def server_log(self) -> bytes:
        """The pool's log."""
        return self.local.pool.log.read_bytes()

    async def describe_tasks(self, site: Site) -> str:
        """The state of the instance's tasks, for an error."""
        return f"its tasks: {(await self.local.supervisor.show(site.service))['tasks']}"

    async def addresses(self, host: str) -> set[str]:
        """Names and addresses under which an instance may be connected to a server of the records."""
        return {host}

    def fail_database_service(self, times: int) -> None:
        """Let database-service fail so many times."""
        self.local.database_service.switches = Switches(fail_times=times, fail_status=503)

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """The platform's database, and the journal in it, as superuser."""
        cluster = self.local.platform.cluster
        async with cluster.connect(self.local.platform.instance_database) as connection:
            yield connection

    async def dedicated(self, site: Site) -> dict[str, Any] | None:
        """The row of the instance's dedicated server."""
        async with self.platform() as platform:
            row = await platform.fetchrow(
                "SELECT * FROM db_servers WHERE dedicated_to_instance_id = $1 AND status = 'active'", site.id
            )
        return dict(row) if row else None

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
        """A channel of its own: the broker may have been restarted since the last."""
        async with (
            await aio_pika.connect(self.local.broker.url(), timeout=10) as connection,
            connection.channel() as channel,
        ):
            yield channel

    async def waiting(self) -> list[str]:
        """Messages in the queues of steps and delays, as text."""
        counts = await waiting_messages(self.local.broker.url())
        return [f"{count} message(s) in {name}" for name, count in counts.items()]

    async def activity(self, but: Consumer | None = None) -> list[str]:
        """What is under way, the cheapest check first; one consumer may be left out: a frozen one."""
        running = [consumer for consumer in self.consumers if consumer.child.alive and consumer is not but]
        found = [
            f"{consumer.child.name} has {count} deliveries in hand"
            for consumer in running
            if (count := await consumer.deliveries_in_hand()) != 0
        ]
        if not found:
            async with self.platform() as platform:
                found = await under_way(platform)
        return found or await self.waiting()

    async def wait_until_quiet(self, but: Consumer | None = None, limit: float = QUIET_SECONDS) -> None:
        """Return when two checks in a row find nothing under way.

        Raises:
            TimeoutError: something still is; the error says what.
        """
        last: list[str] = []

        async def quiet() -> bool:
            for pause in (0.2, 0.0):
                last[:] = await self.activity(but)
                if last:
                    return False
                await asyncio.sleep(pause)
            return True

        try:
            await wait_until(quiet, what="rest", limit=limit, pause=0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; still under way: {'; '.join(last)}") from None

    async def dead_letters(self) -> list[aio_pika.abc.AbstractIncomingMessage]:
        """Take all dead letters from their queue."""
        return await take_dead_letters(self.local.broker.url())


@asynccontextmanager
async def running_arena(
    directory: Path, broker_url: str, build: Callable[[Subscriber, Orders, Arrivals], A]
) -> AsyncIterator[A]:
    """What `build` makes with a subscriber to everything, the consumers' orders, and a list of arrivals.

    At the end all consumers are stopped, frozen ones too.
    """
    orders = Orders(directory / "orders")
    orders.directory.mkdir()
    orders.give(None)
    arrivals: Arrivals = []

    def arrived(event: CloudEvent[Any]) -> None:
        arrivals.append((time.monotonic(), event))

    async with Subscriber(broker_url, on_event=arrived) as subscriber:
        made = build(subscriber, orders, arrivals)
        try:
            yield made
        finally:
            for consumer in made.consumers:
                consumer.child.thaw()
            with contextlib.suppress(TimeoutError):
                await made.stop_consumers()


@asynccontextmanager
async def arena(directory: Path, **settings: str) -> AsyncIterator[Arena]:
    """The platform without tenants and consumers: each experiment brings its own."""
    async with local_platform(directory, []) as local:
        if settings.get("REHOME_STRATEGY") == "auto" and not local.prepare_for_warm_moves():
            raise LookupError("warm moves need PostgreSQL 16 or newer: scripts/setup-postgresql 17")

        def build(subscriber: Subscriber, orders: Orders, arrivals: Arrivals) -> Arena:
            return Arena(local, subscriber, orders, settings, arrivals)

        async with running_arena(directory, local.broker.url(), build) as made:
            yield made
