"""odoo.conf on a real file system: owners, links, hangs, leftovers and other processes' changes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rehome_consumer.adapters.odoo import conf_files as files
from rehome_consumer.adapters.odoo.conf import OdooConfFiles
from rehome_consumer.errors import Conflict, ConfUnusable, TimedOut, Unreachable
from rehome_consumer.model import Credentials, Instance, Secret
from sandbox.system.net import wait_until
from sandbox.system.scratch import remove_scratch_directory, scratch_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACME = Instance(UUID(int=0xACE << 100, version=4), UUID(int=1), "Acme", "running", "acme")
LOGIN = Credentials("new", Secret("new"))
OLD = b"[options]\ndb_host = old\ndb_port = 5432\ndb_user = old\ndb_password = old\n"
NEW = OLD.replace(b"old", b"new")
NOBODY = 65534


@dataclass(frozen=True)
class Storage:
    """A data root that any user can pass through, with Acme's odoo.conf."""

    root: Path

    @property
    def path(self) -> Path:
        return self.root / ACME.directory / "conf" / "odoo.conf"

    @property
    def conf(self) -> OdooConfFiles:
        return OdooConfFiles(self.root)

    async def rewrite(self) -> tuple[str, ...]:
        return await self.conf.rewrite(ACME, "new", 5432, LOGIN)

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self.path.parent.iterdir())


@pytest.fixture
def acme() -> Iterator[Storage]:
    acme = Storage(scratch_directory("rehome-storage"))
    acme.path.parent.mkdir(parents=True)
    acme.path.write_bytes(OLD)
    yield acme
    remove_scratch_directory(acme.root)


