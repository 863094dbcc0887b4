"""The page of versions of RabbitMQ: its table is well formed, and says what the README and compose.yaml say."""

import json
import re
from dataclasses import asdict
from datetime import date
from pathlib import Path

import pytest
import yaml

from tests.compatibility import __main__
from tests.compatibility.__main__ import read_column
from tests.compatibility.areas import AREAS, Area
from tests.compatibility.table import BEGIN, END, PAGE, Column, Counts, columns, put

ROOT = Path(__file__).parents[2]
EMPTY = f"# Page\n{BEGIN}\n{END}\nend\n"
RUN = {area.name: Counts(passed=3) for area in AREAS}
OLD = Column("3.10.8", "bookworm", "2026-01-01", RUN)
NEW = Column("4.10.1", "trixie", "2026-01-02", {"users": Counts(1, 2, 3)})
COLUMNS = columns(PAGE.read_text())


SOME_TESTS = """
import pytest

@pytest.fixture
def broken():
    yield
    raise RuntimeError("in the teardown")

@pytest.mark.representative
def test_passes(): pass

def test_fails(): assert False

@pytest.mark.skip
def test_is_skipped(): pass

def test_with_a_broken_fixture(broken): pass
"""


def claimed(text: str) -> list[str]:
    """The oldest and the newest version that a text promises, such as 3.10 and 4.3."""
    match = re.search(r"RabbitMQ(?:\*\*)? (\d+\.\d+) to (\d+\.\d+)", text)
    assert match is not None
    return list(match.groups())


def test_columns_are_read_as_they_were_written_and_are_in_the_order_of_versions() -> None:
    page = put(put(EMPTY, NEW), OLD)

    old, new = columns(page)
    assert (old, new.version, new.counts["users"]) == (OLD, "4.10.1", Counts(1, 2, 3))
    assert new.counts["topology"] == Counts()
    assert page.startswith("# Page\n")
    assert page.endswith("\nend\n")


def test_a_new_run_replaces_the_column_of_the_same_release_of_debian() -> None:
    newer = Column("4.10.2", "trixie", "2026-02-01", RUN)

    assert columns(put(put(put(EMPTY, OLD), NEW), newer)) == [OLD, newer]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ((BEGIN, ""), "must be there, once each"),
        (("RabbitMQ 3.10.8", "RabbitMQ"), "no heading such as"),
        (("3 passed", "fine"), "no cell such as"),
    ],
)
def test_a_damaged_table_is_reported(damage: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columns(put(EMPTY, OLD).replace(*damage))


async def test_a_test_counts_once_and_what_was_left_out_is_counted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "PLACE", tmp_path)
    file = tmp_path / "test_some.py"
    file.write_text(SOME_TESTS)
    area = Area("some", "", (str(file),), long=True)

    assert await __main__.run_area(area, representative=False) == Counts(1, 2, 1)
    assert await __main__.run_area(area, representative=True) == Counts(1, 0, 3)


async def test_an_area_that_cannot_begin_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "PLACE", tmp_path)
    area = Area("some", "", (str(tmp_path / "nowhere"),))

    assert await __main__.run_area(area, representative=False) == Counts(failed=1)


def test_another_runs_column_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "column.json").write_text(json.dumps(asdict(OLD)))
    assert read_column(tmp_path / "column.json") == OLD
    with pytest.raises(SystemExit, match=r"nowhere\.json holds no column"):
        read_column(tmp_path / "nowhere.json")


def test_the_areas_are_files_that_exist() -> None:
    assert [path for area in AREAS for path in area.paths if not (ROOT / path).exists()] == []
    assert len({area.name for area in AREAS}) == len(AREAS)


def test_the_page_has_a_run_of_every_area_on_every_version_and_nothing_failed() -> None:
    assert sorted(COLUMNS, key=lambda one: one.release) == COLUMNS
    for column in COLUMNS:
        date.fromisoformat(column.date)
        assert list(column.counts) == [area.name for area in AREAS], "run `make compatibility` again"
        assert all(one.passed and not one.failed for one in column.counts.values()), column


@pytest.mark.parametrize("document", ["README.md", "docs/compatibility.md"])
def test_the_promise_is_the_oldest_and_the_newest_version_that_was_run(document: str) -> None:
    run = [".".join(map(str, one.release[:2])) for one in COLUMNS]
    assert claimed((ROOT / document).read_text()) == [run[0], run[-1]]


def test_the_versions_that_were_run_are_those_that_the_traps_were_measured_on() -> None:
    traps = (ROOT / "docs" / "decisions" / "0005-rabbitmq-traps.md").read_text()
    assert f"measured on RabbitMQ {', '.join(one.version for one in COLUMNS)} with" in traps


def test_composes_broker_is_between_them() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    images = [service["image"] for name, service in services.items() if name.startswith("rabbitmq")]
    releases = [tuple(map(int, image.partition("@")[0].rpartition(":")[2].split("."))) for image in images]
    assert all(COLUMNS[0].release[:2] <= release <= COLUMNS[-1].release[:2] for release in releases), images
