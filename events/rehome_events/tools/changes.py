"""What changed for a reader: from one schema to the next, and from one release to the next."""

from collections.abc import Iterator
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path
from typing import Final

import orjson

from rehome_events.catalog import KNOWN
from rehome_events.tools.schema import Schema, generate

FILE: Final = "changes.json"
NEW: Final = "new"

Changes = dict[str, list[str]]
"""What changed, by type and version such as ``migration.completed v1``."""

_SCHEMAS: Final = Path(str(files("rehome_events") / "schemas"))
_KINDS: Final = {"uuid": "UUID", "date-time": "time"}


def changes(old: Schema, new: Schema) -> list[str]:
    """What changed for a reader, field by field; empty where nothing did."""
    before, after = dict(_fields(old, old, "")), dict(_fields(new, new, ""))
    found = [f"`{path}` is gone" for path in before if path not in after]
    for path, (kind, always) in after.items():
        if path not in before:
            found.append(f"`{path}` ({kind}) is new{'' if always else ', and may be missing'}")
            continue
        kind_before, always_before = before[path]
        if kind != kind_before:
            found.append(f"`{path}`: {kind_before} became {kind}")
        if always != always_before:
            found.append(f"`{path}` {'is always there now' if always else 'may be missing now'}")
    return found


def recorded(schemas: Path = _SCHEMAS) -> dict[str, Changes]:
    """What changed with each release, oldest first."""
    file = schemas / FILE
    found: dict[str, Changes] = orjson.loads(file.read_bytes()) if file.is_file() else {}
    return found


def unreleased(before: dict[tuple[str, int], Schema]) -> Changes:
    """How the models differ from these released schemas."""
    found = {}
    for (kind, number), entry in KNOWN.items():
        old = before.get((kind, number))
        lines = [NEW] if old is None else changes(old, generate(entry))
        if lines:
            found[f"{kind} v{number}"] = lines
    return found


def record(before: dict[tuple[str, int], Schema], schemas: Path = _SCHEMAS) -> None:
    """Add how the models differ from these released schemas to what this release of the package changes."""
    history = recorded(schemas)
    this = history.setdefault(installed_version("rehome-events"), {})
    for name, lines in unreleased(before).items():
        already = this.setdefault(name, [])
        if already != [NEW]:
            already += [line for line in lines if line not in already]
    (schemas / FILE).write_bytes(
        orjson.dumps(history, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )


def _fields(owner: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Path of each field, with its kind and whether it is always there."""
    for name, field in owner.get("properties", {}).items():
        yield f"{prefix}{name}", (_kind(field, root), name in owner.get("required", ()))
        for node, below in ((field, "."), (field.get("items", {}), "[].")):
            for branch in (node, *node.get("anyOf", ())):
                yield from _fields(_resolved(branch, root), root, f"{prefix}{name}{below}")


def _kind(field: Schema, root: Schema) -> str:
    field = _resolved(field, root)
    if "anyOf" in field:
        return " or ".join(_kind(branch, root) for branch in field["anyOf"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_kind(field['items'], root)}"
    if "additionalProperties" in field:
        return f"object of {_kind(field['additionalProperties'], root)} by name"
    return _KINDS.get(field.get("format", ""), str(field["type"]))


def _resolved(node: Schema, root: Schema) -> Schema:
    if "$ref" not in node:
        return node
    found: Schema = root["$defs"][node["$ref"].rpartition("/")[2]]
    return found
