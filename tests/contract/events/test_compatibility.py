"""A released contract changes only in ways that break no reader and no publisher."""

import copy
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import pytest

from rehome_events.catalog import KNOWN
from rehome_events.errors import EventError
from rehome_events.tools.compat import Role, breaks
from rehome_events.tools.released import release, released, role_of, tampered, unlocked
from rehome_events.tools.schema import generate

EVERY_SCHEMA = [
    pytest.param(generate(entry), role_of(entry), id=f"{entry.type}-v{entry.version}")
    for entry in KNOWN.values()
]
Change = Callable[[dict[str, Any]], object]


def test_every_version_of_every_type_is_released() -> None:
    assert released().keys() == set(KNOWN)


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    """A copy of the schemas' directory, to be damaged."""
    return Path(shutil.copytree(str(files("rehome_events") / "schemas"), tmp_path / "schemas"))


def test_a_changed_and_a_removed_example_are_noticed(schemas: Path) -> None:
    changed, removed = (schemas / "plan.upgraded" / "valid" / f"v1-{name}.json" for name in ("full", "nulls"))
    changed.write_bytes(changed.read_bytes() + b"\n")
    removed.unlink()
    assert tampered(schemas) == [
        "plan.upgraded/valid/v1-full.json: changed",
        "plan.upgraded/valid/v1-nulls.json: removed",
    ]


def test_a_removed_checksum_is_noticed(schemas: Path) -> None:
    name = "released/plan.upgraded/v1.json"
    lines = (schemas / "LOCK").read_text().splitlines(keepends=True)
    (schemas / "LOCK").write_text("".join(line for line in lines if not line.endswith(f"{name}\n")))
    assert [text.partition(":")[0] for text in unlocked(schemas)] == [name]
    with pytest.raises(EventError, match=r"not released: released/plan\.upgraded/v1\.json: not in LOCK"):
        release(schemas)


def test_what_breaks_the_released_contract_is_not_released(schemas: Path) -> None:
    withdrawn = schemas / "released" / "plan.upgraded" / "v2.json"
    withdrawn.write_text("{}")
    with pytest.raises(EventError, match=r"plan\.upgraded v2: withdrawn"):
        release(schemas)


def test_releasing_again_changes_nothing(schemas: Path) -> None:
    assert release(schemas) == []


def test_a_new_example_is_locked_by_a_release(schemas: Path) -> None:
    example = schemas / "plan.upgraded" / "valid" / "v1-another.json"
    example.write_text("{}")
    assert release(schemas) == ["plan.upgraded/valid/v1-another.json"]
    example.write_text("[]")
    assert tampered(schemas) == ["plan.upgraded/valid/v1-another.json: changed"]


def owners(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    yield from schema["$defs"].values()


def with_change(schema: dict[str, Any], change: Change) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    change(changed)
    return changed


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_a_schema_may_replace_itself(schema: dict[str, Any], role: Role) -> None:
    assert breaks(schema, copy.deepcopy(schema), role) == []


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_an_optional_field_may_be_added_anywhere(schema: dict[str, Any], role: Role) -> None:
    for index, _ in enumerate(owners(schema)):
        changed = copy.deepcopy(schema)
        list(owners(changed))[index]["properties"]["added_later"] = {"type": "string", "enum": ["a", "b"]}
        assert breaks(schema, changed, role) == []


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_no_field_may_be_removed_anywhere(schema: dict[str, Any], role: Role) -> None:
    for index, owner in enumerate(owners(schema)):
        for name in owner["properties"]:
            changed = copy.deepcopy(schema)
            place = list(owners(changed))[index]
            del place["properties"][name]
            place["required"] = [other for other in place.get("required", []) if other != name]
            assert any(f"{name}: removed" in reason for reason in breaks(schema, changed, role)), name


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_no_field_may_be_renamed_anywhere(schema: dict[str, Any], role: Role) -> None:
    for index, owner in enumerate(owners(schema)):
        for name in owner["properties"]:
            changed = copy.deepcopy(schema)
            fields = list(owners(changed))[index]["properties"]
            fields["renamed"] = fields.pop(name)
            assert any(f"{name}: renamed to renamed" in reason for reason in breaks(schema, changed, role))


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_no_field_may_change_its_type_anywhere(schema: dict[str, Any], role: Role) -> None:
    for index, owner in enumerate(owners(schema)):
        for name in owner["properties"]:
            changed = copy.deepcopy(schema)
            list(owners(changed))[index]["properties"][name] = {"type": "boolean", "const": True}
            if owner["properties"][name].get("type") != "boolean":
                assert breaks(schema, changed, role), name


@pytest.mark.parametrize(("schema", "role"), EVERY_SCHEMA)
def test_no_field_may_become_required_anywhere(schema: dict[str, Any], role: Role) -> None:
    for index, owner in enumerate(owners(schema)):
        for name in [*owner["properties"], "brand_new"]:
            changed = copy.deepcopy(schema)
            place = list(owners(changed))[index]
            place["properties"].setdefault(name, {"type": "string"})
            place["required"] = sorted({*place.get("required", []), name})
            reasons = breaks(schema, changed, role)
            if name not in owner.get("required", []):
                assert any(f"{name}: became required" in reason for reason in reasons), name


OLD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cold", "warm"], "type": "string"},
        "name": {"type": "string", "minLength": 1, "maxLength": 10, "pattern": "^[a-z]+$"},
        "count": {"type": "integer", "minimum": 0, "maximum": 10},
        "cores": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "when": {"type": "string", "format": "date-time"},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 10}},
        "seconds": {
            "type": "object",
            "propertyNames": {"maxLength": 10},
            "additionalProperties": {"type": "number", "minimum": 0},
        },
        "server": {"$ref": "#/$defs/Server"},
    },
    "required": ["kind"],
    "$defs": {"Server": {"type": "object", "properties": {"port": {"type": "integer", "maximum": 65535}}}},
}


