"""Log lines: a word, fields, and no secrets."""

from __future__ import annotations

import logging
import shlex
import sys
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rehome_consumer.process import logs
from rehome_consumer.process.logs import formatter

URL = "amqp://rehome:s3cr3t@broker:5672/migration"


def line(form: str, text: str, *arguments: Any, exc_info: Any = None) -> str:
    record = logging.LogRecord("rehome_consumer", logging.ERROR, "here.py", 1, text, arguments, exc_info)
    return formatter(form).format(record)


def test_a_line_is_a_word_and_fields() -> None:
    shown = orjson.loads(line("json", "step.retry step=%s try=%d error=%s", "stop", 2, "no answer = no luck"))
    assert (shown["event"], shown["step"], shown["try"]) == ("step.retry", "stop", "2")
    assert shown["error"] == "no answer = no luck"


WORDS = " \t\n\r\x0b\x0c\u00a0='\"\\#ab"


@given(st.text(alphabet=WORDS, max_size=20))
@example("a=1 b='two words' c")
def test_words_are_those_of_a_shell_with_and_without_quotes(text: str) -> None:
    """Those without are found in another way."""
    try:
        expected = shlex.split(text)
    except ValueError:
        expected = text.split()
    assert logs._parts(text) == expected


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_in_a_library_s_error_is_masked(form: str) -> None:
    shown = line(form, "relay.held_up error=%s", f"cannot reach {URL}")
    assert "s3cr3t" not in shown
    assert "broker:5672" in shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_in_a_traceback_is_masked(form: str) -> None:
    try:
        int(f"no reply from {URL}")
    except ValueError:
        shown = line(form, "delivery.defect step=%s", "stop", exc_info=sys.exc_info())
    assert "Traceback" in shown
    assert "s3cr3t" not in shown


@pytest.mark.timeout(20)
def test_a_line_of_megabytes_is_formatted_quickly() -> None:
    """In time proportional to the square of its length it would take minutes."""
    shown = orjson.loads(line("json", "broker.said step=%s %s", "stop", "x" * 4_000_000))
    assert shown["step"] == "stop"


HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x7f\u202e\u2028\r\n2026-01-01 [info] forged"


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "text", ["%s", "step.failed error=%s", "step.failed database=%s", "step.failed what %s"]
)
def test_a_line_stays_one_and_is_escaped_for_terminals(form: str, text: str) -> None:
    shown = line(form, text, HOSTILE)
    assert shown.isprintable()
    assert "52;c;ZXZpbA" in shown


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_is_escaped_and_forges_no_line(form: str) -> None:
    def mistaken() -> None:
        raise ValueError(HOSTILE)

    try:
        mistaken()
    except ValueError:
        shown = line(form, "delivery.defect", exc_info=sys.exc_info())
    first, *others = shown.split("\n")
    assert all(one.isprintable() for one in (first, *others))
    assert all(one.startswith("    ") for one in others)
    assert "delivery.defect" in first
