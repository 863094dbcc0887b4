"""Check that an event is valid, and has no field that the contract does not know."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from rehome_events.catalog import lookup
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, decode, encode
from rehome_events.errors import EventError
from rehome_events.tools.schema import Schema, load
from rehome_events.wire import version_of


def assert_valid_event(event: CloudEvent[Any] | Mapping[str, Any] | bytes) -> CloudEvent[Any]:
    """Assert that an event is valid, and that it has no field that the contract does not know.

    Reading ignores an unknown field; in a published event it is a mistake, usually a misspelt optional field.

    Args:
        event: The event, its JSON, or the body of its message.

    Returns:
        The event.

    Raises:
        AssertionError: It is not; the text names every mistake found.
    """
    try:
        if isinstance(event, CloudEvent):
            body = encode(event)
        else:
            body = event if isinstance(event, bytes) else orjson.dumps(event)
        read = decode(body, CONTENT_TYPE)
    except EventError as error:
        raise AssertionError(f"not a valid event: {error}") from None
    if unknown := unknown_fields(orjson.loads(body)):
        raise AssertionError(f"{read.type}: the contract does not know {', '.join(unknown)}")
    return read


def unknown_fields(event: Mapping[str, Any]) -> list[str]:
    """Paths of the fields that are in an event's data but not in its schema.

    Attributes beside the data are not checked: CloudEvents lets anybody add some.
    """
    entry = lookup(event["type"], version_of(event.get("dataschema"), event["type"]))
    schema = load(entry.type, entry.version)
    return list(_unknown(event.get("data"), schema["properties"]["data"], schema, "data"))


def _unknown(value: Any, node: Schema, root: Schema, path: str) -> Iterator[str]:
    for branch in (node, *node.get("anyOf", ())):
        if "$ref" in branch:
            known = root["$defs"][branch["$ref"].rpartition("/")[2]]["properties"]
            for name, inner in value.items() if isinstance(value, dict) else ():
                if name in known:
                    yield from _unknown(inner, known[name], root, f"{path}.{name}")
                else:
                    yield f"{path}.{name}"
