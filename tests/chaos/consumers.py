"""A consumer as a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from sandbox.system.http import plain_http
from sandbox.system.net import LOOPBACK

if TYPE_CHECKING:
    from sandbox.system.processes import Child


@dataclass
class Consumer:
    """A consumer's process, and the port of its /healthz and /metrics."""

    child: Child
    port: int

    async def deliveries_in_hand(self) -> int | None:
        """Deliveries that it is handling; None when it does not answer."""
        try:
            async with plain_http() as http:
                metrics = (await http.get(f"http://{LOOPBACK}:{self.port}/metrics")).text
        except httpx.HTTPError:
            return None
        lines = (
            line.split() for line in metrics.splitlines() if line.startswith("rehome_deliveries_in_progress")
        )
        return next((int(float(line[1])) for line in lines), None)
