"""What follows from a failure: retries, dead letters, rollbacks, operators, and crashes at every boundary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer import saga
from rehome_consumer.engine import exclusive_runs, headers
from rehome_consumer.engine.exclusive_runs import ASKED
from rehome_consumer.engine.running import DEATHS
from rehome_consumer.errors import Incompatible, Refused, Transient, Unreachable
from rehome_consumer.ports.engine import Message, encode_for_outbox
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER
from rehome_events.envelope import decode, encode
from rehome_events.migration import MigrationFailed
from tests.fakes.site import ORDERS
from tests.support.events import emitted, migration_of, replay_of
from tests.support.rig import CrashError, Rig

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_events.envelope import CloudEvent

FORWARD = [step.name for step in saga.MIGRATION[:-1]]
BEFORE_RETURN = ["prepare", "stop", "back_up", "provision", "rewrite_conf", "restore", "start"]
"""Steps whose failure is rolled back."""
IN_SHORT = {"stop", "restore", "start"}
"""Steps whose every boundary `make test` tries; `make test-long` tries the others', `make simulate` all at random."""
FIRST_CALL = "platform.instance.before"


def _quick(steps: list[str]) -> list[Any]:
    return [step if step in IN_SHORT else pytest.param(step, marks=pytest.mark.long) for step in steps]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def dead_event(rig: Rig) -> CloudEvent[Any]:
    """The event of the only dead letter."""
    (stored,) = rig.node.queues[DEAD].ready
    return decode(stored.message.body, stored.message.content_type, stored.message.headers)


def is_moved(rig: Rig, instance: UUID) -> None:
    """The instance serves from its dedicated server and from nowhere else."""
    host = f"postgres-dedicated-{instance.hex[:8]}"
    snapshot = rig.site.snapshot(instance)
    assert rig.site.writable(instance) == [host]
    assert snapshot["running"] == 1
    assert snapshot["record"]["db_host"] == host
    assert snapshot["service"]["env"]["ODOO_DATABASE_HOST"] == host
    assert [text.count(f"db_host = {host}".encode()) for text in snapshot["files"].values()] == [1]


async def test_what_fails_in_passing_is_tried_again_after_growing_delays(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"prepare.{FIRST_CALL}", Transient("no answer"), times=3)
    await rig.run(until="prepare")
    for number, tier in enumerate(("1s", "10s", "1m"), 1):
        await rig.handle_next("prepare")
        (stored,) = rig.node.queues[f"migration.retry.{tier}"].ready
        assert stored.message.headers[headers.TRIES] == number
        assert stored.message.headers[headers.ERROR] == "no answer"
        rig.node.pass_delays()
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_no_delay_is_longer_than_asked_for(rig: Rig) -> None:
    rig.upgraded()
    rig.engine = rig.new_engine(longest_retry="1s")
    rig.fail(f"accept.{FIRST_CALL}", Transient("no answer"), times=4)
    for _ in range(4):
        await rig.handle_next("accept")
        assert list(rig.node.waiting()) == ["migration.retry.1s"]
        rig.node.pass_delays()


async def test_a_retry_keeps_what_the_message_was(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"accept.{FIRST_CALL}", Transient("no answer"))
    delivery = await rig.handle_next("accept")
    (stored,) = rig.node.queues["migration.retry.1s"].ready
    assert stored.message.body == delivery.message.body
    assert stored.message.message_id == str(event.id)
    assert stored.message.headers[headers.EXCHANGE] == "billing"
    assert stored.message.headers[headers.ROUTING_KEY] == "plan.upgraded"
    assert stored.message.headers[headers.HANDLER] == "accept"


async def test_a_step_with_an_unknown_error_is_tried_three_times(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"prepare.{FIRST_CALL}", KeyError("a defect"), times=10)
    await rig.run()
    failed = rig.events("migration.failed")[0].data
    assert (failed.error, failed.tries) == ("KeyError", 3)
    assert failed.message == "KeyError: 'a defect'"
    assert rig.row(event).state == "rolled_back"


@pytest.mark.parametrize("step", BEFORE_RETURN)
async def test_used_up_tries_lead_to_a_dead_letter_and_a_rollback(rig: Rig, step: str) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    found = saga.named(step)
    assert found
    rig.fail(f"{step}.{FIRST_CALL}", Unreachable("no answer"), times=100)
    await rig.run()
    assert rig.dead() == [(step, "failed")]
    failed = rig.events("migration.failed")[0].data
    assert (failed.step, failed.error) == (step, "Unreachable")
    assert (failed.tries, failed.next) == (len(found.retries) + 1, "roll_back")
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(rig.instance(event)) == before


