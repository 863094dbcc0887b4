"""The state database fails, its connection breaks, or it is full: each step still happens once."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from sandbox.system.net import wait_until
from tests.chaos.disks import disk, needs_root
from tests.chaos.moving import Move, hold
from tests.chaos.proxy import Cut, proxy

ROLE_LIMIT = "ALTER ROLE rehome CONNECTION LIMIT {}"
SMALL_DISK = 8
WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity WHERE usename = 'rehome' AND wait_event_type = 'Lock'
    AND wait_event = 'transactionid'
"""


@pytest.mark.parametrize(
    "where", ["stop.databases.fence.before", pytest.param("restore.ran", marks=pytest.mark.representative)]
)
async def test_a_restart_of_the_state_database_only_delays_a_move(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.until_reached()
    state = move.arena.local.platform.cluster
    await state.kill()
    move.release()
    await state.start()
    await move.must_end("migration.completed")


@pytest.mark.parametrize(
    ("where", "lost"),
    [
        pytest.param("stop.ran", "answer", marks=pytest.mark.representative),
        ("stop.ran", "request"),
        ("start.ran", "answer"),
        ("complete.ran", "answer"),
        ("accept.ran", "request"),
    ],
)
async def test_a_step_whose_commit_has_an_unknown_result_happens_once(
    where: str, lost: Cut, move: Move
) -> None:
    local = move.arena.local
    async with proxy(local.platform.cluster.host, local.platform.cluster.port) as state:
        await move.begin(order=hold(where), STATE_DSN=state.dsn(local.platform.instance_dsn))
        await move.until_reached()
        state.armed = lost
        move.release()
        async with asyncio.timeout(30):
            await state.cut.wait()
        await move.must_end("migration.completed")
        await move.arena.stop_consumers()


async def test_a_move_waits_for_a_state_database_that_refuses_connections(move: Move) -> None:
    await move.begin(order=hold("back_up.claimed"))
    await move.until_reached()
    async with move.arena.platform() as platform:
        await platform.execute(ROLE_LIMIT.format(0))
        move.release()
        try:
            await move.until_logged("too many connections for role")
        finally:
            await platform.execute(ROLE_LIMIT.format(-1))
    await move.must_end("migration.completed")


async def test_a_deadlock_in_the_state_database_costs_one_try(move: Move) -> None:
    """The consumer's commit locks the migration and then the step; another session locks them in the other order."""
    await move.begin(order=hold("back_up.ran"))
    await move.until_reached()
    async with move.arena.platform() as other, move.arena.platform() as observer:
        await other.execute(
            "SET deadlock_timeout = '1h'"
        )  # the consumer's request is to be ended, not its own
        async with other.transaction():
            migration = await other.fetchval(
                "SELECT id FROM rehome.migrations WHERE instance_id = $1", move.site.id
            )
            await other.execute(
                "SELECT FROM rehome.steps WHERE migration_id = $1 AND step = 'back_up' FOR UPDATE", migration
            )
            move.release()

            async def waits() -> bool:
                return bool(await observer.fetchval(WAITS_FOR_A_LOCK))

            await wait_until(waits, what="the commit to wait for a lock", limit=30, pause=0.01)
            await other.execute("UPDATE rehome.migrations SET reason = reason WHERE id = $1", migration)
    assert "deadlock detected" in move.log()
    await move.must_end("migration.completed")


@needs_root
async def test_a_state_database_whose_disk_is_full_is_named_and_the_move_waits_for_it(move: Move) -> None:
    """Only its history is on the small disk: a server without room for its write-ahead log would stop."""
    await move.begin(order=hold("back_up.ran"))
    await move.until_reached()
    async with _history_on_a_full_disk(move) as make_room:
        move.release()
        await move.until_logged("No space left on device")
        await make_room()
        await move.must_end("migration.completed")


@asynccontextmanager
async def _history_on_a_full_disk(move: Move) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """No row can be written, until the function that this yields is called."""
    cluster = move.arena.local.platform.cluster
    place = cluster.data.parent / "small"
    place.mkdir()
    async with disk(place, SMALL_DISK) as full, move.arena.platform() as platform:
        space = place / "tables"
        space.mkdir()
        owner = cluster.data.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        await platform.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        await _move_history(move, "small")
        full.fill()
        try:
            while True:  # fill the last page that exists
                await platform.execute(
                    "INSERT INTO rehome.history (migration_id, attempt, what) "
                    "SELECT id, 1, 'filler' FROM rehome.migrations WHERE instance_id = $1",
                    move.site.id,
                )
        except asyncpg.DiskFullError:
            pass

        async def make_room() -> None:
            full.make_room()
            await platform.execute("DELETE FROM rehome.history WHERE what = 'filler'")

        yield make_room
        await _move_history(move, "pg_default")
        await platform.execute("DROP TABLESPACE small")
    shutil.rmtree(place)


async def _move_history(move: Move, space: str) -> None:
    async with move.arena.platform() as platform:
        await platform.execute(f"ALTER TABLE rehome.history SET TABLESPACE {space}")
        indexes = await platform.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'history'")
        for row in indexes:
            await platform.execute(f"ALTER INDEX rehome.{row['indexname']} SET TABLESPACE {space}")
