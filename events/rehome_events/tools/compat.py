"""May a schema replace an older one of the same version? The answer depends on who has to obey it.

What rehome publishes (``emit``): code written for the old schema must understand every new event, and events
written before must still be read. So a change may only add optional fields.

What rehome reads (``read``): everything that the old schema allows must still be accepted. So a change may add
optional fields and allow more than before.

The rules cover the keywords that `rehome_events.tools.schema` writes; any other keyword is reported.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from rehome_events.tools.schema import Schema

Role = Literal["emit", "read"]

_WITHOUT_EFFECT: Final = frozenset(
    {"$schema", "$id", "title", "description", "examples", "$defs", "$comment"}
)
_COVERED: Final = frozenset(
    {
        *(
            "$ref",
            "type",
            "const",
            "enum",
            "format",
            "pattern",
            "minLength",
            "maxLength",
            "minimum",
            "maximum",
        ),
        *("exclusiveMinimum", "exclusiveMaximum", "items", "anyOf", "properties", "required"),
        *("propertyNames", "additionalProperties"),
    }
)
_LOWER_BOUNDS: Final = ("minLength", "minimum", "exclusiveMinimum")
_UPPER_BOUNDS: Final = ("maxLength", "maximum", "exclusiveMaximum")


def breaks(old: Schema, new: Schema, role: Role) -> list[str]:
    """Why ``new`` may not replace ``old``; empty when it may.

    Args:
        old: The released schema.
        new: The schema that is to replace it.
        role: ``emit`` for what rehome publishes, ``read`` for what it accepts from others.
    """
    return list(dict.fromkeys(_compare(_Node(old, old), _Node(new, new), role, "")))


class _Node:
    """A node of a schema, with the schema's root for its references."""

    def __init__(self, node: Schema, root: Schema) -> None:
        self.root = root
        self.node = _resolved(node, root)

    def at(self, node: Schema) -> "_Node":
        return _Node(node, self.root)

    def get(self, keyword: str) -> Any:
        return self.node.get(keyword)


def _resolved(node: Schema, root: Schema) -> Schema:
    while "$ref" in node:
        target: Any = root
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _compare(old: _Node, new: _Node, role: Role, path: str) -> Iterator[str]:
    place = path or "the event"
    for keyword in sorted((old.node.keys() | new.node.keys()) - _WITHOUT_EFFECT - _COVERED):
        if old.get(keyword) != new.get(keyword):
            yield f"{place}: {keyword} changed, which the rules do not cover"
    if role == "read" and _takes_all(new, _allowed(old)):
        return
    if old.get("anyOf") or new.get("anyOf"):
        yield from _alternatives(old, new, role, path)
        return
    yield from _kind(old, new, role, place)
    yield from _values(old, new, role, place)
    yield from _bounds(old, new, role, place)
    yield from _fields(old, new, role, path)
    for keyword, below in (("items", "[]"), ("additionalProperties", ".*"), ("propertyNames", ".(name)")):
        yield from _below(old, new, role, keyword, path + below)


def _below(old: _Node, new: _Node, role: Role, keyword: str, path: str) -> Iterator[str]:
    before, after = old.get(keyword), new.get(keyword)
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _compare(old.at(before), new.at(after), role, path)
    elif before != after and (role == "emit" or after is not None):
        yield f"{path}: {keyword} changed"


def _kind(old: _Node, new: _Node, role: Role, place: str) -> Iterator[str]:
    before, after = old.get("type"), new.get("type")
    widened = role == "read" and (after is None or (before, after) == ("integer", "number"))
    if before != after and not widened:
        yield f"{place}: type {before} became {after}"


def _values(old: _Node, new: _Node, role: Role, place: str) -> Iterator[str]:
    before, after = _allowed(old), _allowed(new)
    if before is None and after is None:
        return
    if before is None:
        yield f"{place}: only certain values are allowed now"
    elif after is None:
        if role == "emit":
            yield f"{place}: any value may come now"
    else:
        if removed := [value for value in before if value not in after]:
            yield f"{place}: value removed: {', '.join(map(str, removed))}"
        if role == "emit" and (added := [value for value in after if value not in before]):
            yield f"{place}: value added: {', '.join(map(str, added))}"


def _allowed(place: _Node) -> list[Any] | None:
    if "const" in place.node:
        return [place.node["const"]]
    values: list[Any] | None = place.get("enum")
    return values


def _takes_all(place: _Node, values: list[Any] | None) -> bool:
    """Whether a node that says something of texts only takes each of these values; False where it is not sure."""
    if not values or place.node.keys() - _WITHOUT_EFFECT - {"type", "pattern", "minLength", "maxLength"}:
        return False
    return place.get("type") == "string" and all(
        isinstance(value, str)
        and re.search(place.get("pattern") or "", value) is not None
        and (place.get("minLength") or 0) <= len(value) <= (place.get("maxLength") or len(value))
        for value in values
    )


def _bounds(old: _Node, new: _Node, role: Role, place: str) -> Iterator[str]:
    for keyword in ("pattern", "format"):
        before, after = old.get(keyword), new.get(keyword)
        if before != after and (role == "emit" or after is not None):
            yield f"{place}: {keyword} changed"
    for keyword in (*_LOWER_BOUNDS, *_UPPER_BOUNDS):
        before, after = old.get(keyword), new.get(keyword)
        if before == after:
            continue
        rises = before is None or (after is not None and after > before)
        tighter = after is not None and (before is None or rises == (keyword in _LOWER_BOUNDS))
        if tighter:
            yield f"{place}: {keyword} is tighter"
        elif role == "emit":
            yield f"{place}: {keyword} is looser"


def _fields(old: _Node, new: _Node, role: Role, path: str) -> Iterator[str]:
    before: dict[str, Schema] = old.get("properties") or {}
    after: dict[str, Schema] = new.get("properties") or {}
    added = [name for name in after if name not in before]
    for name, field in before.items():
        below = f"{path}.{name}" if path else name
        if name in after:
            yield from _compare(old.at(field), new.at(after[name]), role, below)
        else:
            alike = [f"renamed to {other}" for other in added if after[other] == field]
            yield f"{below}: {alike[0] if alike else 'removed'}"
    required, required_now = set(old.get("required") or ()), set(new.get("required") or ())
    for name in sorted(required_now - required):
        yield f"{path}.{name}".lstrip(".") + ": became required"
    if role == "emit":
        for name in sorted((required - required_now) & after.keys()):
            yield f"{path}.{name}".lstrip(".") + ": may be missing now"


def _alternatives(old: _Node, new: _Node, role: Role, path: str) -> Iterator[str]:
    before, after = ([place.at(branch) for branch in _branches(place)] for place in (old, new))
    reported = set()
    for branch in before:
        if any(_fits(branch, other, role, path) for other in after):
            continue
        reported.add(branch.get("type"))
        alike = [other for other in after if other.get("type") == branch.get("type")]
        if alike:
            yield from _compare(branch, alike[0], role, path)
        else:
            yield f"{path}: {_named(branch)} is not allowed any more"
    if role == "emit":
        for branch in after:
            fits = any(_fits(other, branch, role, path) for other in before)
            if not fits and branch.get("type") not in reported:
                yield f"{path}: {_named(branch)} may come now"


def _fits(old: _Node, new: _Node, role: Role, path: str) -> bool:
    return next(_compare(old, new, role, path), None) is None


def _branches(place: _Node) -> list[Schema]:
    return place.get("anyOf") or [place.node]


def _named(place: _Node) -> str:
    return str(place.get("type") or "a value of another kind")
