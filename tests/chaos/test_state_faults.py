"""The state database goes away, a wire to it breaks, or it takes no more: each step happens once all the same."""

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
from tests.chaos.proxy import Cut, wire

ROLE_LIMIT = "ALTER ROLE rehome CONNECTION LIMIT {}"
SMALL_DISK = 8
WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity WHERE usename = 'rehome' AND wait_event_type = 'Lock'
    AND wait_event = 'transactionid'
"""


@pytest.mark.parametrize(
    "where", ["stop.databases.fence.before", pytest.param("restore.ran", marks=pytest.mark.representative)]
)
async def test_a_restart_of_the_state_database_delays_a_move_and_nothing_else(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.there()
    state = move.arena.local.platform.cluster
    await state.kill()
    move.go_on()
    await state.start()
    await move.ends("migration.completed")


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
async def test_a_step_whose_commit_may_or_may_not_have_happened_happens_once(
    where: str, lost: Cut, move: Move
) -> None:
    local = move.arena.local
    async with wire(local.platform.cluster.host, local.platform.cluster.port) as state:
        await move.begin(order=hold(where), STATE_DSN=state.dsn(local.platform.instance_dsn))
        await move.there()
        state.armed = lost
        move.go_on()
        async with asyncio.timeout(30):
            await state.cut.wait()
        await move.ends("migration.completed")
        await move.arena.stop_consumers()


async def test_a_state_database_without_room_for_a_connection_is_waited_for(move: Move) -> None:
    await move.begin(order=hold("back_up.claimed"))
    await move.there()
    async with move.arena.platform() as platform:
        await platform.execute(ROLE_LIMIT.format(0))
        move.go_on()
        try:
            await move.said("too many connections for role")
        finally:
            await platform.execute(ROLE_LIMIT.format(-1))
    await move.ends("migration.completed")


async def test_a_deadlock_in_the_state_database_costs_one_try(move: Move) -> None:
    """The consumer's commit locks the migration and then the step; somebody locks them in the other order."""
    await move.begin(order=hold("back_up.ran"))
    await move.there()
    async with move.arena.platform() as other, move.arena.platform() as look:
        await other.execute("SET deadlock_timeout = '1h'")  # not its own request is to be ended, but ours
        async with other.transaction():
            migration = await other.fetchval(
                "SELECT id FROM rehome.migrations WHERE instance_id = $1", move.site.id
            )
            await other.execute(
                "SELECT FROM rehome.steps WHERE migration_id = $1 AND step = 'back_up' FOR UPDATE", migration
            )
            move.go_on()

            async def waits() -> bool:
                return bool(await look.fetchval(WAITS_FOR_A_LOCK))

            await wait_until(waits, what="the commit to wait for a lock", limit=30, pause=0.01)
            await other.execute("UPDATE rehome.migrations SET reason = reason WHERE id = $1", migration)
    assert "deadlock detected" in move.log()
    await move.ends("migration.completed")


@needs_root
async def test_a_state_database_whose_disk_is_full_is_named_and_waited_for(move: Move) -> None:
    """Its history is on a disk of its own: a server whose log of changes finds no room stops altogether."""
    await move.begin(order=hold("back_up.ran"))
    await move.there()
    async with _history_on_a_full_disk(move) as make_room:
        move.go_on()
        await move.said("No space left on device")
        await make_room()
        await move.ends("migration.completed")


@asynccontextmanager
async def _history_on_a_full_disk(move: Move) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Not another line can be written, until the function that this yields is called."""
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
            while True:  # the last page that is there already
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
