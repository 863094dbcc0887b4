"""The AsyncAPI document: valid by the official schema, and complete."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from rehome_events.catalog import CATALOG, EventType, all_in_use
from rehome_events.tools.asyncapi import FILE, generate
from rehome_events.tools.schema import golden, load

OFFICIAL = Path(__file__).parent / "asyncapi" / "asyncapi-3.0.0.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The committed document, as a tool reads it."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return read


def test_the_yaml_is_read_as_what_was_generated(document: dict[str, Any]) -> None:
    assert document == generate()


def test_the_document_is_valid_by_the_official_schema(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).validate(document)


def test_the_official_schema_notices_a_mistake(document: dict[str, Any]) -> None:
    broken = {**document, "operations": {"x": {"action": "shout", "channel": {"$ref": "#/channels/x"}}}}
    assert not jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).is_valid(broken)


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.type)
def test_every_type_has_a_channel_that_says_who_publishes_and_who_reads(
    entry: EventType, document: dict[str, Any]
) -> None:
    channel = document["channels"][entry.type]
    assert channel["address"] == entry.type
    assert channel["bindings"]["amqp"]["exchange"]["name"] == entry.exchange
    assert channel["x-published-by"] == entry.published_by
    assert channel["x-readers"] == list(entry.readers)


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return here + [found for value in node.values() for found in references(value)]
    return [found for item in node for found in references(item)] if isinstance(node, list) else []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        if reference.startswith("#/"):
            target: Any = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
        else:
            assert (files("rehome_events") / reference.removeprefix("./")).is_file()


def test_the_printed_document_stands_alone() -> None:
    bundled = generate(bundled=True)
    assert not [one for one in references(bundled) if not one.startswith("#/")]
    assert "$defs" not in json.dumps(bundled)
    jsonschema.Draft7Validator(json.loads(OFFICIAL.read_text())).validate(bundled)


@pytest.mark.parametrize("entry", all_in_use(), ids=lambda entry: f"{entry.type} v{entry.version}")
def test_its_schemas_judge_as_the_files_do(entry: EventType) -> None:
    message = generate(bundled=True)["components"]["messages"][f"{entry.type}.v{entry.version}"]
    validator = jsonschema.Draft202012Validator(message["payload"]["schema"])
    for event in golden(entry.type, entry.version, "valid").values():
        validator.validate(event)
    for wrong in golden(entry.type, entry.version, "invalid").values():
        assert validator.is_valid(wrong["event"]) is bool(wrong.get("beyond_schema"))


@pytest.mark.parametrize("entry", all_in_use(), ids=lambda entry: f"{entry.type} v{entry.version}")
def test_generators_find_a_name_for_every_part(entry: EventType) -> None:
    schema = load(entry.type, entry.version)
    assert re.fullmatch(r"[A-Z]\w+V\d+", schema["title"])
    assert {name: part["title"] for name, part in schema["$defs"].items()} == {
        name: name for name in schema["$defs"]
    }
