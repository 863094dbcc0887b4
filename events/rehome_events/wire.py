"""From a message's bytes and headers to attributes, whichever mode of CloudEvents it is in."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import ValidationError

from rehome_events.errors import Undecodable

MAX_BODY: Final = 1024 * 1024
"""Largest body that is read, in bytes."""
MAX_DEPTH: Final = 32
"""Deepest nesting of objects and arrays that is read."""
LONGEST_ERROR: Final = 600
"""Longest text of an error, in characters."""

_FIELDS_NAMED: Final = 5
_PREFIXES: Final = ("ce-", "ce_", "cloudevents_", "cloudevents:")
_OURS: Final = "urn:rehome:events:"
_URN: Final = re.compile(rf"{_OURS}(?P<type>[^:]+):v(?P<version>[1-9][0-9]{{0,5}})")


def complaint(error: ValidationError, under: str = "") -> str:
    """What a validation found wrong: fields with their path, never their values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = []
    for item in found[:_FIELDS_NAMED]:
        path = ".".join([*([under] if under else []), *(str(part)[:40] for part in item["loc"])])
        text = str(item["msg"]).removeprefix("Value error, ")[:120]
        texts.append(f"{path[:120]}: {text}" if path else text)
    if len(found) > _FIELDS_NAMED:
        texts.append(f"and {len(found) - _FIELDS_NAMED} more")
    return "; ".join(texts)[:LONGEST_ERROR]


def inspect_json(text: bytes, value: object) -> None:
    """As `inspect`, of a value and the JSON it is written as; most texts can be accepted by a quick look.

    Raises:
        Undecodable: A text holds NUL, or it is nested deeper than any event.
    """
    if b"\\u0000" in text or text.count(b"{") + text.count(b"[") >= MAX_DEPTH:
        inspect(value)


def inspect(value: object) -> None:
    """Refuse NUL in any text, and nesting that no event has.

    Raises:
        Undecodable: Either was found.
    """
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise Undecodable(f"nested deeper than {MAX_DEPTH} levels")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, str):
        if "\x00" in value:
            raise Undecodable("a text holds a NUL character")
    elif isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def version_of(dataschema: object, kind: str) -> int:
    """The version that ``dataschema`` names; 1 when it is missing, or another publisher's own.

    Raises:
        Undecodable: It is one of ours and names another type than the event's, or no version.
    """
    if not isinstance(dataschema, str) or not dataschema.startswith(_OURS):
        return 1
    match = _URN.fullmatch(dataschema)
    if match is None:
        raise Undecodable(f"dataschema begins with {_OURS}, and is not {_OURS}{kind[:80]}:v<number>")
    if match["type"] != kind:
        raise Undecodable("dataschema names another type than the attribute type")
    return int(match["version"])


def attributes(body: bytes, content_type: str | None, headers: Mapping[str, object]) -> dict[str, Any]:
    """The event's attributes and its ``data``, checked for form only.

    Raises:
        Undecodable: Not JSON, too large, too deep, or no CloudEvent in either mode.
    """
    media = media_type(content_type)
    if media == "application/cloudevents-batch+json":
        raise Undecodable("a batch of events: publish one event per message")
    found = _from_headers(headers)
    value = _json(body)
    if media != "application/cloudevents+json" and "specversion" in found:
        return {**found, "data": value}
    if not isinstance(value, dict):
        raise Undecodable("the body is not a JSON object")
    if "specversion" not in value:
        raise Undecodable("missing attribute: specversion (neither in the body nor in the headers)")
    if "data_base64" in value:
        raise Undecodable("data_base64 is not accepted: the data must be JSON")
    return {name: given for name, given in value.items() if given is not None}


def media_type(content_type: object) -> str:
    """The media type without its parameters, in lower case.

    Raises:
        Undecodable: It names a charset other than utf-8.
    """
    media, *parameters = (part.strip().lower() for part in str(content_type or "").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise Undecodable("the content type names a charset other than utf-8")
    return media


def _json(body: bytes) -> Any:
    if len(body) > MAX_BODY:
        raise Undecodable(f"the body has {len(body)} bytes, more than {MAX_BODY}")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Undecodable(f"not JSON: {error.msg[:120]} at character {error.pos}") from None
    inspect_json(body, value)
    return value


def _from_headers(headers: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in headers.items():
        lowered = name.lower()
        for prefix in _PREFIXES:
            if lowered.startswith(prefix):
                found[lowered.removeprefix(prefix)] = _header_value(lowered, value)
    found.pop("data", None)
    inspect(found)
    return found


def _header_value(name: str, value: object) -> object:
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Undecodable(f"header {name[:40]} is not UTF-8") from None
    return value.isoformat() if isinstance(value, datetime) else value
