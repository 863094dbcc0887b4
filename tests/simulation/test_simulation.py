"""The simulation itself: its invariants hold, it plays a seed again exactly, and it finds what is broken."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Never

import pytest

from sandbox.platform.local import ROOT
from tests.simulation.__main__ import play
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = (
    "the journal is not looked into",
    "a delivery is acknowledged before the commit",
    "a failure is not committed",
    "a repeated event gets a new id",
    "a secret is in an error",
    "the record is not pointed to the target",
    "the rollback leaves the instance down",
    "a lost claim does not end the step",
    "the server is requested without a look",
    "the rollback keeps the dedicated server",
)
"""Mutants that few schedules find."""
FEW = 120


def test_every_invariant_holds_after_each_of_some_schedules() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:  # its loop is not pytest's
        played = pool.apply(play, (range(100),))

    assert not played.failed
    assert played.boundaries > 100 * 300
    assert len(played.killed) > 20, "consumers are killed at too few boundaries"


def test_a_schedule_that_cannot_be_played_says_why_and_not_only_what_its_clean_up_met(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(what: str) -> Callable[..., Never]:
        def it(*_: object) -> Never:
            raise TypeError(what)

        return it

    monkeypatch.setattr(Schedule, "_play", cannot("the cause"))
    monkeypatch.setattr(Schedule, "_clean_up", cannot("the clean-up"))
    played = play(range(7, 8))

    [(seed, [violation])] = played.failed
    assert seed == 7
    assert re.search(
        r"it can be played: TypeError: the cause \(\S+\.py:\d+\), and then TypeError: the clean-up \(",
        violation,
    )


def test_a_seed_is_played_exactly_the_same_in_another_process() -> None:
    def trace(hash_seed: str) -> str:
        played = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "26"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return played.stdout

    first = trace("1")

    assert first == trace("2")
    assert first.count("\n") > 300


def test_the_document_lists_every_broken_guarantee() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    _, _, table = text.partition("| broken guarantee |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert {row.split("|")[1].strip() for row in rows} == set(MUTANTS)


@pytest.mark.parametrize("name", QUICK)
def test_a_broken_guarantee_is_noticed(name: str) -> None:
    assert name in MUTANTS
    with multiprocessing.get_context("fork").Pool(1) as pool:  # which it breaks for good
        found = pool.apply(hunt, (name, FEW))

    assert found.seed is not None, f"{name}: {FEW} schedules noticed nothing"
