"""The arena on a swarm: instances and servers are services, the consumer is a process of this machine.

It reaches services through forwarded ports, by a host map; so each customer needs a consumer that was started
after it.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sandbox.postgres.tenants import create_odoo_tenant
from sandbox.swarm.definitions import ODOO_PORT
from sandbox.swarm.platform import POOL, SwarmPlatform, swarm_platform
from sandbox.swarm.postgres_server import PORT
from tests.chaos.arena import Arena, running_arena

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox.demo.chaos import Orders
    from sandbox.platform.local import LocalPlatform, Site
    from sandbox.platform.subscriber import Subscriber
    from sandbox.postgres.tenants import Tenant
    from tests.chaos.arena import Arrivals
    from tests.chaos.consumers import Consumer

STEPS = ("stop", "start")
"""Steps in which a swarm differs from processes."""


@dataclass
class SwarmArena(Arena):
    """Attributes:
    swarm: the platform; `local` is the same, for what both kinds of platform have in common.
    sites: the customers there are.
    """

    swarm: SwarmPlatform = field(kw_only=True)
    sites: list[Site] = field(default_factory=list)

    def consumer_environment(self, **more: str) -> dict[str, str]:
        """See `Arena.consumer_environment`; the host map leads to forwarded ports."""
        services = {(POOL, PORT)}
        for site in self.sites:
            services |= {(f"postgres-dedicated-{site.id.hex[:8]}", PORT), (site.service, ODOO_PORT)}
        mapped = [(name, *self.swarm.resolve(name, port)) for name, port in sorted(services)]
        return {
            **self.swarm.settings(**more),
            "REHOME_HOST_MAP": ",".join(f"{name}={host}:{port}" for name, host, port in mapped),
        }

    async def ensure_consumer(self, site: Site) -> Consumer:
        """A consumer whose host map has the customer's services."""
        if site not in self.sites:
            raise LookupError(f"{site.service} was not made here")
        self.consumers = [consumer for consumer in self.consumers if consumer.child.alive]
        await self.stop_consumers()
        return await self.start_consumer()

    async def make_odoo_tenant(self, tenant: Tenant) -> None:
        """See `Arena.make_odoo_tenant`."""
        await create_odoo_tenant(self.swarm.pool, tenant)

    async def make_site(self, *, odoo: bool = False, **columns: object) -> Site:
        """See `Arena.make_site`."""
        site = await super().make_site(odoo=odoo, **columns)
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

    async def service_environment(self, site: Site) -> dict[str, str]:
        """See `Arena.service_environment`."""
        container = (await self.definition(site))["TaskTemplate"]["ContainerSpec"]
        return dict(entry.split("=", 1) for entry in container["Env"])

    async def server_log(self) -> bytes:
        """See `Arena.server_log`."""
        params = {"stdout": "1", "stderr": "1"}
        answer = await self.swarm.engine.http.get(f"/services/{POOL}/logs", params=params, timeout=60)
        return answer.content

    async def describe_tasks(self, site: Site) -> str:
        """See `Arena.describe_tasks`."""
        wanted = {"filters": json.dumps({"service": [site.service]})}
        tasks = await self.swarm.engine.ask("GET", "tasks", params=wanted)
        states = (f"{task['Status']['State']} {task['Status'].get('Err', '')}".strip() for task in tasks)
        return f"its tasks: {', '.join(states)}"

    async def addresses(self, host: str) -> set[str]:
        """See `Arena.addresses`: the service's name, and its containers' addresses."""
        wanted = {"filters": json.dumps({"label": [f"com.docker.swarm.service.name={host}"]})}
        containers = await self.swarm.engine.ask("GET", "containers/json", params=wanted)
        networks = [
            network
            for container in containers
            for network in container["NetworkSettings"]["Networks"].values()
        ]
        return {host} | {network["IPAddress"] for network in networks}

    def fail_database_service(self, times: int) -> None:
        """Not possible here: database-service is a Swarm service."""
        if times:
            raise LookupError("on a swarm database-service does not fail on order")

    async def dedicated(self, site: Site) -> dict[str, Any] | None:
        """See `Arena.dedicated`; host and port are the forwarded ones."""
        row = await super().dedicated(site)
        if row is not None:
            row["host"], row["port"] = self.swarm.resolve(row["host"], row["port"])
        return row


@asynccontextmanager
async def swarm_arena(directory: Path, **settings: str) -> AsyncIterator[SwarmArena]:
    """The platform on a swarm of its own, without tenants."""
    async with swarm_platform(directory, []) as swarm:

        def build(subscriber: Subscriber, orders: Orders, arrivals: Arrivals) -> SwarmArena:
            local = cast("LocalPlatform", swarm)
            return SwarmArena(local, subscriber, orders, settings, arrivals, swarm=swarm)

        async with running_arena(directory, swarm.broker.url(), build) as made:
            yield made