def put(path: str, keyword: str, value: object) -> Change:
    """A change of one keyword at a place such as ``properties/name``; None removes it."""

    def change(schema: dict[str, Any]) -> None:
        node = schema
        for part in path.split("/"):
            node = cast("dict[str, Any]", node[part])
        if value is None:
            node.pop(keyword)
        else:
            node[keyword] = value

    return change


TIGHTER = {
    "a value removed": put("properties/kind", "enum", ["cold"]),
    "values where any was allowed": put("properties/name", "enum", ["a"]),
    "a longer minimal length": put("properties/name", "minLength", 2),
    "a shorter maximal length": put("properties/name", "maxLength", 9),
    "another pattern": put("properties/name", "pattern", "^[a-y]+$"),
    "a higher minimum": put("properties/count", "minimum", 1),
    "a lower maximum": put("properties/count", "maximum", 9),
    "a higher exclusive minimum": put("properties/cores", "exclusiveMinimum", 1),
    "a lower exclusive maximum": put("properties/cores", "exclusiveMaximum", 99),
    "a bound where none was": put("properties/when", "maxLength", 30),
    "a pattern where none was": put("properties/when", "pattern", "Z$"),
    "null no longer allowed": put("properties/maybe", "anyOf", [{"type": "string"}]),
    "a branch that is tighter": put(
        "properties/maybe", "anyOf", [{"type": "string", "maxLength": 9}, {"type": "null"}]
    ),
    "another format": put("properties/when", "format", "date"),
    "whole numbers only": put("properties/cores", "type", "integer"),
    "tighter items": put("properties/names/items", "maxLength", 9),
    "tighter values by name": put("properties/seconds/additionalProperties", "minimum", 1),
    "tighter names": put("properties/seconds/propertyNames", "maxLength", 9),
    "no other names": put("properties/seconds", "additionalProperties", False),
    "tighter behind a reference": put("$defs/Server/properties/port", "maximum", 1024),
    "a keyword that the rules do not cover": put("properties/count", "multipleOf", 2),
    "nothing else in the object": put("properties/server", "unevaluatedProperties", False),
}
LOOSER = {
    "a value added": put("properties/kind", "enum", ["cold", "warm", "hot"]),
    "any value": put("properties/kind", "enum", None),
    "a shorter minimal length": put("properties/name", "minLength", 0),
    "no maximal length": put("properties/name", "maxLength", None),
    "no pattern": put("properties/name", "pattern", None),
    "a lower minimum": put("properties/count", "minimum", -1),
    "no maximum": put("properties/count", "maximum", None),
    "fractions": put("properties/count", "type", "number"),
    "another branch": put(
        "properties/maybe", "anyOf", [{"type": "string"}, {"type": "null"}, {"type": "integer"}]
    ),
    "a branch beside the only one": put(
        "properties/when", "anyOf", [OLD["properties"]["when"], {"type": "null"}]
    ),
    "looser items": put("properties/names/items", "maxLength", 11),
    "no longer required": lambda schema: schema.pop("required"),
}


@pytest.mark.parametrize("role", ["emit", "read"])
@pytest.mark.parametrize("change", TIGHTER.values(), ids=TIGHTER)
def test_nothing_may_become_tighter(change: Change, role: Role) -> None:
    assert breaks(OLD, with_change(OLD, change), role)


@pytest.mark.parametrize("change", LOOSER.values(), ids=LOOSER)
def test_what_rehome_publishes_may_not_become_looser(change: Change) -> None:
    assert breaks(OLD, with_change(OLD, change), "emit")


@pytest.mark.parametrize("change", LOOSER.values(), ids=LOOSER)
def test_what_rehome_reads_may_become_looser(change: Change) -> None:
    assert breaks(OLD, with_change(OLD, change), "read") == []


def test_descriptions_may_change() -> None:
    def reworded(schema: dict[str, Any]) -> None:
        schema["properties"]["kind"] |= {"description": "How.", "examples": ["cold"], "title": "Kind"}

    assert breaks(OLD, with_change(OLD, reworded), "emit") == []


def test_moving_a_field_behind_a_reference_changes_nothing() -> None:
    def moved(schema: dict[str, Any]) -> None:
        schema["$defs"]["Name"] = schema["properties"]["name"]
        schema["properties"]["name"] = {"$ref": "#/$defs/Name"}

    assert breaks(OLD, with_change(OLD, moved), "emit") == []


@pytest.mark.parametrize(
    ("now", "may"),
    [
        ({"type": "string", "pattern": "^urn:"}, True),
        ({"type": "string", "pattern": "^URN:"}, False),
        ({"type": "string", "maxLength": 4}, False),
        ({"anyOf": [{"type": "string", "pattern": "^urn:"}, {"type": "null"}]}, True),
        ({"type": "string", "format": "uuid"}, False),
    ],
)
def test_what_rehome_reads_may_take_other_values_beside_the_one(now: dict[str, Any], may: bool) -> None:
    old = {"type": "object", "properties": {"said": {"type": "string", "const": "urn:a"}}}
    new = {"type": "object", "properties": {"said": now}}
    assert (breaks(old, new, "read") == []) is may
    assert breaks(old, new, "emit")
