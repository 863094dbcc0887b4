"""Full disks and damaged dumps: the cause is named, and the customer continues with complete data."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.disks import disk, needs_root
from tests.chaos.moving import END_SECONDS, Move, hold

SMALL_DISK = 64
SERVER_DISK = 512
ALMOST_NOTHING = 256 * 1024


@needs_root
@pytest.mark.representative
async def test_a_backup_place_that_stays_full_is_named_and_the_move_is_rolled_back(move: Move) -> None:
    place = move.arena.local.backup_root
    async with disk(place, SMALL_DISK) as full:
        await move.begin(order=hold("back_up.claimed"))
        await move.until_reached()
        full.fill()
        move.release()
        assert "No space left on device" in await move.failure()
        await move.arena.subscriber.wait_for(
            "migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS
        )
        full.make_room()
        await move.must_end("migration.rolled_back")


@needs_root
async def test_a_move_continues_when_room_is_made_in_the_backup_place(move: Move) -> None:
    place = move.arena.local.backup_root
    async with disk(place, SMALL_DISK) as full:
        await move.begin(order=hold("back_up.claimed"))
        await move.until_reached()
        full.fill()
        move.release()
        await move.until_recorded("No space left on device")
        full.make_room()
        await move.must_end("migration.completed")


async def test_a_backup_place_without_enough_room_is_reported_before_the_instance_is_stopped(
    move: Move,
) -> None:
    await move.begin(ROOM_FACTOR="1e9")
    assert "bytes free, the backup of" in await move.failure()
    await move.must_end("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


@needs_root
async def test_a_dedicated_server_whose_disk_is_full_is_named_and_the_move_is_rolled_back(move: Move) -> None:
    servers = move.arena.local.directory / "dedicated"
    servers.mkdir(mode=0o711, exist_ok=True)
    async with disk(servers, SERVER_DISK) as full:
        await move.begin(order=hold("restore.copier.restore.checked"))
        await move.until_reached()
        full.fill(but=ALMOST_NOTHING)
        move.release()
        await move.until_recorded("No space left on device")
        # the server may end when there is no room for its write-ahead log either
        assert (await move.failure()).startswith("restore: ")
        full.make_room()
        await move.must_end("migration.rolled_back")


def alter(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage", [pytest.param(alter, marks=pytest.mark.representative), truncate, Path.unlink]
)
async def test_a_backup_that_was_damaged_is_not_restored(damage: Callable[[Path], None], move: Move) -> None:
    await move.begin(order=hold("rewrite_conf.committed"))
    await move.until_reached()
    file = largest_dumped(move.arena.local.backup_root, "[!.]*")
    damage(file)
    move.release()
    message = await move.failure()
    assert message.startswith("restore: ")
    assert file.name in message
    await move.must_end("migration.rolled_back")


async def test_a_dump_that_was_truncated_before_its_seal_is_made_again(move: Move) -> None:
    await move.begin(order=hold("back_up.copier.seal.checked"))
    await move.until_reached()
    truncate(largest_dumped(move.arena.local.backup_root, ".*.partial"))
    move.release()
    await move.until_recorded("back_up waits: ")
    await move.must_end("migration.completed")


def largest_dumped(backup_root: Path, pattern: str) -> Path:
    """The largest file of the only dump there."""
    (backup,) = backup_root.glob(pattern)
    return max((file for file in (backup / "dump").iterdir()), key=lambda file: file.stat().st_size)