@pytest.mark.parametrize("step", BEFORE_RETURN)
async def test_a_refusal_is_rolled_back_at_once_and_the_world_is_as_before(rig: Rig, step: str) -> None:
    event = rig.upgraded()
    instance = rig.instance(event)
    rig.site.write(instance, 1)
    before = rig.site.snapshot(instance)
    rig.fail(f"{step}.{FIRST_CALL}", Incompatible("too old"))
    await rig.run()
    assert rig.published()[-2:] == ["migration.failed", "migration.rolled_back"]
    assert rig.row(event).state == "rolled_back"
    assert rig.dead() == [(step, "failed")]
    assert rig.site.snapshot(instance) == before
    assert rig.site.write(instance, 2)
    undone = rig.events("migration.rolled_back")[0].data
    assert undone.failed_step == step
    assert undone.leftovers == ()
    assert (undone.downtime_seconds is not None) is ("stop" in undone.undone and step != "stop")


async def test_a_stopped_instance_is_stopped_again_after_a_rollback(rig: Rig) -> None:
    instance = rig.site.add_tenant(replicas=0)
    event = rig_upgrade(rig, instance)
    before = rig.site.snapshot(instance)
    rig.fail("restore.copier.restore.before", Refused("no"))
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(instance) == before


async def test_a_stopped_instance_is_stopped_again_after_its_move(rig: Rig) -> None:
    instance = rig.site.add_tenant(replicas=0)
    event = rig_upgrade(rig, instance)
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.site.snapshot(instance)["running"] == 0
    assert rig.site.platform.instances[instance]["status"] == "stopped"


def writing(rig: Rig, instance: UUID) -> None:
    """A customer saves order 7."""
    assert rig.site.write(instance, 7)


def rig_upgrade(rig: Rig, instance: UUID) -> CloudEvent[Any]:
    from tests.support.events import upgrade  # noqa: PLC0415 - one use

    event = upgrade(instance)
    rig.publish(event)
    return event


async def test_a_rollback_is_refused_where_it_would_lose_what_users_wrote(rig: Rig) -> None:
    event = rig.upgraded()
    instance = rig.instance(event)
    rig.at["start.runtime.start.after"] = [lambda: writing(rig, instance)]
    rig.fail("start.platform.set_service.before", Refused("no"))
    await rig.run()
    assert rig.row(event).state == "failed"
    assert rig.dead() == [("start", "failed"), ("roll_back", "failed")]
    assert "something was written" in (rig.row(event).reason or "")
    assert rig.site.writable(instance) == []
    host = f"postgres-dedicated-{instance.hex[:8]}"
    assert rig.site.orders(instance)[host] == [7]


async def test_a_start_that_is_replayed_after_a_refused_rollback_goes_on(rig: Rig) -> None:
    event = rig.upgraded()
    instance = rig.instance(event)
    rig.at["start.runtime.start.after"] = [lambda: writing(rig, instance)]
    rig.fail("start.platform.set_service.before", Refused("no"))
    await rig.run()
    dead_letter = rig.node.queues[DEAD].ready[0].message
    rig.replay(replay_of(decode(dead_letter.body)), "start")
    await rig.run()
    assert rig.row(event).state == "completed"
    is_moved(rig, instance)
    host = f"postgres-dedicated-{instance.hex[:8]}"
    assert rig.site.orders(instance)[host] == [7]


async def test_access_is_not_opened_after_a_rollback_found_nothing_written(rig: Rig) -> None:
    event = rig.upgraded()
    instance = rig.instance(event)
    rig.fail("start.runtime.start.before", Refused("no"))
    rig.fail("roll_back.platform.restore_record.before", Refused("no"))
    await rig.run()
    assert rig.row(event).state == "failed"
    dead_letter = rig.node.queues[DEAD].ready[0].message
    rig.replay(replay_of(decode(dead_letter.body)), "start")
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.site.writable(instance) == [rig.site.pool.host]


async def test_past_the_point_of_no_return_an_operator_decides(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"complete.{FIRST_CALL}", Refused("no"))
    await rig.run()
    assert rig.row(event).state == "failed"
    assert rig.row(event).past_pivot
    assert rig.dead() == [("complete", "failed")]
    assert rig.events("migration.failed")[0].data.next == "operator"
    is_moved_and_kept = rig.site.writable(rig.instance(event))
    assert is_moved_and_kept == [f"postgres-dedicated-{rig.instance(event).hex[:8]}"]


