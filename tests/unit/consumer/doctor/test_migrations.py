"""What the reconciler says of migrations and their deliveries."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer import saga
from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.doctor.migrations import findings, next_step
from rehome_consumer.ports.operators import ClaimHolder, DeadLetterRecord, QueueStatus, UnsentEvents
from rehome_consumer.rabbitmq.topology import queue_of
from tests.support.snapshots import INSTANCE, MIGRATION, QUEUES, a_view, a_world, ago, kinds, on_pool

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import Snapshot

STUCK_AFTER = timedelta(minutes=5)
DONE_TO_STOP = ["accept", "prepare", "stop"]
LETTER = DeadLetterRecord("letter-1", "back_up", "failed", MIGRATION, ago(minutes=30))


def rows(*done: str, **others: str) -> list[dict[str, Any]]:
    """The journal's steps of attempt 1."""
    states = dict.fromkeys(done, "done") | others
    return [{"attempt": 1, "step": step, "state": state} for step, state in states.items()]


def stopped(state: str = "stopped", steps: list[dict[str, Any]] | None = None, **changes: Any) -> Snapshot:
    """A migration that is at back_up."""
    snapshot = a_world(on_pool(state), **changes)
    return replace(snapshot, steps={MIGRATION: rows(*DONE_TO_STOP) if steps is None else steps})


def found(snapshot: Snapshot) -> dict[str, Finding]:
    return {one.kind: one for one in findings(snapshot, stuck_after=STUCK_AFTER)}


def test_a_migration_that_nothing_comes_for_is_stuck_and_is_woken() -> None:
    finding = found(stopped())["stuck"]
    assert "step back_up" in finding.what
    assert finding.since == ago(hours=1)
    assert finding.action
    assert (finding.action.repair_kind, finding.action.thing) == ("resend_event", "back_up")


@pytest.mark.parametrize(
    "snapshot",
    [
        stopped(migrations={MIGRATION: a_view("stopped", updated_at=ago(minutes=4))}),
        stopped(
            migrations={MIGRATION: a_view("stopped", step_state="waiting", next_try_at=ago(minutes=-20))}
        ),
        stopped(migrations={MIGRATION: a_view("stopped", tried_at=ago(minutes=1))}),
        stopped(holders={INSTANCE: ClaimHolder(INSTANCE, 1, "10.0.0.1", ago(minutes=9))}),
        stopped(queues=QUEUES | {queue_of("back_up"): QueueStatus(ready=1, consumers=1)}),
        a_world(on_pool("completed")),
    ],
    ids=["lately", "waits for its time", "tried lately", "somebody works", "it is queued", "it is over"],
)
def test_a_migration_that_moves_waits_or_is_over_is_not_stuck(snapshot: Snapshot) -> None:
    assert "stuck" not in found(snapshot)


def test_a_migration_that_waits_counts_as_stuck_only_after_its_time() -> None:
    late = a_view("stopped", step_state="waiting", next_try_at=ago(minutes=6))
    assert "stuck" in found(stopped(migrations={MIGRATION: late}))


def test_a_delivery_among_the_dead_letters_is_parked_and_not_stuck() -> None:
    crashed = replace(LETTER, reason="crashed")
    assert list(found(stopped(dead_letters=(crashed,)))) == ["dead_lettered"]
    assert "rehome dead replay letter-1" in found(stopped(dead_letters=(crashed,)))["dead_lettered"].advice
    other = replace(LETTER, handler="prepare")
    assert list(found(stopped(dead_letters=(other,)))) == ["stuck"]


def test_what_the_journal_knows_of_dead_letters_counts_where_nobody_looked_at_them() -> None:
    noted = (replace(LETTER, reason="crashed"),)
    looked, known = stopped(dead_letters=noted), stopped(dead_letters=None, recorded_dead_letters=noted)
    assert found(known) == found(looked)
    assert list(found(replace(known, dead_letters=()))) == ["stuck"]  # somebody looked: it is gone
    for other in (replace(LETTER, handler="prepare"), replace(LETTER, migration_id=INSTANCE)):
        assert list(found(replace(known, recorded_dead_letters=(other,)))) == ["stuck"]
    # it is no word of its own: what moves is not parked
    assert found(replace(known, migrations={MIGRATION: a_view("stopped", updated_at=ago(minutes=4))})) == {}
    assert (
        found(replace(known, queues=QUEUES | {queue_of("back_up"): QueueStatus(ready=1, consumers=1)})) == {}
    )


