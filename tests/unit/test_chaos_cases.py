"""How the crash matrix reads boundaries: the step of each, and which are in a sample."""

from __future__ import annotations

from rehome_consumer import saga
from tests.chaos.__main__ import sample
from tests.chaos.cases import Case
from tests.chaos.experiment import Result
from tests.chaos.report import STEPS, matrix


def all_cases() -> list[Case]:
    """Four boundaries of every step, as they are recorded."""
    return [
        Case("moved", f"{step.name}.{place}", later=later)
        for step in saga.MIGRATION
        for place, later in (
            ("started", 0.0),
            ("port.call.before", 0.0),
            ("port.call.before", 0.1),
            ("committed", 0.0),
        )
    ] + [Case("rolled back", "publish.migration.failed.before")]


def test_a_sample_has_every_step_with_its_commit_and_a_call_cut_in_its_middle() -> None:
    chosen = sample(all_cases(), 2, seed=1)
    assert {case.step for case in chosen} == set(STEPS)
    for step in saga.MIGRATION:
        assert {case.place for case in chosen if case.step == step.name} == {"committed", "port.call.during"}


def test_a_publish_belongs_to_the_step_that_emits_the_event() -> None:
    assert Case("moved", "publish.migration.stopped.before").step == "stop"
    assert Case("rolled back", "publish.migration.rolled_back.confirmed").step == "roll_back"
    assert Case("rolled back", "publish.migration.failed.before").step == "(failure)"


def test_the_matrix_has_a_row_for_each_experiment_in_the_order_of_the_saga() -> None:
    results = [Result(case, "migration.completed", 1.0) for case in reversed(all_cases())]
    table = matrix(results)
    assert table.row_count == len(results)
    named = [name for name in table.columns[0].cells if name]
    assert named == list(STEPS)
