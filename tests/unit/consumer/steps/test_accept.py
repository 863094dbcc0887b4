"""The first step: who is moved, who is resized, who is rejected."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from rehome_consumer.errors import Conflict, Incompatible
from rehome_consumer.facts import PLAN_TIER, SOURCE
from rehome_consumer.model import NothingToDo
from rehome_events.migration import InstanceResized, MigrationRejected, MigrationRequested
from rehome_events.parts import Entitlements
from tests.support.events import GRANTED
from tests.support.steps import StepRig

SHARED = Entitlements(cpu_limit=3.0, memory_limit="6G", storage_limit="30G", db_type="shared")


async def accepted(rig: StepRig, **fields: Any) -> Any:
    await rig.opened(**fields)
    return await rig.run("accept")


async def rejection(rig: StepRig, **fields: Any) -> str:
    answer = await accepted(rig, **fields)
    assert isinstance(answer, MigrationRejected)
    assert answer.message
    return answer.reason


async def test_a_tenant_of_a_pool_whose_plan_grants_a_dedicated_database_is_moved() -> None:
    rig = StepRig()
    answer = await accepted(rig)
    assert isinstance(answer, MigrationRequested)
    assert (answer.source.name, answer.target_kind, answer.database) == (
        "postgres-pool-1", "dedicated", "acme",
    )  # fmt: skip
    assert answer.limits.cpu_limit == 4.0
    facts = await rig.facts()
    assert await facts.recall(SOURCE) == rig.site.pool.id
    assert await facts.recall(PLAN_TIER) == "premium"


async def test_where_the_data_lives_decides_not_what_billing_wrote_into_the_record() -> None:
    rig = StepRig(db_type="dedicated")
    assert isinstance(await accepted(rig), MigrationRequested)


async def test_nothing_is_changed_before_the_checks() -> None:
    rig = StepRig()
    before = rig.site.snapshot(rig.instance)
    await accepted(rig)
    assert rig.site.snapshot(rig.instance) == before


async def test_an_unknown_instance_is_rejected() -> None:
    rig = StepRig()
    rig.site.platform.instances.clear()
    assert await rejection(rig) == "unknown_instance"


async def test_an_instance_of_another_customer_is_rejected() -> None:
    assert await rejection(StepRig(), customer_id=uuid4()) == "other_customer"


async def test_a_terminated_instance_is_rejected() -> None:
    assert await rejection(StepRig(status="terminated")) == "terminated"


async def test_an_instance_that_was_never_provisioned_is_rejected() -> None:
    assert await rejection(StepRig(status="creating")) == "never_provisioned"
    assert await rejection(StepRig(db_server_id=None, db_host=None)) == "never_provisioned"


async def test_an_unknown_plan_is_rejected() -> None:
    assert await rejection(StepRig(), entitlements=None) == "unknown_plan"


async def test_limits_that_the_record_cannot_hold_are_rejected() -> None:
    huge = GRANTED.model_copy(update={"cpu_limit": 1000.0})
    assert await rejection(StepRig(), entitlements=huge) == "limits"
    assert await rejection(StepRig(), plan_tier="x" * 31) == "limits"


@pytest.mark.parametrize("status", ["starting", "stopping", "restarting", "updating", "maintenance"])
async def test_an_instance_that_another_process_works_on_is_waited_for(status: str) -> None:
    with pytest.raises(Conflict, match=status):
        await accepted(StepRig(status=status))


async def test_what_the_event_leaves_open_comes_from_the_plan_in_force() -> None:
    rig = StepRig()
    rig.site.platform.plans = [
        {
            "plan_name": "premium-monthly",
            "effective_date": datetime(2025, 1, 1),  # noqa: DTZ001 - as the column is
            "cpu_limit": 8.0,
            "memory_limit": "16G",
            "storage_limit": "99G",
            "db_type": "dedicated",
        }
    ]
    answer = await accepted(rig, entitlements=Entitlements(cpu_limit=4.0))
    assert isinstance(answer, MigrationRequested)
    assert (answer.limits.cpu_limit, answer.limits.memory_limit) == (4.0, "16G")


async def test_without_billing_s_database_the_event_must_say_the_kind_of_database() -> None:
    rig = StepRig()
    rig.site.platform.plans = None
    assert await rejection(rig, entitlements=Entitlements(cpu_limit=4.0)) == "unknown_plan"
    rig = StepRig()
    rig.site.platform.plans = None
    answer = await accepted(rig, entitlements=Entitlements(db_type="dedicated"))
    assert isinstance(answer, MigrationRequested)
    assert answer.limits.cpu_limit is None


async def test_a_plan_that_stays_shared_is_a_resize() -> None:
    rig = StepRig()
    answer = await accepted(rig, entitlements=SHARED, plan_tier="standard")
    assert isinstance(answer, InstanceResized)
    assert answer.before
    assert (answer.before.cpu_limit, answer.before.memory_limit) == (2.0, "4G")
    assert (rig.record["cpu_limit"], rig.record["memory_limit"], rig.record["plan_tier"]) == (
        3.0, "6G", "standard",
    )  # fmt: skip
    assert rig.service.spec["limits"] == {"cpu": 3.0, "memory": "6G"}
    assert rig.record["db_type"] == "shared"


async def test_a_resize_that_no_node_can_run_touches_nothing() -> None:
    rig = StepRig()
    rig.site.runtime.cpus = 2.5
    before, record = rig.service.spec, dict(rig.record)
    with pytest.raises(Incompatible, match=r"only 2\.5 CPUs available"):
        await accepted(rig, entitlements=SHARED)
    assert (rig.service.spec, rig.service.updates, rig.record) == (before, 0, record)


async def test_what_may_go_wrong_with_a_resize_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    rig = StepRig()
    rig.site.runtime.warnings = ("the image is not on this node",)
    assert isinstance(await accepted(rig, entitlements=SHARED), InstanceResized)
    assert f"resize.warning instance={rig.instance} warning=the image is not on this node" in caplog.text


async def test_a_resize_that_is_run_again_emits_the_same() -> None:
    rig = StepRig()
    await rig.opened(entitlements=SHARED)
    event = rig.event
    first = await rig.run("accept")
    rig.event = event
    second = await rig.run("accept")
    assert isinstance(first, InstanceResized)
    assert isinstance(second, InstanceResized)
    assert (second.before, second.limits, second.restarted) == (first.before, first.limits, True)


async def test_a_resize_that_needed_no_restart_says_so() -> None:
    answer = await accepted(StepRig(replicas=0), entitlements=SHARED)
    assert isinstance(answer, InstanceResized)
    assert not answer.restarted


async def moved() -> StepRig:
    """An instance on its dedicated server."""
    rig = StepRig()
    await rig.until("roll_back")
    row = await rig.journal.begin(rig.journal.migrations[rig.migration], "complete", replay=None)
    await rig.journal.finish(row, state="completed", event=None, reason=None, past_pivot=True)
    return rig


async def test_a_second_upgrade_to_the_same_plan_finds_nothing_to_do() -> None:
    answer = await accepted(await moved())
    assert isinstance(answer, NothingToDo)
    assert "postgres-dedicated-" in answer.reason


async def test_an_upgrade_between_dedicated_plans_is_a_resize() -> None:
    rig = await moved()
    larger = GRANTED.model_copy(update={"cpu_limit": 8.0})
    answer = await accepted(rig, entitlements=larger, plan_tier="enterprise")
    assert isinstance(answer, InstanceResized)
    assert rig.record["db_type"] == "dedicated"


async def test_a_move_back_to_a_pool_is_rejected() -> None:
    assert await rejection(await moved(), entitlements=SHARED) == "move_to_shared"
