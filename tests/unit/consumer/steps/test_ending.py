"""`start`, `complete` and `roll_back`: the instance on its new database, or back on its old one."""

from __future__ import annotations

from typing import Any

import pytest

from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.errors import Conflict, CrashLoop, NotFound, Refused, Transient
from rehome_events.migration import MigrationCompleted, MigrationRolledBack, MigrationStarted
from tests.fakes.runtime import Behaviour
from tests.fakes.site import ORDERS
from tests.support.steps import StepRig


async def before(step: str, **tenant: Any) -> StepRig:
    bench = StepRig(**tenant)
    await bench.until(step)
    return bench


def host(bench: StepRig) -> str:
    return f"postgres-dedicated-{bench.instance.hex[:8]}"


async def test_the_record_names_the_new_server_and_the_instance_serves_from_it() -> None:
    bench = await before("start")
    answer = await bench.run("start")
    assert isinstance(answer, MigrationStarted)
    record = bench.record
    assert (record["db_type"], record["db_host"], record["plan_tier"]) == (
        "dedicated", host(bench), "premium",
    )  # fmt: skip
    assert record["internal_url"] == answer.url
    assert bench.service.spec["limits"] == {"cpu": 4.0, "memory": "8G"}
    assert bench.site.write(bench.instance, 1)
    assert bench.site.orders(bench.instance)[host(bench)] == [1]


async def test_a_start_that_is_run_again_restarts_nothing() -> None:
    bench = await before("start")
    event = bench.event
    first = await bench.run("start")
    tasks = len(bench.service.tasks)
    bench.clock.advance(60)
    bench.event = event
    assert await bench.run("start") == first
    assert len(bench.service.tasks) == tasks


async def test_who_starts_first_ends_what_a_lost_run_left_on_the_new_server() -> None:
    bench = await before("start")
    target = bench.target
    left = bench.site.world.enter(
        target, "postgres", target.databases["postgres"], application_name(bench.migration)
    )
    await bench.run("start")
    assert left not in target.sessions


async def test_a_customer_s_stopped_instance_is_started_to_prove_its_database() -> None:
    bench = await before("start", replicas=0)
    await bench.run("start")
    assert len(bench.service.running) == 1


async def test_an_instance_that_ends_again_and_again_is_told_with_its_own_words() -> None:
    bench = await before("start")
    bench.site.runtime.behave = lambda _: Behaviour(exit_code=255, said=("odoo.conf is not there",))
    with pytest.raises(CrashLoop, match="exit code 255"):
        await bench.run("start")


async def test_the_undo_of_a_start_points_the_record_back() -> None:
    bench = await before("start")
    record = dict(bench.record)
    await bench.run("start")
    assert await bench.undo("start") == ()
    assert not bench.service.running
    assert {key: bench.record[key] for key in record if key != "updated_at"} == {
        key: value for key, value in record.items() if key != "updated_at"
    }
    assert bench.site.writable(bench.instance) == []


async def test_the_undo_of_a_start_keeps_what_users_wrote() -> None:
    bench = await before("start")
    await bench.run("start")
    assert bench.site.write(bench.instance, 7)
    with pytest.raises(Refused, match="something was written"):
        await bench.undo("start")
    assert bench.record["db_host"] == host(bench)
    assert bench.site.orders(bench.instance)[host(bench)] == [7]


async def test_a_completed_move_is_summed_up() -> None:
    bench = await before("stop")
    await bench.run("stop")
    bench.clock.advance(30)
    for step in ("back_up", "provision", "rewrite_conf", "restore", "start"):
        await bench.run(step)
    answer = await bench.run("complete")
    assert isinstance(answer, MigrationCompleted)
    assert answer.downtime_seconds == 30
    assert (answer.source.name, answer.target.name) == ("postgres-pool-1", host(bench))
    assert (answer.source_retained_until - bench.clock.now()).days == 7
    assert answer.backup_bytes > 0
    assert bench.record["status"] == "running"
    assert len(bench.site.odoo_conf.files) == 1


async def test_the_customer_s_stopped_instance_is_stopped_again_at_the_end() -> None:
    bench = await before("complete", replicas=0)
    await bench.run("complete")
    assert not bench.service.running
    assert bench.record["status"] == "stopped"


async def test_a_completion_that_is_run_again_tells_the_same() -> None:
    bench = await before("complete", replicas=0)
    event = bench.event
    first = await bench.run("complete")
    bench.clock.advance(60)
    bench.event = event
    assert await bench.run("complete") == first


async def test_somebody_on_the_fenced_source_is_asked_for() -> None:
    bench = await before("complete")
    source = bench.source.databases["acme"]
    bench.site.world.enter(bench.source, "odoo_acme", source)
    with pytest.raises(Conflict, match="see pg_stat_activity"):
        await bench.run("complete")


async def test_an_instance_that_has_not_connected_yet_is_waited_for() -> None:
    bench = await before("complete")
    bench.target.roles["odoo_acme"].can_login = False
    bench.target.sessions.clear()
    with pytest.raises(Transient, match="no connection"):
        await bench.run("complete")


async def test_a_rollback_undoes_what_was_begun_last_first() -> None:
    bench = StepRig()
    as_before = bench.site.snapshot(bench.instance)
    await bench.until("start")
    await bench.facts("start")
    answer = await bench.roll_back("start")
    assert isinstance(answer, MigrationRolledBack)
    assert answer.undone == (
        "start", "restore", "rewrite_conf", "provision", "back_up", "stop", "prepare",
    )  # fmt: skip
    assert answer.leftovers == ()
    assert answer.downtime_seconds is not None
    assert bench.site.snapshot(bench.instance) == as_before


async def test_a_rollback_undoes_nothing_that_was_not_begun() -> None:
    bench = await before("stop")
    answer = await bench.roll_back("stop")
    assert isinstance(answer, MigrationRolledBack)
    assert answer.undone == ("prepare",)
    assert answer.downtime_seconds is None


async def test_a_rollback_that_is_run_again_tells_the_same() -> None:
    bench = await before("start")
    first = await bench.roll_back("start")
    bench.clock.advance(60)
    assert await bench.roll_back("start") == first


async def test_a_rollback_goes_on_past_a_dead_dedicated_server_that_nobody_was_let_in_on() -> None:
    bench = await before("restore")
    bench.target.reachable = False
    answer = await bench.roll_back("restore")
    assert isinstance(answer, MigrationRolledBack)
    assert len(answer.leftovers) == 1
    assert bench.site.writable(bench.instance) == [bench.site.pool.host]
    assert bench.service.running


async def test_a_rollback_waits_for_a_dead_dedicated_server_that_somebody_was_let_in_on() -> None:
    bench = await before("start")
    bench.target.reachable = False
    with pytest.raises(Transient):
        await bench.roll_back("start")
    assert bench.site.writable(bench.instance) == [host(bench)]


async def test_without_its_record_an_instance_cannot_be_rolled_back() -> None:
    bench = await before("start")
    bench.site.platform.instances.clear()
    with pytest.raises(NotFound):
        await bench.roll_back("start")


async def test_no_row_is_lost_on_the_way_there_and_back() -> None:
    bench = await before("stop")
    assert bench.site.write(bench.instance, 1)
    for step in ("stop", "back_up", "provision", "rewrite_conf", "restore"):
        await bench.run(step)
    await bench.roll_back("start")
    assert bench.source.databases["acme"].tables[ORDERS] == [(1,)]
    assert bench.site.write(bench.instance, 2)
