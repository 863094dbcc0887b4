"""Connections that stay with who uses them: what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

import asyncpg
import pytest

from rehome_consumer.adapters.common.postgres_session import KeptConnections, session
from rehome_consumer.errors import TimedOut, Unreachable
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.postgres.server import Cluster

LIMIT = 10.0
PID = "SELECT pg_backend_pid()"
SLEEPS = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1"


class Kept:
    """A pool of two, one of which is kept."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], kept: KeptConnections) -> None:
        self.pool = pool
        self.kept = kept

    async def pid(self) -> int:
        async with session(self.kept, "a test", LIMIT) as db:
            return int(await db.fetchval(PID))

    @property
    def idle(self) -> int:
        return self.pool.get_idle_size()


@pytest.fixture
async def kept(pg: Cluster) -> AsyncIterator[Kept]:
    async with (
        asyncpg.create_pool(pg.dsn(), min_size=2, max_size=2) as pool,
        aclosing(KeptConnections(pool, 1)) as made,
    ):
        yield Kept(pool, made)


async def test_the_next_one_gets_the_connection_of_the_last(kept: Kept) -> None:
    assert await kept.pid() == await kept.pid()
    assert kept.idle == 1


async def test_more_at_a_time_come_from_the_pool_and_return_to_it(kept: Kept) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(session(kept.kept, "a test", LIMIT))
        with pytest.raises(TimedOut):
            await stack.enter_async_context(session(kept.kept, "a test", 0.2))
    assert kept.idle == 1


async def test_one_that_is_lost_while_nobody_uses_it_is_replaced(kept: Kept) -> None:
    lost = await kept.pid()
    async with kept.pool.acquire() as other:
        await other.fetchval("SELECT pg_terminate_backend($1, 5000)", lost)

    async def noticed() -> bool:
        return kept.idle == 2

    await wait_until(noticed, what="the loss to be noticed", limit=LIMIT)
    assert await kept.pid() != lost
    assert kept.idle == 1


async def test_one_that_is_lost_in_use_is_replaced(kept: Kept) -> None:
    lost = await kept.pid()
    with pytest.raises(Unreachable):
        async with session(kept.kept, "a test", LIMIT) as db:
            await db.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await kept.pid() != lost


async def test_one_that_is_cut_at_its_time_limit_is_replaced(kept: Kept) -> None:
    cut = await kept.pid()
    with pytest.raises(TimedOut):
        async with session(kept.kept, "a test", 0.2) as db:
            await db.execute("SELECT pg_sleep(1)")
    assert await kept.pid() != cut


async def test_a_cancelled_statement_has_ended_before_its_connection_is_used_again(kept: Kept) -> None:
    pid = await kept.pid()

    async def sleep() -> None:
        async with session(kept.kept, "a test", LIMIT) as db:
            await db.execute("SELECT pg_sleep(60)")

    async def sleeps() -> bool:
        async with kept.pool.acquire() as other:
            return bool(await other.fetchval(SLEEPS, pid))

    sleeping = asyncio.create_task(sleep())
    await wait_until(sleeps, what="the statement to begin", limit=LIMIT)
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert await kept.pid() == pid
    assert not await sleeps()


async def test_all_are_given_back_at_the_end(kept: Kept) -> None:
    await kept.pid()
    await kept.kept.aclose()
    assert kept.idle == 2
