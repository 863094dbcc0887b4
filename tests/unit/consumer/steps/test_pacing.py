"""A pause and the maintenance window hold moves up while their customer is served, and let those under way end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from rehome_consumer.engine.outcome import EARLY_LIMIT
from rehome_consumer.errors import Queued, Unreachable
from rehome_consumer.facts import BEGUN_AT, FENCE, LET_GO_AT, SERVER_REQUESTED
from rehome_consumer.model import Hours, Pause, Window
from rehome_consumer.steps.support.slots import DOWN, dump_slot, rehearsal_slot
from rehome_events.migration import MigrationPrepared, MigrationStopped
from tests.support.events import body_of, migration_of, upgrade
from tests.support.rig import Rig
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from rehome_consumer.move import Move

PAUSE = Pause(datetime(2026, 1, 1, 2, tzinfo=UTC), "anna@host", "the storage is slow")
SAID = "paused by anna@host since 2026-01-01 02:00 UTC: the storage is slow"


async def before(step: str) -> StepRig:
    rig = StepRig()
    await rig.until(step)
    rig.journal.pause = PAUSE
    return rig


async def test_a_paused_move_asks_for_no_server_and_goes_on_when_it_is_resumed() -> None:
    rig = await before("prepare")
    with pytest.raises(Queued, match=SAID):
        await rig.run("prepare")
    assert await (await rig.facts("prepare")).recall(SERVER_REQUESTED) is None
    assert rig.site.database_service.calls == 0
    rig.journal.pause = None
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_a_rehearsal_that_has_begun_ends_in_a_pause() -> None:
    rig = await before("prepare")
    rig.journal.pause = None
    goes_on = rig.site.world.pause

    async def cut_off(at: str) -> None:
        if at == "copier.dump":
            rig.site.world.pause = goes_on
            raise Unreachable("the pool does not answer")

    rig.site.world.pause = cut_off
    with pytest.raises(Unreachable):
        await rig.run("prepare")
    assert await (await rig.facts("prepare")).recall(BEGUN_AT) is not None
    rig.journal.pause = PAUSE
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_what_waits_for_its_turn_to_rehearse_waits_for_the_end_of_a_pause_too() -> None:
    rig = await before("prepare")
    rig.journal.pause = None
    other = upgrade(uuid4())
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    ahead = rig.journal.facts(await rig.journal.begin(row, "prepare", replay=None))
    assert await ahead.acquire_slot(rehearsal_slot(rig.site.pool), 1)
    with pytest.raises(Queued, match="under way"):
        await rig.run("prepare")
    rig.journal.pause = PAUSE
    rig.journal.slots.clear()
    with pytest.raises(Queued, match=SAID):
        await rig.run("prepare")


async def test_a_move_that_is_prepared_is_not_stopped_in_a_pause() -> None:
    rig = await before("stop")
    with pytest.raises(Queued, match=SAID):
        await rig.run("stop")
    assert rig.service.running
    assert await (await rig.facts("stop")).recall(FENCE) is None
    assert rig.journal.slots == set()
    rig.journal.pause = None
    assert isinstance(await rig.run("stop"), MigrationStopped)


async def test_an_instance_that_is_stopped_goes_on_in_a_pause() -> None:
    rig = await before("stop")
    rig.journal.pause = None
    facts = await rig.facts("stop")
    source, database = rig.site.pool, rig.site.instance(rig.instance).database
    await facts.remember(FENCE, await rig.site.databases.fence_state(source, database, "odoo_acme"))
    rig.journal.pause = PAUSE
    assert isinstance(await rig.run("stop"), MigrationStopped)
    for step in ("back_up", "provision", "rewrite_conf", "restore", "start", "complete"):
        await rig.run(step)


async def test_in_a_pause_deliveries_come_back_without_a_try_and_complete_after_it() -> None:
    rig = Rig()
    rig.journal.pause = PAUSE
    event = rig.upgraded()
    for _ in range(EARLY_LIMIT + 10):  # more often than anything that is counted may come back
        while rig.is_ready():
            await rig.handle_next()
        await rig.relay.sweep()
        rig.node.pass_delays()
    row = rig.row(event)
    step = rig.journal.steps[row.id, 1, "prepare"]
    assert (row.state, step.state, step.tries, step.deaths) == ("requested", "waiting", 0, 0)
    assert step.error is not None
    assert SAID in step.error
    assert rig.dead() == []
    rig.journal.pause = None
    await rig.run()
    assert (rig.row(event).state, rig.row(event).attempt) == ("completed", 1)


def closed_now(rig: StepRig) -> None:
    """A window that opens in an hour."""
    now = rig.clock.now()
    start, end = ((now + timedelta(hours=hours)).time() for hours in (1, 2))
    rig.site.policy = replace(rig.site.policy, windows=(Window(start, end, ZoneInfo("UTC")),))


async def test_an_instance_is_stopped_in_its_window_alone_and_keeps_no_slot_from_others() -> None:
    rig = StepRig()
    await rig.until("stop")
    facts = await rig.facts("stop")
    assert await facts.acquire_slot(slot := dump_slot(rig.site.pool), 1)  # of a run in the last window
    closed_now(rig)
    with pytest.raises(Queued, match=r"the maintenance window is .* UTC; it opens at"):
        await rig.run("stop")
    assert rig.service.running
    assert slot not in {name for name, *_ in rig.journal.slots}
    rig.clock.advance(3600)
    assert isinstance(await rig.run("stop"), MigrationStopped)


async def test_a_move_is_prepared_outside_of_the_window() -> None:
    rig = StepRig()
    closed_now(rig)
    rig.site.policy = replace(rig.site.policy, strategy="cold")
    await rig.until("prepare")
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_a_copy_that_cannot_follow_is_made_outside_of_the_window() -> None:
    rig = StepRig()
    closed_now(rig)
    rig.source.cannot_stream.append("wal_level is replica")
    await rig.until("prepare")
    prepared = await rig.run("prepare")
    assert isinstance(prepared, MigrationPrepared)
    assert prepared.strategy == "cold"
    assert "wal_level is replica" in str(prepared.strategy_reason)


async def test_a_copy_that_may_follow_is_made_in_the_window_alone() -> None:
    rig = StepRig()
    closed_now(rig)
    rig.site.database_service.server_version = 170010  # as the others of the site
    await rig.until("prepare")
    with pytest.raises(Queued, match="maintenance window"):
        await rig.run("prepare")
    assert rig.journal.slots == set()
    # and while it waits the pool is not looked at again
    reached: list[str] = []

    async def noticed(at: str) -> None:
        reached.append(at)

    rig.site.world.pause = noticed
    with pytest.raises(Queued, match="maintenance window"):
        await rig.run("prepare")
    assert reached == []
    rig.clock.advance(3600)
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_an_operator_lets_a_move_go_outside_of_the_window_and_it_ends_there() -> None:
    rig = StepRig()
    await rig.until("stop")
    closed_now(rig)
    await (await rig.facts("stop")).remember(LET_GO_AT, rig.clock.now())
    for step in ("stop", "back_up", "provision", "rewrite_conf", "restore", "start", "complete"):
        await rig.run(step)


async def test_an_upgrade_for_later_is_prepared_a_day_before_and_stopped_then() -> None:
    rig = StepRig()
    rig.site.policy = replace(rig.site.policy, strategy="cold")
    then = rig.clock.now() + timedelta(days=3)
    await rig.opened(not_before=then)
    await rig.run("accept")
    said = f"not before {then:%Y-%m-%d %H:%M} UTC"
    with pytest.raises(Queued, match=said):
        await rig.run("prepare")
    assert rig.site.database_service.calls == 0
    rig.clock.advance(2 * 86400)
    await rig.run("prepare")
    with pytest.raises(Queued, match=said):
        await rig.run("stop")
    assert rig.service.running
    rig.clock.advance(86400)
    assert isinstance(await rig.run("stop"), MigrationStopped)


async def test_an_upgrade_for_later_waits_for_the_window_then() -> None:
    rig = StepRig()
    rig.site.policy = replace(rig.site.policy, strategy="cold")
    await rig.opened(not_before=rig.clock.now() + timedelta(minutes=30))
    for step in ("accept", "prepare"):
        await rig.run(step)
    closed_now(rig)
    with pytest.raises(Queued, match="not before"):
        await rig.run("stop")
    rig.clock.advance(1800)
    with pytest.raises(Queued, match="maintenance window"):
        await rig.run("stop")
    rig.clock.advance(1800)
    assert isinstance(await rig.run("stop"), MigrationStopped)


async def test_only_so_many_instances_are_down_at_once_until_they_serve_again() -> None:
    rig = StepRig()
    await rig.until("stop")
    rig.site.policy = replace(rig.site.policy, down_at_once=1)
    other = upgrade(uuid4())  # on another server
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    down = rig.journal.facts(await rig.journal.begin(row, "stop", replay=None))
    assert await down.acquire_slot(DOWN, 1)
    with pytest.raises(Queued, match=r"1 instance\(s\) are down for a move \(REHOME_DOWN_AT_ONCE\)"):
        await rig.run("stop")
    assert rig.service.running
    await down.release_slot(DOWN)
    await rig.run("stop")
    assert not await down.acquire_slot(DOWN, 1)
    for step in ("back_up", "provision", "rewrite_conf", "restore"):
        await rig.run(step)
    assert not await down.acquire_slot(DOWN, 1)
    await rig.run("start")
    assert await down.acquire_slot(DOWN, 1)


async def test_a_slot_is_no_reason_for_one_that_is_down_to_wait() -> None:
    rig = StepRig()
    await rig.until("stop")
    rig.site.policy = replace(rig.site.policy, down_at_once=1)
    facts = await rig.facts("stop")
    source, database = rig.site.pool, rig.site.instance(rig.instance).database
    await facts.remember(FENCE, await rig.site.databases.fence_state(source, database, "odoo_acme"))
    other = upgrade(uuid4())
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    down = rig.journal.facts(await rig.journal.begin(row, "stop", replay=None))
    assert await down.acquire_slot(DOWN, 1)
    assert isinstance(await rig.run("stop"), MigrationStopped)


async def test_what_was_allowed_before_a_rehearsal_is_asked_again_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = StepRig()
    await rig.until("stop")
    rig.site.policy = replace(rig.site.policy, down_at_once=1)

    async def for_hours(_move: Move) -> None:
        rig.journal.pause = PAUSE

    monkeypatch.setattr("rehome_consumer.steps.stop.rehearsal.require_current", for_hours)
    with pytest.raises(Queued, match=SAID):
        await rig.run("stop")
    assert rig.service.running
    assert rig.journal.slots == set()


async def test_hours_for_rehearsals_are_kept_to_without_the_window() -> None:
    """Together they might never come."""
    rig = StepRig()
    closed_now(rig)
    now = rig.clock.now()
    hours = Hours(now.time(), (now + timedelta(minutes=30)).time())
    rig.site.policy = replace(rig.site.policy, rehearsal_hours=hours)
    await rig.until("prepare")
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


async def test_an_upgrade_that_was_for_the_first_moment_of_all_is_due() -> None:
    rig = StepRig()
    await rig.opened(not_before=datetime.min.replace(tzinfo=UTC))
    for step in ("accept", "prepare", "stop"):
        await rig.run(step)
