"""Port `Shelf`, held by the fake and by a directory alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rehome_consumer.adapters.backup.inventory import FileBackupInventory
from rehome_consumer.errors import Refused
from tests.fakes.inspection import WHEN, FakeBackupInventory

if TYPE_CHECKING:
    from pathlib import Path

    from rehome_consumer.ports.operators import BackupInventory

MIGRATION = UUID("7e77fa1e-d1d7-45cd-a43e-0f7d03ee63aa")
KINDS = {
    f"{MIGRATION}-1": "backup",
    f"{MIGRATION}-1-filestore.tar": "filestore",
    f".{MIGRATION}-2.partial": "partial",
    f".{MIGRATION}-2-filestore.0123abcd.partial": "partial",
}
NOT_OURS = ("notes.txt", f"{MIGRATION}", f"{MIGRATION}-x", "lost+found", f"{MIGRATION}-1.bak", "..")


@dataclass
class Place:
    inventory: BackupInventory
    root: Path | None

    def put(self, name: str) -> None:
        """A directory with a file in it, or a file."""
        if self.root is None:
            assert isinstance(self.inventory, FakeBackupInventory)
            self.inventory.names[name] = WHEN
        elif name.endswith(".tar") or "." in name.lstrip("."):
            (self.root / name).write_text("x")
        else:
            (self.root / name).mkdir()
            (self.root / name / "toc.dat").write_text("x")


@pytest.fixture(params=["fake", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return (
        Place(FakeBackupInventory(), None)
        if request.param == "fake"
        else Place(FileBackupInventory(tmp_path), tmp_path)
    )


async def test_what_has_a_name_of_ours_is_seen_and_nothing_else(place: Place) -> None:
    for name in (*KINDS, *NOT_OURS[:-1]):
        place.put(name)
    found = await place.inventory.entries()
    assert {one.name: one.kind for one in found} == KINDS
    assert {one.migration_id for one in found} == {MIGRATION}
    assert {one.attempt for one in found} == {1, 2}


async def test_an_entry_is_removed_whole_and_a_second_time_nothing_happens(place: Place) -> None:
    for name in KINDS:
        place.put(name)
    for number, name in enumerate(KINDS, 1):
        await place.inventory.remove(name)
        await place.inventory.remove(name)
        assert len(await place.inventory.entries()) == len(KINDS) - number
    assert place.root is None or not any(place.root.iterdir())


@pytest.mark.parametrize("name", NOT_OURS)
async def test_a_name_that_is_not_ours_is_left_alone(name: str, place: Place) -> None:
    with pytest.raises(Refused):
        await place.inventory.remove(name)


async def test_a_place_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await FileBackupInventory(tmp_path / "nowhere").entries() == []
