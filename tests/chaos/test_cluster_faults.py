"""A cluster of three brokers loses a node, or the majority for a while, in the middle of a move."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.demo.chaos import Orders
from sandbox.platform.local import RABBITMQ
from sandbox.platform.subscriber import Subscriber
from sandbox.rabbitmq.cluster import BrokerCluster, broker_cluster
from tests.chaos.arena import Arena
from tests.chaos.moving import Move, hold

WITHOUT_MAJORITY_SECONDS = 15.0


@dataclass
class Clustered:
    """A move whose consumer, billing and subscriber use the cluster."""

    cluster: BrokerCluster
    move: Move


@pytest.fixture(scope="module")
async def cluster(scratch: Path) -> AsyncIterator[BrokerCluster]:
    async with broker_cluster(
        scratch / "cluster",
        definitions=RABBITMQ / "definitions.json",
        conf=RABBITMQ / "rabbitmq.conf",
    ) as made:
        yield made


@pytest.fixture
async def clustered(cluster: BrokerCluster, place: Arena) -> AsyncIterator[Clustered]:
    """The arena's platform with another broker."""
    await cluster.restart(*(node for node in cluster.nodes if not node.running))
    broker: Any = cluster
    local = replace(place.local, broker=broker)
    async with Subscriber(cluster.url()) as subscriber:
        arena = Arena(local, subscriber, Orders(place.orders.directory))
        move = Move(arena)
        yield Clustered(cluster, move)
        await cluster.restart(*(node for node in cluster.nodes if not node.running))
        await move.close()


@pytest.mark.parametrize(
    "where",
    ["accept.ran", pytest.param("stop.ran", marks=pytest.mark.representative), "restore.started"],
)
async def test_the_loss_of_the_node_with_the_queue_leaders_and_the_connections_only_delays_a_move(
    where: str, clustered: Clustered
) -> None:
    move, cluster = clustered.move, clustered.cluster
    await move.begin(order=hold(where))
    await move.until_reached()
    await cluster.nodes[0].kill()  # it leads the queues, and is the first that connections go to
    move.release()
    await move.must_end("migration.completed")


@pytest.mark.parametrize(
    "where", [pytest.param("back_up.ran", marks=pytest.mark.representative), "start.ran"]
)
async def test_without_a_majority_a_move_waits_until_there_is_one_again(
    where: str, clustered: Clustered
) -> None:
    move, cluster = clustered.move, clustered.cluster
    await move.begin(order=hold(where))
    await move.until_reached()
    lost = cluster.nodes[1:]
    await asyncio.gather(*(node.kill() for node in lost))
    move.release()
    await asyncio.sleep(WITHOUT_MAJORITY_SECONDS)  # the fault itself, not a wait for something
    await cluster.restart(*lost)
    await move.must_end("migration.completed")
