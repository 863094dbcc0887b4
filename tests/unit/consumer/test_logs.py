"""Log lines: a word, fields, and no secrets."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import pytest

from consumer.logs import formatter

URL = "amqp://rehome:s3cr3t@broker:5672/migration"


def line(form: str, text: str, *arguments: Any, exc_info: Any = None) -> str:
    record = logging.LogRecord("consumer", logging.ERROR, "here.py", 1, text, arguments, exc_info)
    return formatter(form).format(record)


def test_a_line_is_a_word_and_fields() -> None:
    told = orjson.loads(line("json", "step.retry step=%s try=%d error=%s", "stop", 2, "no answer = no luck"))
    assert (told["event"], told["step"], told["try"]) == ("step.retry", "stop", "2")
    assert told["error"] == "no answer = no luck"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_in_a_foreign_error_is_masked(form: str) -> None:
    told = line(form, "relay.held_up error=%s", f"cannot reach {URL}")
    assert "s3cr3t" not in told
    assert "broker:5672" in told


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_in_a_traceback_is_masked(form: str) -> None:
    try:
        int(f"no reply from {URL}")
    except ValueError:
        told = line(form, "delivery.defect step=%s", "stop", exc_info=sys.exc_info())
    assert "Traceback" in told
    assert "s3cr3t" not in told


@pytest.mark.timeout(20)
def test_a_line_of_megabytes_is_told_in_a_moment() -> None:
    """Time in proportion to the square of its length would be minutes."""
    told = orjson.loads(line("json", "broker.said step=%s %s", "stop", "x" * 4_000_000))
    assert told["step"] == "stop"
