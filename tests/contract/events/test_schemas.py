"""The schemas: valid, described, and in agreement with their golden examples."""

import re
from importlib.resources import files
from typing import Any

import jsonschema
import orjson
import pytest

from rehome_events.catalog import KNOWN, EventType
from rehome_events.envelope import CONTENT_TYPE, decode, encode
from rehome_events.errors import EventError, Undecodable
from rehome_events.tools.schema import DIALECT, generate, golden, load

ENTRIES = list(KNOWN.values())
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def examples(kind: Any) -> list[Any]:
    return [
        pytest.param(entry, example, id=f"{entry.type}-{name}")
        for entry in ENTRIES
        for name, example in golden(entry.type, entry.version, kind).items()
    ]


def validator(entry: EventType) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(load(entry.type, entry.version), format_checker=FORMATS)


def described(schema: dict[str, Any], path: str) -> list[str]:
    """Paths of fields without a description, and of scalar fields without an example."""
    missing = []
    for name, field in schema.get("properties", {}).items():
        if "description" not in field:
            missing.append(f"{path}.{name}: description")
        if "examples" not in field and "$ref" not in field:
            missing.append(f"{path}.{name}: example")
    for name, definition in schema.get("$defs", {}).items():
        missing += described(definition, name)
    return missing


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_a_schema_is_valid_json_schema_2020_12(entry: EventType) -> None:
    schema = load(entry.type, entry.version)
    assert schema["$schema"] == DIALECT == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_every_field_has_a_description_and_an_example(entry: EventType) -> None:
    assert described(generate(entry), entry.type) == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_the_examples_beside_a_field_obey_the_field(entry: EventType) -> None:
    schema = load(entry.type, entry.version)
    for owner in (schema, *schema["$defs"].values()):
        for field in owner["properties"].values():
            checked = {**field, "$defs": schema["$defs"]}
            for example in field.get("examples", ()):
                jsonschema.validate(example, checked, jsonschema.Draft202012Validator, format_checker=FORMATS)


@pytest.mark.parametrize(("entry", "event"), examples("valid"))
def test_a_valid_example_passes_the_schema_and_is_read(entry: EventType, event: dict[str, Any]) -> None:
    nulls_allowed = {name: value for name, value in event.items() if value is not None}
    validator(entry).validate(nulls_allowed)
    read = decode(orjson.dumps(event), CONTENT_TYPE)
    assert isinstance(read.data, entry.model)


@pytest.mark.parametrize(("entry", "example"), examples("invalid"))
def test_an_invalid_example_is_refused_and_the_error_names_what_is_wrong(
    entry: EventType, example: dict[str, Any]
) -> None:
    with pytest.raises(Undecodable) as refused:
        decode(orjson.dumps(example["event"]), CONTENT_TYPE)
    assert example["names"] in str(refused.value)
    assert example["why"].endswith(".")


@pytest.mark.parametrize(("entry", "example"), examples("invalid"))
def test_an_invalid_example_fails_the_schema_unless_it_says_otherwise(
    entry: EventType, example: dict[str, Any]
) -> None:
    assert validator(entry).is_valid(example["event"]) is example.get("beyond_schema", False)


def test_the_wrapping_of_an_invalid_example_is_documented() -> None:
    page = (files("rehome_events") / "schemas" / "README.md").read_text()
    _, _, table = page.partition("An invalid example is an object of")
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    wrapped = [
        example for entry in ENTRIES for example in golden(entry.type, entry.version, "invalid").values()
    ]
    assert set().union(*wrapped) == documented
    assert all(example.keys() >= documented - {"beyond_schema"} for example in wrapped)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_what_is_written_passes_the_schema(entry: EventType) -> None:
    for example in golden(entry.type, entry.version, "valid").values():
        written = orjson.loads(encode(decode(orjson.dumps(example), CONTENT_TYPE)))
        validator(entry).validate(written)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.type)
def test_each_type_has_a_full_and_a_minimal_example(entry: EventType) -> None:
    assert golden(entry.type, entry.version, "valid").keys() >= {"full", "minimal"}


def test_a_schema_that_does_not_exist_is_named() -> None:
    with pytest.raises(EventError, match=r"plan\.upgraded v99"):
        load("plan.upgraded", 99)


@pytest.mark.parametrize(
    "said",
    [
        "urn:rehome:events:plan.upgraded:v1",
        "https://billing.example/upgrade.json",
        None,
        "urn:rehome:events:plan.upgraded:v7",
        "urn:rehome:events:migration.failed:v1",
        "",
    ],
)
def test_a_dataschema_is_judged_alike_by_schema_and_reader(said: str | None) -> None:
    entry = KNOWN["plan.upgraded", 1]
    event = golden("plan.upgraded", 1, "valid")["full"] | {"dataschema": said}
    try:
        decode(orjson.dumps(event), CONTENT_TYPE)
    except Undecodable:
        assert not validator(entry).is_valid(event)
    else:
        validator(entry).validate(event)
