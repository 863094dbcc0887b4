"""What we read: everything that the schema allows others to send is accepted."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import jsonschema
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from rehome_events.envelope import CONTENT_TYPE, decode
from rehome_events.tools.schema import Schema, load

SCHEMA = load("plan.upgraded", 1)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
ANYTHING = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.lists(st.text(CHARACTERS), max_size=2)
)
TIMES = st.builds(
    lambda when, offset: when.replace(tzinfo=timezone(timedelta(minutes=offset))).isoformat(),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - the zone is put on afterwards
    st.integers(-12 * 60, 14 * 60),
)
FORMATS = {"uuid": st.uuids().map(str), "date-time": TIMES}


def texts(node: Schema) -> st.SearchStrategy[str]:
    if "format" in node:
        return FORMATS[node["format"]]
    if "minLength" in node:
        return st.text(CHARACTERS, min_size=node["minLength"], max_size=node["maxLength"])
    matching = st.from_regex(re.compile(node["pattern"], re.ASCII), fullmatch=True)
    return matching.filter(lambda text: len(text) <= node.get("maxLength", len(text)))


def values(node: Schema) -> st.SearchStrategy[Any]:
    """Values that a schema allows, of the keywords that the schema of `plan.upgraded` uses."""
    if "$ref" in node:
        return values(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
    if "anyOf" in node:
        return st.one_of([values(branch) for branch in node["anyOf"]])
    if "const" in node or "enum" in node:
        return st.sampled_from(node.get("enum") or [node["const"]])
    if node["type"] == "object":
        return objects(node)
    scalars: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "integer": st.integers(node.get("minimum"), node.get("maximum")),
        "number": st.floats(0, 10_000, exclude_min=True, exclude_max=True),
    }
    return scalars[node["type"]] if node["type"] in scalars else texts(node)


def objects(node: Schema) -> st.SearchStrategy[Any]:
    fields = {name: values(field) for name, field in node["properties"].items()}
    required = {name: fields.pop(name) for name in node.get("required", ())}
    unknown = st.dictionaries(st.sampled_from(["coupon", "x", "data2"]), ANYTHING, max_size=2)
    known = st.fixed_dictionaries(required, optional=fields)
    return st.builds(lambda more, told: {**more, **told}, unknown, known)


@settings(max_examples=100, deadline=None)
@given(values(SCHEMA))
def test_everything_that_the_schema_of_an_upgrade_allows_is_read(event: dict[str, Any]) -> None:
    event["subject"] = event["data"]["instance_id"]
    VALIDATOR.validate(event)
    assert decode(orjson.dumps(event), CONTENT_TYPE).type == "plan.upgraded"
