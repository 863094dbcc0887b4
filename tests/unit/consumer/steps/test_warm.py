"""Warm moves, step by step: the copy follows until the stop; whatever goes wrong with it makes the move cold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer.adapters.postgres.replication_parts import name_of, sync_role, witness_of
from rehome_consumer.errors import Queued, Refused, TimedOut, Unreachable
from rehome_consumer.facts import COMPARED, LENT_LEFT, SIGNATURES, STRATEGY, WARM_GIVEN_UP
from rehome_consumer.model import Compared
from rehome_events.migration import (
    MigrationBackedUp,
    MigrationCompleted,
    MigrationPrepared,
    MigrationRestored,
)
from tests.fakes.replicator import FULL
from tests.fakes.site import ORDERS, ORDERS_SEQUENCE
from tests.fakes.world import FakeRole
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from collections.abc import Callable

NEW_ENOUGH = 170012
EARLIER = uuid4()


def a_rig(**policy: Any) -> StepRig:
    made = StepRig()
    made.site.policy = replace(made.site.policy, strategy="auto", **policy)
    made.site.database_service.server_version = NEW_ENOUGH
    made.source.version = NEW_ENOUGH
    made.site.world.client = NEW_ENOUGH // 10000
    return made


@pytest.fixture
async def rig() -> StepRig:
    """About to be prepared."""
    made = a_rig()
    await made.until("prepare")
    return made


async def run_from(rig: StepRig, first: str, last: str) -> Any:
    """Run these steps; the last one's event."""
    names = ["prepare", "stop", "back_up", "provision", "rewrite_conf", "restore", "start", "complete"]
    answer: Any = None
    for name in names[names.index(first) : names.index(last) + 1]:
        answer = await rig.run(name)
    return answer


def copy_of(rig: StepRig) -> Any:
    (found,) = (one for name, one in rig.target.databases.items() if "__rehome_" in name)
    return found


def require_no_parts(rig: StepRig) -> None:
    """Nothing follows, or is followed, on either server."""
    for there in (rig.source, rig.target):
        assert there.slots == {}
        assert not any(one.follows or one.publications for one in there.databases.values())
        assert not any(name.endswith(("_sync", "_apply")) for name in there.roles)
        assert not any("f" in one.identities.values() for one in there.databases.values())


async def test_the_copy_follows_what_users_write_until_the_stop(rig: StepRig) -> None:
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.strategy == "warm"
    assert copy_of(rig).follows.name == name_of(rig.migration)
    assert rig.source.slots.keys() == {name_of(rig.migration), witness_of(rig.migration)}
    assert rig.site.write(rig.instance, 7)
    restored = await run_from(rig, "stop", "restore")
    assert isinstance(restored, MigrationRestored)
    assert rig.target.databases["acme"].tables[ORDERS] == [(7,)]
    assert rig.target.databases["acme"].sequences[ORDERS_SEQUENCE] == "7 true"
    require_no_parts(rig)


async def test_the_backup_of_the_fenced_source_is_made_when_the_instance_is_up_again(rig: StepRig) -> None:
    await run_from(rig, "prepare", "stop")
    backed_up = await rig.run("back_up")
    assert isinstance(backed_up, MigrationBackedUp)
    assert backed_up.content == "before_stop"
    assert list(rig.site.world.backups) == [backed_up.backup_id]
    await run_from(rig, "provision", "start")
    assert rig.service.running
    completed = await rig.run("complete")
    assert isinstance(completed, MigrationCompleted)
    assert completed.strategy == "warm"
    (sealed,) = rig.site.world.backups.values()
    assert sealed.sealed
    assert sealed.content.tables[ORDERS] == rig.source.databases["acme"].tables[ORDERS]
    assert completed.backup_bytes == sealed.sealed.bytes


async def test_prepare_that_is_run_again_finds_the_copy_and_leaves_it(rig: StepRig) -> None:
    event = rig.event
    await rig.run("prepare")
    copy = copy_of(rig)
    rig.event = event
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.strategy == "warm"
    assert copy_of(rig) is copy


