"""Every parser keeps its promises for inputs that are nearly right: spoilt bytes, and JSON with values exchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.common import PROPERTIES, as_json
from tests.fuzz.parsers import PARSERS

HOSTILE = (
    *("", "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", "'; DROP TABLE x; --", '"', "%s%n", "$(id)"),
    *("\u202e", "\ud800", "e\u0301", "\U0001f418", "²", "x" * 5000, "-1", "1e400", "NaN"),
)
ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(HOSTILE)
    | st.text(max_size=20)
    | st.lists(st.none(), max_size=1)
    | st.dictionaries(st.sampled_from(HOSTILE), st.none(), max_size=1)
)


@st.composite
def spoilt(draw: st.DrawFn, seed: bytes) -> bytes:
    """An input with a few pieces cut out, doubled, or written over."""
    data = seed
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        piece = draw(st.binary(max_size=4) | st.sampled_from([data[start:end] * 2, b"\n", b'"', b"\0"]))
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def exchanged(draw: st.DrawFn, seed: bytes) -> bytes:
    """An input whose last line is JSON, with one value in it exchanged, left out, or named otherwise."""
    head, line, body = seed.rpartition(b"\n")
    document = as_json(body)
    places = list(_places(document))
    if not places:
        return draw(spoilt(seed))
    owner, key = draw(st.sampled_from(places))
    if draw(st.booleans()) or not isinstance(owner, dict):
        owner[key] = draw(ODD)
    else:
        value = owner.pop(key)
        if draw(st.booleans()):
            owner[draw(st.sampled_from(HOSTILE))] = value
    return head + line + json.dumps(document).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """Every place in a document: its owner, and where it is in it."""
    for key, inner in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(inner)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("how", [spoilt, exchanged])
def test_a_parser_keeps_its_promises_for_what_is_nearly_right(name: str, how: Any) -> None:
    seeds = list(PARSERS[name].seeds())

    @PROPERTIES
    @given(st.sampled_from(seeds).flatmap(how))
    def holds(data: bytes) -> None:
        PARSERS[name].check(data)

    holds()


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_keeps_its_promises_for_any_bytes(name: str) -> None:
    @PROPERTIES
    @given(st.binary(max_size=2000))
    def holds(data: bytes) -> None:
        PARSERS[name].check(data)

    holds()