@pytest.fixture
def ordinary_user(acme: Storage) -> Iterator[None]:
    """Be an ordinary user, who owns Acme's files, for the test; mode bits do not stop root."""
    if os.geteuid() != 0:
        yield
        return
    for place in (acme.path.parent.parent, acme.path.parent, acme.path):
        os.chown(place, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def rights(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


async def test_mode_and_owner_stay_through_backup_rewrite_and_restore(acme: Storage) -> None:
    acme.path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(acme.path, 1001, 1002)
    before = rights(acme.path)
    backup = await acme.conf.back_up(ACME, "t")
    await acme.rewrite()
    assert (acme.path.read_bytes(), rights(acme.path), rights(backup)) == (NEW, before, before)
    acme.path.chmod(0o600)
    await acme.conf.restore_file(ACME, "t")
    assert (acme.path.read_bytes(), rights(acme.path)) == (OLD, before)


@pytest.mark.usefixtures("ordinary_user")
async def test_a_directory_that_takes_no_file_is_found_out_before_anything_else(acme: Storage) -> None:
    acme.path.parent.chmod(0o555)
    with pytest.raises(ConfUnusable, match=r"/conf: the consumer's user may not use it"):
        await acme.conf.check_writable(ACME)
    acme.path.parent.chmod(0o755)
    acme.path.chmod(0o000)
    with pytest.raises(ConfUnusable, match=r"odoo\.conf: the consumer's user may not use it"):
        await acme.conf.read(ACME)


@pytest.mark.usefixtures("ordinary_user")
async def test_an_owner_who_could_not_be_kept_is_found_out_before_anything_else(acme: Storage) -> None:
    """A file that everybody may read, but that only its owner could own again."""
    status = os.stat_result((0o100644, 0, 0, 1, 4242, 4242, len(OLD), 0, 0, 0))
    with (
        files.open_directory(acme.root, ACME) as directory,
        pytest.raises(ConfUnusable, match="would change its owner from 4242:4242"),
    ):
        files.replace(directory, acme.path, files.Content(NEW, status), lambda: None)
    assert acme.names() == ["odoo.conf"]


async def test_a_link_in_the_place_of_the_file_or_its_directory_is_not_followed(
    acme: Storage, tmp_path: Path
) -> None:
    outside = tmp_path / "odoo.conf"
    outside.write_bytes(OLD)
    acme.path.unlink()
    for target in (outside, tmp_path / "nowhere"):
        acme.path.symlink_to(target)
        for use in (
            acme.conf.read(ACME),
            acme.conf.check_writable(ACME),
            acme.rewrite(),
            acme.conf.back_up(ACME, "t"),
        ):
            with pytest.raises(ConfUnusable, match=r"odoo\.conf: it is a symbolic link"):
                await use
        acme.path.unlink()
    acme.path.parent.rmdir()
    acme.path.parent.symlink_to(tmp_path)
    with pytest.raises(ConfUnusable, match="symbolic link"):
        await acme.rewrite()
    assert outside.read_bytes() == OLD


async def test_an_instance_directory_may_be_moved_within_the_data_root_and_linked(acme: Storage) -> None:
    (acme.root / ACME.directory).rename(acme.root / "moved")
    (acme.root / ACME.directory).symlink_to("moved")
    await acme.rewrite()
    assert (acme.root / "moved" / "conf" / "odoo.conf").read_bytes() == NEW


async def test_an_instance_directory_that_leads_elsewhere_is_refused(acme: Storage, tmp_path: Path) -> None:
    away = shutil.copytree(acme.root / ACME.directory, tmp_path / "away")
    other = shutil.copytree(acme.root / ACME.directory, acme.root / "odoo_data_other_12345678")
    shutil.rmtree(acme.root / ACME.directory)
    for target, complaint in [
        (away, "out of the data root"),
        (acme.root, "out of"),
        (other, "another instance's"),
    ]:
        (acme.root / ACME.directory).symlink_to(target)
        with pytest.raises(ConfUnusable, match=complaint):
            await acme.rewrite()
        (acme.root / ACME.directory).unlink()
    assert (other / "conf" / "odoo.conf").read_bytes() == (away / "conf" / "odoo.conf").read_bytes() == OLD


@pytest.mark.parametrize("kind", ["directory", "named pipe", "huge"])
async def test_what_is_no_ordinary_file_is_refused_without_a_wait(acme: Storage, kind: str) -> None:
    acme.path.unlink()
    if kind == "directory":
        acme.path.mkdir()
    elif kind == "named pipe":
        os.mkfifo(acme.path)
    else:
        acme.path.write_bytes(OLD + b"#" * files.LARGEST)
    with pytest.raises(ConfUnusable, match=r"not a (regular )?file|larger than"):
        await acme.conf.check_writable(ACME)


async def test_storage_that_is_not_mounted_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="is the shared storage mounted"):
        await OdooConfFiles(tmp_path / "absent").read(ACME)


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.EROFS, ConfUnusable),
        (errno.EPERM, ConfUnusable),
        (errno.EIO, Unreachable),
        (errno.ESTALE, Unreachable),
        (errno.ENOSPC, Unreachable),
        (errno.ENOTCONN, Unreachable),
    ],
)
def test_an_error_of_the_system_is_for_good_only_where_it_does_not_pass(
    acme: Storage, number: int, meaning: type[Exception]
) -> None:
    with pytest.raises(meaning, match=r"odoo\.conf"), files.told(acme.path):
        raise OSError(number, os.strerror(number))


