"""JSON Schema (2020-12) of every type and version: generated from the models, committed, and read from there.

The schema describes the complete event, envelope and data. It is written for whoever has to obey it: for what rehome
publishes it says exactly what comes (an absent value is left out, never null; times are in UTC), for what rehome
reads it says everything that is accepted from others.
"""

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from pydantic.json_schema import GenerateJsonSchema

from rehome_events.catalog import KNOWN, EventType
from rehome_events.envelope import CloudEvent, schema_urn
from rehome_events.errors import EventError

Schema = dict[str, Any]

DIALECT: Final = GenerateJsonSchema.schema_dialect
_SCHEMAS: Final = files("rehome_events") / "schemas"
_UUID: Final = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_DAY_AND_TIME: Final = r"^[0-9]{4}-[0-1][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
_TIME_WRITTEN: Final = _DAY_AND_TIME + "Z$"
_TIME_READ: Final = _DAY_AND_TIME + r"(Z|[+-][0-2][0-9]:[0-5][0-9])$"
_URN_PREFIX: Final = "urn:rehome:events:"
_NAMES: Final = frozenset({"properties", "patternProperties", "$defs"})
_IMPLIED_BY_CONST: Final = frozenset({"minLength", "maxLength", "pattern", "anyOf"})
_ORDER: Final = (
    *("$schema", "$id", "$ref", "title", "description", "type", "const", "enum", "format", "pattern"),
    *("minLength", "maxLength", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "items"),
    *("anyOf", "properties", "required", "propertyNames", "additionalProperties", "examples", "$defs"),
)
_ALWAYS: Final = ("specversion", "id", "source", "type", "subject", "time")


def generate(entry: EventType) -> Schema:
    """Make the schema of an entry from its model."""
    published = entry.published_by == "rehome"
    envelope = CloudEvent[entry.model]  # type: ignore[name-defined] # the model is known at run time only
    schema: Schema = envelope.model_json_schema()
    urn = schema_urn(entry.type, entry.version)
    attributes = schema["properties"]
    attributes["type"]["const"] = entry.type
    attributes["subject"] = {**attributes["id"], **_texts(attributes["subject"])}
    for name, example in (("type", entry.type), ("source", entry.source), ("dataschema", urn)):
        attributes[name]["examples"] = [example]
    always = list(_ALWAYS)
    if published:
        attributes["source"]["const"] = entry.source
        attributes["dataschema"] |= {"const": urn, "type": "string"}
        always += ["datacontenttype", "dataschema"]
        always += ["migrationid", "attempt"] if entry.correlated else []
    else:
        # A publisher's own schema is none of ours; ours must be the one of this type and version.
        pattern = f"^(?!{_URN_PREFIX})[^\\x00]+$|^{re.escape(urn)}$"
        attributes["dataschema"]["anyOf"][0]["pattern"] = pattern
        attributes["datacontenttype"] |= {"pattern": "^application/json( *;.*)?$"}
        del attributes["datacontenttype"]["const"]
    assembled = {
        "$schema": DIALECT,
        "$id": urn,
        "title": type_name(entry),
        "description": entry.summary,
        "type": "object",
        "properties": attributes,
        "required": [*always, "data"],
        "$defs": schema["$defs"],
    }
    tidied: Schema = _tidy(assembled, published=published)
    tidied["$defs"] = {name: {"title": name, **part} for name, part in tidied["$defs"].items()}
    return tidied


def type_name(entry: EventType) -> str:
    """What generators of code call an event: ``MigrationCompletedV1``."""
    return f"{entry.model.__name__.removesuffix(f'V{entry.version}')}V{entry.version}"


