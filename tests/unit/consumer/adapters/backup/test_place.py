"""The backup place: what is a backup, and what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rehome_consumer.adapters.backup import files
from rehome_consumer.adapters.backup.place import DUMP, MANIFEST, MARK, BackupPlace
from rehome_consumer.errors import Conflict, NotReady, Refused, TimedOut

if TYPE_CHECKING:
    from pathlib import Path

SOURCE: dict[str, Any] = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:01:00+00:00"}
NAME = "7d9f2a54-1"


def wanted() -> None:
    """The result is still waited for."""


def unwanted() -> None:
    raise TimedOut("given up")


@pytest.fixture
def place(tmp_path: Path) -> BackupPlace:
    (tmp_path / "backups").mkdir()
    return BackupPlace(tmp_path / "backups", threads=2)


def dumped(place: BackupPlace) -> Path:
    """A complete dump that waits to be sealed."""
    run = place.begin(NAME, wanted)
    (run / DUMP).mkdir()
    (run / DUMP / "toc.dat").write_bytes(b"toc")
    (run / DUMP / "1.dat").write_bytes(b"x" * 3_000_000)
    place.finish(run, NAME, SOURCE, wanted)
    return place.partial(NAME)


def visible(place: BackupPlace) -> list[str]:
    return sorted(path.name for path in place.root.iterdir())


def test_the_manifest_has_rows_versions_and_files(place: BackupPlace) -> None:
    dumped(place)
    backup = place.seal(NAME, {"public.b": 2, "public.a": 1}, {"server": "150018"}, wanted)
    manifest = json.loads((backup.place / MANIFEST).read_text())
    assert manifest["rows"] == {"public.a": 1, "public.b": 2}
    assert manifest["versions"] == {"server": "150018"}
    assert manifest["files"]["dump/1.dat"]["bytes"] == 3_000_000
    assert set(manifest["files"]) == {"dump/1.dat", "dump/toc.dat", "source.json"}
    assert (backup.files, backup.bytes > 3_000_000) == (3, True)
    assert visible(place) == [NAME]


def test_only_the_consumers_own_account_can_read_backups(place: BackupPlace) -> None:
    dumped(place)
    backup = place.seal(NAME, {}, {}, wanted)
    assert backup.place.stat().st_mode & 0o77 == 0


def test_each_run_has_a_directory_of_its_own_and_those_of_earlier_runs_are_removed(
    place: BackupPlace,
) -> None:
    first = place.begin(NAME, wanted)
    second = place.begin(NAME, wanted)
    assert first != second
    assert not first.exists()
    with pytest.raises(FileNotFoundError):
        place.finish(first, NAME, SOURCE, wanted)


def test_a_dump_that_lost_files_before_the_seal_is_not_sealed(place: BackupPlace) -> None:
    (dumped(place) / DUMP / "1.dat").unlink()
    with pytest.raises(Conflict, match="dump again"):
        place.seal(NAME, {}, {}, wanted)
    assert place.check(NAME, wanted) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dump/1.dat", b"x" * 2_999_999 + b"y"),
        ("dump/1.dat", b"x" * 2_999_999),
        ("source.json", b"{}"),
        ("dump/toc.dat", None),
        (MANIFEST, b"{}"),
        (MANIFEST, b"\xff"),
        (MANIFEST, None),
    ],
)
def test_a_file_that_is_missing_or_altered_is_named(
    place: BackupPlace, name: str, content: bytes | None
) -> None:
    dumped(place)
    file = place.seal(NAME, {}, {}, wanted).place / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(Refused, match=name):
        place.check(NAME, wanted)


def test_a_manifest_that_is_too_large_is_not_read(
    place: BackupPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumped(place)
    backup = place.seal(NAME, {}, {}, wanted)
    monkeypatch.setattr(files, "LARGEST", (backup.place / MANIFEST).stat().st_size)
    assert place.check(NAME, wanted) == backup
    monkeypatch.setattr(files, "LARGEST", 100)
    with pytest.raises(
        Refused, match=rf"backup {NAME}: {MANIFEST} cannot be read: it has more than 100 bytes"
    ):
        place.check(NAME, wanted)


def test_the_description_of_a_dump_is_not_read_when_it_is_too_large(
    place: BackupPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumped(place)
    monkeypatch.setattr(files, "LARGEST", 100)
    with pytest.raises(
        Conflict, match=r"source\.json cannot be read \(it has more than 100 bytes\): dump again"
    ):
        place.seal(NAME, {}, {}, wanted)


def test_a_file_beside_those_of_the_manifest_does_no_harm(place: BackupPlace) -> None:
    dumped(place)
    backup = place.seal(NAME, {}, {}, wanted)
    (backup.place / "filestore.tar").write_bytes(b"tar")
    assert place.check(NAME, wanted) == backup


def test_a_run_that_nobody_waits_for_changes_nothing(place: BackupPlace) -> None:
    dumped(place)
    with pytest.raises(TimedOut):
        place.seal(NAME, {}, {}, unwanted)
    assert visible(place) == [f".{NAME}.partial"]
    with pytest.raises(TimedOut):
        place.begin(NAME, unwanted)
    with pytest.raises(TimedOut):
        place.discard(NAME, unwanted)
    assert visible(place) == [f".{NAME}.partial"]
    place.seal(NAME, {}, {}, wanted)
    with pytest.raises(TimedOut):
        place.check(NAME, unwanted)


def test_discarding_removes_sealed_and_unfinished_backups(place: BackupPlace) -> None:
    dumped(place)
    place.seal(NAME, {}, {}, wanted)
    place.begin(NAME, wanted)
    place.discard(NAME, wanted)
    assert visible(place) == []


def test_a_place_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match="file"):
        BackupPlace(tmp_path / "file").require_writable()


def test_a_place_that_is_missing_is_not_made_since_nothing_may_be_mounted_there(tmp_path: Path) -> None:
    place = BackupPlace(tmp_path / "backups")
    with pytest.raises(NotReady, match="backups is not there: mount it, or make the directory"):
        place.require_writable()
    with pytest.raises(NotReady, match="is not there"):
        place.begin(NAME, wanted)
    with pytest.raises(NotReady, match="is not there"):
        place.discard(NAME, wanted)
    assert not place.root.exists()


def test_a_place_is_marked_once_and_known_by_its_mark(place: BackupPlace) -> None:
    mark = place.require_mark(None)
    assert place.require_mark(None) == place.require_mark(mark) == mark
    assert visible(place) == [MARK]


def test_an_empty_directory_or_another_place_where_the_place_should_be_is_noticed(place: BackupPlace) -> None:
    mark = place.require_mark(None)
    with pytest.raises(NotReady, match=f"is another one than the consumers have used: .* says {mark}"):
        place.require_mark(UUID(int=7, version=4))
    (place.root / MARK).unlink()
    with pytest.raises(NotReady, match=f"is it what should be mounted there.* echo {mark} > "):
        place.require_mark(mark)
    # what the advice says makes it the place
    (place.root / MARK).write_text(f"{mark}\n")
    assert place.require_mark(mark) == mark


def test_a_mark_without_an_id_is_not_ready(place: BackupPlace) -> None:
    (place.root / MARK).write_bytes(b"\xff" * 1000)
    with pytest.raises(NotReady, match="there is no id in it"):
        place.require_mark(None)
