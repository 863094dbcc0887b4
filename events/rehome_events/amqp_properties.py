"""Message properties that other clients may send and aio-pika's codec fails on.

Brokers do not check a message's properties. pamqp refuses bytes that AMQP allows, and aiormq then drops the
connection, at every delivery of that message again: one message with a content type that is not UTF-8 would block
everything that is read over the connection. pamqp also cannot write everything that it can read, so a copy of such
a message could not be published to a retry queue or a dead-letter queue.
"""

import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pamqp import decode, encode

UNREADABLE: Final = "x-unreadable-headers"
"""The only header of a message whose headers could not be read; true."""

LONGEST_SHORT: Final = 255
"""Bytes of a property such as message_id or type (AMQP's short string)."""
MOST_HEADERS: Final = 32 * 1024
"""Bytes of headers that are copied: with the properties they must fit into one frame, often of 128 KiB."""

_DEEPEST: Final = 8
_LATEST: Final = 0xFFFF_FFFF
"""Seconds since 1970, the year 2106; pamqp takes what is more for milliseconds."""
_LONGEST_VALUE: Final = 200
_LENGTH: Final = struct.Struct(">I")
_TIME: Final = struct.Struct(">Q")


class InMilliseconds(datetime):
    """A property ``timestamp`` that was sent in milliseconds; AMQP's are in seconds."""


def read_any_message() -> None:
    """Let this process read every message's properties, whatever is in them. Idempotent.

    Bytes that are not UTF-8 become question marks, a time that Python cannot hold none, and headers that cannot
    be read `UNREADABLE` alone.
    """
    decode.METHODS |= {"shortstr": _short_text, "timestamp": _time, "table": _headers}


def sendable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Headers as they can be sent: a value that cannot becomes text, and what is too large in all is left out.

    The first ones are preferred.
    """
    fitting: dict[str, Any] = {}
    room = MOST_HEADERS
    for name, value in headers.items():
        fit = _value(value, _DEEPEST)
        room_left = room - len(name.encode()) - len(encode.encode_table_value(fit))
        if room_left >= 0:
            fitting[name], room = fit, room_left
    return fitting


def short(text: str | None) -> str | None:
    """The text, cut to what a property holds; None when there is none."""
    return text.encode(errors="replace")[:LONGEST_SHORT].decode(errors="ignore") if text else None


def _value(value: Any, depth: int) -> Any:
    if depth and isinstance(value, dict):
        return {str(name): _value(one, depth - 1) for name, one in value.items()}
    if depth and isinstance(value, list):
        return [_value(one, depth - 1) for one in value]
    if isinstance(value, bytes):
        return bytearray(value)
    if isinstance(value, dict | list) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)[:_LONGEST_VALUE]
    try:
        encode.encode_table_value(value)
    except (TypeError, ValueError, OverflowError, ArithmeticError, struct.error):
        return str(value)[:_LONGEST_VALUE]
    return value


def _short_text(value: bytes) -> tuple[int, str]:
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        length = value[0]
        text = value[1 : length + 1].decode(errors="replace").replace("\ufffd", "?")
        return length + 1, text


def _time(value: bytes) -> tuple[int, datetime | None]:
    try:
        (number,) = _TIME.unpack_from(value)
        if number > _LATEST:
            return 8, InMilliseconds.fromtimestamp(number / 1000, UTC)
        return decode.timestamp(value)
    except (OverflowError, OSError, ValueError):
        return 8, None


def _headers(value: bytes) -> tuple[int, Any]:
    try:
        return decode.field_table(value)
    except (ValueError, ArithmeticError, OSError, RecursionError):
        length: int = _LENGTH.unpack_from(value)[0]
        return _LENGTH.size + length, {UNREADABLE: True}
