"""Whole moves of databases in which everything that can carry code carries a canary."""

import pytest

from tests.attack.attack import COMPLETED, Attack


@pytest.mark.representative
async def test_what_the_planner_folds_runs_with_no_more_than_the_tenants_rights(attack: Attack) -> None:
    await attack.begin("planner")
    assert await attack.ends() == COMPLETED, attack.refusal()
    assert {one.site for one in attack.reports()} >= {"index predicate", "statistics, folded"}
    await attack.holds()
