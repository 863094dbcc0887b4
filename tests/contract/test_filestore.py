"""Port `Filestore`, on the fake and on real files."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import pytest

from rehome_consumer.adapters.backup.filestore import FilestoreArchive
from rehome_consumer.model import Instance
from tests.fakes.filestore import FakeFilestore

if TYPE_CHECKING:
    from pathlib import Path

    from rehome_consumer.ports import steps

ACME = Instance(UUID(int=0xACE << 100, version=4), UUID(int=1), "Acme", "running", "acme", db_name="acme_db")
CONTENT = {"ab/abcd": b"one", "cd/cdef": b"two" * 100_000, "cd/é empty": b""}


class Storage(Protocol):
    """What the suite needs besides the port itself."""

    @property
    def filestore(self) -> steps.Filestore: ...

    @property
    def disabled(self) -> steps.Filestore: ...

    def fill(self, content: dict[str, bytes]) -> None: ...

    def content(self, path: Path) -> dict[str, bytes]: ...

    def archives(self) -> list[str]: ...


class FakeStorage:
    def __init__(self) -> None:
        self.filestore = FakeFilestore(enabled=True)
        self.disabled = FakeFilestore()

    def fill(self, content: dict[str, bytes]) -> None:
        self.filestore.stores[ACME.id] = self.disabled.stores[ACME.id] = content

    def content(self, path: Path) -> dict[str, bytes]:
        return self.filestore.archives[path]

    def archives(self) -> list[str]:
        return [path.name for path in self.filestore.archives]


class RealStorage:
    def __init__(self, root: Path) -> None:
        self.backups = root / "backups"
        self.instance = root / "instances" / ACME.directory
        self.backups.mkdir()
        self.instance.mkdir(parents=True)
        self.filestore = FilestoreArchive(root / "instances", self.backups, enabled=True)
        self.disabled = FilestoreArchive(root / "instances", self.backups, enabled=False)

    def fill(self, content: dict[str, bytes]) -> None:
        for name, data in content.items():
            path = self.instance / "data" / "filestore" / "acme_db" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def content(self, path: Path) -> dict[str, bytes]:
        with tarfile.open(path) as tar:
            found = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            return {name.removeprefix("acme_db/"): file.read() for name, file in found.items() if file}

    def archives(self) -> list[str]:
        return [path.name for path in self.backups.iterdir()]


@pytest.fixture(params=["fake", "files"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return FakeStorage() if request.param == "fake" else RealStorage(tmp_path)


async def test_an_archive_holds_every_file(storage: Storage) -> None:
    storage.fill(CONTENT)
    path = await storage.filestore.archive(ACME, "backup-1")
    assert path
    assert path.name == "backup-1-filestore.tar"
    assert storage.content(path) == CONTENT
    assert storage.archives() == [path.name]


async def test_a_second_call_leaves_the_archive_as_it_is(storage: Storage) -> None:
    storage.fill(CONTENT)
    path = await storage.filestore.archive(ACME, "backup-1")
    assert path
    storage.fill({**CONTENT, "ab/later": b"three"})
    assert await storage.filestore.archive(ACME, "backup-1") == path
    assert storage.content(path) == CONTENT


async def test_nothing_is_archived_when_archiving_is_disabled(storage: Storage) -> None:
    storage.fill(CONTENT)
    assert await storage.disabled.archive(ACME, "backup-1") is None
    assert storage.archives() == []


async def test_an_instance_without_a_filestore_has_no_archive(storage: Storage) -> None:
    assert await storage.filestore.archive(ACME, "backup-1") is None
    assert storage.archives() == []
