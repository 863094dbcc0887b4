"""Source and target fail in the middle of a copy: nothing is lost, and the cause is reported."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox.postgres.server import Cluster
from sandbox.system.net import wait_until
from tests.chaos.moving import Move, hold, shortly_after

WAITING_CLIENTS = """
    SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'rehome%' AND datname = $1 AND wait_event_type = 'Lock'
"""


@pytest.mark.representative
async def test_a_dump_whose_session_on_the_source_is_terminated_is_made_again(move: Move) -> None:
    await move.begin(order=hold("back_up.copier.dump.checked"))
    await move.until_reached()
    async with _dump_held_up(move) as pids, move.arena.local.pool.connect() as pool:
        await pool.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
    await move.must_end("migration.completed")
    assert "back_up waits: " in await move.history()
    assert "terminating connection due to administrator command" in await move.history()


async def test_a_source_that_crashes_in_the_middle_of_a_dump_loses_nothing(move: Move) -> None:
    await move.begin(order=hold("back_up.copier.dump.checked"))
    await move.until_reached()
    pool = move.arena.local.pool
    async with _dump_held_up(move):
        await pool.kill()
    await move.until_recorded("back_up waits: ")
    await pool.start()
    await move.must_end("migration.completed")


@pytest.mark.parametrize("later", [pytest.param(0.5, marks=pytest.mark.representative), 1.5])
async def test_a_restore_whose_target_crashes_is_made_again(later: float, move: Move) -> None:
    await move.begin(odoo=True, order=shortly_after("restore.copier.restore.before", later))
    await move.until_reached()
    target = await move.dedicated_cluster()
    await target.kill()
    await move.until_recorded("restore waits: ")
    await target.start()
    await move.must_end("migration.completed")


async def test_a_target_that_stays_down_is_given_up_and_the_instance_serves_from_the_source_again(
    move: Move,
) -> None:
    await move.begin(order=hold("restore.copier.restore.before"))
    await move.until_reached()
    target = await move.dedicated_cluster()
    await target.kill()
    move.release()
    message = await move.failure()
    assert message.startswith("restore: ")
    assert f":{target.port}" in message or "connect" in message.lower(), message
    await target.start()  # the rollback has to check whether anything was written there
    await move.must_end("migration.rolled_back")


@asynccontextmanager
async def _dump_held_up(move: Move) -> AsyncIterator[list[int]]:
    """Release the consumer into a dump that waits for a table lock; yields the pids of its sessions, then unlocks."""
    pool, database = move.arena.local.pool, move.site.tenant.database
    async with _table_locked(pool, database):
        move.release()
        pids: list[int] = []

        async def waiting() -> bool:
            async with pool.connect() as observer:
                pids[:] = [row["pid"] for row in await observer.fetch(WAITING_CLIENTS, database)]
            return bool(pids)

        await wait_until(waiting, what="the dump to wait for a lock", limit=120, pause=0.1)
        yield pids


@asynccontextmanager
async def _table_locked(pool: Cluster, database: str) -> AsyncIterator[None]:
    async with pool.connect(database) as connection:
        await connection.execute("BEGIN")
        await connection.execute("LOCK TABLE res_partner IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            connection.terminate()  # the server may be down by now
