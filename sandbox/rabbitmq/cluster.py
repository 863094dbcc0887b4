"""A RabbitMQ cluster of three nodes, and one address in front of them.

The nodes share a port mapper and a cookie. The topology is loaded when they have found each other, so that
each quorum queue has a member on every node.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import LOOPBACK, free_port, give_back_port, pass_on, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

NAMES = ("one", "two", "three")
COOKIE = ".erlang.cookie"
READY_SECONDS = 180.0
DISCOVERY = (
    "cluster_formation.peer_discovery_backend = classic_config",
    *(
        f"cluster_formation.classic_config.nodes.{number} = {name}@localhost"
        for number, name in enumerate(NAMES, 1)
    ),
)


@dataclass
class BrokerCluster:
    """The cluster; it has the methods of one `BrokerNode` that its users call.

    Attributes:
        nodes: the first has the port mapper.
        port: connects to any node that is running.
    """

    nodes: Sequence[BrokerNode]
    port: int
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self) -> str:
        """As the nodes' user guest."""
        return self.nodes[0].url().replace(f":{self.nodes[0].port}/", f":{self.port}/")

    async def rabbitmqctl(self, *arguments: str, limit: float = 90.0) -> str:
        """Run it against a node that is running."""
        return await self._running_nodes()[0].rabbitmqctl(*arguments, limit=limit)

    async def queues(self) -> dict[str, dict[str, Any]]:
        """As a node that is running reports them."""
        return await self._running_nodes()[0].queues()

    async def running(self) -> set[str]:
        """Names of the nodes that are in the cluster now, as one of them reports."""
        status = json.loads(await self.rabbitmqctl("cluster_status", "--formatter", "json"))
        return {str(name).partition("@")[0] for name in status["running_nodes"]}

    async def restart(self, *nodes: BrokerNode) -> None:
        """Start nodes that were killed, together: each may wait for the others."""
        await asyncio.gather(*(node.start(limit=READY_SECONDS) for node in nodes))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a client's connection on to the first node that accepts it, until either end closes it."""
        for node in self._running_nodes():
            with contextlib.suppress(OSError):
                there, to_node = await asyncio.open_connection(LOOPBACK, node.port)
                self._connections |= {writer, to_node}
                await asyncio.gather(pass_on(reader, to_node), pass_on(there, writer))
                self._connections -= {writer, to_node}
                return
        writer.close()

    def hang_up(self) -> None:
        """End every connection."""
        for writer in self._connections:
            writer.close()

    def _running_nodes(self) -> list[BrokerNode]:
        return [node for node in self.nodes if node.running]


@asynccontextmanager
async def broker_cluster(directory: Path, *, definitions: Path, conf: Path) -> AsyncIterator[BrokerCluster]:
    """Three nodes with the topology, each queue on all of them.

    Args:
        directory: for the nodes, made if missing.
        definitions: the topology.
        conf: a deployed node's `rabbitmq.conf`.
    """
    nodes = [await BrokerNode.create(directory / name, conf=conf, name=name) for name in NAMES]
    cluster = BrokerCluster(nodes, free_port())
    front = await asyncio.start_server(cluster.carry, LOOPBACK, cluster.port)
    try:
        await _start(nodes)

        async def complete() -> bool:
            return await cluster.running() == set(NAMES)

        await wait_until(complete, what="three brokers to form a cluster", limit=READY_SECONDS, pause=0.5)
        await cluster.rabbitmqctl("import_definitions", str(definitions))
        yield cluster
    finally:
        front.close()
        cluster.hang_up()
        await asyncio.gather(*(node.kill() for node in nodes if node.running))
        for node in reversed(nodes):
            await node.destroy()
        give_back_port(cluster.port)


async def _start(nodes: Sequence[BrokerNode]) -> None:
    """All at once: with one port mapper, one cookie and each other's names they form a cluster."""
    cookie = secrets.token_hex(16)
    for node in nodes:
        file = node.directory / "home" / COOKIE
        file.write_text(cookie)
        file.chmod(0o400)
        with (node.directory / "rabbitmq.conf").open("a") as own:
            own.write("\n".join(DISCOVERY) + "\n")
    first, *others = nodes
    await first.start_port_mapper()
    for node in others:
        node.share_port_mapper(first)
    await asyncio.gather(*(node.start(limit=READY_SECONDS) for node in nodes))
