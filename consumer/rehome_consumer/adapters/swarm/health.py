"""Asks an instance over HTTP whether it serves, at the address of one task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from rehome_consumer.adapters.common import http_status
from rehome_consumer.adapters.swarm.spec import http_port

if TYPE_CHECKING:
    from rehome_consumer.adapters.swarm.tasks import SwarmService, SwarmTask
    from rehome_consumer.network.hosts import Resolve

HEALTH = "/web/health"
LOGIN = "/web/login"  # older versions of Odoo have no /web/health


class HealthCheck:
    """One request over HTTP.

    On the overlay network it goes to the task's own address, so that the answer is that task's. Outside of it
    the service's name is mapped to an address; then the answer may be any task's, and the caller makes sure
    that only one runs.
    """

    def __init__(self, http: httpx.AsyncClient, resolve: Resolve, port: int) -> None:
        """Send requests with `http`, which has the time-out.

        Args:
            http: shared client.
            resolve: (name, port) to an address that this process reaches.
            port: of services whose labels give none.
        """
        self._http = http
        self._resolve = resolve
        self._port = port

    def url(self, service: SwarmService) -> str:
        """The instance's URL inside the overlay network, with the service's name."""
        return f"http://{service.name}:{http_port(service.spec, self._port)}"

    async def failure(self, service: SwarmService, task: SwarmTask) -> str | None:
        """None when the task serves, else what it answered."""
        failure = None
        for host, port in self._addresses(service, task):
            failure = await self._failure_at(f"http://{host}:{port}")
            if failure is None:
                return None
        return failure

    def _addresses(self, service: SwarmService, task: SwarmTask) -> list[tuple[str, int]]:
        named = (service.name, http_port(service.spec, self._port))
        mapped = self._resolve(*named)
        if mapped != named or not task.addresses:
            return [mapped]
        return [self._resolve(address, named[1]) for address in task.addresses]

    async def _failure_at(self, base: str) -> str | None:
        failure = await http_status.failure(self._http, f"{base}{HEALTH}")
        path = HEALTH
        if failure == f"HTTP {httpx.codes.NOT_FOUND.value}":
            failure, path = await http_status.failure(self._http, f"{base}{LOGIN}"), LOGIN
        return failure and f"{path}: {failure}"
