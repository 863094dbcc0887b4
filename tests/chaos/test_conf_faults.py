"""Faults of odoo.conf and its storage: refused before the stop, or rolled back after it."""

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from sandbox.platform.local import Site
from tests.chaos.disks import needs_root, read_only, unreadable
from tests.chaos.moving import END_SECONDS, Move, hold


def missing(conf: Path) -> None:
    conf.unlink()


def no_file(conf: Path) -> None:
    conf.unlink()
    conf.mkdir()


def without_options(conf: Path) -> None:
    conf.write_bytes(conf.read_bytes().replace(b"[options]", b"[other]"))


def huge(conf: Path) -> None:
    conf.write_bytes(conf.read_bytes() + b"; filler\n" * 200_000)


def link_elsewhere(conf: Path) -> None:
    elsewhere = conf.parent.parent / "elsewhere"
    conf.parent.rename(elsewhere)
    conf.parent.symlink_to(elsewhere)


def other_server(conf: Path) -> None:
    conf.write_bytes(conf.read_bytes().replace(b"db_host = ", b"db_host = elsewhere-"))


def replace_directory(site: Site, copy: Path) -> None:
    """Restore the directory from a copy."""
    directory = site.conf.parent
    if directory.is_symlink():
        directory.unlink()
        shutil.rmtree(site.directory / "elsewhere")
    else:
        shutil.rmtree(directory)
    shutil.copytree(copy, directory)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(missing, marks=pytest.mark.representative),
        no_file,
        without_options,
        huge,
        link_elsewhere,
        other_server,
    ],
)
async def test_an_unusable_odoo_conf_is_named_before_the_instance_is_stopped(
    fault: Callable[[Path], None], move: Move, tmp_path: Path
) -> None:
    await move.begin(order=hold("prepare.claimed"))
    await move.until_reached()
    copy = tmp_path / "conf"
    shutil.copytree(move.site.conf.parent, copy)
    fault(move.site.conf)
    move.release()
    message = await move.failure()
    assert message.startswith("prepare: ")
    assert str(move.site.conf.parent) in message
    await move.arena.subscriber.wait_for("migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS)
    replace_directory(move.site, copy)
    await move.must_end("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


async def test_an_odoo_conf_with_crlf_line_ends_and_none_at_its_end_keeps_them(move: Move) -> None:
    await move.begin(order=hold("prepare.claimed"))
    await move.until_reached()
    before = move.site.conf.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n")
    move.site.conf.write_bytes(before)
    move.release()
    await move.must_end("migration.completed")
    after = move.site.conf.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") == before.count(b"\r\n")
    assert not after.endswith(b"\n")
    assert [line[:7] for line in after.splitlines()] == [line[:7] for line in before.splitlines()]


@pytest.mark.representative
async def test_an_odoo_conf_removed_while_the_instance_is_down_is_named_and_the_rollback_waits_for_it(
    move: Move,
) -> None:
    await move.begin(order=hold("rewrite_conf.claimed"))
    await move.until_reached()
    copy = move.site.conf.read_bytes()
    move.site.conf.unlink()
    move.release()
    message = await move.failure()
    assert message.startswith("rewrite_conf: ")
    assert "it is not there; Odoo cannot start without it" in message
    move.site.conf.write_bytes(copy)
    move.site.conf.chmod(0o640)
    await move.must_end("migration.rolled_back")


@needs_root
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda conf: read_only(conf.parent), "Read-only file system"),
        (unreadable, "Input/output error"),
    ],
    ids=["read-only", "unreadable"],
)
async def test_a_storage_that_fails_is_named_before_the_instance_is_stopped(
    broken: Callable[[Path], AbstractAsyncContextManager[None]], words: str, move: Move
) -> None:
    await move.begin(order=hold("prepare.claimed"))
    await move.until_reached()
    async with broken(move.site.conf):
        move.release()
        message = await move.failure()
        assert message.startswith("prepare: ")
        assert words in message
        assert str(move.site.conf.parent) in message
        await move.arena.subscriber.wait_for(
            "migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS
        )
    await move.must_end("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


@needs_root
async def test_a_storage_that_turns_read_only_while_the_instance_is_down_is_named_and_the_move_is_rolled_back(
    move: Move,
) -> None:
    await move.begin(order=hold("rewrite_conf.claimed"))
    await move.until_reached()
    async with read_only(move.site.conf.parent):
        move.release()
        message = await move.failure()
        assert message.startswith("rewrite_conf: ")
        assert "the file system is read-only" in message
        # nothing was written there, so nothing has to be restored: the rollback needs no write
        await move.must_end("migration.rolled_back")