COLD: dict[str, tuple[Callable[[StepRig], None], str]] = {
    "a setting": (lambda rig: set_policy(rig, strategy="cold"), "REHOME_STRATEGY is cold"),
    "no rows are rehearsed": (lambda rig: set_policy(rig, rehearse="definitions"), "REHOME_REHEARSE"),
    "nothing is rehearsed": (lambda rig: set_policy(rig, rehearse="off"), "REHOME_REHEARSE"),
    "the pool": (lambda rig: rig.source.cannot_stream.append("wal_level is replica"), "wal_level"),
    "a consumer that does not know it": (
        lambda rig: setattr(rig.journal, "earlier_consumers", 2),
        "consumers of an earlier release still run, which cannot go on with a warm move (2 connection(s)",
    ),
    "the database": (lambda rig: rig.source.databases["acme"].unfollowable.append("no key"), "no key"),
    "the dedicated server": (
        lambda rig: setattr(rig.site.database_service, "server_version", 150018),
        "runs PostgreSQL 15",
    ),
}


def set_policy(rig: StepRig, **changes: Any) -> None:
    rig.site.policy = replace(rig.site.policy, **changes)


@pytest.mark.parametrize("cause", COLD)
async def test_what_cannot_be_followed_is_copied_cold_and_the_event_says_why(cause: str) -> None:
    rig = a_rig()
    change, why = COLD[cause]
    if cause == "the dedicated server":
        rig.source.version, rig.site.world.client = 150018, 15
    change(rig)
    await rig.until("prepare")
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.strategy == "cold"
    assert answer.strategy_reason
    assert why in answer.strategy_reason
    require_no_parts(rig)
    completed = await run_from(rig, "stop", "complete")
    assert completed.strategy == "cold"


async def test_a_target_without_a_way_to_the_source_makes_it_cold(rig: StepRig) -> None:
    pause = rig.site.world.pause

    async def unreachable(at: str) -> None:
        if at == "replicator.follow":
            rig.target.cannot_reach.add(rig.site.pool.host)
        await pause(at)

    rig.site.world.pause = unreachable
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.strategy == "cold"
    assert "does not reach" in (answer.strategy_reason or "")
    require_no_parts(rig)
    assert rig.site.world.backups == {}


def broken(rig: StepRig) -> None:
    copy_of(rig).follows.broken = True


def slow(rig: StepRig) -> None:
    rig.source.slots[name_of(rig.migration)].behind = timedelta(days=1)


def kept(rig: StepRig) -> None:
    rig.source.slots[name_of(rig.migration)].kept = rig.site.policy.sync_keep + 1


def gone(rig: StepRig) -> None:
    rig.source.slots.clear()


def old(rig: StepRig) -> None:
    rig.clock.advance((rig.site.policy.sync_age + timedelta(minutes=1)).total_seconds())


def not_alone(rig: StepRig) -> None:
    rig.journal.earlier_consumers = 1


@pytest.mark.parametrize("trouble", [broken, slow, kept, gone, old, not_alone])
async def test_a_copy_that_follows_no_more_is_given_up_before_the_stop(
    rig: StepRig, trouble: Callable[[StepRig], None]
) -> None:
    await rig.run("prepare")
    trouble(rig)
    await rig.run("stop")
    assert await (await rig.facts("stop")).recall(WARM_GIVEN_UP)
    require_no_parts(rig)
    assert set(rig.target.databases) == {"postgres"}
    completed = await run_from(rig, "back_up", "complete")
    assert completed.strategy == "cold"
    assert len(rig.site.world.backups) == 1


@pytest.mark.parametrize("trouble", [broken, slow, kept, gone])
async def test_a_copy_that_does_not_get_there_after_the_stop_is_given_up(
    rig: StepRig, trouble: Callable[[StepRig], None]
) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    trouble(rig)
    assert isinstance(await rig.run("restore"), MigrationRestored)
    require_no_parts(rig)
    completed = await run_from(rig, "start", "complete")
    assert completed.strategy == "cold"
    assert len(rig.site.world.backups) == 1


async def test_a_difference_after_the_stop_is_never_used(rig: StepRig) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    rig.source.databases["acme"].tables["public.unpublished"] = [(1,)]
    assert isinstance(await rig.run("restore"), MigrationRestored)
    assert rig.target.databases["acme"].tables["public.unpublished"] == [(1,)]
    assert "differs" in (await (await rig.facts("restore")).recall(WARM_GIVEN_UP) or "")


async def test_definitions_that_change_meanwhile_begin_a_new_copy(rig: StepRig) -> None:
    await rig.run("prepare")
    first = copy_of(rig)
    rig.source.databases["acme"].objects["index"]["module_idx"] = "(name)"
    await rig.run("stop")
    second = copy_of(rig)
    assert second is not first
    assert second.objects["index"]["module_idx"] == "(name)"
    assert second.follows
    completed = await run_from(rig, "back_up", "complete")
    assert completed.strategy == "warm"
    assert (await compared(rig)).definitions == "unchanged"


