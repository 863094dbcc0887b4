"""Where a migration waits for a slot, in the lines of `rehome status`; and the priorities that commands take."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from rehome_consumer.commands.arguments import a_priority
from rehome_consumer.commands.migration_lines import block
from tests.unit.consumer.commands.test_progress import NOW, at

WAITS = replace(
    at(0, 0, 5),
    state="prepared",
    step="stop",
    step_state="waiting",
    error="2 dump(s) of pool-1 at a time; waiting for a slot",
    priority=6,
    place_in_line=3,
    length_of_line=7,
)


def test_a_place_in_line_is_shown_below_what_is_waited_for() -> None:
    lines = [line.strip() for line in block(WAITS, None, now=NOW)]
    why = lines.index("why: 2 dump(s) of pool-1 at a time; waiting for a slot")
    assert lines[why + 1] == "3rd of 7 in line, priority 6"


def test_of_one_that_does_not_wait_only_another_priority_than_the_normal_one_is_shown() -> None:
    running = replace(WAITS, place_in_line=None, length_of_line=None, error=None, step_state="running")
    assert "priority 6" in [line.strip() for line in block(running, None, now=NOW)]
    assert "priority" not in " ".join(block(replace(running, priority=4), None, now=NOW))
    assert "priority" not in " ".join(block(replace(running, ended_at=NOW, state="completed"), None, now=NOW))


@pytest.mark.parametrize("text", ["", "10", "-1", "4.0", "high", "04", "\u0664"])
def test_a_priority_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 9"):
        a_priority(text)


def test_priorities_are_taken() -> None:
    assert [a_priority(str(one)) for one in range(10)] == list(range(10))
