"""The storage with odoo.conf in the ways that it can be wrong: refused before the stop, or undone after it."""

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


def replace_directory(site: Site, kept: Path) -> None:
    """The directory as it was."""
    directory = site.conf.parent
    if directory.is_symlink():
        directory.unlink()
        shutil.rmtree(site.directory / "elsewhere")
    else:
        shutil.rmtree(directory)
    shutil.copytree(kept, directory)


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
    await move.there()
    kept = tmp_path / "conf"
    shutil.copytree(move.site.conf.parent, kept)
    fault(move.site.conf)
    move.go_on()
    message = await move.failed()
    assert message.startswith("prepare: ")
    assert str(move.site.conf.parent) in message
    await move.arena.subscriber.wait_for("migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS)
    replace_directory(move.site, kept)
    await move.ends("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


async def test_an_odoo_conf_with_foreign_line_ends_and_no_last_one_is_moved_as_it_is(move: Move) -> None:
    await move.begin(order=hold("prepare.claimed"))
    await move.there()
    before = move.site.conf.read_bytes().rstrip(b"\n").replace(b"\n", b"\r\n")
    move.site.conf.write_bytes(before)
    move.go_on()
    await move.ends("migration.completed")
    after = move.site.conf.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") == before.count(b"\r\n")
    assert not after.endswith(b"\n")
    assert [line[:7] for line in after.splitlines()] == [line[:7] for line in before.splitlines()]


@pytest.mark.representative
async def test_an_odoo_conf_that_vanishes_while_the_instance_is_down_is_named_and_awaited_by_the_rollback(
    move: Move,
) -> None:
    await move.begin(order=hold("rewrite_conf.claimed"))
    await move.there()
    kept = move.site.conf.read_bytes()
    move.site.conf.unlink()
    move.go_on()
    message = await move.failed()
    assert message.startswith("rewrite_conf: ")
    assert "it is not there; Odoo cannot start without it" in message
    move.site.conf.write_bytes(kept)
    move.site.conf.chmod(0o640)
    await move.ends("migration.rolled_back")


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
    await move.there()
    async with broken(move.site.conf):
        move.go_on()
        message = await move.failed()
        assert message.startswith("prepare: ")
        assert words in message
        assert str(move.site.conf.parent) in message
        await move.arena.subscriber.wait_for(
            "migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS
        )
    await move.ends("migration.rolled_back")
    assert "migration.stopped" not in move.arena.subscriber.types(move.site.id)


@needs_root
async def test_a_storage_that_turns_read_only_while_the_instance_is_down_is_named_and_the_move_undone(
    move: Move,
) -> None:
    await move.begin(order=hold("rewrite_conf.claimed"))
    await move.there()
    async with read_only(move.site.conf.parent):
        move.go_on()
        message = await move.failed()
        assert message.startswith("rewrite_conf: ")
        assert "the file system is read-only" in message
        # nothing was written there, so nothing is to be put back: it can be undone as it is
        await move.ends("migration.rolled_back")
