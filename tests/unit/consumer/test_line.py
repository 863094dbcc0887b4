"""Who goes first among those that wait for slots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rehome_consumer import saga
from rehome_consumer.engine import outcome
from rehome_consumer.model import HIGHEST, LOWEST
from rehome_consumer.model.line import LEVEL, NEXT, OFTEN, SELDOM, Turn, Waiter, rank, turn
from rehome_consumer.operators.in_line import in_line

if TYPE_CHECKING:
    from collections.abc import Mapping

A, B, C = (UUID(int=number) for number in (1, 2, 3))
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)


def test_the_first_in_line_takes_what_is_free() -> None:
    assert turn({"dump 1": 1}, (), {}) == Turn(goes=True)


def test_who_is_not_the_first_waits_for_them_and_calls_them() -> None:
    assert turn({"dump 1": 1}, (Waiter(A, {"dump 1": 1}),), {}) == Turn(goes=False, called=(A,))


def test_as_many_go_as_there_are_places() -> None:
    ahead = (Waiter(A, {"dump 1": 3}), Waiter(B, {"dump 1": 3}))
    assert turn({"dump 1": 3}, ahead, {}).goes
    assert not turn({"dump 1": 3}, ahead, {"dump 1": 1}).goes


def test_who_lacks_something_else_keeps_nobody_waiting() -> None:
    ahead = (Waiter(A, {"dump 1": 1, "down": 2}),)
    assert turn({"dump 2": 1, "down": 2}, ahead, {"dump 1": 1, "down": 1}).goes
    assert not turn({"dump 2": 1, "down": 2}, ahead, {"down": 1}).goes


def test_who_gets_nothing_takes_nothing_from_those_behind() -> None:
    """The second one lacks what the first one takes, so the third one does not wait for it."""
    ahead = (Waiter(A, {"dump 1": 1, "down": 3}), Waiter(B, {"dump 1": 1, "down": 3}))
    assert turn({"dump 2": 1, "down": 3}, ahead, {"down": 1}).goes


def test_only_the_next_ones_of_those_that_could_go_are_called() -> None:
    """However many lack something else: who is in the way is called, and few rows are written."""
    lacking = [Waiter(UUID(int=100 + number), {"dump 1": 1, "down": 1}) for number in range(30)]
    able = [Waiter(UUID(int=200 + number), {"dump 2": 1, "down": 1}) for number in range(30)]
    found = turn({"dump 2": 1, "down": 1}, (*lacking, *able), {"dump 1": 1})
    assert not found.goes
    assert found.called == tuple(one.migration_id for one in able[:NEXT])


def test_who_was_called_and_did_not_come_is_passed_over() -> None:
    ahead = (Waiter(A, {"dump 1": 1}, overdue=True), Waiter(B, {"dump 1": 1}))
    assert turn({"dump 1": 1}, ahead, {}) == Turn(goes=False, called=(B,), gone=(A,))
    assert turn({"dump 1": 1}, ahead[:1], {}) == Turn(goes=True, gone=(A,))


def test_a_level_of_priority_is_worth_half_a_day() -> None:
    moment = timedelta(seconds=1)
    assert rank(NOW, 5) < rank(NOW, 4)
    assert rank(NOW, 4) < rank(NOW + moment, 4)
    assert rank(NOW + LEVEL - moment, 5) < rank(NOW, 4) < rank(NOW + LEVEL + moment, 5)


def test_the_lowest_is_passed_by_nobody_who_comes_four_and_a_half_days_later() -> None:
    longest = (HIGHEST - LOWEST) * LEVEL
    assert longest == timedelta(days=4.5)
    assert rank(NOW, LOWEST) < rank(NOW + longest + timedelta(seconds=1), HIGHEST)


@pytest.mark.parametrize("seed", range(50))
def test_nobody_who_could_go_is_passed_by_one_behind_it(seed: int) -> None:
    """Whoever is let go in whatever line: all before it, that were not passed over, lack something meanwhile."""
    random = Random(seed)  # noqa: S311 - reproducible is the point
    places = {"dump 1": 1, "dump 2": 2, "down": 2}
    taken = {slot: random.randint(0, most) for slot, most in places.items()}
    line = [
        Waiter(
            UUID(int=number),
            {slot: places[slot] for slot in ({f"dump {random.randint(1, 2)}", "down"})},
            overdue=random.random() < 0.2,
        )
        for number in range(6)
    ]
    for position, one in enumerate(line):
        if not _free(one.wanted, taken) or not turn(one.wanted, line[:position], taken).goes:
            continue
        after = {slot: taken[slot] + (slot in one.wanted) for slot in taken}
        for before in line[:position]:
            if not before.overdue and _free(before.wanted, taken):
                # it goes as well, now or as soon as it looks
                assert _free(before.wanted, after), (seed, line, taken)


def test_they_look_as_often_as_the_engine_lets_them_come_back() -> None:
    assert saga.TIERS[outcome.SOON] == OFTEN
    assert saga.TIERS[outcome.PATIENCE[-1]] == max(saga.TIERS[tier] for tier in outcome.PATIENCE) == SELDOM


@pytest.mark.parametrize(
    ("place", "of", "priority", "text"),
    [
        (1, 7, 4, "1st of 7 in line, priority 4"),
        (2, 7, 9, "2nd of 7 in line, priority 9"),
        (11, 23, 4, "11th of 23 in line, priority 4"),
        (23, 23, 4, "23rd of 23 in line, priority 4"),
        (112, 200, 4, "112th of 200 in line, priority 4"),
        (None, None, 7, "priority 7"),
        (None, None, 4, ""),
        (None, None, None, ""),
    ],
)
def test_a_place_is_shown_in_words(
    place: int | None, of: int | None, priority: int | None, text: str
) -> None:
    assert in_line(place, of, priority) == text


def _free(wanted: Mapping[str, int], taken: Mapping[str, int]) -> bool:
    return all(taken[slot] < places for slot, places in wanted.items())
