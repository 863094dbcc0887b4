"""What a subscriber relies on, written by its team, and compared with the contract.

A file of expectations is JSON: ``subscriber``, ``purpose`` and ``needs``, a list of ``type``, ``version`` and
``fields``. A field is named by its path (``data.target.host``) and has

- ``is``: uuid, time, string, number, integer, boolean or object; or ``list of`` one of them;
- ``may_be_missing``: true when the subscriber can do without it;
- ``values``: the values that the subscriber knows, when it knows only some.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rehome_events.catalog import in_use, lookup
from rehome_events.errors import UnknownType
from rehome_events.tools.schema import Schema, load

_FITS: Final = {"integer": {"integer", "number"}, "uuid": {"uuid", "string"}, "time": {"time", "string"}}


def unmet(expectations: Mapping[str, Any]) -> list[str]:
    """Which expectations the contract does not meet; empty when it meets all."""
    return [
        f"{expectations['subscriber']}: {text}" for need in expectations["needs"] for text in _unmet(need)
    ]


def _unmet(need: Mapping[str, Any]) -> Iterator[str]:
    try:
        entry = lookup(need["type"], need["version"])
    except UnknownType as error:
        yield str(error)
        return
    if "subscribers" not in entry.readers:
        yield f"{entry.type} is not for subscribers"
    if entry not in in_use(entry.type):
        yield f"{entry.type} v{entry.version} is not published any more"
    schema = load(entry.type, entry.version)
    for path, field in need["fields"].items():
        yield from (f"{entry.type} v{entry.version}: {path} {text}" for text in _wrong(path, field, schema))


def _wrong(path: str, expected: Mapping[str, Any], schema: Schema) -> Iterator[str]:
    node, always = schema, True
    for name in path.split("."):
        if name not in node.get("properties", {}):
            yield "is missing"
            return
        always = always and name in node.get("required", ())
        node = node["properties"][name]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if not always and not expected.get("may_be_missing", False):
        yield "may be missing"
    if not _fits(kind := _kind(node), expected["is"]):
        yield f"is {kind}, not {expected['is']}"
    possible = node.get("enum", [node["const"]] if "const" in node else None)
    if "values" in expected and (possible is None or set(possible) - set(expected["values"])):
        yield f"may have other values than {', '.join(expected['values'])}"


def _fits(kind: str, wanted: str) -> bool:
    if kind.startswith("list of ") and wanted.startswith("list of "):
        return _fits(kind.removeprefix("list of "), wanted.removeprefix("list of "))
    return wanted in _FITS.get(kind, {kind})


def _kind(node: Schema) -> str:
    if node.get("type") == "array":
        return f"list of {_kind(node['items'])}"
    return {"uuid": "uuid", "date-time": "time"}.get(node.get("format", ""), str(node.get("type")))
