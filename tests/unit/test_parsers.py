"""Every parser keeps its promises for good inputs, inputs that broke one once, nearly good ones, and any bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.common import PROPERTIES, as_json
from tests.fuzz.parsers import CORPUS, PARSERS

BROKE_ONCE = [
    pytest.param(name, file.read_bytes(), id=f"{name}-{file.name}")
    for name in PARSERS
    for file in sorted((CORPUS / name).glob("*"))
]
SEEDS = [
    pytest.param(name, seed, id=f"{name}-{number}")
    for name, parser in PARSERS.items()
    for number, seed in enumerate(parser.seeds())
]

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


@pytest.mark.parametrize(("name", "data"), SEEDS + BROKE_ONCE)
def test_a_parser_keeps_its_promises_for_good_inputs_and_for_those_that_broke_one_once(
    name: str, data: bytes
) -> None:
    PARSERS[name].check(data)


def test_the_corpus_has_no_directory_without_a_parser() -> None:
    assert {file.parent.name for file in CORPUS.glob("*/*")} <= set(PARSERS)


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
def altered(draw: st.DrawFn, seed: bytes) -> bytes:
    """An input with one value in its lines of JSON replaced, removed, or renamed."""
    lines = seed.split(b"\n")
    documents = {number: as_json(line) for number, line in enumerate(lines)}
    places = [(number, *place) for number, document in documents.items() for place in _places(document)]
    if not places:
        return draw(damaged(seed))
    number, owner, key = draw(st.sampled_from(places))
    if draw(st.booleans()) or not isinstance(owner, dict):
        owner[key] = draw(ODD)
    else:
        value = owner.pop(key)
        if draw(st.booleans()):
            owner[draw(st.sampled_from(HOSTILE))] = value
    lines[number] = json.dumps(documents[number]).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _places(value: Any) -> Any:
    """Every place in a document: a dictionary or list, and a key or index of it."""
    for key, inner in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(inner)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("how", [damaged, altered])
def test_a_parser_keeps_its_promises_for_nearly_good_inputs(name: str, how: Any) -> None:
    seeds = list(PARSERS[name].seeds())

    @settings(PROPERTIES, max_examples=max(PROPERTIES.max_examples, 2 * len(seeds)))
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
