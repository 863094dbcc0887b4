"""What a step costs in round trips: counted, not timed, so that the number cannot creep up."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import asyncpg
import pytest

from benchmarks.engine.consumer import idle
from rehome_consumer import bootstrap, saga
from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.ports.engine import Message
from rehome_consumer.process.worker import Worker
from rehome_events.envelope import encode
from sandbox.system.net import wait_until
from tests.contract.journals import KEY, state_database
from tests.fakes.broker import FakeBroker
from tests.fakes.clock import FakeClock
from tests.fakes.site import Site
from tests.support.counting_proxy import counting
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import OutboxRow
    from sandbox.postgres.server import Cluster
    from tests.support.counting_proxy import Counts

STEPS: Final = len(saga.MIGRATION) - 1
MOST_TRIPS: Final = 4.0
"""To PostgreSQL, for a step: claim and look, begin, finish, release; a confirm rides with the next begin."""
MOST_TRIPS_FREE: Final = 7
"""For slots that are free: begin, hold, lock, count, who is ahead, take, commit."""
MOST_TRIPS_TAKEN: Final = 6
"""For slots that are not: begin, hold, lock, count, get in line, commit."""
MOVES: Final = 6


class Consumer:
    """A worker with steps that do nothing, on a real state database and a broker in memory."""

    def __init__(self, counts: Counts, node: FakeBroker, dsn: str) -> None:
        self.counts = counts
        self.node = node
        self.dsn = dsn

    async def move(self) -> None:
        """One, until its last step is done and everything about it is recorded."""
        event = upgrade(uuid4())
        self.node.publish("billing", event.type, Message.of_event(encode(event)), mandatory=True)

        async def ended() -> bool:
            return any(
                stored.message.type == "migration.completed"
                and str(event.data.instance_id).encode() in stored.message.body
                for stored in self.node.queues["events"].ready
            )

        await wait_until(ended, what="the move to end", limit=30)


@pytest.fixture
async def consumer(pg: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Consumer]:
    monkeypatch.setattr(saga, "MIGRATION", tuple(map(idle, saga.MIGRATION)))
    async with state_database(pg) as dsn, counting(pg.host, pg.port) as counts:
        through = f"{dsn.replace(f':{pg.port}/', f':{counts.port}/')}?sslmode=disable"
        async with _working(counts, through) as made:
            yield made


@asynccontextmanager
async def _working(counts: Counts, dsn: str) -> AsyncIterator[Consumer]:
    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn)

    node = FakeBroker()
    node.bind("migration", "events", "#")
    async with (
        bootstrap.pool(dsn, "state database", 2, reset=bootstrap.as_it_is) as pool,
        aclosing(PostgresClaims(connect)) as claims,
    ):
        journal = PostgresJournal(pool, SecretCipher(KEY))
        await journal.make_schema()
        broker = node.client()
        relay = Relay(journal, broker)
        ports: Any = Site(FakeClock()).ports(None)  # type: ignore[arg-type] # no step asks for a fact
        engine = Engine(journal=journal, claims=claims, broker=broker, relay=relay, ports=ports)
        worker = Worker(engine=engine, broker=broker, relay=relay, journal=journal, workers=1, grace=5.0)
        working = asyncio.create_task(worker.run())
        try:
            yield Consumer(counts, node, dsn)
        finally:
            worker.stop()
            await working


async def test_a_step_costs_four_round_trips_to_postgresql_and_no_connection(consumer: Consumer) -> None:
    for _ in range(3):  # connections are opened, and every statement is prepared
        await consumer.move()
    trips, connections = consumer.counts.trips, consumer.counts.connections
    for _ in range(MOVES):
        await consumer.move()
    assert consumer.counts.connections == connections
    assert (consumer.counts.trips - trips) / (MOVES * STEPS) <= MOST_TRIPS


async def test_a_step_costs_one_confirm(consumer: Consumer) -> None:
    """And an acknowledgement, which is not waited for."""
    await consumer.move()
    before = len(consumer.node.log)
    for _ in range(MOVES):
        await consumer.move()
    # one more for each upgrade, which billing publishes
    assert len(consumer.node.log) - before == MOVES * (STEPS + 1)


async def test_a_statement_after_which_the_client_waits_is_counted(pg: Cluster) -> None:
    """The count itself: one for each statement once it is prepared, three for one in a transaction."""
    async with counting(pg.host, pg.port) as counts:
        connection = await asyncpg.connect(
            f"{pg.dsn().replace(f':{pg.port}/', f':{counts.port}/')}?sslmode=disable"
        )
        try:
            await connection.fetchval("SELECT $1::integer", 1)
            before = counts.trips
            await connection.fetchval("SELECT $1::integer", 2)
            assert counts.trips - before == 1
            async with connection.transaction():
                await connection.fetchval("SELECT $1::integer", 3)
            assert counts.trips - before == 4
        finally:
            await connection.close()
        assert counts.connections == 1


async def test_a_look_for_slots_costs_no_more_than_before_there_was_a_line(pg: Cluster) -> None:
    """Which was 12 for one that is free, with those to leave the places of the next ones, and 12 to 15 in vain."""
    async with state_database(pg) as dsn, counting(pg.host, pg.port) as counts:
        through = f"{dsn.replace(f':{pg.port}/', f':{counts.port}/')}?sslmode=disable"
        async with bootstrap.pool(through, "state database", 1, reset=bootstrap.as_it_is) as pool:
            journal = PostgresJournal(pool, SecretCipher(KEY))
            await journal.make_schema()

            async def look(*, free: bool) -> int:
                event = upgrade(uuid4())
                row = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
                facts = journal.facts(await journal.begin(row, "stop", replay=None))
                before = counts.trips
                assert (await facts.acquire_slots({"dump pool": 1, "down": 1}) is None) is free
                found = counts.trips - before
                if free:
                    await facts.release_slots(["dump pool", "down"])
                    assert counts.trips - before - found == 1
                return found

            for _ in range(2):  # every statement is prepared
                await look(free=True)
            assert await look(free=True) <= MOST_TRIPS_FREE
            await pool.execute(
                "INSERT INTO rehome.slots (resource, migration_id, attempt) "
                "SELECT 'down', id, 1 FROM rehome.migrations LIMIT 1"
            )
            await look(free=False)
            assert await look(free=False) <= MOST_TRIPS_TAKEN


async def test_confirms_do_not_cost_a_transaction_each(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[int] = []
    sent = PostgresJournal.sent

    async def counted(journal: PostgresJournal, rows: list[OutboxRow]) -> None:
        alone.append(len(rows))
        await sent(journal, rows)

    monkeypatch.setattr(PostgresJournal, "sent", counted)
    for _ in range(MOVES):
        await consumer.move()
    assert len(alone) < MOVES * STEPS / 3
