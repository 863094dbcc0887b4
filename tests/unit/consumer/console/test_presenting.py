"""How values look on the console's pages, and where bars of the timeline are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rehome_consumer.console.presenting import Attempt, attempts, environment, span
from rehome_consumer.operators.documents import Line, Migration, Step, Timeline

START = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def step(
    name: str, began: float, ended: float | None, *, state: str = "done", attempt: int = 1, tries: int = 0
) -> Step:
    return Step(
        attempt=attempt,
        step=name,
        state=state,
        tries=0,
        error=None,
        next_try_at=None,
        started_at=at(began),
        tried_at=at(began),
        done_at=None if ended is None else at(ended),
        seconds=None if ended is None else ended - began,
    )


def timeline(
    *steps: Step, history: tuple[Line, ...] = (), attempt: int = 1, ended: float | None = None
) -> Timeline:
    over = None if ended is None else at(ended)
    values: dict[str, Any] = dict.fromkeys(Migration.model_fields)
    migration = Migration.model_construct(**values | {"attempt": attempt, "state": "open", "ended_at": over})
    return Timeline.model_construct(
        migration=migration, steps=list(steps), history=list(history), events=[], facts={}
    )


def bars(attempt: Attempt) -> list[tuple[str, float, float]]:
    return [(bar.step.step, bar.left, bar.width) for bar in attempt.bars]


def test_bars_have_their_part_of_the_attempts_time() -> None:
    (found,) = attempts(timeline(step("accept", 0, 10), step("prepare", 10, None, state="running")), at(100))
    assert bars(found) == [("accept", 0, 10), ("prepare", 10, 90)]
    assert found.total == 100
    assert [bar.allowed for bar in found.bars] == [7, 7]


def test_a_step_that_failed_ends_where_the_next_one_begins_or_with_the_migration() -> None:
    steps = (step("accept", 0, 10), step("stop", 10, None, state="failed"), step("roll_back", 60, 80))
    (found,) = attempts(timeline(*steps, ended=80), at(1000))
    assert bars(found) == [("accept", 0, 12.5), ("stop", 12.5, 62.5), ("roll_back", 75, 25)]


def test_an_earlier_attempt_has_its_own_time_and_comes_last() -> None:
    steps = (step("accept", 0, 10), step("accept", 500, 501, attempt=2))
    found = attempts(timeline(*steps, attempt=2), at(600))
    assert [(one.number, one.total) for one in found] == [(2, 1), (1, 10)]


def test_failed_tries_are_marked_where_they_were() -> None:
    happened = (
        (1, 20, "prepare waits"),
        (1, 50, "prepare failed"),
        (1, 60, "opened"),
        (2, 70, "prepare waits"),
    )
    lines = tuple(
        Line(attempt=attempt, at=at(seconds), what=what, detail=None) for attempt, seconds, what in happened
    )
    (found,) = attempts(timeline(step("prepare", 0, None, state="failed"), history=lines, ended=100), at(100))
    assert found.bars[0].ticks == [20, 50]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (7265, "2 h 01 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time(seconds: float | None, shown: str) -> None:
    assert span(seconds) == shown


def test_whatever_a_template_writes_is_visible_and_escaped() -> None:
    template = environment().from_string("{{ text }}|{{ text | short }}|{{ value | pretty }}|{{ nothing }}")
    shown = template.render(text="<b>\u202e\n", value={"<i>": "\u2066"}, nothing=None)
    assert shown == "&lt;b&gt;\\u202e\\n|&lt;b&gt;\\u202e\\n|{\n  &#34;&lt;i&gt;&#34;: &#34;\\u2066&#34;\n}|"
