"""Where a delivery stands against the journal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.engine.standing import standing
from rehome_consumer.ports.engine import ENDED, MigrationRow, StepRow
from tests.support.events import AT

if TYPE_CHECKING:
    from rehome_consumer.saga import Step

MIGRATION = MigrationRow(uuid4(), uuid4(), 1, "prepared", False, b"", None, AT, AT, 7)
REPLAY = uuid4()


def step(name: str) -> Step:
    found = saga.named(name)
    assert found
    return found


def row(state: str, **columns: Any) -> StepRow:
    return StepRow(MIGRATION.id, 1, "any", state, 1, 0, 0, 7, **columns)


DONE = row("done")


def answer(
    name: str, migration: MigrationRow, mine: StepRow | None, before: StepRow | None = DONE, **named: Any
) -> str:
    attempt = named.pop("attempt", 1)
    return standing(step(name), migration, attempt, mine, before, **{"replay": None, **named}).answer


def test_the_next_step_runs() -> None:
    assert answer("stop", MIGRATION, None) == "go"


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_a_step_that_was_cut_off_or_waits_runs_again(state: str) -> None:
    assert answer("stop", MIGRATION, row(state)) == "go"


def test_the_first_step_needs_none_before_it() -> None:
    assert answer("accept", replace(MIGRATION, state="open"), None, None) == "go"


@pytest.mark.parametrize("state", ["prepared", "failing", "failed", *sorted(ENDED)])
def test_a_step_that_is_done_is_done_whatever_came_after(state: str) -> None:
    assert answer("stop", replace(MIGRATION, state=state), DONE) == "done"
    assert answer("stop", replace(MIGRATION, state=state), DONE, replay=REPLAY) == "done"


@pytest.mark.parametrize("state", ["running", "waiting", "failed"])
def test_a_step_waits_until_the_one_before_it_is_done(state: str) -> None:
    assert answer("stop", MIGRATION, None, row(state)) == "early"
    assert answer("stop", MIGRATION, None, None) == "early"


def test_an_older_attempt_is_stale_and_a_newer_one_early() -> None:
    second = replace(MIGRATION, attempt=2)
    assert answer("stop", second, None, attempt=1) == "stale"
    assert answer("stop", second, DONE, attempt=1) == "stale"
    assert answer("stop", second, None, attempt=3) == "early"


@pytest.mark.parametrize("state", sorted(ENDED))
def test_nothing_runs_after_the_end(state: str) -> None:
    ended = replace(MIGRATION, state=state)
    for name in ("accept", "stop", "complete", "roll_back"):
        assert answer(name, ended, None) == "stale"
        assert answer(name, ended, None, replay=REPLAY) == "stale"


def test_no_forward_step_runs_during_a_rollback() -> None:
    failing = replace(MIGRATION, state="failing")
    assert answer("stop", failing, row("waiting")) == "stale"
    assert answer("stop", failing, row("waiting"), replay=REPLAY) == "stale"


@pytest.mark.parametrize("state", ["prepared", "failing", "failed", "rolled_back"])
def test_a_failed_step_has_failed_whatever_came_after(state: str) -> None:
    assert answer("stop", replace(MIGRATION, state=state), row("failed")) == "failed"


def test_a_failed_step_runs_again_once_for_each_replay() -> None:
    failed = replace(MIGRATION, state="failed")
    assert answer("stop", failed, row("failed"), replay=REPLAY) == "go"
    assert answer("stop", failed, row("failed", replays=(REPLAY,)), replay=REPLAY) == "failed"
    assert answer("stop", failed, row("failed", replays=(uuid4(),)), replay=REPLAY) == "go"


def test_a_replay_that_waits_for_its_next_try_goes_on() -> None:
    failed = replace(MIGRATION, state="failed")
    assert answer("complete", failed, row("waiting", replays=(REPLAY,)), replay=REPLAY) == "go"


def test_nothing_but_a_replay_runs_while_an_operator_is_waited_for() -> None:
    assert answer("restore", replace(MIGRATION, state="failed"), row("waiting")) == "stale"


def test_a_rollback_runs_while_the_migration_is_failing() -> None:
    failing = replace(MIGRATION, state="failing")
    assert answer("roll_back", failing, None, None) == "go"
    assert answer("roll_back", failing, row("waiting"), None) == "go"
    assert answer("roll_back", failing, row("failed"), None) == "go"


def test_a_rollback_that_failed_runs_again_for_a_replay_alone() -> None:
    failed = replace(MIGRATION, state="failed")
    assert answer("roll_back", failed, row("failed"), None) == "failed"
    assert answer("roll_back", failed, row("failed"), None, replay=REPLAY) == "go"
    assert answer("roll_back", failed, row("waiting", replays=(REPLAY,)), None, replay=REPLAY) == "go"


def test_a_failure_that_an_operator_must_look_at_is_not_rolled_back() -> None:
    assert answer("roll_back", replace(MIGRATION, state="failed"), None, None) == "stale"
    assert answer("roll_back", MIGRATION, None, None) == "stale"


@pytest.mark.parametrize("state", ["failing", "failed", "started"])
def test_past_the_point_of_no_return_nothing_is_rolled_back(state: str) -> None:
    past = replace(MIGRATION, state=state, past_pivot=True)
    assert answer("roll_back", past, None, None) == "stale"
    assert answer("roll_back", past, None, None, replay=REPLAY) == "stale"
