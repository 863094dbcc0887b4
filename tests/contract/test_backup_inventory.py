"""Port `BackupInventory`, on the fake and on a directory."""

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
OTHERS = ("notes.txt", f"{MIGRATION}", f"{MIGRATION}-x", "lost+found", f"{MIGRATION}-1.bak", "..")


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


async def test_entries_with_rehomes_names_are_found_and_no_others(place: Place) -> None:
    for name in (*KINDS, *OTHERS[:-1]):
        place.put(name)
    found = await place.inventory.entries()
    assert {one.name: one.kind for one in found} == KINDS
    assert {one.migration_id for one in found} == {MIGRATION}
    assert {one.attempt for one in found} == {1, 2}


async def test_an_entry_is_removed_completely_and_a_second_removal_does_nothing(place: Place) -> None:
    for name in KINDS:
        place.put(name)
    for number, name in enumerate(KINDS, 1):
        await place.inventory.remove(name)
        await place.inventory.remove(name)
        assert len(await place.inventory.entries()) == len(KINDS) - number
    assert place.root is None or not any(place.root.iterdir())


@pytest.mark.parametrize("name", OTHERS)
async def test_an_entry_with_another_name_is_left_alone(name: str, place: Place) -> None:
    with pytest.raises(Refused):
        await place.inventory.remove(name)


async def test_a_missing_place_is_empty(tmp_path: Path) -> None:
    assert await FileBackupInventory(tmp_path / "nowhere").entries() == []
