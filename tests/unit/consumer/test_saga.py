"""The saga's table: every step follows from the one before it, and can be tried, limited and undone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer import saga
from rehome_consumer.ports.engine import ENDED
from rehome_consumer.saga import MIGRATION, ROLL_BACK, STATES, TIERS, before, named
from rehome_events.catalog import CATALOG
from rehome_events.migration import MigrationFailed, MigrationRolledBack

if TYPE_CHECKING:
    from rehome_consumer.saga import Step

FORWARD = MIGRATION[:-1]


def names(step: Step) -> str:
    return step.name


def test_each_step_is_woken_by_an_event_of_the_step_before_it() -> None:
    for earlier, later in itertools.pairwise(FORWARD):
        assert later.on in earlier.emits
        assert before(later) is earlier
    assert before(FORWARD[0]) is None


def test_the_rollback_is_woken_by_a_failure_and_follows_no_step() -> None:
    assert MIGRATION[-1] is ROLL_BACK
    assert (ROLL_BACK.on, ROLL_BACK.emits) == (MigrationFailed, (MigrationRolledBack,))
    assert before(ROLL_BACK) is None


def test_the_catalogue_names_the_same_handler_for_each_event() -> None:
    assert {step.on.TYPE: step.name for step in MIGRATION} == {
        entry.type: entry.next for entry in CATALOG.values() if entry.next
    }


def test_each_event_wakes_one_step() -> None:
    assert len({step.on for step in MIGRATION}) == len({step.name for step in MIGRATION}) == len(MIGRATION)


@pytest.mark.parametrize("step", MIGRATION, ids=names)
def test_each_delay_of_a_step_has_a_queue_and_delays_do_not_shrink(step: Step) -> None:
    delays = [TIERS[tier] for tier in step.retries]
    assert delays == sorted(delays)
    assert step.limit.total_seconds() > 0


def test_states_are_the_events_last_words_and_some_end_the_migration() -> None:
    assert STATES["migration.backed_up"] == "backed_up"
    assert {state for state in STATES.values() if state in ENDED} == {
        "completed", "rejected", "resized", "rolled_back",
    }  # fmt: skip
    assert not {"open", "failing", "failed"} & set(STATES.values())


def test_the_point_of_no_return_is_the_start_and_after_it_nothing_is_rolled_back() -> None:
    assert [step.name for step in MIGRATION if step.pivot] == ["start"]
    after = FORWARD[FORWARD.index(named("start") or ROLL_BACK) + 1 :]
    assert {step.if_it_fails for step in after} == {"operator"}


def test_every_step_that_changes_the_tenant_before_the_point_of_no_return_can_be_undone() -> None:
    rolled_back = [step for step in FORWARD if step.if_it_fails == "roll_back"]
    assert [step.name for step in rolled_back if step.undo is None] == []
    assert [step.name for step in FORWARD if step.if_it_fails == "operator"] == ["accept", "complete"]


def test_a_step_is_found_by_its_name() -> None:
    assert all(named(step.name) is step for step in MIGRATION)
    assert named("no such step") is None


def test_steps_are_named_after_the_modules_that_hold_them() -> None:
    for step in MIGRATION:
        parts = [step.run, step.describe, *([step.undo, step.describe_undo] if step.undo else [])]
        assert {part.__module__ for part in parts} == {f"rehome_consumer.steps.{step.name}"}


def test_a_step_without_a_description_is_no_step() -> None:
    fields = {"name": "new", "on": MigrationFailed, "run": None, "emits": (), "retries": (), "limit": None}
    with pytest.raises(TypeError, match="describe"):
        saga.Step(**fields)  # type: ignore[arg-type] # that is what is tested
    with pytest.raises(TypeError, match="step stop: undo and describe_undo belong together"):
        replace(saga.MIGRATION[2], describe_undo=None)
    with pytest.raises(TypeError, match="step accept: undo and describe_undo belong together"):
        replace(saga.MIGRATION[0], undo=saga.MIGRATION[2].undo)
