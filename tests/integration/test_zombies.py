"""Consumers that were frozen past the loss of their claim: what they were about to do does not happen."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.context import claim_check, current_migration
from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.process import freeze_watchdog
from sandbox.system.net import wait_until
from tests.contract.real_servers import server_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_consumer.adapters.state.claims import PostgresClaim
    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant
    from tests.conftest import TinyTenantFactory

LIMIT = timedelta(seconds=10)
LONGEST = 0.5
SLEEPER = f"""
import asyncio, pathlib, sys, time
from rehome_consumer.process import freeze_watchdog

async def main():
    async with freeze_watchdog.watched(longest={LONGEST}):
        while True:
            await asyncio.sleep(0)
            pathlib.Path(sys.argv[1]).write_text(str(time.monotonic()))

freeze_watchdog.BEAT = 0.1
asyncio.run(main())
"""
"""Acts all the time, so that a stop meets it between two acts."""


@asynccontextmanager
async def sleeper(acts: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEPER, str(acts))

    async def acting() -> bool:
        return await asyncio.to_thread(acts.exists)

    try:
        await wait_until(acting, what="the process to act", limit=30)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stop_for(process: asyncio.subprocess.Process, seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)  # the freeze itself
    process.send_signal(signal.SIGCONT)


async def test_a_process_that_was_frozen_acts_no_more(tmp_path: Path) -> None:
    acts = tmp_path / "acts"
    async with sleeper(acts) as process:
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2 * LONGEST)  # the freeze itself
        last = acts.read_text()
        process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(process.wait(), 30) == freeze_watchdog.EXIT_CODE
        assert acts.read_text() == last


async def test_a_short_freeze_does_not_end_the_process(tmp_path: Path) -> None:
    acts = tmp_path / "acts"
    async with sleeper(acts) as process:
        await stop_for(process, 0.05)
        last = acts.read_text()

        async def acting() -> bool:
            return acts.read_text() not in {"", last}

        await wait_until(acting, what="the process to act again", limit=30)


@pytest.fixture
async def claim(pg: Cluster) -> AsyncIterator[PostgresClaim]:
    """A claim that the work of this test is done under."""
    async with (
        aclosing(PostgresClaims(lambda: asyncpg.connect(pg.dsn()))) as claims,
        claims.claim(uuid4()) as claim,
    ):
        assert claim
        yield claim


async def lose(claim: PostgresClaim, pg: Cluster) -> None:
    async with pg.connect() as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
    await asyncio.wait_for(claim.lost(), LIMIT.total_seconds())


@pytest.fixture
async def tenant(tiny_tenant: TinyTenantFactory) -> Tenant:
    return await tiny_tenant()


async def test_a_session_that_opens_after_the_claim_was_lost_does_nothing(
    claim: PostgresClaim, pg: Cluster, tenant: Tenant
) -> None:
    databases, server = PostgresDatabases(), server_of(pg, "pool-1", "shared")
    before = await databases.fence_state(server, tenant.database, tenant.role)
    await lose(claim, pg)
    held = claim_check.set(claim.check)
    try:
        with pytest.raises(ClaimLost):
            await databases.fence(server, tenant.database, tenant.role, LIMIT)
    finally:
        claim_check.reset(held)
    assert await databases.fence_state(server, tenant.database, tenant.role) == before


async def test_a_session_that_was_open_before_is_ended_by_the_consumer_that_takes_over(
    claim: PostgresClaim, pg: Cluster, tenant: Tenant
) -> None:
    databases, server = PostgresDatabases(), server_of(pg, "pool-1", "shared")
    before = await databases.fence_state(server, tenant.database, tenant.role)
    migration = uuid4()
    asleep, awake = asyncio.Event(), asyncio.Event()

    async def sleepy_check() -> None:
        await claim.check()  # it holds: the claim is lost after this look
        asleep.set()
        await awake.wait()

    async def zombie() -> None:
        current_migration.set(migration)
        claim_check.set(sleepy_check)
        await databases.fence(server, tenant.database, tenant.role, LIMIT)

    working = asyncio.create_task(zombie())
    await asyncio.wait_for(asleep.wait(), LIMIT.total_seconds())
    await lose(claim, pg)
    assert await databases.end_sessions(server, migration) == 1
    awake.set()
    with pytest.raises(RehomeError):
        await working
    assert await databases.fence_state(server, tenant.database, tenant.role) == before
