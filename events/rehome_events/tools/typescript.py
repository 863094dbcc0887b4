"""The contract as types for TypeScript, made from the committed schemas."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

import orjson

from rehome_events.catalog import all_in_use
from rehome_events.tools.schema import Schema, load, type_name

FILE: Final = Path(str(files("rehome_events") / "events.d.ts"))
_HEAD: Final = """\
// Generated: python -m rehome_events typescript --write
//
// Every event of the contract, envelope and data. What a field may hold beyond its type (formats, limits) is in the
// JSON Schemas. Ignore types, versions and fields that you do not know: more of them come without a new version.
"""
_UNION: Final = """\
/** Every event; `type`, and with it `dataschema`, says which. */
export type RehomeEvent ="""
_SCALARS: Final = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_WIDTH: Final = 110
_SIMPLE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def generate() -> str:
    """Make the types: one interface per event and definition, and the union of all events."""
    schemas = {type_name(entry): load(entry.type, entry.version) for entry in all_in_use()}
    names = _names(schemas)
    parts = []
    written = set()
    for event, schema in schemas.items():
        own = {definition: names[event, definition] for definition in schema["$defs"]}
        for definition, part in schema["$defs"].items():
            if own[definition] not in written:
                written.add(own[definition])
                parts.append(_interface(own[definition], part, own))
        parts.append(_interface(event, schema, own))
    union = "\n".join([_UNION, *(f"  | {event}" for event in schemas)])
    return "\n".join([_HEAD, *parts, f"{union};\n"])


def _names(schemas: dict[str, Schema]) -> dict[tuple[str, str], str]:
    """A name for each definition of each event: its own where all events mean the same by it, and none is called so."""
    meanings: dict[str, set[bytes]] = {}
    for schema in schemas.values():
        for definition in schema["$defs"]:
            meanings.setdefault(definition, set()).add(_meaning(definition, schema))
    return {
        (event, definition): (
            f"{event}{definition}"
            if len(meanings[definition]) > 1
            else f"{definition}Data"
            if definition in schemas
            else definition
        )
        for event, schema in schemas.items()
        for definition in schema["$defs"]
    }


def _meaning(definition: str, schema: Schema) -> bytes:
    """A definition with all that it refers to."""
    found: dict[str, Any] = {}
    waiting = [definition]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = schema["$defs"][name]
            waiting += [_target(reference) for reference in _references(found[name])]
    return orjson.dumps(found, option=orjson.OPT_SORT_KEYS)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for key, value in node.items():
            if key != "examples":
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _target(reference: str) -> str:
    return reference.rpartition("/")[2]


def _interface(name: str, schema: Schema, names: dict[str, str]) -> str:
    lines = [*_comment(schema, ""), f"export interface {name} {{"]
    required = schema.get("required", ())
    for field, part in schema["properties"].items():
        key = field if set(field) <= _SIMPLE else orjson.dumps(field).decode()
        lines += _comment(part, "  ")
        lines.append(f"  {key}{'' if field in required else '?'}: {_type(part, names)};")
    return "\n".join([*lines, "}\n"])


def _type(node: Schema, names: dict[str, str]) -> str:
    if "$ref" in node:
        return names[_target(node["$ref"])]
    if "anyOf" in node:
        return " | ".join(dict.fromkeys(_type(branch, names) for branch in node["anyOf"]))
    if "const" in node or "enum" in node:
        return " | ".join(orjson.dumps(value).decode() for value in node.get("enum") or [node["const"]])
    kind = node["type"]
    if kind == "array":
        return f"Array<{_type(node['items'], names)}>"
    if kind == "object":
        return f"Record<string, {_type(node['additionalProperties'], names)}>"
    return _SCALARS[kind]


def _comment(node: Schema, indent: str) -> list[str]:
    text = " ".join(str(node.get("description", "")).replace("*/", "* /").replace("``", "`").split())
    if not text:
        return []
    if len(indent) + len(text) <= _WIDTH - 7:
        return [f"{indent}/** {text} */"]
    return [
        f"{indent}/**",
        *(f"{indent} * {line}" for line in wrap(text, _WIDTH - len(indent) - 3)),
        f"{indent} */",
    ]
