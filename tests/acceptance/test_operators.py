"""Operators' tools: dead letters, rollbacks by hand, and consumers that are stopped."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from rehome_consumer import saga
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.who import who
from rehome_consumer.operators.reader import LOG_LINES, Reader
from sandbox.demo.observation import observe
from sandbox.platform.billing import Billing
from sandbox.platform.database_service import Switches
from sandbox.platform.local import STOP_SECONDS, LocalPlatform
from sandbox.platform.subscriber import Subscriber
from tests.acceptance.conftest import LIMIT, PLAN, Cli, MakeSite
from tests.support.operators import (
    COLUMNS,
    dead_letters,
    migration,
    run_and_die,
    until_at_work,
    until_state,
    until_waits,
)


@pytest.mark.long
async def test_a_failed_rollback_is_started_again_by_hand(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a migration whose restore failed, and whose rollback failed half-way too
    site = await make_site(odoo=False)
    async with local.consumer(module=("tests.support.failing_rollback",)):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.failed", instance_id=site.id, limit=LIMIT)
        await until_state(local, site, "failed")
    assert "it failed" in (await migration(rehome, site))["attention"]
    for command in ("status", "doctor"):
        answer = await rehome(command)
        assert (answer.code, str(site.id) in answer.out) == (1, True)
        assert max(len(line) for line in answer.out.splitlines()) <= COLUMNS
    # When its dead letters are listed, then that of the restore may not be replayed any more
    waiting = await dead_letters(rehome, site)
    assert set(waiting) == {"restore", "roll_back"}
    refused = await rehome("dead", "replay", waiting["restore"]["id"], "--json")
    assert (refused.code, "its rollback was started" in refused.json[0]["what"]) == (1, True)
    undo = (await rehome("dead", "show", waiting["roll_back"]["id"], "--json")).json["replay_in_detail"]
    assert f"{site.tenant.database}__rehome_" in " ".join(undo)
    assert f"connect to {site.tenant.database} on postgres-pool-1 again" in " ".join(undo)
    # and an operator's rollback starts it again
    plan = await rehome("roll-back", site.id)
    assert (plan.code, f"postgres-dedicated-{site.id.hex[:8]}" in plan.out) == (0, True)
    async with local.consumer():
        assert (await rehome("roll-back", site.id, "--yes", "--reason", "the disk is repaired")).code == 0
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    assert (await observe(local, site)).on_pool > 0
    # and the rollback's dead letter can only be discarded
    settled = waiting["roll_back"]["id"]
    assert "rolled back since" in (await rehome("dead", "replay", settled)).out
    # by a tool that is killed half-way: then the dead letter is still there
    assert await run_and_die(local, "dead", "discard", settled, "--reason", "no")
    assert set(await dead_letters(rehome, site)) == {"restore", "roll_back"}
    # and a discarded one is recorded, once, with the reason
    ids = [one["id"] for one in waiting.values()]
    assert (await rehome("dead", "discard", *ids, "--reason", "no")).code == 0
    discarded = (await rehome("dead", "list", "--discarded", "--json")).json
    assert [one["why"] for one in discarded if one["id"] == settled] == [f"by {who()}: no"]


@pytest.mark.long
async def test_a_dead_letter_replayed_twice_opens_one_attempt_and_a_replay_after_its_end_is_refused(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given the dead letter of a migration that was rolled back
    site = await make_site(odoo=False)
    async with local.consumer(module=("sandbox.demo.faults", "stop")):
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
    dead_letter = (await dead_letters(rehome, site))["stop"]
    # When it is replayed, twice, by a tool that is killed before it removes the dead letter
    assert await run_and_die(local, "dead", "replay", dead_letter["id"])
    assert await run_and_die(local, "dead", "replay", dead_letter["id"][:8])
    # Then it is still there, for two tools that list at the same time
    both = await asyncio.gather(dead_letters(rehome, site), dead_letters(rehome, site))
    assert [set(found) for found in both] == [{"stop"}] * 2
    # and one new attempt completes
    async with local.consumer():
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
        assert completed.attempt == 2
        # after which a replay is refused
        late = await rehome("dead", "replay", "--all", "--instance", site.id, "--json")
        assert (late.code, "it is of attempt 1" in late.json[0]["what"]) == (1, True)
    found = await migration(rehome, site)
    assert (found["attempt"], found["state"]) == (2, "completed")
    assert (await rehome("dead", "discard", dead_letter["id"], "--reason", "tested")).code == 0
    assert await dead_letters(rehome, site) == {}


async def test_a_running_step_is_stopped_for_a_rollback(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a step that will take an hour
    site = await make_site(odoo=False)
    local.database_service.switches = Switches(delay_seconds=3600)
    async with local.consumer():
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.requested", instance_id=site.id, limit=LIMIT)
        await until_at_work(rehome, site)
        watching = asyncio.create_task(rehome("watch", site.id))
        plan = await rehome("roll-back", site.id)
        assert "step prepare has been running" in plan.out
        # When an operator rolls back
        assert (await rehome("roll-back", site.id, "--yes")).code == 0
        event = await subscriber.wait_for("migration.rolled_back", instance_id=site.id, limit=LIMIT)
        followed = await watching
    # Then it is undone at once, and `rehome watch` reports the end
    assert event.data.reason == "requested by an operator"
    assert (followed.code, "is over: rolled_back" in followed.out) == (1, True)
    assert max(len(line) for line in (followed.out + plan.out).splitlines()) <= COLUMNS
    assert await dead_letters(rehome, site) == {}


@pytest.mark.long
async def test_a_stopping_consumer_gives_back_a_long_step_and_ends_a_short_one(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    site = await make_site(odoo=False)
    # Given a step that will take longer than the grace time
    local.database_service.switches = Switches(delay_seconds=3600)
    async with local.consumer(settings={"REHOME_GRACE": "1"}) as first:
        await billing.upgrade(site.id, PLAN)
        await until_at_work(rehome, site)
        # When its consumer gets SIGTERM, then it ends normally
        assert await first.stop(limit=STOP_SECONDS) == 0
    # and the step waits for another consumer, visibly, and no try is counted
    waiting = await migration(rehome, site)
    assert (waiting["state"], waiting["step_state"], waiting["tries"]) == ("requested", "waiting", 0)
    assert "shut down in mid step" in waiting["error"]
    assert waiting["next_try_at"]
    assert "shut down in mid step" in (await rehome("status")).out
    # Given a step that takes less
    local.database_service.switches = Switches(delay_seconds=2)
    async with local.consumer(settings={"REHOME_GRACE": str(LIMIT)}) as second:
        await until_at_work(rehome, site)
        # When its consumer gets SIGTERM, then it ends the step first
        assert await second.stop(limit=LIMIT) == 0
    assert (await migration(rehome, site))["state"] == "prepared"
    assert subscriber.types(site.id)[-1] == "migration.prepared"
    # and the next one goes on
    async with local.consumer():
        await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)


async def test_no_move_begins_in_a_pause_and_what_waited_completes_after_it(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given two consumers, and moves that were paused
    site = await make_site(odoo=False)
    async with local.consumer(), local.consumer():
        paused = await rehome("pause", "--reason", "the storage is slow")
        assert (paused.code, "no new move begins" in paused.out) == (0, True), paused.err
        # When a customer upgrades, then the move waits before a server is asked for, and says why
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.requested", instance_id=site.id, limit=LIMIT)
        await until_waits(rehome, site, "prepare", "the storage is slow")
        assert (await observe(local, site)).on_pool > 0
        # and once it is resumed, it completes in the first attempt
        assert (await rehome("resume")).code == 0
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
        assert completed.attempt == 1
    report = await rehome("report", completed.migrationid)
    assert "prepare waits" in report.out
    assert f"rehome is paused by {who()}" in " ".join(report.out.split())
    # and what both consumers have logged meanwhile is kept for the migration's page
    async with asyncpg.create_pool(local.settings()["REHOME_PLATFORM_DSN"], min_size=1, max_size=1) as pool:
        reader = Reader(pool, PostgresJournalViews(pool))
        kept = await reader.log(await reader.newest(site.id), limit=LOG_LINES)
    finished = [line.step for line in kept.lines if line.event == "step.finished"]
    assert finished == [*(step.name for step in saga.MIGRATION if step.name != "roll_back")]
    assert kept.before is None


async def test_a_prepared_move_waits_for_the_window_until_an_operator_lets_it_go(
    local: LocalPlatform, make_site: MakeSite, billing: Billing, subscriber: Subscriber, rehome: Cli
) -> None:
    # Given a window that opens in hours
    site = await make_site(odoo=False)
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(hours=hours):%H:%M}" for hours in (3, 4))
    async with local.consumer(settings={"REHOME_WINDOW": f"{start}-{end} UTC"}):
        # When a customer upgrades, then everything is prepared, and the instance is not stopped
        await billing.upgrade(site.id, PLAN)
        await subscriber.wait_for("migration.prepared", instance_id=site.id, limit=LIMIT)
        await until_waits(rehome, site, "stop", f"the maintenance window is {start}-{end} UTC")
        assert (await local.supervisor.show(site.service))["tasks"]
        # and an operator lets it go
        done = await rehome("move-now", site.id, "--reason", "the customer asked")
        assert (done.code, "waits for no window" in done.out) == (0, True), done.err
        completed = await subscriber.wait_for("migration.completed", instance_id=site.id, limit=LIMIT)
    report = " ".join((await rehome("report", completed.migrationid)).out.split())
    assert "the customer asked" in report
    late = await rehome("move-now", site.id)
    assert (late.code, "is open" in " ".join(late.err.split())) == (1, True)
