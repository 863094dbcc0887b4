"""What is decided on a delivery, from what it says and what the journal has."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.engine.decide import Rows, decide, decide_unread
from rehome_consumer.engine.exclusive_runs import ASKED, SUSPECT
from rehome_consumer.engine.inbound import Inbound
from rehome_consumer.engine.outcome import EARLY_LIMIT, Ack, Defer, GiveUp, Run
from rehome_consumer.ports.engine import ENDED, MigrationRow, StepRow
from tests.support.events import AT, upgrade

if TYPE_CHECKING:
    from rehome_consumer.engine.outcome import Outcome

MIGRATION = MigrationRow(uuid4(), uuid4(), 1, "prepared", False, None, AT, AT, None, trigger=b"", token=7)
EVENT = upgrade(MIGRATION.instance_id)
REPLAY = uuid4()
FORWARD = [step.name for step in saga.MIGRATION[:-1]]
ENDS = sorted(ENDED)


def delivered(name: str, **fields: Any) -> Inbound:
    step = saga.named(name)
    assert step
    delivery: Any = None
    return Inbound(step, delivery, "id", **{"deferrals": 0, "early_returns": 0, "is_last": False, **fields})


def row(state: str, **columns: Any) -> StepRow:
    return StepRow(MIGRATION.id, 1, "any", state, 1, **{"tries": 0, "deaths": 0, "token": 7, **columns})


DONE, FAILED = row("done"), row("failed", error="no")


def decided(
    name: str,
    state: str = "prepared",
    mine: StepRow | None = None,
    before: StepRow | None = DONE,
    *,
    attempt: int = 1,
    **fields: Any,
) -> Outcome:
    """Of a migration in this state: `fields` are columns of it, or of the delivery."""
    columns = {one.name for one in dataclasses.fields(MigrationRow)}
    migration = replace(
        MIGRATION, state=state, **{key: fields.pop(key) for key in list(fields) if key in columns}
    )
    return decide(delivered(name, **fields), EVENT, Rows(migration, attempt, mine, before))


def answer(*arguments: Any, **named: Any) -> str:
    """In a word."""
    match decided(*arguments, **named):
        case Run():
            return "run"
        case Ack(_, found):
            return str(found)
        case Defer(_, early=True):
            return "early"
        case GiveUp(reason):
            return f"dead letter: {reason}"
        case other:
            raise AssertionError(other)


def replayed(*ids: Any) -> StepRow:
    return replace(FAILED, replays=ids)


@pytest.mark.parametrize(
    ("step", "state", "mine", "replay", "expected"),
    [
        # the next step, cut off, or waiting for its next try
        ("stop", "prepared", None, None, "run"),
        ("stop", "prepared", row("running"), None, "run"),
        ("stop", "prepared", row("waiting"), None, "run"),
        # done, whatever came after
        *[("stop", state, DONE, None, "done") for state in ("prepared", "failing", "failed", *ENDS)],
        *[("stop", state, DONE, REPLAY, "done") for state in ("prepared", "failing", "failed", *ENDS)],
        # over
        *[(name, state, None, None, "stale") for state in ENDS for name in (*FORWARD, "roll_back")],
        *[(name, state, None, REPLAY, "stale") for state in ENDS for name in (*FORWARD, "roll_back")],
        # being rolled back, or left to an operator
        ("stop", "failing", row("waiting"), None, "stale"),
        ("stop", "failing", row("waiting"), REPLAY, "stale"),
        ("restore", "failed", row("waiting"), None, "stale"),
        ("restore", "failed", None, None, "stale"),
        # failed before: once for each replay it runs again
        *[
            ("stop", state, FAILED, None, "dead letter: failed")
            for state in ("prepared", "failing", "failed", "rolled_back")
        ],
        ("stop", "failed", replace(FAILED, dead_lettered=True), None, "failed"),
        ("stop", "failed", FAILED, REPLAY, "run"),
        ("stop", "failed", replayed(uuid4()), REPLAY, "run"),
        ("stop", "failed", replayed(REPLAY), REPLAY, "dead letter: failed"),
        ("complete", "failed", row("waiting", replays=(REPLAY,)), REPLAY, "run"),
        # a rollback, while the migration is failing; else for a replay alone
        ("roll_back", "failing", None, None, "run"),
        ("roll_back", "failing", row("waiting"), None, "run"),
        ("roll_back", "failing", FAILED, None, "run"),
        ("roll_back", "failed", FAILED, None, "dead letter: failed"),
        ("roll_back", "failed", FAILED, REPLAY, "run"),
        ("roll_back", "failed", row("waiting", replays=(REPLAY,)), REPLAY, "run"),
        ("roll_back", "failed", None, None, "stale"),
        ("roll_back", "prepared", None, None, "stale"),
        ("roll_back", "prepared", None, REPLAY, "stale"),
    ],
)
def test_an_event_is_decided_by_its_step_and_its_migration(
    step: str, state: str, mine: StepRow | None, replay: Any, expected: str
) -> None:
    assert answer(step, state, mine, replay=replay) == expected


def test_the_first_step_needs_none_before_it() -> None:
    assert answer("accept", "open", before=None) == "run"


@pytest.mark.parametrize("before", [None, row("running"), row("waiting"), FAILED])
def test_a_step_waits_until_the_one_before_it_is_done(before: StepRow | None) -> None:
    assert answer("stop", before=before) == "early"


def test_a_rollback_follows_whatever_failed() -> None:
    assert answer("roll_back", "failing", before=None) == "run"


def test_an_older_attempt_is_stale_and_a_newer_one_early() -> None:
    assert answer("stop", attempt=1, mine=DONE) == "done"
    assert decided("stop", mine=DONE, attempt=1, token=9) == Ack(
        MIGRATION.id, "done", "step stop was done before"
    )
    second = Rows(replace(MIGRATION, attempt=2), 1, DONE, DONE)
    assert decide(delivered("stop"), EVENT, second) == Ack(
        MIGRATION.id, "stale", "it belongs to attempt 1, the migration is at 2"
    )
    assert answer("stop", attempt=2) == "early"


@pytest.mark.parametrize("state", ["failing", "failed", "started"])
@pytest.mark.parametrize("replay", [None, REPLAY])
def test_past_the_point_of_no_return_nothing_is_rolled_back(state: str, replay: Any) -> None:
    assert answer("roll_back", state, past_pivot=True, replay=replay) == "stale"


def test_an_event_that_stays_too_early_is_given_up() -> None:
    assert answer("stop", before=None, early_returns=EARLY_LIMIT - 1) == "early"
    assert answer("stop", before=None, early_returns=EARLY_LIMIT) == "dead letter: gave_up_waiting"


def test_the_dead_letter_of_an_earlier_failure_has_its_error_and_its_run() -> None:
    assert decided("stop", "failed", FAILED) == GiveUp("failed", "no", FAILED)


def test_an_event_of_no_migration_of_its_instance_is_a_dead_letter() -> None:
    expected = GiveUp("unknown_migration", "no such migration of this instance")
    assert decide(delivered("stop"), EVENT, None) == expected


def test_a_run_gets_the_event_with_its_migration_and_attempt() -> None:
    found = decided("accept", "open", before=None, attempt=1)
    assert isinstance(found, Run)
    assert (found.event.id, found.event.migrationid, found.event.attempt) == (EVENT.id, MIGRATION.id, 1)
    assert found.migration == replace(MIGRATION, state="open")


@pytest.mark.parametrize(
    ("mine", "deferrals", "alone"),
    [
        (None, 0, False),
        (row("waiting", deaths=SUSPECT - 1), 0, False),
        (row("waiting", deaths=SUSPECT), 0, True),
        (row("running", deaths=SUSPECT - 1), 0, True),  # whoever ran it died, too
        (row("waiting", deaths=SUSPECT), ASKED - 1, True),
        (row("waiting", deaths=SUSPECT), ASKED, False),
    ],
)
def test_a_run_that_consumers_died_in_is_alone_unless_it_was_deferred_often_enough(
    mine: StepRow | None, deferrals: int, alone: bool
) -> None:
    found = decided("stop", mine=mine, deferrals=deferrals)
    assert isinstance(found, Run)
    assert found.alone is alone


@pytest.mark.parametrize(
    ("newer", "mine", "early_returns", "expected"),
    [
        (False, None, 0, GiveUp("undecodable", "odd")),
        (False, DONE, EARLY_LIMIT, GiveUp("undecodable", "odd")),
        (True, DONE, 0, Ack(None, "done", "odd")),
        (True, DONE, EARLY_LIMIT, Ack(None, "done", "odd")),
        (True, row("running"), 0, Defer("odd", early=True)),
        (True, None, EARLY_LIMIT - 1, Defer("odd", early=True)),
        (True, None, EARLY_LIMIT, GiveUp("gave_up_waiting", "odd")),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_unless_a_newer_release_can_read_it(
    newer: bool, mine: StepRow | None, early_returns: int, expected: Outcome
) -> None:
    inbound = delivered("stop", unreadable="odd", newer=newer, early_returns=early_returns)
    assert decide_unread(inbound, mine) == expected
