"""Every input that ever broke a parser, and every good one that the fuzzer begins with, goes through its check."""

from __future__ import annotations

import pytest

from tests.fuzz.parsers import CORPUS, PARSERS

KEPT = [
    pytest.param(name, file.read_bytes(), id=f"{name}-{file.name}")
    for name in PARSERS
    for file in sorted((CORPUS / name).glob("*"))
]
SEEDS = [
    pytest.param(name, seed, id=f"{name}-{number}")
    for name, parser in PARSERS.items()
    for number, seed in enumerate(parser.seeds())
]


@pytest.mark.parametrize(("name", "data"), KEPT)
def test_what_broke_a_parser_once_breaks_it_no_more(name: str, data: bytes) -> None:
    PARSERS[name].check(data)


@pytest.mark.parametrize(("name", "data"), SEEDS)
def test_a_parser_keeps_its_promises_for_what_it_is_made_for(name: str, data: bytes) -> None:
    PARSERS[name].check(data)


def test_the_corpus_is_of_parsers_that_there_are() -> None:
    assert {place.name for place in CORPUS.iterdir()} <= set(PARSERS)