async def test_a_dead_letter_that_is_replayed_goes_on_where_it_failed(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"complete.{FIRST_CALL}", Refused("no"))
    await rig.run()
    rig.replay(replay_of(dead_event(rig)), "complete")
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.row(event).attempt == 1
    is_moved(rig, rig.instance(event))


async def test_a_replay_has_all_tries_again_and_a_second_delivery_of_it_has_none(rig: Rig) -> None:
    event = rig.upgraded()
    complete = saga.named("complete")
    assert complete
    tries = len(complete.retries) + 1
    rig.fail(f"complete.{FIRST_CALL}", Transient("no answer"), times=3 * tries)
    await rig.run()
    replay = replay_of(dead_event(rig))
    rig.replay(replay, "complete")
    await rig.run()
    assert len(rig.at[f"complete.{FIRST_CALL}"]) == tries
    assert len(rig.dead()) == 2
    rig.replay(replay, "complete")
    await rig.run()
    assert len(rig.at[f"complete.{FIRST_CALL}"]) == tries
    assert len(rig.dead()) == 2
    assert rig.row(event).state == "failed"


async def test_a_replay_of_a_migration_that_was_rolled_back_opens_its_second_attempt(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("restore.copier.restore.before", Refused("no"))
    await rig.run()
    rig.replay(replay_of(event), "accept")
    await rig.run()
    row = rig.row(event)
    assert (row.state, row.attempt) == ("completed", 2)
    is_moved(rig, rig.instance(event))
    ids = {one.id for one in rig.events("migration.requested")}
    assert len(ids) == 2


async def test_a_replay_of_the_failed_step_of_a_migration_that_was_rolled_back_changes_nothing(
    rig: Rig,
) -> None:
    event = rig.upgraded()
    rig.fail("restore.copier.restore.before", Refused("no"))
    await rig.run()
    before = rig.row(event)
    rig.replay(replay_of(dead_event(rig)), "restore")
    await rig.run()
    assert rig.row(event) == before


async def test_a_replay_of_a_completed_migration_changes_nothing(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run()
    before, published = rig.row(event), rig.published()
    rig.replay(replay_of(event), "accept")
    await rig.run()
    assert rig.row(event) == before
    assert rig.published() == published


async def test_a_rollback_is_tried_again_until_it_succeeds(rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    rig.fail("restore.copier.restore.before", Refused("no"))
    rig.fail("roll_back.databases.unfence.before", Unreachable("no answer"), times=9)
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(rig.instance(event)) == before


async def test_a_rollback_that_fails_is_a_dead_letter_and_may_be_replayed(rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    rig.fail("restore.copier.restore.before", Refused("no"))
    rig.fail("roll_back.databases.unfence.before", Unreachable("no answer"), times=11)
    await rig.run()
    assert rig.row(event).state == "failed"
    assert rig.dead() == [("restore", "failed"), ("roll_back", "failed")]
    assert len(rig.events("migration.failed")) == 1
    dead_letter = rig.node.queues[DEAD].ready[1].message
    rig.replay(replay_of(decode(dead_letter.body)), "roll_back")
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(rig.instance(event)) == before


async def test_an_operator_may_roll_back_a_migration_under_way(rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    await rig.run(until="restore")
    row = rig.row(event)
    failure = MigrationFailed(
        instance_id=row.instance_id,
        step="rewrite_conf",
        error="Operator",
        message="asked for",
        tries=1,
        next="roll_back",
    )
    await rig.journal.ask_roll_back(row, encode_for_outbox(emitted(failure, row.id)), "asked for")
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.site.snapshot(rig.instance(event)) == before


async def test_a_forward_step_that_waits_does_not_run_into_a_rollback_that_failed(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("restore.databases.ownership_tag.before", Unreachable("no answer"))
    await rig.run(until="restore")
    await rig.handle_next("restore")
    row = rig.row(event)
    failure = MigrationFailed(
        instance_id=row.instance_id, step="restore", error="Operator", message="x", tries=1, next="roll_back"
    )  # fmt: skip
    await rig.journal.ask_roll_back(row, encode_for_outbox(emitted(failure, row.id)), "asked for")
    await rig.relay.sweep()
    rig.fail("roll_back.databases.unfence.before", Refused("no"))
    await rig.handle_next("roll_back")
    assert rig.row(event).state == "failed"
    history = list(rig.journal.history)
    rig.node.pass_delays()
    await rig.handle_next("restore")
    assert rig.journal.history == history


async def test_a_dead_letter_that_a_crash_prevented_is_written_later(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"restore.{FIRST_CALL}", Refused("no"))
    rig.fail("restore.failure_committed", CrashError())
    await rig.run(until="restore")
    found = rig.next_delivery("restore")
    assert found
    with pytest.raises(CrashError):
        await rig.engine.handle(*found)
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.dead() == []
    found[1].return_to_queue()  # the broker notices the crash only now
    await rig.run()
    assert rig.dead() == [("restore", "failed")]


async def test_a_failure_is_published_though_dead_letters_cannot_be_written_for_a_while(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"restore.{FIRST_CALL}", Refused("no"))
    rig.at["restore.failure_committed"] = [lambda: setattr(rig.node, "refusing", Unreachable("no broker"))]
    await rig.run(until="restore")
    await rig.handle_next("restore")
    rig.node.refusing = None
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.dead() == [("restore", "failed")]


async def test_a_step_that_kills_the_consumer_repeatedly_fails(rig: Rig) -> None:
    event = rig.upgraded()
    before = rig.site.snapshot(rig.instance(event))
    rig.fail("restore.copier.restore.before", CrashError(), times=100)
    await rig.run()
    assert len(rig.at["restore.copier.restore.before"]) == 100 - DEATHS
    assert rig.row(event).state == "rolled_back"
    assert "died in step restore again and again" in rig.events("migration.failed")[0].data.message
    assert rig.dead() == [("restore", "failed")]
    assert rig.site.snapshot(rig.instance(event)) == before


async def test_a_run_that_consumers_died_in_waits_for_the_others_to_end_and_is_deferred(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive_runs, "WAIT_SECONDS", 0.01)
    event = rig.upgraded()
    rig.fail("restore.copier.restore.before", CrashError(), times=2)
    await rig.run(until="restore")
    for _ in range(2):
        await rig.handle_next("restore")
    async with rig.engine._tries.gate.beside():
        await rig.handle_next("restore")
    assert rig.seen[-2:] == ["restore.deferral_published", "restore.acked"]
    row = rig.journal.steps[migration_of(event), 1, "restore"]
    assert (row.state, row.deaths) == ("running", 1)  # not started a third time
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_a_run_that_never_gets_to_be_alone_runs_beside_others_in_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive_runs, "WAIT_SECONDS", 0.01)
    event = rig.upgraded()
    rig.fail("restore.copier.restore.before", CrashError(), times=2)
    await rig.run(until="restore")
    async with rig.engine._tries.gate.beside():
        await rig.run()
    assert rig.seen.count("restore.deferral_published") == ASKED
    assert rig.row(event).state == "completed"


async def test_the_broker_makes_a_dead_letter_of_what_kills_the_consumer_before_its_step_starts(
    rig: Rig,
) -> None:
    rig.upgraded()
    rig.fail("accept.claimed", CrashError(), times=100)
    await rig.run()
    assert len(rig.at["accept.claimed"]) == 100 - 6
    assert rig.dead() == [("accept", "None")]


async def test_a_dead_letter_keeps_the_message_and_says_what_happened(rig: Rig) -> None:
    rig.upgraded()
    rig.fail(f"stop.{FIRST_CALL}", Refused("no service"))
    await rig.run()
    (stored,) = rig.node.queues[DEAD].ready
    carried = stored.message.headers
    assert (carried[headers.HANDLER], carried[headers.REASON]) == ("stop", "failed")
    assert carried[headers.ERROR] == "no service"
    assert (carried[headers.EXCHANGE], carried[headers.ROUTING_KEY]) == ("migration", "migration.prepared")
    assert decode(stored.message.body) == rig.events("migration.prepared")[0]


async def run_with(rig: Rig, boundary: str, error: BaseException) -> tuple[CloudEvent[Any], bool]:
    """A migration with one order, and `error` once at `boundary`; also whether it was reached."""
    event = rig.upgraded()
    rig.site.write(rig.instance(event), 1)
    rig.fail(boundary, error)
    await rig.run()
    return event, not rig.at[boundary]


async def boundaries(step: str) -> list[str]:
    """Every boundary that an undisturbed migration passes in this step, each once."""
    rig = Rig()
    rig.upgraded()
    await rig.run()
    of_step = [at for at in rig.seen if at.startswith(f"{step}.")]
    published = [f"publish.{kind.TYPE}" for found in (saga.named(step),) if found for kind in found.emits]
    return list(dict.fromkeys(of_step + [at for at in rig.seen if at.rpartition(".")[0] in published]))


@pytest.mark.parametrize("step", _quick(FORWARD))
async def test_a_crash_at_any_boundary_of_a_step_does_no_harm(step: str) -> None:
    places = await boundaries(step)
    assert len(places) > 10
    for place in places:
        rig = Rig()
        event, reached = await run_with(rig, place, CrashError())
        assert reached, place
        assert rig.row(event).state == "completed", place
        assert rig.dead() == [], place
        is_moved(rig, rig.instance(event))
        assert rig.site.orders(rig.instance(event)) == {
            key: [1] for key in rig.site.orders(rig.instance(event))
        }
        assert rig.published() == [kind.TYPE for one in saga.MIGRATION[:-1] for kind in one.emits[:1]], place


@pytest.mark.parametrize("step", _quick(FORWARD))
async def test_a_call_that_fails_though_it_did_its_work_does_no_harm(step: str) -> None:
    for place in await boundaries(step):
        if not place.endswith(".after"):
            continue
        rig = Rig()
        event, reached = await run_with(rig, place, Unreachable("no answer"))
        assert reached, place
        assert rig.row(event).state == "completed", place
        is_moved(rig, rig.instance(event))


@pytest.mark.parametrize("step", _quick(BEFORE_RETURN))
async def test_a_refusal_anywhere_in_a_step_is_rolled_back_without_loss(step: str) -> None:
    for place in await boundaries(step):
        if not place.endswith((".before", ".after")) or place.startswith("publish."):
            continue
        rig = Rig()
        instance = rig.site.add_tenant()
        rig.site.write(instance, 1)
        before = rig.site.snapshot(instance)
        event = rig_upgrade(rig, instance)
        rig.fail(place, Refused("no"))
        await rig.run()
        assert rig.row(event).state == "rolled_back", place
        assert rig.site.snapshot(instance) == before, place
        assert rig.dead() == [(step, "failed")], place


@pytest.mark.parametrize("failing", _quick(["prepare", "stop", "restore", "start"]))
async def test_a_crash_at_any_boundary_of_a_rollback_does_no_harm(failing: str) -> None:
    places = await rollback_boundaries(failing)
    assert len(places) > 5
    for place in places:
        rig = Rig()
        instance = rig.site.add_tenant()
        rig.site.write(instance, 1)
        before = rig.site.snapshot(instance)
        event = rig_upgrade(rig, instance)
        rig.fail(f"{failing}.{FIRST_CALL}", Refused("no"))
        rig.fail(place, CrashError())
        await rig.run()
        assert not rig.at[place], place
        assert rig.row(event).state == "rolled_back", place
        assert rig.site.snapshot(instance) == before, place
        assert rig.events("migration.rolled_back")[0].data.leftovers == (), place


async def rollback_boundaries(failing: str) -> list[str]:
    rig = Rig()
    rig.upgraded()
    rig.fail(f"{failing}.{FIRST_CALL}", Refused("no"))
    await rig.run()
    first = rig.seen.index(f"{failing}.failure_committed")
    return list(dict.fromkeys(rig.seen[first:]))


async def test_the_migration_s_failure_keeps_one_id_whatever_fails_how_often(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail(f"complete.{FIRST_CALL}", Refused("no"), times=2)
    await rig.run()
    rig.replay(replay_of(dead_event(rig)), "complete")
    await rig.run()
    assert len({one.id for one in rig.events("migration.failed")}) == 1
    assert rig.row(event).state == "failed"


async def test_a_row_of_the_source_is_never_changed_by_a_migration(rig: Rig) -> None:
    event = rig.upgraded()
    rig.site.write(rig.instance(event), 1)
    there = rig.site.world.at(rig.site.pool)
    tables = {name: list(rows) for name, rows in there.databases["acme"].tables.items()}
    await rig.run()
    assert there.databases["acme"].tables == tables
    assert tables[ORDERS] == [(1,)]
    assert not there.roles["odoo_acme"].can_login


async def test_an_old_message_of_a_known_step_that_says_nothing_new_is_dropped(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run()
    body = encode(rig.events("migration.failed")[0]) if rig.events("migration.failed") else b""
    assert body == b""
    failure = emitted(
        MigrationFailed(
            instance_id=rig.instance(event), step="stop", error="X", message="x", tries=1, next="roll_back"
        ),
        migration_of(event),
    )
    rig.node.route(HANDLER, "roll_back", Message.of_event(encode(failure)))
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.dead() == []
