"""The arena on a swarm: instances and servers are services, the consumer is a process of this machine.

It reaches services through doors, by a host map; so each customer needs a consumer that was started after it.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sandbox.chaos import Orders
from sandbox.subscriber import Subscriber
from sandbox.swarm.definitions import ODOO_PORT
from sandbox.swarm.platform import POOL, SwarmPlatform, swarm_platform
from sandbox.swarm.postgres_server import PORT
from sandbox.tenants import Tenant, create_odoo_tenant, create_tiny_tenant
from tests.chaos.arena import Arena, Consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from events.envelope import CloudEvent
    from sandbox.local import LocalPlatform, Site

STEPS = ("stop", "start")
"""Steps in which a swarm is another world than processes are."""


@dataclass
class SwarmArena(Arena):
    """Attributes:
    swarm: the platform; `local` is the same, for what both kinds of platform have in common.
    sites: the customers there are.
    """

    swarm: SwarmPlatform = field(kw_only=True)
    sites: list[Site] = field(default_factory=list)

    def given(self, **more: str) -> dict[str, str]:
        """See `Arena.given`; names lead through doors."""
        doors = {(POOL, PORT)}
        for site in self.sites:
            doors |= {(f"postgres-dedicated-{site.id.hex[:8]}", PORT), (site.service, ODOO_PORT)}
        mapped = [(name, *self.swarm.resolve(name, port)) for name, port in sorted(doors)]
        return {
            **self.swarm.settings(**more),
            "REHOME_HOST_MAP": ",".join(f"{name}={host}:{port}" for name, host, port in mapped),
        }

    async def ensure_consumer(self, site: Site) -> Consumer:
        """A consumer that knows the customer's doors."""
        if site not in self.sites:
            raise LookupError(f"{site.service} was not made here")
        self.consumers = [consumer for consumer in self.consumers if consumer.child.alive]
        await self.stop_consumers()
        return await self.start_consumer()

    async def make_site(self, *, odoo: bool = False, **columns: object) -> Site:
        """See `Arena.make_site`."""
        tenant = Tenant(f"t{secrets.token_hex(4)}")
        create = create_odoo_tenant if odoo else create_tiny_tenant
        await create(self.swarm.pool, tenant)
        async with self.platform() as platform:
            await platform.execute(
                "UPDATE db_servers SET current_instances = current_instances + 1 WHERE id = $1",
                self.swarm.pool_id,
            )
        site = await self.swarm.add_site(tenant, **columns)
        await self.swarm.wait_until_serving(site)
        self.sites.append(site)
        return site

    async def remove_service(self, site: Site) -> None:
        """See `Arena.remove_service`."""
        self.sites.remove(site)
        await self.swarm.engine.ask("DELETE", f"services/{site.service}", allowed=(404,))

    async def definition(self, site: Site) -> dict[str, Any]:
        """See `Arena.definition`."""
        spec: dict[str, Any] = (await self.swarm.engine.ask("GET", f"services/{site.service}"))["Spec"]
        return {**spec, "TaskTemplate": {**spec["TaskTemplate"], "ForceUpdate": 0}}

    async def environment(self, site: Site) -> dict[str, str]:
        """See `Arena.environment`."""
        container = (await self.definition(site))["TaskTemplate"]["ContainerSpec"]
        return dict(entry.split("=", 1) for entry in container["Env"])

    async def server_log(self) -> bytes:
        """See `Arena.server_log`."""
        params = {"stdout": "1", "stderr": "1"}
        answer = await self.swarm.engine.http.get(f"/services/{POOL}/logs", params=params, timeout=60)
        return answer.content

    async def runs(self, site: Site) -> str:
        """See `Arena.runs`."""
        wanted = {"filters": json.dumps({"service": [site.service]})}
        tasks = await self.swarm.engine.ask("GET", "tasks", params=wanted)
        told = (f"{task['Status']['State']} {task['Status'].get('Err', '')}".strip() for task in tasks)
        return f"its tasks: {', '.join(told)}"

    async def addresses(self, host: str) -> set[str]:
        """See `Arena.addresses`: the service's name, and its containers' addresses."""
        wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.name={host}"]})}
        containers = await self.swarm.engine.ask("GET", "containers/json", params=wanted)
        networks = [
            network for told in containers for network in told["NetworkSettings"]["Networks"].values()
        ]
        return {host} | {network["IPAddress"] for network in networks}

    def refuse(self, times: int) -> None:
        """database-service is a service here, and well."""
        if times:
            raise LookupError("on a swarm database-service does not fail on order")

    async def dedicated(self, site: Site) -> dict[str, Any] | None:
        """See `Arena.dedicated`; host and port are those of a door."""
        row = await super().dedicated(site)
        if row is not None:
            row["host"], row["port"] = self.swarm.resolve(row["host"], row["port"])
        return row


@asynccontextmanager
async def swarm_arena(directory: Path, **settings: str) -> AsyncIterator[SwarmArena]:
    """The platform on a swarm of its own, without tenants."""
    orders = directory / "orders"
    orders.mkdir()
    arrivals: list[tuple[float, CloudEvent[Any]]] = []

    def arrived(event: CloudEvent[Any]) -> None:
        arrivals.append((time.monotonic(), event))

    async with (
        swarm_platform(directory, []) as swarm,
        Subscriber(swarm.broker.url(), tell=arrived) as subscriber,
    ):
        made = SwarmArena(
            cast("LocalPlatform", swarm), subscriber, Orders(orders), settings, arrivals, swarm=swarm
        )
        made.orders.give(None)
        try:
            yield made
        finally:
            for consumer in made.consumers:
                consumer.child.thaw()
            with suppress(TimeoutError):
                await made.stop_consumers()
