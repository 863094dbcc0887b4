"""Complete moves of databases in which everything that can contain code contains a canary."""

import pytest

from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack

SITES = {
    "planner": {"index predicate", "statistics, folded", "exclusion", "index predicate of a partition"},
    "writing": {
        "domain",
        "check",
        "generated column",
        "materialized view",
        "index predicate of a materialized view",
    },
    "shadows": set[str](),
    "names": {"index with an odd name"},
}
"""Sites that must have run: a canary that was never called proves nothing."""


async def test_a_harmless_database_is_moved_and_these_tests_run_none_of_its_code(
    attack: Attack,
) -> None:
    await attack.begin()
    assert await attack.ends() == COMPLETED, attack.refusal()
    assert attack.reports() == []
    await attack.holds()


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param("planner", marks=pytest.mark.representative("15-15", "18-18")),
        pytest.param("writing", marks=pytest.mark.representative("15-15")),
        pytest.param("shadows", marks=pytest.mark.representative("15-15")),
        pytest.param("names", marks=pytest.mark.representative("15-15")),
    ],
)
async def test_code_in_a_database_that_is_moved_never_has_more_than_the_tenants_rights(
    objects: str, attack: Attack
) -> None:
    await attack.begin(objects)
    assert await attack.ends() == COMPLETED, attack.refusal()
    reached = {one.site for one in attack.reports()}
    assert reached >= SITES[objects], f"never ran: {SITES[objects] - reached}"
    await attack.holds()


async def test_a_tenant_that_is_moved_at_the_same_time_as_a_hostile_one_arrives(attack: Attack) -> None:
    await attack.make("planner", "writing")
    beside = await attack.place.make_site()
    try:
        await attack.remember()
        await attack.begin()
        await attack.place.billing.upgrade(beside.id, "premium-monthly")
        await attack.place.subscriber.wait_for(COMPLETED, instance_id=beside.id, limit=180)
        await attack.ends()
        beside_role = (f" {beside.tenant.role} ", f" {beside.tenant.database} ")
        await attack.holds(but=beside_role)
    finally:
        await attack.place.stop_consumers()
        await attack.place.remove_site(beside)


@pytest.mark.parametrize("step", ["prepare", "stop", "back_up", "provision", "rewrite_conf", "start"])
async def test_a_move_that_fails_late_gives_the_tenant_nothing_and_leaves_no_trace(
    step: str, attack: Attack
) -> None:
    await attack.make("planner", "writing", "shadows")
    await attack.begin(fail=(step,))
    assert await attack.ends() == ROLLED_BACK, attack.types()
    await attack.holds()
