"""The filestore's archive on a real file system: links, leftovers, hangs and a full disk."""

from __future__ import annotations

import errno
import os
import tarfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.backup.filestore import FilestoreArchive
from rehome_consumer.adapters.backup.filestore_tar import Room
from rehome_consumer.errors import Conflict, Refused, TimedOut, Unreachable
from rehome_consumer.model import Instance
from sandbox.system.net import wait_until

if TYPE_CHECKING:
    from pathlib import Path

ACME = Instance(UUID(int=0xACE << 100, version=4), UUID(int=1), "Acme", "running", "acme")


@dataclass(frozen=True)
class Storage:
    root: Path

    @property
    def filestore(self) -> Path:
        return self.root / ACME.directory / "data" / "filestore" / "acme"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    def archive(self, *, limit: float = 10.0, reserve: int | None = None) -> Any:
        made = FilestoreArchive(self.root, self.backups, enabled=True, limit=limit, reserve=reserve)
        return made.archive(ACME, "b1")

    def names(self) -> list[str]:
        return sorted(path.name for path in self.backups.iterdir())

    def members(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(self.backups / "b1-filestore.tar") as tar:
            return {member.name: member for member in tar}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage(tmp_path)
    storage.backups.mkdir()
    (storage.filestore / "ab").mkdir(parents=True)
    (storage.filestore / "ab" / "file").write_bytes(b"content")
    return storage


async def test_mode_owner_and_time_of_a_file_are_kept_and_the_archive_is_private(storage: Storage) -> None:
    file = storage.filestore / "ab" / "file"
    file.chmod(0o640)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    path = await storage.archive()
    entry = storage.members()["acme/ab/file"]
    status = file.stat()
    assert (entry.mode, entry.mtime, entry.uid) == (0o640, 1_000_000_000, status.st_uid)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_links_and_pipes_are_left_out_and_not_followed(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not the tenant's")
    (storage.filestore / "file-link").symlink_to(tmp_path / "secret")
    (storage.filestore / "folder-link").symlink_to(tmp_path)
    os.mkfifo(storage.filestore / "pipe")
    await storage.archive()
    assert sorted(storage.members()) == ["acme", "acme/ab", "acme/ab/file"]


@pytest.mark.parametrize("part", ["data", "data/filestore", "data/filestore/acme"])
async def test_a_link_on_the_way_to_the_filestore_is_not_followed(
    storage: Storage, tmp_path: Path, part: str
) -> None:
    place = storage.root / ACME.directory / part
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unreachable, match=r"Not a directory: '?(data|filestore|acme)"):
        await storage.archive()
    assert storage.names() == []


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\0b"])
async def test_a_database_name_that_leads_elsewhere_is_refused(storage: Storage, name: str) -> None:
    instance = Instance(ACME.id, ACME.customer_id, "Acme", "running", "acme", db_name=name)
    archive = FilestoreArchive(storage.root, storage.backups, enabled=True)
    with pytest.raises(Refused, match="is no file name"):
        await archive.archive(instance, "b1")


async def test_a_missing_filestore_is_logged(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    (storage.filestore / "ab" / "file").unlink()
    (storage.filestore / "ab").rmdir()
    storage.filestore.rmdir()
    assert await storage.archive() is None
    assert [one.getMessage().split(" missing=")[0] for one in caplog.records] == [
        f"filestore.missing instance={ACME.id}"
    ]


async def test_what_a_killed_run_left_is_removed(storage: Storage) -> None:
    (storage.backups / ".b1-filestore.0123.partial").write_bytes(b"half")
    (storage.backups / ".b2-filestore.0123.partial").write_bytes(b"another backup's")
    await storage.archive()
    assert storage.names() == [".b2-filestore.0123.partial", "b1-filestore.tar"]


async def test_a_full_disk_is_tried_again_and_nothing_is_left(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unreachable, match=r"archiving the filestore of acme .*No space left"):
        await storage.archive()
    assert storage.names() == []


async def test_a_missing_backup_place_is_tried_again(storage: Storage) -> None:
    storage.backups.rmdir()
    with pytest.raises(Unreachable, match=r"No such file or directory: .*backups"):
        await storage.archive()


async def test_a_run_whose_temporary_file_another_run_removed_gives_up(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(_: int) -> None:
        for path in storage.backups.glob(".*.partial"):
            path.unlink()

    monkeypatch.setattr(os, "fsync", remove)
    with pytest.raises(Conflict, match="another run"):
        await storage.archive()
    assert storage.names() == []


async def test_a_storage_that_hangs_is_given_up_and_nothing_is_left_when_it_answers(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: answering.wait(10))
    with pytest.raises(TimedOut, match=r"archiving the filestore of acme .* 0\.2 s"):
        await storage.archive(limit=0.2)
    answering.set()

    async def nothing_left() -> bool:
        return storage.names() == []

    await wait_until(nothing_left, what="the late run to give up", limit=5)


# Files that claim to be large


def with_holes(path: Path, size: int, *, every: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(every, size, every):
            file.seek(at)
            file.write(b"at %d" % at)


async def test_a_file_of_a_terabyte_that_is_all_holes_takes_no_room(storage: Storage) -> None:
    with_holes(storage.filestore / "huge", 2**40, every=2**38)
    path = await storage.archive()
    assert path.stat().st_blocks * 512 < 2**20
    with tarfile.open(path) as tar:
        file = tar.extractfile("acme/huge")
        assert file is not None
        assert file.seek(0, os.SEEK_END) == 2**40
        for at in (2**38, 2**39, 3 * 2**38):
            file.seek(at - 8)
            assert file.read(8 + 15) == bytes(8) + b"at %d" % at
        assert tar.extractfile("acme/ab/file").read() == b"content"  # type: ignore[union-attr]


@pytest.mark.parametrize("reports_holes", [True, False])
@pytest.mark.parametrize("size", [0, 1, 511, 4096, 10_000_001, 33 * 2**20])
async def test_a_file_with_holes_is_the_same_when_it_is_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, size: int, reports_holes: bool
) -> None:
    """Also on a storage that shows holes as zeros, as NFS does before version 4.2."""
    file = storage.filestore / "holes"
    with_holes(file, size, every=3_333_333)
    file.write_bytes(file.read_bytes()[: size // 2] + b"tail" if size % 2 else file.read_bytes())
    os.truncate(file, size)
    if not reports_holes:
        monkeypatch.setattr(
            os, "lseek", lambda fd, at, how: at if how == os.SEEK_DATA else os.fstat(fd).st_size
        )
    path = await storage.archive()
    with tarfile.open(path) as tar:
        assert tar.extractfile("acme/holes").read() == file.read_bytes()  # type: ignore[union-attr]
    assert path.stat().st_size % 512 == 0


async def test_a_reserve_stays_free_at_the_backup_place(storage: Storage) -> None:
    message = r"backups has .* GB free, of which 1000000000\.0 GB stay for other moves\..*: acme"
    with pytest.raises(Unreachable, match=message):
        await storage.archive(reserve=10**18)
    assert storage.names() == []


async def test_an_archive_that_would_use_up_the_reserve_is_ended_and_nothing_is_left(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (storage.filestore / "zz").write_bytes(os.urandom(8 * 2**20))
    real = os.statvfs

    def filling(place: str) -> os.statvfs_result:
        """As on a disk of 6 MiB and the reserve, with nothing on it but what is in the backup place."""
        used = sum(path.stat().st_blocks * 512 for path in storage.backups.iterdir())
        there = list(real(place))
        there[1], there[4] = 1, 20 * 2**20 + 6 * 2**20 - used  # f_frsize, f_bavail
        return os.statvfs_result(there)

    monkeypatch.setattr(os, "statvfs", filling)
    with pytest.raises(Unreachable, match=r"archiving the filestore of acme .* Too little for: acme/zz"):
        await storage.archive(reserve=20 * 2**20)
    assert storage.names() == []


@pytest.mark.parametrize(("gigabytes", "reserve"), [(1000, 2**30), (10, 5 * 10**8)])
def test_the_reserve_is_a_gibibyte_or_a_twentieth(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, reserve: int
) -> None:
    blocks = gigabytes * 10**9
    monkeypatch.setattr(
        os, "statvfs", lambda _: os.statvfs_result((1, 1, blocks, 0, reserve + 100, 0, 0, 0, 0, 255))
    )
    Room("/").require(100, "acme")
    with pytest.raises(OSError, match="stay for other moves"):
        Room("/").require(101, "acme")


async def test_a_file_that_becomes_shorter_meanwhile_is_tried_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.pread

    def cut(file: int, size: int, at: int) -> bytes:
        os.truncate(storage.filestore / "ab" / "file", 2)
        return read(file, size, at)

    monkeypatch.setattr(os, "pread", cut)
    with pytest.raises(Unreachable, match="it became shorter while it was read"):
        await storage.archive()
    assert storage.names() == []