def test_what_failed_waits_for_an_operator_who_is_told_the_ways_on() -> None:
    steps = rows(*DONE_TO_STOP, back_up="failed")
    finding = found(stopped("failed", steps, dead_letters=(LETTER,)))["waiting_for_operator"]
    assert f"rehome roll-back {MIGRATION}" in finding.advice
    assert finding.action is None


def test_what_failed_is_an_error_while_the_instance_is_down() -> None:
    down = found(stopped("failed", rows(*DONE_TO_STOP, back_up="failed")))["waiting_for_operator"]
    assert (down.severity, "the instance is down" in down.what) == ("error", True)
    up = found(stopped("failed", rows(accept="failed")))["waiting_for_operator"]
    assert (up.severity, "the instance is down" in up.what) == ("warning", False)


def test_past_the_point_of_no_return_a_lost_letter_is_told_and_the_step_can_be_run_again() -> None:
    view = a_view("failed", past_pivot=True)
    steps = rows(*(step.name for step in saga.MIGRATION[:-2]), complete="failed")
    dead_letter = replace(LETTER, handler="complete")
    there = stopped("failed", steps, migrations={MIGRATION: view}, dead_letters=(dead_letter,))
    assert list(found(there)) == ["waiting_for_operator"]
    assert "there is no way back" in found(there)["waiting_for_operator"].advice
    lost = found(replace(there, dead_letters=()))["dead_letter_missing"]
    assert lost.action
    assert (lost.action.repair_kind, lost.action.thing) == ("run_again", "complete")
    assert list(found(replace(there, dead_letters=None))) == ["waiting_for_operator"]  # nobody looked


def test_an_event_that_waits_too_long_in_the_outbox_is_sent() -> None:
    waiting = UnsentEvents(MIGRATION, INSTANCE, 2, ago(seconds=61), "migration.stopped")
    finding = found(stopped(unsent=(waiting,)))["unsent_events"]
    assert list(found(stopped(unsent=(waiting,)))) == ["unsent_events"]  # and not stuck as well
    assert finding.action
    assert finding.action.repair_kind == "send_events"
    assert "unsent_events" not in found(stopped(unsent=(replace(waiting, since=ago(seconds=59)),)))


def test_queues_without_a_reader_are_an_error_when_something_waits_there() -> None:
    assert "queue_not_consumed" not in found(a_world())
    unread = QUEUES | {queue_of("restore"): QueueStatus(ready=0, consumers=0)}
    assert found(a_world(queues=unread))["queue_not_consumed"].severity == "warning"
    assert "restore" in found(a_world(queues=unread))["queue_not_consumed"].what
    waiting = QUEUES | {queue_of("restore"): QueueStatus(ready=2, consumers=0)}
    assert found(a_world(queues=waiting))["queue_not_consumed"].severity == "error"
    assert "queue_not_consumed" not in found(a_world(queues=None))  # the broker was not asked


def test_a_queue_that_is_not_there_is_told() -> None:
    less = {name: look for name, look in QUEUES.items() if name != queue_of("stop")}
    assert found(a_world(queues=less))["queue_missing"].where == "queue migration.h.stop"


@pytest.mark.parametrize(("state", "replays"), [("rolled_back", True), ("completed", False)])
def test_a_letter_of_a_migration_that_is_over_waits_to_be_put_away(state: str, replays: bool) -> None:
    finding = found(a_world(on_pool(state), dead_letters=(LETTER,)))["stale_dead_letter"]
    assert ("rehome dead replay" in finding.advice) == replays
    assert "rehome dead discard letter-1 --reason" in finding.advice
    assert found(a_world(on_pool(state))) == {}


def test_the_next_step_is_the_first_that_is_not_done_or_the_rollback() -> None:
    names = {"stopped": "back_up", "failing": "roll_back", "failed": "back_up"}
    for state, name in names.items():
        step = next_step(a_view(state), rows(*DONE_TO_STOP, back_up="failed"))
        assert step
        assert step.name == name
    undoing = next_step(a_view("failed"), rows(*DONE_TO_STOP, back_up="failed", roll_back="failed"))
    assert undoing is saga.ROLL_BACK
    assert next_step(a_view("started"), rows(*(step.name for step in saga.MIGRATION[:-1]))) is None


def test_the_gravest_findings_come_first_and_others_can_be_left_out() -> None:
    snapshot = stopped(queues=QUEUES | {queue_of("stop"): QueueStatus(ready=0, consumers=0)})
    assert [one.severity for one in diagnose(snapshot)] == ["error", "error", "warning"]
    assert set(kinds(diagnose(snapshot, only=INSTANCE))) == {"stuck", "fence_removed"}
    assert all(one.document()["advice"] for one in diagnose(snapshot))
    assert diagnose(a_world(on_pool()), only=INSTANCE) == []