async def test_a_copy_that_was_made_again_has_not_followed_for_as_long_as_the_first(rig: StepRig) -> None:
    await rig.run("prepare")
    age, pause = rig.site.policy.sync_age.total_seconds(), rig.site.world.pause
    rig.clock.advance(0.8 * age)
    rig.source.databases["acme"].objects["index"]["module_idx"] = "(name)"

    async def slowly(at: str) -> None:
        if at == "copier.restore.rest":
            rig.clock.advance(0.4 * age)
        await pause(at)

    rig.site.world.pause = slowly
    await rig.run("stop")
    assert await (await rig.facts("stop")).recall(WARM_GIVEN_UP) is None
    assert copy_of(rig).follows


async def test_a_copy_that_has_disappeared_is_made_again_cold(rig: StepRig) -> None:
    await run_from(rig, "prepare", "back_up")
    rig.target.databases.pop(copy_of(rig).name)
    completed = await run_from(rig, "provision", "complete")
    assert completed.strategy == "cold"


@pytest.mark.parametrize("step", ["prepare", "stop", "back_up", "provision", "rewrite_conf", "restore"])
async def test_a_rollback_leaves_the_pool_as_it_was(step: str) -> None:
    rig = a_rig()
    await rig.until("prepare")
    before = rig.site.snapshot(rig.instance)
    await run_from(rig, "prepare", step)
    await rig.roll_back(step)
    after = rig.site.snapshot(rig.instance)
    for what in ("source", "login", "owner", "roles", "backups", "writable", "running"):
        assert after[what] == before[what], what
    assert rig.source.slots == {}
    assert rig.source.databases["acme"].publications == set()
    assert rig.source.databases["acme"].identities == {ORDERS: "d"}


async def test_a_table_without_a_key_is_lent_an_identity_and_has_its_own_again(rig: StepRig) -> None:
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert f"without a key, and so with REPLICA IDENTITY FULL until then: {ORDERS}" in (
        answer.strategy_reason or ""
    )
    assert rig.source.databases["acme"].identities == {ORDERS: "f"}
    assert copy_of(rig).identities == {ORDERS: "d"}
    assert rig.site.write(rig.instance, 7)
    await run_from(rig, "stop", "restore")
    assert await compared(rig) == Compared("changed", tables=1, definitions="unchanged")
    assert rig.source.databases["acme"].identities == {ORDERS: "d"}
    assert rig.target.databases["acme"].identities == {ORDERS: "d"}
    assert rig.site.refused == []


async def test_a_table_in_use_is_lent_nothing_and_the_move_is_cold(rig: StepRig) -> None:
    rig.source.databases["acme"].in_use.add(ORDERS)
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert (answer.strategy, "is in use" in (answer.strategy_reason or "")) == ("cold", True)
    require_no_parts(rig)


async def test_a_table_in_use_keeps_a_move_that_is_given_up_from_going_on(rig: StepRig) -> None:
    await rig.run("prepare")
    broken(rig)
    rig.source.databases["acme"].in_use.add(ORDERS)
    event = rig.event
    with pytest.raises(Queued, match="in use"):  # no try is counted, however long it takes
        await rig.run("stop")
    assert rig.service.running
    assert await (await rig.facts("stop")).recall(WARM_GIVEN_UP) is None
    assert rig.source.slots == {}
    rig.source.databases["acme"].in_use.clear()
    rig.event = event
    await rig.run("stop")
    require_no_parts(rig)
    assert await given_up(rig)


async def test_a_table_in_use_behind_the_fence_costs_the_customer_nothing(rig: StepRig) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    rig.source.databases["acme"].in_use.add(ORDERS)
    restored = await rig.run("restore")
    assert isinstance(restored, MigrationRestored)
    assert rig.source.databases["acme"].identities[ORDERS] == FULL
    rig.source.databases["acme"].in_use.clear()
    await run_from(rig, "start", "complete")
    assert rig.source.databases["acme"].identities[ORDERS] != FULL
    assert await (await rig.facts("complete")).recall(WARM_GIVEN_UP) is None
    require_no_parts(rig)


