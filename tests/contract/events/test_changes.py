"""What the page says of changes: each that a reader can meet, per version and per release."""

import copy
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rehome_events.catalog import KNOWN
from rehome_events.tools import page
from rehome_events.tools.changes import NEW, changes, record, recorded, unreleased
from rehome_events.tools.released import release, released
from rehome_events.tools.schema import generate
from tests.support.second_versions import next_release, next_schemas

RELEASE = version("rehome-events")


@pytest.fixture
def old() -> dict[str, Any]:
    """A schema to be changed."""
    return copy.deepcopy(generate(KNOWN["migration.prepared", 1]))


def data(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"]["MigrationPrepared"]
    return found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data["properties"].pop("target"), "`data.target` is gone"),
        (
            lambda data: data["properties"].update(x={"type": "string", "format": "uuid"}),
            "`data.x` (UUID) is new, and may be missing",
        ),
        (lambda data: data["required"].remove("target"), "`data.target` may be missing now"),
        (
            lambda data: data["properties"].update(target={"type": "string"}),
            "`data.target`: object became string",
        ),
    ],
)
def test_a_change_of_a_field_is_told(
    change: Callable[[dict[str, Any]], object], says: str, old: dict[str, Any]
) -> None:
    new = copy.deepcopy(old)
    change(data(new))
    assert says in changes(old, new)
    assert changes(old, old) == []


def test_the_fields_of_a_part_are_told_too(old: dict[str, Any]) -> None:
    new = copy.deepcopy(old)
    del new["$defs"]["ServerRef"]["properties"]["port"]
    assert [line for line in changes(old, new) if line.endswith("port` is gone")]


def test_every_released_type_is_in_the_record() -> None:
    names = {f"{kind} v{number}" for kind, number in released()}
    assert names <= {name for found in recorded().values() for name in found}


def test_the_page_is_up_to_date() -> None:
    assert page.CHANGES_FILE.read_text() == page.render_changes()


def test_a_later_release_and_its_second_versions_are_on_the_page(tmp_path: Path) -> None:
    with next_schemas(tmp_path / "schemas") as directory, next_release():
        rendered = page.render_changes()
        assert "`migration.completed`, v1 to v2:" in rendered
        assert "is new" in rendered
        record({}, tmp_path)  # the first release: everything is new
        assert recorded(tmp_path)[RELEASE]["migration.completed v2"] == [NEW]
        release(directory)
        assert recorded(directory)[RELEASE]["migration.completed v2"] == [NEW]


def test_what_is_not_released_yet_is_told_and_then_recorded(tmp_path: Path) -> None:
    before = released()
    schema = before["migration.prepared", 1]
    advice = data(schema)["properties"].pop(
        next(iter(set(data(schema)["properties"]) - set(data(schema)["required"])))
    )
    assert advice
    found = unreleased(before)
    assert list(found) == ["migration.prepared v1"]
    assert found["migration.prepared v1"][0].endswith("is new, and may be missing")
    record(before, tmp_path)
    record(before, tmp_path)
    assert recorded(tmp_path) == {RELEASE: found}
