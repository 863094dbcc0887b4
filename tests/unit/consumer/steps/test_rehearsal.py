"""The rehearsal: what cannot be moved is found while the instance serves, and nothing is left of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rehome_consumer.engine.outcome import gravest
from rehome_consumer.errors import (
    ChildFailed,
    Conflict,
    Incompatible,
    Queued,
    Unreachable,
    VerificationFailed,
)
from rehome_consumer.facts import REHEARSAL
from rehome_consumer.model import Hours, Pause
from rehome_consumer.model.line import NEXT
from rehome_consumer.steps.support import rehearsal, slots
from rehome_events.migration import MigrationPrepared
from tests.fakes.site import ORDERS
from tests.support.events import body_of, migration_of, upgrade
from tests.support.slots import got
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tests.fakes.journal import FakeFacts


@pytest.fixture
async def rig() -> StepRig:
    made = StepRig()
    await made.until("prepare")
    return made


def during(rig: StepRig, at: str, act: Callable[[], None]) -> list[str]:
    """Act whenever a fake reaches this step; returns the steps reached."""
    reached: list[str] = []
    pause = rig.site.world.pause

    async def watching(step: str) -> None:
        reached.append(step)
        if step == at:
            act()
        await pause(step)

    rig.site.world.pause = watching
    return reached


def require_nothing_left(rig: StepRig) -> None:
    assert rig.site.world.backups == {}
    assert rig.site.world.snapshots == {}
    assert set(rig.target.databases) == {"postgres"}
    assert not any(name.startswith("rehome_") for name in (*rig.source.roles, *rig.target.roles))
    assert not rig.target.roles["odoo_acme"].can_login


async def test_the_data_is_moved_once_while_the_instance_serves_and_nothing_is_left(rig: StepRig) -> None:
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.rehearsal
    assert answer.rehearsal.mode == "full"
    assert rehearsal.NO_ROWS not in answer.warnings
    assert answer.rehearsal.database_bytes == rig.source.databases["acme"].bytes
    require_nothing_left(rig)
    assert rig.service.running
    assert rig.site.write(rig.instance, 1)


async def test_rows_that_users_write_meanwhile_are_no_difference(rig: StepRig) -> None:
    numbers = iter(range(1, 100))

    def write() -> None:
        assert rig.site.write(rig.instance, next(numbers))

    during(rig, "copier.dump.table", write)
    during(rig, "copier.restore.table", write)
    await rig.run("prepare")
    written = len(rig.source.databases["acme"].tables[ORDERS])
    assert written == next(numbers) - 1 >= 2


def lose_a_table(rig: StepRig) -> None:
    """The copy loses one: as a restore that changes something in silence."""
    for database in rig.target.databases.values():
        if "__rehome_" in database.name:
            database.tables.pop("public.res_partner", None)


async def test_a_copy_that_would_differ_is_refused_before_the_stop(rig: StepRig) -> None:
    reached = during(rig, "copier.restore.rest", lambda: lose_a_table(rig))
    with pytest.raises(VerificationFailed, match=r"rehearsal: .*res_partner: missing.*was not stopped"):
        await rig.run("prepare")
    assert reached.count("copier.restore.rest") == rehearsal.LOOKS
    require_nothing_left(rig)
    assert rig.service.running


async def test_a_difference_that_does_not_come_again_is_none(rig: StepRig) -> None:
    """A table that is rewritten meanwhile looks empty to a snapshot from before."""
    times = iter((1, 0))
    during(rig, "copier.restore.rest", lambda: lose_a_table(rig) if next(times) else None)
    assert isinstance(await rig.run("prepare"), MigrationPrepared)


@pytest.mark.parametrize("kind", [Incompatible, ChildFailed])
async def test_what_the_server_refuses_is_found_before_the_stop(rig: StepRig, kind: type[Exception]) -> None:
    def refuse() -> None:
        raise kind("functions in index expression must be marked IMMUTABLE")

    during(rig, "copier.restore.rest", refuse)
    with pytest.raises(ExceptionGroup) as raised:
        await rig.run("prepare")
    assert isinstance(gravest(raised.value), kind)
    require_nothing_left(rig)
    assert rig.service.running


async def test_what_a_killed_rehearsal_left_is_removed_by_the_next_run(rig: StepRig) -> None:
    event = rig.event

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    pause = rig.site.world.pause
    during(rig, "copier.restore.table", die)
    with pytest.raises(BaseExceptionGroup):
        await rig.run("prepare")
    assert len(rig.site.world.backups) == 1
    assert len(rig.target.databases) == 2
    rig.site.world.pause, rig.event = pause, event
    await rig.run("prepare")
    require_nothing_left(rig)


async def test_what_a_killed_rehearsal_left_is_removed_by_the_rollback(rig: StepRig) -> None:
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    pause = rig.site.world.pause
    during(rig, "copier.restore.table", die)
    with pytest.raises(BaseExceptionGroup):
        await rig.run("prepare")
    rig.site.world.pause = pause
    await rig.undo("prepare")
    assert rig.site.world.backups == {}
    assert not any("dedicated" in host and len(there.databases) > 1
                   for (host, _), there in rig.site.world.servers.items())  # fmt: skip


async def test_a_dedicated_server_that_does_not_answer_keeps_no_dump(rig: StepRig) -> None:
    during(rig, "copier.restore.table", lambda: setattr(rig.target, "reachable", False))
    with pytest.raises(BaseExceptionGroup):
        await rig.run("prepare")
    assert rig.site.world.backups == {}
    (left,) = await rig.undo("prepare")
    assert "could not be removed" in left
    assert rig.site.world.backups == {}


async def test_a_run_that_ended_before_it_released_its_slot_is_made_good_by_the_next(rig: StepRig) -> None:
    event, facts = rig.event, type(await rig.facts())
    release = facts.release_slots

    async def fail(self: FakeFacts, resources: Collection[str]) -> None:
        if await self.recall(REHEARSAL) is not None:
            raise Unreachable("the state database does not answer")
        await release(self, resources)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(facts, "release_slots", fail)
        with pytest.raises(Unreachable):
            await rig.run("prepare")
    rig.event = event
    await rig.run("prepare")
    other = upgrade(UUID(int=0x77, version=4))
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    theirs = rig.journal.facts(await rig.journal.begin(row, "prepare", replay=None))
    assert await got(theirs, f"rehearsal {rig.site.pool.id}", 1)


async def test_it_is_rehearsed_once_per_attempt(rig: StepRig) -> None:
    event = rig.event
    first = await rig.run("prepare")
    rig.event = event
    reached = during(rig, "", lambda: None)
    assert await rig.run("prepare") == first
    assert not any(step.startswith("copier.dump") for step in reached)


async def test_the_settings_can_forbid_it(rig: StepRig) -> None:
    rig.site.policy = replace(rig.site.policy, rehearse="off")
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.rehearsal is None
    await rig.run("stop")
    assert not rig.service.staying


async def test_of_a_large_database_the_definitions_are_rehearsed(rig: StepRig) -> None:
    rig.site.policy = replace(rig.site.policy, rehearse_up_to=1)
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.rehearsal
    assert answer.rehearsal.mode == "definitions"
    assert rehearsal.NO_ROWS in answer.warnings  # what it cannot tell


async def test_only_so_many_rehearsals_read_a_server_at_a_time(rig: StepRig) -> None:
    other = upgrade(UUID(int=0x77, version=4))
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    facts = rig.journal.facts(await rig.journal.begin(row, "prepare", replay=None))
    assert await got(facts, f"rehearsal {rig.site.pool.id}", 1)
    event = rig.event
    with pytest.raises(Queued, match="postgres-pool-1"):
        await rig.run("prepare")
    await facts.release_slots([f"rehearsal {rig.site.pool.id}"])
    rig.event = event
    await rig.run("prepare")
    assert await got(facts, f"rehearsal {rig.site.pool.id}", 1)  # it was released


async def another(rig: StepRig, number: int) -> FakeFacts:
    """The facts of another migration from the same pool, in step prepare."""
    other = upgrade(UUID(int=0x77 + number, version=4))
    row = await rig.journal.open(migration_of(other), other.data.instance_id, other, body_of(other))
    return rig.journal.facts(await rig.journal.begin(row, "prepare", replay=None))


async def test_the_next_ones_look_often_and_the_others_seldom(rig: StepRig) -> None:
    slot = slots.Slot(f"rehearsal {rig.site.pool.id}", 1, "1 rehearsal(s)")
    holder, *waiting = [await another(rig, number) for number in range(NEXT + 2)]
    assert await got(holder, slot.name, 1)
    for number, facts in enumerate(waiting):
        with pytest.raises(Queued) as raised:
            await slots.take(facts, slot)
        assert raised.value.next is (number < NEXT)
        rig.clock.advance(0.1)
    await holder.release_slots([slot.name])
    await slots.take(waiting[0], slot)
    with pytest.raises(Queued) as raised:
        await slots.take(waiting[-1], slot)
    assert raised.value.next  # its place was left by the one who has the slot now


async def test_while_it_waits_for_a_slot_it_asks_the_pool_nothing(rig: StepRig) -> None:
    other = await another(rig, 0)
    assert await got(other, f"rehearsal {rig.site.pool.id}", 1)
    event = rig.event
    with pytest.raises(Queued):
        await rig.run("prepare")  # once it has passed its checks
    rig.event = event
    reached = during(rig, "", lambda: None)
    with pytest.raises(Queued):
        await rig.run("prepare")
    assert reached == []


@pytest.mark.parametrize("at", ["databases.role_facts", "copier.dump.table"])
async def test_a_try_that_fails_lets_others_rehearse_until_the_next(rig: StepRig, at: str) -> None:
    event, pause = rig.event, rig.site.world.pause
    held = await another(rig, 0)
    assert await got(held, f"rehearsal {rig.site.pool.id}", 1)
    with pytest.raises(Queued):
        await rig.run("prepare")
    await held.release_slots([f"rehearsal {rig.site.pool.id}"])
    rig.event = event

    def fail() -> None:
        raise Unreachable("the pool does not answer")

    during(rig, at, fail)
    with pytest.raises((Unreachable, ChildFailed, ExceptionGroup)):
        await rig.run("prepare")
    assert await got(held, f"rehearsal {rig.site.pool.id}", 1)
    rig.site.world.pause = pause


async def test_it_waits_for_its_hours(rig: StepRig) -> None:
    now = rig.clock.now()
    later = Hours((now + timedelta(hours=1)).time(), (now + timedelta(hours=2)).time())
    rig.site.policy = replace(rig.site.policy, rehearsal_hours=later)
    with pytest.raises(Queued, match=f"rehearsals run from {later.start:%H:%M}"):
        await rig.run("prepare")


@pytest.mark.parametrize(
    ("start", "end", "moment", "inside"),
    [
        (8, 12, 8, True),
        (8, 12, 12, False),
        (22, 5, 23, True),
        (22, 5, 4, True),
        (22, 5, 5, False),
        (22, 5, 12, False),
    ],
)
def test_hours_may_pass_midnight(start: int, end: int, moment: int, inside: bool) -> None:
    hours = Hours(time(start), time(end))
    assert hours.has(datetime(2026, 1, 1, moment, tzinfo=UTC)) is inside


def alter(rig: StepRig) -> None:
    """A module is installed."""
    indexes = rig.source.databases["acme"].objects["index"]
    indexes[f"index_{len(indexes)}"] = "(name)"


async def test_definitions_that_changed_since_are_rehearsed_again_before_the_stop(rig: StepRig) -> None:
    await rig.run("prepare")
    alter(rig)
    serving: list[bool] = []
    reached = during(rig, "copier.restore.rest", lambda: serving.append(bool(rig.service.running)))
    await rig.run("stop")
    assert serving == [True]
    assert reached.index("copier.restore.rest") < reached.index("databases.fence")
    assert not rig.service.staying


async def test_a_rehearsal_that_lasted_until_the_window_was_closed_is_not_made_again_the_next_night(
    rig: StepRig,
) -> None:
    await rig.run("prepare")
    event = rig.event
    alter(rig)
    reached = during(
        rig,
        "copier.restore.rest",
        lambda: setattr(rig.journal, "pause", Pause(rig.clock.now(), "ann", "long")),
    )
    with pytest.raises(Queued):
        await rig.run("stop")
    assert any(step.startswith("copier.dump") for step in reached)
    rig.journal.pause, rig.event = None, event
    reached.clear()
    await rig.run("stop")
    assert not any(step.startswith("copier.dump") for step in reached)


async def test_what_came_since_and_cannot_be_moved_stops_nothing(rig: StepRig) -> None:
    await rig.run("prepare")
    alter(rig)
    during(rig, "copier.restore.rest", lambda: lose_a_table(rig))
    with pytest.raises(VerificationFailed, match="res_partner"):
        await rig.run("stop")
    assert rig.service.running
    assert rig.source.roles["odoo_acme"].can_login


async def test_definitions_that_change_all_the_time_stop_nothing(rig: StepRig) -> None:
    await rig.run("prepare")
    alter(rig)
    during(rig, "copier.restore.rest", lambda: alter(rig))
    with pytest.raises(Conflict, match=r"acme changed during each of 3 rehearsals.*serves on"):
        await rig.run("stop")
    assert rig.service.running


async def test_rows_alone_are_not_rehearsed_again(rig: StepRig) -> None:
    await rig.run("prepare")
    assert rig.site.write(rig.instance, 1)
    reached = during(rig, "", lambda: None)
    await rig.run("stop")
    assert not any(step.startswith("copier.dump") for step in reached)


async def test_a_stop_that_has_begun_is_not_held_up(rig: StepRig) -> None:
    await rig.run("prepare")
    event = rig.event
    await rig.run("stop")
    alter(rig)
    rig.event = event
    reached = during(rig, "", lambda: None)
    await rig.run("stop")
    assert not any(step.startswith("copier.dump") for step in reached)


async def test_the_forecast_is_remembered(rig: StepRig) -> None:
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert await (await rig.facts("stop")).recall(REHEARSAL) == answer.rehearsal