async def test_a_table_that_is_in_use_to_the_end_is_left_to_the_doctor(rig: StepRig) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    rig.source.databases["acme"].in_use.add(ORDERS)
    completed = await run_from(rig, "restore", "complete")
    assert isinstance(completed, MigrationCompleted)
    assert "rehome doctor --repair" in str(await (await rig.facts("complete")).recall(LENT_LEFT))
    assert rig.source.roles.keys() >= {sync_role(rig.migration)}


async def test_what_an_earlier_migration_has_lent_is_put_back_before_anything_is_copied(rig: StepRig) -> None:
    database = rig.source.databases["acme"]
    own = database.identities[ORDERS]
    reader = sync_role(EARLIER)
    rig.source.roles[reader] = FakeRole(reader, None)
    rig.source.roles[reader].lent["acme", ORDERS] = own
    database.identities[ORDERS] = FULL
    database.in_use.add(ORDERS)
    event = rig.event
    with pytest.raises(Queued, match="in use"):
        await rig.run("prepare")
    assert rig.journal.slots == set()
    database.in_use.clear()
    rig.event = event
    answer = await rig.run("prepare")
    assert isinstance(answer, MigrationPrepared)
    assert answer.strategy == "warm"
    assert reader not in rig.source.roles
    assert rig.source.roles[sync_role(rig.migration)].lent["acme", ORDERS] == own


async def test_a_rollback_names_a_table_that_is_in_use_and_waits_for_nothing(rig: StepRig) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    rig.source.databases["acme"].in_use.add(ORDERS)
    rolled_back = await rig.roll_back("rewrite_conf")
    (left,) = rolled_back.leftovers
    assert "a temporary replica identity" in left
    assert "rehome doctor --repair" in left
    assert rig.source.slots == {}
    assert rig.service.running


async def test_an_identity_that_somebody_has_changed_meanwhile_is_left_alone(rig: StepRig) -> None:
    await rig.run("prepare")
    rig.source.databases["acme"].identities[ORDERS] = "n"
    await rig.roll_back("prepare")
    assert rig.source.databases["acme"].identities == {ORDERS: "n"}


async def test_a_lifted_fence_is_no_reason_to_copy_cold(rig: StepRig) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    rig.source.roles["odoo_acme"].can_login = True
    with pytest.raises(Refused, match="the fence of acme"):
        await rig.run("restore")
    assert await (await rig.facts("restore")).recall(WARM_GIVEN_UP) is None


async def compared(rig: StepRig) -> Compared:
    return await (await rig.move("restore")).recorded(COMPARED)


async def test_the_contents_of_what_was_written_are_compared_and_no_others(rig: StepRig) -> None:
    await rig.run("prepare")
    assert rig.site.write(rig.instance, 7)
    copy_of(rig).tables["public.res_partner"].reverse()  # no row of it is read again
    copy_of(rig).tables["public.res_partner"][0] = (2, "not as it was")
    await run_from(rig, "stop", "restore")
    assert await compared(rig) == Compared("changed", tables=1, definitions="unchanged")
    assert await (await rig.facts("restore")).recall(WARM_GIVEN_UP) is None


async def test_a_row_of_a_written_table_that_arrived_otherwise_is_noticed(rig: StepRig) -> None:
    await rig.run("prepare")
    assert rig.site.write(rig.instance, 7)
    spoil(rig, ORDERS, (8,))
    await run_from(rig, "stop", "restore")
    assert "as many rows (1), but not the same content" in await given_up(rig)
    assert rig.target.databases["acme"].tables[ORDERS] == [(7,)]


async def test_rows_too_many_in_a_table_that_was_not_written_are_noticed(rig: StepRig) -> None:
    await rig.run("prepare")
    spoil(rig, "public.res_partner", (3, "more"))
    await run_from(rig, "stop", "restore")
    assert "public.res_partner: 2 rows on the source, 1 on the target" in await given_up(rig)


def lost(rig: StepRig) -> None:
    del rig.source.slots[witness_of(rig.migration)]


def keeps_too_much(rig: StepRig) -> None:
    rig.source.slots[witness_of(rig.migration)].kept = rig.site.policy.sync_keep + 1


def meddled(rig: StepRig) -> None:
    copy_of(rig).meddled.add("public.res_partner")


