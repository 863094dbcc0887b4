"""What a subscriber relies on, written by its team, and compared with the contract.

A file of expectations is JSON: ``subscriber``, ``purpose`` and ``needs``, a list of ``type``, ``version`` and
``fields``. A field is named by its path (``data.target.host``) and has

- ``is``: uuid, time, string, number, integer, boolean or object; or ``list of`` one of them;
- ``may_be_missing``: true when the subscriber can do without it;
- ``values``: the values that the subscriber knows, when it knows only some.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from rehome_events.catalog import in_use, lookup
from rehome_events.errors import EventError, UnknownType
from rehome_events.tools.schema import Schema, load
from rehome_events.wire import complaint

_Name = Annotated[str, StringConstraints(min_length=1)]
_Kind = Annotated[
    str, StringConstraints(pattern=r"^(list of )*(uuid|time|string|number|integer|boolean|object)$")
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExpectedField(_Strict):
    """A field that a subscriber reads."""

    kind: _Kind = Field(alias="is")
    may_be_missing: bool = False
    values: tuple[_Name, ...] | None = None


class Need(_Strict):
    """A type that a subscriber reads."""

    type: _Name
    version: int
    fields: dict[_Name, ExpectedField]


def _not_empty(needs: tuple[Need, ...]) -> tuple[Need, ...]:
    """After the needs themselves: what is wrong with one is no lack of them."""
    if not needs:
        raise ValueError("name at least one type")
    return needs


class Expectations(_Strict):
    """A file of expectations."""

    subscriber: _Name
    purpose: str = ""
    needs: Annotated[tuple[Need, ...], AfterValidator(_not_empty)]


_FITS: Final = {"integer": {"integer", "number"}, "uuid": {"uuid", "string"}, "time": {"time", "string"}}


def expected(document: object) -> Expectations:
    """What a file says, from its JSON.

    Raises:
        EventError: It has another shape; every mistake is named.
    """
    try:
        return Expectations.model_validate(document)
    except ValidationError as error:
        raise EventError(f"not a file of expectations: {complaint(error)}") from None


def unmet(expectations: Mapping[str, Any] | Expectations) -> list[str]:
    """Which expectations the contract does not meet; empty when it meets all.

    Raises:
        EventError: They have another shape; every mistake is named.
    """
    read = expectations if isinstance(expectations, Expectations) else expected(expectations)
    return [f"{read.subscriber}: {text}" for need in read.needs for text in _unmet(need)]


def _unmet(need: Need) -> Iterator[str]:
    try:
        entry = lookup(need.type, need.version)
    except UnknownType as error:
        yield str(error)
        return
    if "subscribers" not in entry.readers:
        yield f"{entry.type} is not for subscribers"
    if entry not in in_use(entry.type):
        yield f"{entry.type} v{entry.version} is not published any more"
    schema = load(entry.type, entry.version)
    for path, field in need.fields.items():
        yield from (f"{entry.type} v{entry.version}: {path} {text}" for text in _wrong(path, field, schema))


def _wrong(path: str, wanted: ExpectedField, schema: Schema) -> Iterator[str]:
    node, always = schema, True
    for name in path.split("."):
        if name not in node.get("properties", {}):
            yield "is missing"
            return
        always = always and name in node.get("required", ())
        node = node["properties"][name]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if not always and not wanted.may_be_missing:
        yield "may be missing"
    if not _fits(kind := _kind(node), wanted.kind):
        yield f"is {kind}, not {wanted.kind}"
    possible = node.get("enum", [node["const"]] if "const" in node else None)
    if wanted.values is not None and (possible is None or set(possible) - set(wanted.values)):
        yield f"may have other values than {', '.join(wanted.values)}"


def _fits(kind: str, wanted: str) -> bool:
    if kind.startswith("list of ") and wanted.startswith("list of "):
        return _fits(kind.removeprefix("list of "), wanted.removeprefix("list of "))
    return wanted in _FITS.get(kind, {kind})


def _kind(node: Schema) -> str:
    if node.get("type") == "array":
        return f"list of {_kind(node['items'])}"
    return {"uuid": "uuid", "date-time": "time"}.get(node.get("format", ""), str(node.get("type")))
