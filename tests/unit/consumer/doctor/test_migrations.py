"""The reconciler's findings about migrations and their deliveries."""

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
from tests.support.snapshots import INSTANCE, MIGRATION, QUEUES, a_snapshot, a_view, ago, kinds, on_pool

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import Snapshot

STUCK_AFTER = timedelta(minutes=5)
DONE_TO_STOP = ["accept", "prepare", "stop"]
DEAD_LETTER = DeadLetterRecord("dead-1", "back_up", "failed", MIGRATION, ago(minutes=30))


def rows(*done: str, **others: str) -> list[dict[str, Any]]:
    """The journal's steps of attempt 1."""
    states = dict.fromkeys(done, "done") | others
    return [{"attempt": 1, "step": step, "state": state} for step, state in states.items()]


def stopped(state: str = "stopped", steps: list[dict[str, Any]] | None = None, **changes: Any) -> Snapshot:
    """A migration that is at back_up."""
    snapshot = a_snapshot(on_pool(state), **changes)
    return replace(snapshot, steps={MIGRATION: rows(*DONE_TO_STOP) if steps is None else steps})


def found(snapshot: Snapshot) -> dict[str, Finding]:
    return {one.kind: one for one in findings(snapshot, stuck_after=STUCK_AFTER)}


def test_a_migration_without_a_delivery_is_stuck_and_its_event_can_be_sent_again() -> None:
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
        a_snapshot(on_pool("completed")),
    ],
    ids=["changed lately", "waits for its next try", "tried lately", "worked on", "queued", "over"],
)
def test_a_migration_that_moves_waits_or_is_over_is_not_stuck(snapshot: Snapshot) -> None:
    assert "stuck" not in found(snapshot)


def test_a_migration_that_waits_counts_as_stuck_only_after_the_time_of_its_next_try() -> None:
    late = a_view("stopped", step_state="waiting", next_try_at=ago(minutes=6))
    assert "stuck" in found(stopped(migrations={MIGRATION: late}))


def test_a_delivery_among_the_dead_letters_is_dead_lettered_and_not_stuck() -> None:
    crashed = replace(DEAD_LETTER, reason="crashed")
    assert list(found(stopped(dead_letters=(crashed,)))) == ["dead_lettered"]
    assert "rehome dead replay dead-1" in found(stopped(dead_letters=(crashed,)))["dead_lettered"].advice
    other = replace(DEAD_LETTER, handler="prepare")
    assert list(found(stopped(dead_letters=(other,)))) == ["stuck"]


def test_recorded_dead_letters_count_where_the_queue_was_not_read() -> None:
    one = (replace(DEAD_LETTER, reason="crashed"),)
    read, recorded = stopped(dead_letters=one), stopped(dead_letters=None, recorded_dead_letters=one)
    assert found(recorded) == found(read)
    assert list(found(replace(recorded, dead_letters=()))) == ["stuck"]  # the queue was read: it is not there
    for other in (replace(DEAD_LETTER, handler="prepare"), replace(DEAD_LETTER, migration_id=INSTANCE)):
        assert list(found(replace(recorded, recorded_dead_letters=(other,)))) == ["stuck"]
    # a migration that moves is not dead-lettered, whatever was recorded
    assert (
        found(replace(recorded, migrations={MIGRATION: a_view("stopped", updated_at=ago(minutes=4))})) == {}
    )
    assert (
        found(replace(recorded, queues=QUEUES | {queue_of("back_up"): QueueStatus(ready=1, consumers=1)}))
        == {}
    )


def test_what_failed_waits_for_an_operator_and_the_advice_says_what_can_be_done() -> None:
    steps = rows(*DONE_TO_STOP, back_up="failed")
    finding = found(stopped("failed", steps, dead_letters=(DEAD_LETTER,)))["waiting_for_operator"]
    assert f"rehome roll-back {MIGRATION}" in finding.advice
    assert finding.action is None


def test_what_failed_is_an_error_while_the_instance_is_down() -> None:
    down = found(stopped("failed", rows(*DONE_TO_STOP, back_up="failed")))["waiting_for_operator"]
    assert (down.severity, "the instance is down" in down.what) == ("error", True)
    up = found(stopped("failed", rows(accept="failed")))["waiting_for_operator"]
    assert (up.severity, "the instance is down" in up.what) == ("warning", False)