@pytest.mark.parametrize("trouble", [lost, keeps_too_much, meddled])
async def test_where_nobody_is_sure_what_was_written_everything_is_compared(
    rig: StepRig, trouble: Callable[[StepRig], None]
) -> None:
    await rig.run("prepare")
    trouble(rig)
    assert rig.site.write(rig.instance, 7)
    await run_from(rig, "stop", "restore")
    found = await compared(rig)
    assert (found.how, bool(found.why)) == ("everything", True)
    assert await (await rig.facts("restore")).recall(WARM_GIVEN_UP) is None
    require_no_parts(rig)


async def test_everything_is_compared_when_a_run_was_cut_off_after_the_slots_were_dropped(
    rig: StepRig,
) -> None:
    await run_from(rig, "prepare", "rewrite_conf")
    event, pause = rig.event, rig.site.world.pause

    async def cut_off(at: str) -> None:
        if at == "replicator.settle.settled":
            raise Unreachable("the target does not answer")
        await pause(at)

    rig.site.world.pause = cut_off
    with pytest.raises((Unreachable, ExceptionGroup)):
        await rig.run("restore")
    rig.site.world.pause, rig.event = pause, event
    rig.source.slots.clear()
    await rig.run("restore")
    assert (await compared(rig)).how == "everything"


def indexed(rig: StepRig) -> str:
    """In the source, and in its copy."""
    for one in (rig.source.databases["acme"], copy_of(rig)):
        one.objects["index"]["later_idx"] = "(name)"
    return "in acme on postgres-pool-1"


def indexed_copy(rig: StepRig) -> str:
    copy_of(rig).objects["index"]["later_idx"] = "(name)"
    return f"in {copy_of(rig).name} on"


def from_an_older_release(rig: StepRig) -> str:
    stored = rig.journal.stored_facts
    (key,) = (one for one in stored if one[-1] == SIGNATURES.name)
    del stored[key]
    return "no signature"


def unreadable(rig: StepRig) -> str:
    async def signature(*_arguments: Any) -> str:
        raise Unreachable("the catalogs cannot be read")

    object.__setattr__(rig.site.verifier, "signature", signature)
    return "the catalogs cannot be read"


@pytest.mark.parametrize("trouble", [indexed, indexed_copy, from_an_older_release, unreadable])
async def test_where_nobody_is_sure_that_definitions_are_the_same_they_are_compared_again(
    rig: StepRig, trouble: Callable[[StepRig], str]
) -> None:
    await run_from(rig, "prepare", "stop")
    expected = trouble(rig)
    await run_from(rig, "back_up", "restore")
    if trouble is indexed_copy:
        assert "index later_idx: only on the target" in await given_up(rig)
        return
    found = await compared(rig)
    assert found.definitions == "read"
    assert expected in found.definitions_why


@pytest.mark.parametrize("of", ["pool", "dedicated"])
async def test_a_rehearsal_whose_catalogs_cannot_be_signed_is_a_rehearsal(rig: StepRig, of: str) -> None:
    signature = rig.site.verifier.signature

    async def unsigned(server: Any, *more: Any) -> str:
        if (server.id == rig.site.pool.id) == (of == "pool"):
            raise TimedOut("the catalogs are not read in 10 s")
        return await signature(server, *more)

    object.__setattr__(rig.site.verifier, "signature", unsigned)
    await run_from(rig, "prepare", "restore")
    found = await compared(rig)
    assert (found.how, found.definitions) == ("changed", "read")
    assert "no signature" in found.definitions_why


async def test_settings_which_no_signature_tells_of_are_compared_every_time(rig: StepRig) -> None:
    await run_from(rig, "prepare", "stop")
    copy_of(rig).settings = (("odoo_acme", "work_mem=1GB"),)
    await run_from(rig, "back_up", "restore")
    assert "setting" in await given_up(rig)


def spoil(rig: StepRig, table: str, *rows: Any) -> None:
    """Of the copy, after it has got its last changes."""
    reach, copy = rig.site.replicator.reach, copy_of(rig)

    async def spoilt(followed: Any, *limits: Any) -> Any:
        took = await reach(followed, *limits)
        copy.tables[table] = list(rows)
        return took

    object.__setattr__(rig.site.replicator, "reach", spoilt)


async def given_up(rig: StepRig) -> str:
    why = await (await rig.facts("restore")).recall(WARM_GIVEN_UP)
    assert why
    return why


async def test_the_first_decision_counts(rig: StepRig) -> None:
    await rig.run("prepare")
    chosen = await (await rig.facts("prepare")).recall(STRATEGY)
    assert chosen
    assert chosen.name == "warm"
