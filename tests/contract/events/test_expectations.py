"""The contract meets what subscribers rely on, by their files of expectations."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rehome_events.errors import EventError
from rehome_events.testing import unmet

FILES = sorted((Path(__file__).parents[1] / "subscribers").glob("*.json"))
NEED: dict[str, Any] = {
    "subscriber": "test",
    "needs": [
        {
            "type": "migration.failed",
            "version": 1,
            "fields": {
                "id": {"is": "uuid"},
                "data.next": {"is": "string", "values": ["roll_back", "operator"]},
                "data.tries": {"is": "number"},
            },
        }
    ],
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_contract_meets_what_a_subscriber_relies_on(file: Path) -> None:
    expectations = json.loads(file.read_text())
    assert expectations["subscriber"] == file.stem
    assert unmet(expectations) == []


def test_there_are_files_of_expectations() -> None:
    assert {file.stem for file in FILES} >= {"crm", "status_page"}


def test_what_is_met_is_not_reported() -> None:
    assert unmet(NEED) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "migration.teleported"}, "unknown event type 'migration.teleported'"),
        ({"version": 7}, "unknown version 7"),
        ({"type": "plan.upgraded", "fields": {}}, "plan.upgraded is not for subscribers"),
        ({"fields": {"data.removed": {"is": "string"}}}, "data.removed is missing"),
        ({"fields": {"data.step.name": {"is": "string"}}}, "data.step.name is missing"),
        ({"fields": {"data.tries": {"is": "string"}}}, "data.tries is integer, not string"),
        ({"fields": {"causationid": {"is": "uuid"}}}, "causationid may be missing"),
        (
            {"fields": {"data.next": {"is": "string", "values": ["operator"]}}},
            "data.next may have other values",
        ),
        ({"fields": {"data.step": {"is": "string", "values": ["stop"]}}}, "data.step may have other values"),
    ],
)
def test_what_is_not_met_is_named(change: dict[str, Any], says: str) -> None:
    expectations = copy.deepcopy(NEED)
    expectations["needs"][0] |= change
    (complaint,) = unmet(expectations)
    assert complaint.startswith("test: ")
    assert says in complaint


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "not a file of expectations"),
        ({"needs": []}, "subscriber: Field required; needs: name at least one type"),
        (
            NEED | {"needs": [{"type": "migration.failed"}]},
            "needs.0.version: Field required; needs.0.fields: Field required$",
        ),
        (
            NEED | {"needs": [NEED["needs"][0] | {"fields": {"id": {"is": "guid", "optional": True}}}]},
            "needs.0.fields.id.is: .*; needs.0.fields.id.optional: Extra inputs are not permitted",
        ),
    ],
)
def test_a_file_of_another_shape_is_refused_with_every_mistake(document: Any, says: str) -> None:
    with pytest.raises(EventError, match=says):
        unmet(document)
