"""Every parser keeps its promises for any bytes, damaged inputs, and JSON with values replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
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
def damaged(draw: st.DrawFn, seed: bytes) -> bytes:
    """An input with a few pieces removed, doubled, or overwritten."""
    data = seed
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        piece = draw(st.binary(max_size=4) | st.sampled_from([data[start:end] * 2, b"\n", b'"', b"\0"]))
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def replaced(draw: st.DrawFn, seed: bytes) -> bytes:
    """An input with a value in one of its lines of JSON replaced, removed, or under another name."""
    lines = seed.split(b"\n")
    documents = [(number, [document]) for number, document in enumerate(map(as_json, lines)) if document]
    number, root = draw(st.sampled_from(documents))
    owner, key = draw(st.sampled_from(list(_places(root))))
    if draw(st.booleans()) or not isinstance(owner, dict):
        owner[key] = draw(ODD)
    else:
        value = owner.pop(key)
        if draw(st.booleans()):
            owner[draw(st.sampled_from(HOSTILE))] = value
    lines[number] = json.dumps(root[0]).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _places(value: Any) -> Any:
    """Every place in a document: its container, and its key or index there."""
    for key, inner in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(inner)


def is_json(seed: bytes) -> bool:
    return any(map(as_json, seed.split(b"\n")))


SEEDS = {name: list(parser.seeds()) for name, parser in PARSERS.items()}
CASES = [
    *(pytest.param(name, st.binary(max_size=2000), 30, id=f"{name}-any-bytes") for name in PARSERS),
    *(
        pytest.param(name, st.sampled_from(seeds).flatmap(damaged), 60, id=f"{name}-damaged")
        for name, seeds in SEEDS.items()
    ),
    *(
        pytest.param(name, st.sampled_from(of_json).flatmap(replaced), 300, id=f"{name}-replaced")
        for name, seeds in SEEDS.items()
        if (of_json := list(filter(is_json, seeds)))
    ),
]


@pytest.mark.parametrize(("name", "inputs", "count"), CASES)
def test_a_parser_keeps_its_promises(name: str, inputs: st.SearchStrategy[bytes], count: int) -> None:
    @settings(PROPERTIES, max_examples=count)
    @given(inputs)
    def holds(data: bytes) -> None:
        PARSERS[name].check(data)

    holds()
