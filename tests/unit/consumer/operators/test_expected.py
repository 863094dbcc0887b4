"""What downtime is to be expected: what moves that were like this one took, and nothing that was reckoned."""

from __future__ import annotations

from rehome_consumer.operators.expected import COUNTED, Expected, Moved, described, expected

GB = 10**9


def cold(size: float, downtime: float) -> Moved:
    return Moved("cold", int(size * GB), downtime)


def test_a_cold_move_takes_what_the_last_ones_of_similar_size_took() -> None:
    moves = [cold(1, 30), cold(2, 55.25), cold(0.5, 21), cold(2.1, 999), cold(0.4, 1), Moved("warm", GB, 3)]
    found = expected(moves, "cold", GB)
    assert found == Expected(21, 55.25, 3)
    assert described(found, "cold") == (
        "21.0 to 55.2 s: so long were the last 3 cold moves of databases half to twice as large"
    )


def test_a_warm_move_takes_what_the_last_ones_took_whatever_their_size() -> None:
    moves = [Moved("warm", size * GB, downtime) for size, downtime in ((1, 3), (500, 4), (2, 2.5))]
    assert expected(moves, "warm", 50 * GB) == Expected(2.5, 4, 3)


def test_only_the_newest_count() -> None:
    moves = [cold(1, 30)] * COUNTED + [cold(1, 500)]
    assert expected(moves, "cold", GB) == Expected(30, 30, COUNTED)


def test_of_too_few_nothing_is_said_but_how_to_measure_it() -> None:
    moves = [cold(1, 30), cold(1, 31), cold(100, 3000)]
    assert expected(moves, "cold", GB) is None
    assert described(None, "cold").endswith("have completed here; --rehearse measures the copy")
    assert described(None, "warm") == "not known: fewer than 3 warm moves have completed here"
