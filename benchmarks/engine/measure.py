"""`make bench-engine`: what a step that does nothing costs, beside a bare message, an earlier revision, other ways."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from benchmarks.engine import peers
from benchmarks.engine.ours import STEPS, Timing, consumers, moving, upgrade
from benchmarks.report import Table, say
from benchmarks.revisions import exported
from rehome_consumer.adapters.rabbitmq import connection as amqp
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.bootstrap import pool
from rehome_consumer.ports.engine import Message
from rehome_events.envelope import encode
from sandbox.platform.local import RABBITMQ, ROOT
from sandbox.postgres.databases import create_database
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode

if TYPE_CHECKING:
    from pathlib import Path

QUEUE: Final = "benchmark"
OURS: Final = "claim, fencing token, one transaction for result, state and event; each event to handlers once"
BARE: Final = "nothing of a step: publish, confirm, consume, acknowledge"
GROW: Final = (
    """
    INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan, state, ended_at)
    SELECT gen_random_uuid(), gen_random_uuid(), convert_to(repeat('x', 600), 'UTF8'), gen_random_uuid(), 'premium',
        'completed', now()
    FROM generate_series(1, $1)
    """,
    """
    INSERT INTO rehome.steps (migration_id, attempt, step, state, runs, done_at)
    SELECT id, 1, step, 'done', 1, now() FROM rehome.migrations, unnest($1::text[]) AS step WHERE state = 'completed'
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO rehome.history (migration_id, attempt, what)
    SELECT migration_id, 1, step || ' done' FROM rehome.steps WHERE state = 'done'
    """,
    """
    INSERT INTO rehome.outbox (migration_id, event_id, exchange, routing_key, body, sent_at)
    SELECT migration_id, gen_random_uuid(), 'migration', step, convert_to(repeat('x', 900), 'UTF8'), now()
    FROM rehome.steps WHERE state = 'done'
    """,
)
"""Ended migrations, with everything that one leaves in the journal for two days."""
SETTLED: Final = ("VACUUM ANALYZE", "CHECKPOINT")
"""As after days: what was inserted just now is written out and vacuumed, or that work would be measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        moves: one after the other.
        at_once: moves at the same time.
        rounds: times that each is measured, in turn, since other work on the machine changes every figure.
        against: an earlier revision of this project, by git; None for none.
        peers: other ways.
        processes: numbers of consumers.
        grown: numbers of ended migrations.
    """

    moves: int = 20
    at_once: int = 50
    rounds: int = 2
    against: str | None = None
    peers: tuple[str, ...] = tuple(peers.PEERS)
    processes: tuple[int, ...] = (1, 2, 4)
    grown: tuple[int, ...] = (0, 10_000, 100_000)


@dataclass
class Measured:
    """All rounds of one way."""

    guarantee: str
    seconds: list[float] = field(default_factory=list)
    each: list[float] = field(default_factory=list)

    def take(self, one: Timing, many: Timing | None) -> None:
        """Another round."""
        self.seconds += one.seconds
        self.each += [many.each] if many else []

    def row(self, name: str, bare: float) -> tuple[object, ...]:
        """A line of the table."""
        ordered = sorted(self.seconds)
        median, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        at_once = statistics.median(self.each) if self.each else None
        return (
            name,
            1000 * median,
            1000 * p99,
            median / bare,
            "-" if at_once is None else 1000 * at_once,
            "-" if at_once is None else f"{1 / at_once:.0f}",
            self.guarantee,
        )


class Bench:
    """A broker and a state database, for all that is measured."""

    def __init__(self, directory: Path, node: BrokerNode, cluster: Cluster, plan: Plan) -> None:
        """Take the servers, which run."""
        self.directory = directory
        self.node = node
        self.cluster = cluster
        self.plan = plan

    async def database(self) -> str:
        """A new one; its DSN."""
        name = f"state_{uuid4().hex[:8]}"
        await create_database(self.cluster, name)
        return self.cluster.dsn(name)

    async def ours(
        self, source: Path, *, count: int = 1, dsn: str | None = None, moves: int | None = None
    ) -> tuple[Timing, Timing]:
        """One move at a time, then many at once, with the code in `source`."""
        dsn = dsn or await self.database()
        async with (
            consumers(self.node.url(), dsn, self.directory, count, source),
            moving(self.node.url()) as played,
        ):
            await played.one_at_a_time(2)  # connections are opened, statements prepared
            one = await played.one_at_a_time(moves or self.plan.moves)
            return one, await played.at_once(self.plan.at_once)

    async def bare(self, count: int) -> Timing:
        """A message to the broker and back, one after the other."""
        found = Timing()
        async with amqp.connected(self.node.url(), name="benchmark") as connection:
            channel = await connection.channel()
            await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
            broker = AmqpBroker(connection)
            deliveries = broker.consume(QUEUE)
            for _ in range(count):
                began = time.perf_counter()
                await broker.publish("", QUEUE, Message.of_event(encode(upgrade())), mandatory=True)
                await (await anext(deliveries)).ack()
                found.seconds.append(time.perf_counter() - began)
            await deliveries.aclose()
        return found


async def measure(directory: Path, plan: Plan) -> list[Table]:
    """All tables.

    Args:
        directory: for the servers.
        plan: what is measured.
    """
    node = await BrokerNode.create(
        directory / "broker", definitions=RABBITMQ / "definitions.json", conf=RABBITMQ / "rabbitmq.conf"
    )
    cluster = await Cluster.create(directory / "state", password=uuid4().hex, settings={"fsync": "on"})
    try:
        await asyncio.gather(node.start(), cluster.start())
        bench = Bench(directory, node, cluster, plan)
        return [await _beside_others(bench), await _processes(bench), await _grown(bench)]
    finally:
        await node.destroy()
        await cluster.destroy()


async def _beside_others(bench: Bench) -> Table:
    """Ours, an earlier revision, and other ways, in turn."""
    plan = bench.plan
    found = {"a bare message": Measured(BARE), "rehome": Measured(OURS)}
    earlier = await exported(plan.against) if plan.against else None
    if earlier is not None:
        found[f"rehome at {plan.against}"] = Measured(OURS)
    ready = [peer for name in plan.peers if (peer := await peers.prepared(name)) is not None]
    for peer in ready:
        found[peer.title] = Measured(peer.guarantee)
    for number in range(plan.rounds):
        say(f"engine: round {number + 1} of {plan.rounds}")
        found["a bare message"].take(await bench.bare(plan.moves * STEPS), None)
        found["rehome"].take(*await bench.ours(ROOT))
        if earlier is not None:
            found[f"rehome at {plan.against}"].take(*await bench.ours(earlier))
        for peer in list(ready):
            dsn = await bench.database()
            timings = await peers.played(peer, bench.node.url(), dsn, plan.moves, plan.at_once)
            if timings is None:
                ready.remove(peer)
            else:
                found[peer.title].take(*timings)
    bare = statistics.median(found["a bare message"].seconds)
    table = Table(
        f"A step that does nothing; moves of {STEPS} steps, one at a time and {plan.at_once} at once",
        ("", "ms, median", "ms, p99", "ratio", f"ms, {plan.at_once} at once", "steps a second", "guarantees"),
    )
    table.rows += [one.row(name, bare) for name, one in found.items() if one.seconds]
    return table


async def _processes(bench: Bench) -> Table:
    """More consumers."""
    table = Table("Consumer processes", ("consumers", "ms, median, one move at a time", "steps a second"))
    for count in bench.plan.processes:
        one, many = await bench.ours(ROOT, count=count, moves=max(3, bench.plan.moves // 2))
        table.rows.append((count, 1000 * statistics.median(one.seconds), f"{1 / many.each:.0f}"))
    return table


async def _grown(bench: Bench) -> Table:
    """A journal with many migrations that are over."""
    table = Table(
        "Ended migrations in the journal",
        ("ended", "ms, median, one move at a time", "steps a second", "size"),
    )
    dsn, there = await bench.database(), 0
    async with pool(dsn, "state database", 1) as state:
        await PostgresJournal(state, SecretCipher(None)).make_schema()
    for wanted in sorted(bench.plan.grown):
        async with bench.cluster.connect(dsn.rpartition("/")[2]) as connection:
            if wanted > there:
                await _grow(connection, wanted - there)
            size = await connection.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
        there = wanted
        one, many = await bench.ours(ROOT, dsn=dsn, moves=max(3, bench.plan.moves // 2))
        table.rows.append((wanted, 1000 * statistics.median(one.seconds), f"{1 / many.each:.0f}", size))
    return table


async def _grow(connection: Any, count: int) -> None:
    steps = [
        "accept",
        "prepare",
        "stop",
        "back_up",
        "provision",
        "rewrite_conf",
        "restore",
        "start",
        "complete",
    ]
    async with connection.transaction():
        for statement, arguments in zip(GROW, ((count,), (steps,), (), ()), strict=True):
            await connection.execute(statement, *arguments, timeout=600)
    for statement in SETTLED:
        await connection.execute(statement, timeout=600)