async def test_a_reader_sees_the_old_file_or_the_new_one_at_every_instant(acme: Storage) -> None:
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(acme.path.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    await acme.conf.back_up(ACME, "t")
    for _ in range(50):
        await acme.rewrite()
        await acme.conf.restore_file(ACME, "t")
    done.set()
    reader.join(timeout=10)
    assert seen <= {OLD, NEW}


async def test_temporary_files_of_a_killed_run_are_removed(acme: Storage) -> None:
    acme.path.with_name(".odoo.conf.rehome-0123.tmp").write_bytes(b"half")
    await acme.rewrite()
    assert acme.names() == ["odoo.conf"]
    acme.path.with_name(".odoo.conf.rehome-4567.tmp").write_bytes(b"half")
    await acme.conf.remove_backup(ACME, "t")
    assert acme.names() == ["odoo.conf"]


async def test_a_run_that_lost_its_claim_and_its_temporary_file_changes_nothing(acme: Storage) -> None:
    with files.open_directory(acme.root, ACME) as directory:
        content = files.read(directory, acme.path)._replace(data=NEW)
        with pytest.raises(Conflict, match="another process is changing it"):
            files.replace(directory, acme.path, content, lambda: files.sweep(directory, acme.path))
    assert acme.path.read_bytes() == OLD


async def test_a_file_that_another_process_changes_meanwhile_is_left_alone(
    acme: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = OLD + b"workers = 4\n"

    def fsync(file: int) -> None:
        acme.path.write_bytes(theirs)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Conflict, match="another process changed it"):
        await acme.rewrite()
    assert (acme.path.read_bytes(), acme.names()) == (theirs, ["odoo.conf"])


async def test_a_storage_that_hangs_is_not_waited_for_and_does_nothing_when_it_wakes(
    acme: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a late rewrite could undo a rollback."""
    awake = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: awake.wait(10))
    with pytest.raises(TimedOut, match=r"rewriting .*odoo\.conf: .* in 0\.2 s"):
        await OdooConfFiles(acme.root, limit=0.2).rewrite(ACME, "new", 5432, LOGIN)
    awake.set()

    async def given_up() -> bool:
        return acme.names() == ["odoo.conf"]

    await wait_until(given_up, what="the late run to give up", limit=5)
    assert acme.path.read_bytes() == OLD


# Hard links


async def test_a_file_with_a_second_name_is_neither_read_nor_checked_nor_backed_up_nor_rewritten(
    acme: Storage,
) -> None:
    """A tenant's link to another's odoo.conf would tell it that one's password, or be moved with it."""
    other = acme.root / "another tenant's"
    other.write_bytes(OLD)
    acme.path.unlink()
    os.link(other, acme.path)
    for use in (
        lambda: acme.conf.read(ACME),
        lambda: acme.conf.check_writable(ACME),
        lambda: acme.conf.back_up(ACME, "a"),
        acme.rewrite,
    ):
        with pytest.raises(
            ConfUnusable, match=r"odoo\.conf: it has another name elsewhere .* put a copy in its place"
        ):
            await use()
    assert acme.names() == ["odoo.conf"]
    assert other.read_bytes() == OLD


async def test_a_backup_with_a_second_name_is_not_restored(acme: Storage) -> None:
    backup = await acme.conf.back_up(ACME, "a")
    os.link(backup, acme.root / "elsewhere")
    with pytest.raises(ConfUnusable, match=r"odoo\.conf\.rehome-a: it has another name elsewhere"):
        await acme.conf.restore_file(ACME, "a")


async def test_a_file_that_gets_a_second_name_meanwhile_is_not_replaced(acme: Storage) -> None:
    backup = await acme.conf.back_up(ACME, "a")
    acme.path.write_bytes(NEW)
    os.link(acme.path, acme.root / "elsewhere")
    with pytest.raises(ConfUnusable, match=r"odoo\.conf: it has another name elsewhere"):
        await acme.conf.restore_file(ACME, "a")
    assert acme.path.read_bytes() == NEW
    assert acme.names() == ["odoo.conf", backup.name]


async def test_a_backup_that_a_killed_run_left_with_two_names_is_restored(acme: Storage) -> None:
    """A backup is written under another name first, and has both for an instant."""
    backup = await acme.conf.back_up(ACME, "a")
    os.link(backup, backup.with_name(".odoo.conf.rehome-0011223344556677.tmp"))
    acme.path.write_bytes(NEW)
    assert await acme.conf.restore_file(ACME, "a")
    assert acme.path.read_bytes() == OLD
    assert acme.names() == ["odoo.conf", backup.name]
