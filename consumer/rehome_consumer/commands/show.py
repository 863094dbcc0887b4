"""One JSON document for programs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import orjson

from rehome_consumer.commands.lines import say_json


def as_json(value: Any) -> None:
    """One JSON document on standard output."""
    say_json(_text(value))


def _text(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError:  # a file's name that is not UTF-8
        return json.dumps(value, default=_plain, indent=2)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
