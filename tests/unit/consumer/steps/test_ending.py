"""`start`, `complete` and `roll_back`: the instance on its new database, or back on its old one."""

from __future__ import annotations

from typing import Any

import pytest

from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.errors import Conflict, CrashLoop, NotFound, Refused, Transient
from rehome_consumer.facts import REHEARSAL
from rehome_events.migration import MigrationCompleted, MigrationRolledBack, MigrationStarted
from tests.fakes.runtime import Behaviour
from tests.fakes.site import ORDERS
from tests.support.steps import StepRig


async def before(step: str, **tenant: Any) -> StepRig:
    rig = StepRig(**tenant)
    await rig.until(step)
    return rig


def host(rig: StepRig) -> str:
    return f"postgres-dedicated-{rig.instance.hex[:8]}"


async def test_the_record_names_the_new_server_and_the_instance_serves_from_it() -> None:
    rig = await before("start")
    answer = await rig.run("start")
    assert isinstance(answer, MigrationStarted)
    record = rig.record
    assert (record["db_type"], record["db_host"], record["plan_tier"]) == (
        "dedicated", host(rig), "premium",
    )  # fmt: skip
    assert record["internal_url"] == answer.url
    assert rig.service.spec["limits"] == {"cpu": 4.0, "memory": "8G"}
    assert rig.site.write(rig.instance, 1)
    assert rig.site.orders(rig.instance)[host(rig)] == [1]


async def test_a_start_that_is_run_again_restarts_nothing() -> None:
    rig = await before("start")
    event = rig.event
    first = await rig.run("start")
    tasks = len(rig.service.tasks)
    rig.clock.advance(60)
    rig.event = event
    assert await rig.run("start") == first
    assert len(rig.service.tasks) == tasks


async def test_a_start_first_ends_what_a_lost_run_left_on_the_new_server() -> None:
    rig = await before("start")
    target = rig.target
    left = rig.site.world.enter(
        target, "postgres", target.databases["postgres"], application_name(rig.migration)
    )
    await rig.run("start")
    assert left not in target.sessions


async def test_a_customer_s_stopped_instance_is_started_to_prove_its_database() -> None:
    rig = await before("start", replicas=0)
    await rig.run("start")
    assert len(rig.service.running) == 1


async def test_an_instance_that_ends_again_and_again_is_reported_with_its_exit_code() -> None:
    rig = await before("start")
    rig.site.runtime.behave = lambda _: Behaviour(exit_code=255, said=("odoo.conf is not there",))
    with pytest.raises(CrashLoop, match="exit code 255"):
        await rig.run("start")


async def test_the_undo_of_a_start_points_the_record_back() -> None:
    rig = await before("start")
    record = dict(rig.record)
    await rig.run("start")
    assert await rig.undo("start") == ()
    assert not rig.service.running
    assert {key: rig.record[key] for key in record if key != "updated_at"} == {
        key: value for key, value in record.items() if key != "updated_at"
    }
    assert rig.site.writable(rig.instance) == []


async def test_the_undo_of_a_start_keeps_what_users_wrote() -> None:
    rig = await before("start")
    await rig.run("start")
    assert rig.site.write(rig.instance, 7)
    with pytest.raises(Refused, match="something was written"):
        await rig.undo("start")
    assert rig.record["db_host"] == host(rig)
    assert rig.site.orders(rig.instance)[host(rig)] == [7]


async def test_a_completed_move_is_summed_up() -> None:
    rig = await before("stop")
    await rig.run("stop")
    rig.clock.advance(30)
    for step in ("back_up", "provision", "rewrite_conf", "restore", "start"):
        await rig.run(step)
    answer = await rig.run("complete")
    assert isinstance(answer, MigrationCompleted)
    assert answer.downtime_seconds == 30
    assert (answer.source.name, answer.target.name) == ("postgres-pool-1", host(rig))
    assert (answer.source_retained_until - rig.clock.now()).days == 7
    assert answer.backup_bytes > 0
    assert answer.rehearsal is not None
    assert answer.rehearsal == await (await rig.facts("complete")).recall(REHEARSAL)
    assert rig.record["status"] == "running"
    assert len(rig.site.odoo_conf.files) == 1