def self_contained(schema: Schema) -> Schema:
    """The same schema without references and without an id: each definition stands where it is used."""
    definitions = schema.get("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return inlined({**definitions[node["$ref"].rpartition("/")[2]], **rest})
        return {key: inlined(value) for key, value in node.items()}

    found: Schema = inlined({key: value for key, value in schema.items() if key not in {"$defs", "$id"}})
    return found


def _tidy(node: Any, *, published: bool, named: bool = False) -> Any:
    """Drop pydantic's titles and defaults, add what it leaves out; ``named``: keys are names, not keywords."""
    if isinstance(node, list):
        return [_tidy(item, published=published) for item in node]
    if not isinstance(node, dict):
        return node
    if named:
        return {name: _tidy(value | {"title": None}, published=published) for name, value in node.items()}
    tidied = {
        key: value if key == "examples" else _tidy(value, published=published, named=key in _NAMES)
        for key, value in node.items()
        if value is not None and key != "default"
    }
    if published and "anyOf" in tidied:
        tidied = _without_null(tidied)
    if "const" in tidied:
        tidied = {key: value for key, value in tidied.items() if key not in _IMPLIED_BY_CONST}
    tidied |= _spelled_out(tidied, published=published)
    if "patternProperties" in tidied:
        ((pattern, values),) = tidied.pop("patternProperties").items()
        tidied |= {
            "propertyNames": {**tidied["propertyNames"], "pattern": pattern},
            "additionalProperties": values,
        }
    return dict(sorted(tidied.items(), key=lambda item: _ORDER.index(item[0])))


def _spelled_out(node: Schema, *, published: bool) -> Schema:
    """A pattern for each format, since most validators do not check formats."""
    if node.get("format") == "uuid":
        return {"pattern": _UUID}
    if node.get("format") == "date-time":
        return {"pattern": _TIME_WRITTEN if published else _TIME_READ}
    return {}


def _without_null(node: Schema) -> Schema:
    branches = [branch for branch in node["anyOf"] if branch != {"type": "null"}]
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return branches[0] | rest if len(branches) == 1 else {**rest, "anyOf": branches}


def _texts(node: Schema) -> Schema:
    return {key: node[key] for key in ("description", "examples")}


def render(schema: Schema) -> bytes:
    """The bytes of a schema as they are committed."""
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@cache
def load(type: str, version: int) -> Schema:  # noqa: A002 - the attribute's name in CloudEvents
    """The committed schema of a type and version.

    Raises:
        EventError: There is none.
    """
    try:
        schema: Schema = orjson.loads((_SCHEMAS / type / f"v{version}.json").read_bytes())
    except FileNotFoundError:
        raise EventError(
            f"no schema for {type} v{version}: run `python -m rehome_events schema --write`"
        ) from None
    return schema


def golden(type: str, version: int, kind: Literal["valid", "invalid"]) -> dict[str, Any]:  # noqa: A002 - as above
    """The golden examples of a type and version, by name.

    A valid one is an event. An invalid one is an object of ``why`` (a sentence), ``names`` (what the error
    must name), ``event``, and ``beyond_schema`` when only `rehome_events.envelope.decode` finds the mistake.
    """
    prefix = f"v{version}-"
    return {
        file.name.removeprefix(prefix).removesuffix(".json"): orjson.loads(file.read_bytes())
        for file in (_SCHEMAS / type / kind).iterdir()
        if file.name.startswith(prefix)
    }


def drift() -> list[str]:
    """Where the committed schemas differ from the models; empty when they agree."""
    found = []
    for entry in KNOWN.values():
        file = _SCHEMAS / entry.type / f"v{entry.version}.json"
        if not file.is_file():
            found.append(f"{entry.type} v{entry.version}: no schema is committed")
        elif file.read_bytes() != render(generate(entry)):
            found.append(f"{entry.type} v{entry.version}: the committed schema differs from the model")
    return found


def write() -> list[Path]:
    """Write the schemas of all versions beside this file; returns the files that changed."""
    changed = []
    for entry in KNOWN.values():
        file = Path(str(_SCHEMAS)) / entry.type / f"v{entry.version}.json"
        body = render(generate(entry))
        if not file.exists() or file.read_bytes() != body:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
            changed.append(file)
    return changed
