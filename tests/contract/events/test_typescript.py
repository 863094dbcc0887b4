"""The types for TypeScript are those of the schemas; whether they compile: tests/clients (`make contract`)."""

import re
from pathlib import Path

import pytest

from rehome_events.catalog import EventType, all_in_use
from rehome_events.tools.schema import load, type_name
from rehome_events.tools.typescript import FILE, generate
from tests.support.second_versions import next_release, next_schemas


def body(name: str, text: str) -> str:
    (found,) = re.findall(rf"^export interface {name} {{\n(.*?)^}}", text, re.DOTALL | re.MULTILINE)
    return str(found)


def test_the_committed_types_are_those_of_the_schemas() -> None:
    assert FILE.read_text() == generate()


@pytest.mark.parametrize("entry", all_in_use(), ids=lambda entry: entry.type)
def test_every_field_of_an_event_and_of_its_data_has_a_type(entry: EventType) -> None:
    schema, text = load(entry.type, entry.version), generate()
    for name, part in {type_name(entry): schema, **schema["$defs"]}.items():
        for field in part["properties"]:
            optional = "" if field in part.get("required", ()) else r"\?"
            assert re.search(rf"^  {field}{optional}: ", body(name, text), re.MULTILINE), f"{name}.{field}"
    assert f'  type: "{entry.type}";' in body(type_name(entry), text)
    assert f"  | {type_name(entry)}" in text


def test_each_name_is_given_once_also_beside_a_second_version(tmp_path: Path) -> None:
    with next_schemas(tmp_path / "schemas"), next_release():
        text = generate()
    names = re.findall(r"^export interface (\w+) ", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert {"MigrationCompletedV1", "MigrationCompletedV2", "MigrationCompletedV2Data"} <= set(names)
    for used in re.findall(r"^  \w+\??: (?:Array<|Record<string, )?([A-Z]\w+)", text, re.MULTILINE):
        assert used in {*names, "Array", "Record"}
