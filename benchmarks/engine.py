"""The cost of the engine alone: real broker, journal and claims, and steps that do nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock
from uuid import UUID, uuid4

import asyncpg

from benchmarks.report import Table, say
from rehome_consumer import saga
from rehome_consumer.adapters.rabbitmq import connection as amqp
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.bootstrap import SystemClock
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.model import Policy
from rehome_consumer.ports.engine import Message
from rehome_consumer.ports.steps import Ports
from rehome_consumer.process.worker import Worker
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import encode, new_event
from rehome_events.tools.schema import golden
from sandbox.platform.local import RABBITMQ
from sandbox.platform.subscriber import Subscriber
from sandbox.postgres.databases import create_database
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from rehome_consumer.move import Move
    from rehome_events.envelope import CloudEvent, EventData

LIMIT_SECONDS: Final = 300.0
EVENTS_PER_MOVE: Final = len(saga.MIGRATION) - 1
"""Deliveries that the engine handles for one move: every step but the rollback."""
QUEUE: Final = "benchmark"


async def measure(directory: Path, moves: int) -> list[Table]:
    """Moves one after the other, then all at once; for comparison bare messages through the same broker.

    Args:
        directory: for the servers.
        moves: how many in each round.
    """
    node = await BrokerNode.create(
        directory / "broker", definitions=RABBITMQ / "definitions.json", conf=RABBITMQ / "rabbitmq.conf"
    )
    cluster = await Cluster.create(directory / "state", password=uuid4().hex, settings={"fsync": "on"})
    try:
        await asyncio.gather(node.start(), cluster.start())
        await create_database(cluster, "state")
        bare = await _bare(node.url(), moves * EVENTS_PER_MOVE)
        async with (
            _consumer(node.url(), cluster.dsn("state")) as publish,
            Subscriber(node.url()) as subscriber,
        ):
            one = await _timed(publish, subscriber, [1] * moves)
            many = await _timed(publish, subscriber, [moves])
    finally:
        await node.destroy()
        await cluster.destroy()
    table = Table(
        f"The engine alone, {moves} moves of {EVENTS_PER_MOVE} events, steps that do nothing",
        ("", "ms per event (median)", "ratio", "events per second"),
    )
    for name, seconds in (
        ("publish, confirm, consume, acknowledge; nothing else", bare),
        ("one move at a time", one),
        (f"{moves} moves at once", many),
    ):
        table.rows.append((name, 1000 * seconds, seconds / bare, f"{1 / seconds:.0f}"))
        say(f"engine: {name}: {1000 * seconds:.1f} ms per event")
    return [table]


async def _timed(
    publish: Callable[[CloudEvent[PlanUpgraded]], Awaitable[None]], subscriber: Subscriber, rounds: list[int]
) -> float:
    """Seconds per event, the median of the rounds, each of so many moves at once."""
    found = []
    for count in rounds:
        upgrades = [_upgrade() for _ in range(count)]
        began = time.perf_counter()
        for upgrade in upgrades:
            await publish(upgrade)
        for upgrade in upgrades:
            await subscriber.wait_for(
                "migration.completed", instance_id=upgrade.data.instance_id, limit=LIMIT_SECONDS
            )
        found.append((time.perf_counter() - began) / (count * EVENTS_PER_MOVE))
    return statistics.median(found)


async def _bare(url: str, count: int) -> float:
    """Seconds per message to the broker and back, one after the other: the minimum."""
    found = []
    async with amqp.connected(url, name="benchmark") as connection:
        channel = await connection.channel()
        await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        broker = AmqpBroker(connection)
        deliveries = broker.consume(QUEUE)
        for _ in range(count):
            began = time.perf_counter()
            await broker.publish("", QUEUE, Message.of_event(encode(_upgrade())), mandatory=True)
            await (await anext(deliveries)).ack()
            found.append(time.perf_counter() - began)
        await deliveries.aclose()
    return statistics.median(found)


@asynccontextmanager
async def _consumer(
    url: str, dsn: str
) -> AsyncIterator[Callable[[CloudEvent[PlanUpgraded]], Awaitable[None]]]:
    """The worker with all its parts, but steps that only emit their event; yields a function to publish upgrades."""
    async with (
        asyncpg.create_pool(dsn, min_size=2, max_size=16) as pool,
        amqp.connected(url, name="consumer") as connection,
        amqp.connected(url, name="billing") as billing,
    ):
        journal = PostgresJournal(pool, SecretCipher(uuid4().hex))
        await journal.make_schema()
        broker, publisher = AmqpBroker(connection), AmqpBroker(billing)
        relay = Relay(journal, broker)

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            return await asyncpg.connect(dsn)

        async def publish(event: CloudEvent[PlanUpgraded]) -> None:
            message = Message.of_event(encode(event))
            await publisher.publish("billing", event.type, message, mandatory=True)

        with mock.patch.object(saga, "MIGRATION", tuple(map(_idle, saga.MIGRATION))):
            async with journal.listening(relay.wake):
                engine = Engine(
                    journal=journal,
                    claims=PostgresClaims(connect),
                    broker=broker,
                    relay=relay,
                    ports=_no_ports(),
                )
                worker = Worker(
                    engine=engine, broker=broker, relay=relay, journal=journal, workers=2, grace=10.0
                )
                working = asyncio.create_task(worker.run())
                try:
                    yield publish
                finally:
                    worker.stop()
                    await working


def _idle(step: saga.Step) -> saga.Step:
    """The step without its work: it emits the first event that it may emit."""
    model = step.emits[0]
    example = golden(model.TYPE, model.VERSION, "valid")["full"]["data"]

    async def run(move: Move) -> EventData:
        return model.model_validate({**example, "instance_id": move.data.instance_id})

    return dataclasses.replace(step, run=run)


def _no_ports() -> Ports:
    """Ports that are never called."""
    nothing: Any = None
    unused = {field.name: nothing for field in dataclasses.fields(Ports)}
    return Ports(**{**unused, "policy": Policy(), "clock": SystemClock()})


def _upgrade() -> CloudEvent[PlanUpgraded]:
    instance: UUID = uuid4()
    example = golden("plan.upgraded", 1, "valid")["full"]["data"]
    data = PlanUpgraded.model_validate({**example, "instance_id": instance})
    return new_event(data, subject=instance, id=uuid4(), time=SystemClock().now())
