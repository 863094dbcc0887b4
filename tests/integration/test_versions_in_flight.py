"""A consumer dies in the middle of a migration, and one of another release goes on: real broker, real journal."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aio_pika
import asyncpg
import pytest

from rehome_consumer import saga
from rehome_consumer.adapters.rabbitmq import connection as amqp
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.process.worker import Worker
from rehome_consumer.rabbitmq.topology import definitions
from rehome_events.envelope import decode, to_message
from sandbox.system.net import wait_until
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.clock import FakeClock
from tests.fakes.site import Site
from tests.support.events import migration_of, upgrade
from tests.support.rig import CrashError
from tests.support.second_versions import next_release

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager
    from uuid import UUID

    from aio_pika.abc import AbstractChannel

    from rehome_events.envelope import CloudEvent
    from sandbox.postgres.server import Cluster
    from sandbox.rabbitmq.node import BrokerNode

LIMIT = 60.0
STOPPED = "migration.stopped"
STEPS = [step.name for step in saga.MIGRATION[:-1]]
EMITTED = [step.emits[0].TYPE for step in saga.MIGRATION[:-1]]
RELEASES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "present": nullcontext,
    "next": next_release,
}


class Consumer:
    """Consumers one after the other, on one platform of fakes, that die at a chosen boundary.

    Attributes:
        dies_at: the boundary at which the present one dies.
    """

    def __init__(self, url: str, dsn: str) -> None:
        self.url = url
        self.dsn = dsn
        self.clock = FakeClock()
        self.site = Site(self.clock)
        self.dies_at = ""

    async def probe(self, boundary: str) -> None:
        self.clock.advance(0.001)
        if boundary == self.dies_at:
            self.dies_at = ""
            raise CrashError

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """One at work; it is the worker's task."""
        async with (
            postgres_journal(self.dsn) as journal,
            amqp.connected(self.url, name="versions") as connection,
            aclosing(PostgresClaims(lambda: asyncpg.connect(self.dsn))) as claims,
        ):
            broker = AmqpBroker(connection)
            relay = Relay(journal, broker, probe=self.probe)
            engine = Engine(
                journal=journal,
                claims=claims,
                broker=broker,
                relay=relay,
                ports=self.site.ports(None),  # type: ignore[arg-type] # the engine binds facts for each run
                longest_retry="1s",
                probe=self.probe,
            )
            worker = Worker(engine=engine, broker=broker, relay=relay, journal=journal, workers=1, grace=5.0)
            task = asyncio.create_task(worker.run())
            try:
                yield task
            finally:
                worker.stop()
                await asyncio.gather(task, return_exceptions=True)

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        """From the journal's tables."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def until_state(self, migration: UUID, state: str) -> None:
        """Wait until the migration is in a state and its outbox is empty."""

        async def there() -> bool:
            found = await self.rows(
                "SELECT state FROM rehome.migrations m WHERE id = $1"
                " AND NOT EXISTS (SELECT FROM rehome.outbox WHERE migration_id = m.id AND sent_at IS NULL)",
                migration,
            )
            return found == [(state,)]

        await wait_until(there, what=f"migration {migration} to be {state}", limit=LIMIT)


class Onlooker:
    """Sees what is on the broker, and publishes as billing does."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.name = f"onlooker-{uuid4().hex}"

    async def publish(self, event: CloudEvent[Any]) -> None:
        exchange = await self.channel.get_exchange("billing", ensure=False)
        await exchange.publish(to_message(event), event.type, mandatory=True)

    async def waiting(self) -> dict[str, int]:
        """Messages that are ready in the handlers' queues, where there are any."""
        names = [queue["name"] for queue in definitions()["queues"]]
        counts = {}
        for name in names:
            queue = await self.channel.declare_queue(name, passive=True)
            counts[name] = queue.declaration_result.message_count or 0
        return {name: count for name, count in counts.items() if count}

    async def until_idle(self) -> None:
        """Wait until nothing waits for a consumer."""

        async def idle() -> bool:
            return not await self.waiting()

        await wait_until(idle, what="the queues to be empty", limit=LIMIT)

    async def published(self) -> list[tuple[str, int]]:
        """Types and versions of all events, in order, repeats left out."""
        queue = await self.channel.get_queue(self.name)
        found = []
        with next_release():
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                event = decode(message.body, message.content_type, message.headers)
                found.append((event.type, event.data.VERSION))
        return list(dict.fromkeys(found))


@pytest.fixture
async def onlooker(broker: BrokerNode) -> AsyncIterator[Onlooker]:
    async with await aio_pika.connect(broker.url(), timeout=10) as connection:
        made = Onlooker(await connection.channel())
        queue = await made.channel.declare_queue(made.name, exclusive=True)
        await queue.bind("migration", "#")
        yield made
        await queue.delete(if_empty=False)


@pytest.fixture
async def consumer(broker: BrokerNode, pg: Cluster) -> AsyncIterator[Consumer]:
    async with state_database(pg) as dsn:
        yield Consumer(broker.url(), dsn)


@pytest.mark.parametrize("boundary", ["stop.committed", f"publish.{STOPPED}.confirmed", "back_up.started"])
@pytest.mark.parametrize(("begins", "ends"), [("present", "next"), ("next", "present")])
async def test_a_migration_that_one_release_left_behind_is_finished_by_another(
    consumer: Consumer, onlooker: Onlooker, begins: str, ends: str, boundary: str
) -> None:
    event = upgrade(consumer.site.add_tenant())
    consumer.dies_at = boundary
    with RELEASES[begins]():
        async with consumer.running() as worker:
            await onlooker.publish(event)
            with pytest.raises(CrashError):
                await asyncio.wait_for(worker, LIMIT)
    with RELEASES[ends]():
        async with consumer.running():
            await consumer.until_state(migration_of(event), "completed")
            await onlooker.until_idle()
    published = await onlooker.published()
    assert [kind for kind, version in published if version == 1] == EMITTED
    assert {kind for kind, version in published if version == 2} == (
        {STOPPED} if begins == "next" else {"migration.completed"}
    )
    assert await onlooker.waiting() == {}
    runs = dict(await consumer.rows("SELECT step, runs FROM rehome.steps"))
    assert runs == dict.fromkeys(STEPS, 1) | ({"back_up": 2} if boundary == "back_up.started" else {})
