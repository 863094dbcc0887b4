"""Many migrations wait for one slot in a real state database, and consumers die meanwhile."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state import facts as state_facts
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import PostgresJournal
from rehome_consumer.errors import RehomeError
from sandbox.system.net import wait_until
from tests.contract.journals import KEY, postgres_journal, state_database
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from uuid import UUID

    from rehome_consumer.ports.steps import Facts
    from sandbox.postgres.server import Cluster

SLOT: Final = {"dump pool": 1}
WAITING: Final = 12
"""Migrations of each consumer."""
OFTEN, SELDOM, GRACE = timedelta(seconds=0.3), timedelta(seconds=0.6), timedelta(seconds=2)
"""Instead of the real ones, which would take minutes."""
HELD: Final = 0.05
LIMIT: Final = 60.0
LONGEST_IDLE: Final = 10.0
"""Much more than a waiter that is gone costs, and much less than for ever."""


@dataclass
class Ledger:
    """Who had the slot, in order, and when it was taken and released."""

    order: list[UUID] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)
    holders: int = 0


class Consumer:
    """A consumer's connections, and those that wait through them."""

    def __init__(self, dsn: str, ledger: Ledger, seed: int) -> None:
        self.dsn = dsn
        self.ledger = ledger
        self.random = Random(seed)  # noqa: S311 - reproducible is the point
        self.pool: asyncpg.Pool[asyncpg.Record]
        self.tasks: dict[UUID, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PostgresJournal]:
        async with asyncpg.create_pool(self.dsn, min_size=0, max_size=4) as self.pool:
            try:
                yield PostgresJournal(self.pool, SecretCipher(KEY))
            finally:
                await self.kill()

    async def wait_for_it(self, journal: PostgresJournal, migration: UUID) -> None:
        """Deliver the migration, and deliver it again, until it had the slot."""
        row = await journal.migration(migration)
        assert row is not None
        facts = journal.facts(await journal.begin(row, "stop", replay=None))
        self.tasks[migration] = asyncio.create_task(self._until_served(facts, migration))

    async def _until_served(self, facts: Facts, migration: UUID) -> None:
        while (place := await facts.acquire_slots(SLOT)) is not None:
            pause = OFTEN if place.soon else SELDOM
            await asyncio.sleep(pause.total_seconds() * self.random.uniform(0.8, 1))
        ledger, began = self.ledger, time.monotonic()
        ledger.holders += 1
        assert ledger.holders == 1
        await asyncio.sleep(HELD)
        ledger.holders -= 1
        ledger.order.append(migration)
        ledger.times.append((began, time.monotonic()))
        await facts.release_slots(list(SLOT))

    async def kill(self) -> set[UUID]:
        """Its connections end, and nothing of it looks any more; returns those that it had not served."""
        left = {one for one, task in self.tasks.items() if not task.done()}
        for task in self.tasks.values():
            task.cancel()
        self.pool.terminate()
        with suppress(RehomeError):
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return left


@pytest.fixture
async def dsn(pg: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    for name, value in (("OFTEN", OFTEN), ("SELDOM", SELDOM), ("GRACE", GRACE)):
        monkeypatch.setattr(state_facts, name, value)
    async with state_database(pg) as made:
        yield made


async def test_all_are_served_in_order_and_those_of_a_dead_consumer_when_they_come_back(dsn: str) -> None:
    ledger, random = Ledger(), Random(7)  # noqa: S311 - reproducible is the point
    consumers = [Consumer(dsn, ledger, seed) for seed in range(3)]
    priorities: dict[UUID, int] = {}
    async with postgres_journal(dsn) as journal:

        async def opened(priority: int) -> UUID:
            event = upgrade(uuid4(), priority=priority)
            row = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
            priorities[row.id] = priority
            return row.id

        holder = await journal.migration(await opened(4))
        assert holder is not None
        facts = journal.facts(await journal.begin(holder, "stop", replay=None))
        assert await facts.acquire_slots(SLOT) is None
        waiting = [[await opened(random.randint(0, 9)) for _ in range(WAITING)] for _ in consumers]
        async with (
            consumers[0].running() as first,
            consumers[1].running() as doomed,
            consumers[2].running() as last,
        ):
            for consumer, through, ids in zip(consumers, (first, doomed, last), waiting, strict=True):
                for one in ids:
                    await consumer.wait_for_it(through, one)
            await asyncio.sleep(2 * SELDOM.total_seconds())  # all have looked
            in_line = await journal_order(dsn)
            assert len(in_line) == 3 * WAITING
            assert [priorities[one] for one in in_line] == sorted(priorities[one] for one in in_line)[::-1]
            await facts.release_slots(list(SLOT))
            await until(lambda: len(ledger.order) >= WAITING, "a third to be served")
            before = len(ledger.order)
            left = await consumers[1].kill()
            assert left
            ledger.holders = 0
            for one in [
                one for one in left if await has_slot(dsn, one)
            ]:  # which it keeps until its delivery comes again
                await consumers[0].wait_for_it(first, one)
                left.remove(one)
            survivors = [one for ids in (waiting[0], waiting[2]) for one in ids]
            await until(lambda: {*survivors} <= {*ledger.order}, "the others to be served")
            for one in left:
                await consumers[0].wait_for_it(first, one)
            await until(lambda: len(ledger.order) == 3 * WAITING, "all to be served")
            for consumer in (consumers[0], consumers[2]):
                await asyncio.gather(*consumer.tasks.values())
    assert ledger.order[:before] == in_line[:before]
    assert [one for one in ledger.order if one in survivors] == [one for one in in_line if one in survivors]
    ends = zip(ledger.times, ledger.times[1:], strict=False)
    assert max(after[0] - earlier[1] for earlier, after in ends) < LONGEST_IDLE


async def journal_order(dsn: str) -> list[UUID]:
    """Those in line, in order."""
    return [
        row[0] for row in await rows(dsn, "SELECT migration_id FROM rehome.line ORDER BY rank, migration_id")
    ]


async def has_slot(dsn: str, migration: UUID) -> bool:
    return bool(await rows(dsn, "SELECT FROM rehome.slots WHERE migration_id = $1", migration))


async def rows(dsn: str, query: str, *arguments: UUID) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()


async def until(holds: Callable[[], bool], what: str) -> None:
    async def held() -> bool:
        return holds()

    await wait_until(held, what=what, limit=LIMIT, pause=0.02)