async def test_the_customer_s_stopped_instance_is_stopped_again_at_the_end() -> None:
    rig = await before("complete", replicas=0)
    await rig.run("complete")
    assert not rig.service.running
    assert rig.record["status"] == "stopped"


async def test_a_completion_that_is_run_again_emits_the_same() -> None:
    rig = await before("complete", replicas=0)
    event = rig.event
    first = await rig.run("complete")
    rig.clock.advance(60)
    rig.event = event
    assert await rig.run("complete") == first


async def test_a_connection_to_the_fenced_source_is_reported() -> None:
    rig = await before("complete")
    source = rig.source.databases["acme"]
    rig.site.world.enter(rig.source, "odoo_acme", source)
    with pytest.raises(Conflict, match="see pg_stat_activity"):
        await rig.run("complete")


async def test_an_instance_that_has_not_connected_yet_is_waited_for() -> None:
    rig = await before("complete")
    rig.target.roles["odoo_acme"].can_login = False
    rig.target.sessions.clear()
    with pytest.raises(Transient, match="no connection"):
        await rig.run("complete")


async def test_a_rollback_undoes_what_was_started_last_first() -> None:
    rig = StepRig()
    as_before = rig.site.snapshot(rig.instance)
    await rig.until("start")
    await rig.facts("start")
    answer = await rig.roll_back("start")
    assert isinstance(answer, MigrationRolledBack)
    assert answer.undone == (
        "start", "restore", "rewrite_conf", "provision", "back_up", "stop", "prepare",
    )  # fmt: skip
    assert answer.leftovers == ()
    assert answer.downtime_seconds is not None
    assert rig.site.snapshot(rig.instance) == as_before


async def test_a_rollback_undoes_nothing_that_was_not_started() -> None:
    rig = await before("stop")
    answer = await rig.roll_back("stop")
    assert isinstance(answer, MigrationRolledBack)
    assert answer.undone == ("prepare",)
    assert answer.downtime_seconds is None


async def test_a_rollback_that_is_run_again_emits_the_same() -> None:
    rig = await before("start")
    first = await rig.roll_back("start")
    rig.clock.advance(60)
    assert await rig.roll_back("start") == first


async def test_a_rollback_that_is_run_again_leaves_the_instance_up_that_it_has_started() -> None:
    rig = await before("start")
    await rig.roll_back("start")
    up = rig.service.staying
    await rig.roll_back("start")
    assert rig.service.staying == up


async def test_a_rollback_passes_over_a_dead_dedicated_server_that_nobody_could_log_in_to() -> None:
    rig = await before("restore")
    rig.target.reachable = False
    answer = await rig.roll_back("restore")
    assert isinstance(answer, MigrationRolledBack)
    assert len(answer.leftovers) == 1
    assert rig.site.writable(rig.instance) == [rig.site.pool.host]
    assert rig.service.running


async def test_a_rollback_waits_for_a_dead_dedicated_server_that_users_could_log_in_to() -> None:
    rig = await before("start")
    rig.target.reachable = False
    with pytest.raises(Transient):
        await rig.roll_back("start")
    assert rig.site.writable(rig.instance) == [host(rig)]


async def test_without_its_record_an_instance_cannot_be_rolled_back() -> None:
    rig = await before("start")
    rig.site.platform.instances.clear()
    with pytest.raises(NotFound):
        await rig.roll_back("start")


async def test_no_row_is_lost_on_the_way_there_and_back() -> None:
    rig = await before("stop")
    assert rig.site.write(rig.instance, 1)
    for step in ("stop", "back_up", "provision", "rewrite_conf", "restore"):
        await rig.run(step)
    await rig.roll_back("start")
    assert rig.source.databases["acme"].tables[ORDERS] == [(1,)]
    assert rig.site.write(rig.instance, 2)