def test_past_the_point_of_no_return_a_missing_dead_letter_is_found_and_the_step_can_be_run_again() -> None:
    view = a_view("failed", past_pivot=True)
    steps = rows(*(step.name for step in saga.MIGRATION[:-2]), complete="failed")
    dead_letter = replace(DEAD_LETTER, handler="complete")
    there = stopped("failed", steps, migrations={MIGRATION: view}, dead_letters=(dead_letter,))
    assert list(found(there)) == ["waiting_for_operator"]
    assert "past the point of no return" in found(there)["waiting_for_operator"].advice
    lost = found(replace(there, dead_letters=()))["dead_letter_missing"]
    assert lost.action
    assert (lost.action.repair_kind, lost.action.thing) == ("run_again", "complete")
    assert list(found(replace(there, dead_letters=None))) == [
        "waiting_for_operator"
    ]  # the queue was not read


def test_an_event_that_waits_too_long_in_the_outbox_is_sent() -> None:
    waiting = UnsentEvents(MIGRATION, INSTANCE, 2, ago(seconds=61), "migration.stopped")
    finding = found(stopped(unsent=(waiting,)))["unsent_events"]
    assert list(found(stopped(unsent=(waiting,)))) == ["unsent_events"]  # and not stuck as well
    assert finding.action
    assert finding.action.repair_kind == "send_events"
    assert "unsent_events" not in found(stopped(unsent=(replace(waiting, since=ago(seconds=59)),)))


def test_queues_without_a_consumer_are_an_error_when_messages_wait_there() -> None:
    assert "queue_not_consumed" not in found(a_snapshot())
    unread = QUEUES | {queue_of("restore"): QueueStatus(ready=0, consumers=0)}
    assert found(a_snapshot(queues=unread))["queue_not_consumed"].severity == "warning"
    assert "restore" in found(a_snapshot(queues=unread))["queue_not_consumed"].what
    waiting = QUEUES | {queue_of("restore"): QueueStatus(ready=2, consumers=0)}
    assert found(a_snapshot(queues=waiting))["queue_not_consumed"].severity == "error"
    assert "queue_not_consumed" not in found(a_snapshot(queues=None))  # the broker was not asked


def test_a_queue_that_does_not_exist_is_found() -> None:
    less = {name: queue for name, queue in QUEUES.items() if name != queue_of("stop")}
    assert found(a_snapshot(queues=less))["queue_missing"].where == "queue migration.h.stop"


@pytest.mark.parametrize(("state", "replays"), [("rolled_back", True), ("completed", False)])
def test_a_dead_letter_of_a_migration_that_is_over_waits_to_be_discarded(state: str, replays: bool) -> None:
    finding = found(a_snapshot(on_pool(state), dead_letters=(DEAD_LETTER,)))["stale_dead_letter"]
    assert ("rehome dead replay" in finding.advice) == replays
    assert "rehome dead discard dead-1 --reason" in finding.advice
    assert found(a_snapshot(on_pool(state))) == {}


def test_the_next_step_is_the_first_that_is_not_done_or_the_rollback() -> None:
    names = {"stopped": "back_up", "failing": "roll_back", "failed": "back_up"}
    for state, name in names.items():
        step = next_step(a_view(state), rows(*DONE_TO_STOP, back_up="failed"))
        assert step
        assert step.name == name
    undoing = next_step(a_view("failed"), rows(*DONE_TO_STOP, back_up="failed", roll_back="failed"))
    assert undoing is saga.ROLL_BACK
    assert next_step(a_view("started"), rows(*(step.name for step in saga.MIGRATION[:-1]))) is None


def test_the_most_severe_findings_come_first_and_those_of_other_instances_can_be_left_out() -> None:
    snapshot = stopped(queues=QUEUES | {queue_of("stop"): QueueStatus(ready=0, consumers=0)})
    assert [one.severity for one in diagnose(snapshot)] == ["error", "error", "warning"]
    assert set(kinds(diagnose(snapshot, only=INSTANCE))) == {"stuck", "fence_removed"}
    assert all(one.document()["advice"] for one in diagnose(snapshot))
    assert diagnose(a_snapshot(on_pool()), only=INSTANCE) == []
