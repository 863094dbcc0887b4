"""One delivery through the engine: what is run, what is deferred, what is a dead letter, and what stays secret."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.outcome import EARLY_LIMIT
from rehome_consumer.errors import Refused, Transient, Unreachable
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import HANDLER, queue_of
from rehome_events.migration import MigrationPrepared
from tests.fakes.site import PASSWORD
from tests.support.events import CUSTOMER, migration_of, replay_of, upgrade
from tests.support.rig import CrashError, Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def put(rig: Rig, step: str, body: bytes, **fields: object) -> None:
    rig.node.route(HANDLER, step, Message(body=body, **fields))  # type: ignore[arg-type] # a test's own


def in_queue(rig: Rig, queue: str) -> list[Message]:
    return [stored.message for stored in rig.node.queues[queue].ready]


async def test_an_upgrade_is_carried_through_to_its_completion(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.published() == [event.TYPE for step in saga.MIGRATION[:-1] for event in step.emits[:1]]
    assert rig.node.waiting() == {"events": 9}
    assert rig.claims.held == {}
    assert await rig.journal.unsent() == []


async def test_a_defect_in_reading_a_delivery_makes_it_a_dead_letter_and_ends_no_consumer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OverflowError("date value out of range")

    monkeypatch.setattr("rehome_consumer.engine.inbound.decode", broken)
    rig.upgraded()
    await rig.run()
    assert rig.dead() == [("accept", "undecodable")]


async def test_events_of_a_migration_name_it_and_what_caused_them(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    requested, prepared = rig.events("migration.requested")[0], rig.events("migration.prepared")[0]
    assert (requested.migrationid, requested.attempt, requested.causationid) == (
        migration_of(event), 1, event.id,
    )  # fmt: skip
    assert prepared.causationid == requested.id


async def test_no_message_holds_a_secret(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("start.runtime.start.before", Refused(f"login refused, password={PASSWORD}"))
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    everything = rig.every_message()
    assert "admin-secret" not in everything
    assert PASSWORD not in everything
    assert rig.dead() == [("start", "failed")]


@pytest.mark.parametrize("step", [step.name for step in saga.MIGRATION[:-1]])
async def test_a_second_copy_of_a_step_s_event_changes_nothing(rig: Rig, step: str) -> None:
    event = rig.upgraded()
    await rig.run(until=step)
    found = rig.next_delivery(step)
    assert found
    copy = found[1].message
    found[1].return_to_queue()
    await rig.run()
    history, published = list(rig.journal.history), rig.published(distinct=False)
    put(rig, step, copy.body, content_type=copy.content_type)
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.journal.history == history
    assert rig.published(distinct=False) == published


async def test_a_copy_whose_event_was_committed_and_not_sent_sends_it(rig: Rig) -> None:
    rig.upgraded()
    rig.fail("accept.committed", CrashError())
    await rig.handle_next("accept")
    assert rig.published() == []
    await rig.handle_next("accept")
    assert rig.published() == ["migration.requested"]
    assert rig.journal.history[-1][2] == "accept done"


async def test_an_event_of_an_attempt_that_is_over_is_dropped(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    found = rig.next_delivery("stop")
    assert found
    stale = found[1]
    rig.fail("stop.runtime.begin_stop.before", Refused("no"))
    await rig.engine.handle(*found)
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    rig.replay(replay_of(event), "accept")
    await rig.run(until="prepare")
    before = rig.row(event)
    put(rig, "stop", stale.message.body, content_type=stale.message.content_type)
    await rig.handle_next("stop")
    assert rig.row(event) == before
    assert before.attempt == 2


async def test_an_event_that_comes_too_early_comes_back_later(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    found = rig.next_delivery("stop")
    assert found
    rig.journal.steps.pop((rig.row(event).id, 1, "prepare"))
    await rig.engine.handle(*found)
    (waiting,) = in_queue(rig, "migration.retry.1s")
    assert waiting.headers[headers.EARLY_RETURNS] == 1
    assert "what comes before stop" in waiting.headers[headers.ERROR]


async def test_an_event_that_stays_too_early_is_a_dead_letter_in_the_end(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    rig.journal.steps.pop((rig.row(event).id, 1, "prepare"))
    await rig.run()
    assert rig.dead() == [("stop", "gave_up_waiting")]
    assert rig.node.queues["migration.dead"].ready[0].message.headers[headers.EARLY_RETURNS] == EARLY_LIMIT


async def test_an_event_of_an_unknown_migration_is_a_dead_letter(rig: Rig) -> None:
    rig.upgraded()
    await rig.run(until="prepare")
    rig.journal.migrations.clear()
    await rig.handle_next("prepare")
    assert rig.dead() == [("prepare", "unknown_migration")]


async def test_an_upgrade_with_a_known_id_for_another_instance_is_a_dead_letter(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.handle_next("accept")
    other = upgrade(rig.site.add_tenant("other"), id=event.id)
    rig.publish(other)
    await rig.handle_next("accept")
    assert rig.dead() == [("accept", "unknown_migration")]
    assert rig.row(event).state == "requested"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"null",
        b"[1, 2]",
        b'{"specversion": "1.0", "type": "plan.upgr',
        b"{" * 100_000,
        b'{"specversion": "1.0", "type": "no.such.type", "id": 7}',
        b'"' + b"x" * 2_000_000 + b'"',
    ],
    ids=["empty", "binary", "null", "list", "cut short", "deep", "unknown type", "2 MB"],
)
async def test_what_cannot_be_read_is_a_dead_letter_that_says_why(rig: Rig, body: bytes) -> None:
    put(rig, "accept", body, headers={"x-death": [1], "odd": {"nested": b"\xff"}})
    await rig.handle_next("accept")
    assert rig.dead() == [("accept", "undecodable")]
    dead_letter = rig.node.queues["migration.dead"].ready[0].message
    assert dead_letter.body == body
    assert dead_letter.headers[headers.ERROR]
    assert dead_letter.headers[headers.FAILED_AT] == "2026-01-01T02:00:00+00:00"


async def test_an_event_in_the_wrong_queue_is_a_dead_letter(rig: Rig) -> None:
    rig.upgraded()
    await rig.run(until="prepare")
    message = in_queue(rig, queue_of("prepare"))[0]
    put(rig, "restore", message.body, content_type=message.content_type)
    await rig.handle_next("restore")
    assert rig.dead() == [("restore", "undecodable")]
    error = rig.node.queues["migration.dead"].ready[0].message.headers[headers.ERROR]
    assert error == "handler restore takes migration.conf_rewritten, not migration.requested"


async def test_a_delivery_whose_instance_is_being_handled_comes_back_and_is_no_try(rig: Rig) -> None:
    event = rig.upgraded()
    async with rig.claims.claim(rig.instance(event)):
        await rig.handle_next("accept")
    (waiting,) = in_queue(rig, "migration.retry.1s")
    assert waiting.headers[headers.DEFERRALS] == 1
    assert rig.journal.migrations == {}
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_waiting_for_a_busy_instance_takes_ever_longer_and_never_ends(rig: Rig) -> None:
    event = rig.upgraded()
    tiers = []
    async with rig.claims.claim(rig.instance(event)):
        for _ in range(100):
            await rig.handle_next("accept")
            tiers.append(next(name for name in rig.node.waiting() if name.startswith("migration.retry.")))
            rig.node.pass_delays()
    assert tiers[:6] == [f"migration.retry.{tier}" for tier in ("1s", "1s", "10s", "10s", "1m", "1m")]
    assert rig.dead() == []


async def test_an_upgrade_that_waits_behind_another_is_recorded_until_it_is_opened(rig: Rig) -> None:
    first = rig.upgraded()
    await rig.run(until="back_up")
    second = upgrade(rig.instance(first))
    rig.publish(second)
    await rig.handle_next("accept")
    (waiting,) = rig.journal.waiting.values()
    assert (waiting.migration_id, waiting.behind) == (migration_of(second), migration_of(first))
    assert waiting.next_try_at - waiting.since == timedelta(seconds=1)
    # also while a step of the other runs: the journal is not asked then
    rig.node.pass_delays()
    async with rig.claims.claim(rig.instance(first)):
        await rig.handle_next("accept")
    (again,) = rig.journal.waiting.values()
    assert (again.since, again.updated_at > waiting.updated_at) == (waiting.since, True)
    await rig.run()
    assert rig.row(second).state == "nothing_to_do"
    assert rig.journal.waiting == {}


async def test_a_record_that_cannot_be_written_delays_no_upgrade(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_: object) -> None:
        raise Unreachable("the state database does not answer")

    first = rig.upgraded()
    await rig.run(until="back_up")
    rig.publish(second := upgrade(rig.instance(first)))
    monkeypatch.setattr(rig.journal, "put_off", unreachable)
    await rig.handle_next("accept")
    (waiting,) = in_queue(rig, "migration.retry.1s")
    assert (waiting.message_id, waiting.headers[headers.DEFERRALS]) == (str(second.id), 1)


async def test_a_step_that_waits_for_another_delivery_is_no_upgrade_that_waits(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    async with rig.claims.claim(rig.instance(event)):
        await rig.handle_next("back_up")
    assert rig.journal.waiting == {}


async def test_a_claim_lost_in_mid_step_stops_the_step_and_nothing_is_committed(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    cancelled = []

    async def lose() -> None:
        rig.claims.cut(rig.claims.held[rig.instance(event)])
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    rig.at["back_up.copier.seal.before"] = [lose]
    await rig.handle_next("back_up")
    assert cancelled
    assert rig.row(event).state == "stopped"
    row = rig.journal.steps[rig.row(event).id, 1, "back_up"]
    assert (row.state, row.tries, row.deaths) == ("waiting", 0, 0)
    assert in_queue(rig, "migration.retry.1s")[0].headers[headers.DEFERRALS] == 1
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_a_step_that_runs_on_after_its_claim_is_lost_reaches_nothing_more(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    rig.at["stop.runtime.begin_stop.before"] = [lambda: rig.claims.cut(rig.claims.held[rig.instance(event)])]
    await rig.handle_next("stop")
    assert "stop.runtime.begin_stop.after" not in rig.seen
    assert rig.site.runtime.services["odoo-acme"].running
    assert rig.row(event).state == "prepared"


async def test_a_consumer_that_wakes_after_another_took_over_commits_nothing(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    zombie = rig.next_delivery("back_up")
    assert zombie

    async def taken_over() -> None:
        claim = rig.claims.held[rig.instance(event)]
        rig.claims.held.pop(rig.instance(event))  # the server gave it away; the zombie has not noticed
        put(rig, "back_up", zombie[1].message.body, content_type=zombie[1].message.content_type)
        await rig.handle_next("back_up")
        rig.claims.held.setdefault(rig.instance(event), claim)

    rig.at["back_up.ran"] = [taken_over]
    await rig.engine.handle(*zombie)
    assert [what for _, _, what in rig.journal.history].count("back_up done") == 1
    await rig.run()
    assert rig.row(event).state == "completed"
    assert len(rig.events("migration.backed_up")) == 1


@pytest.mark.parametrize("step", ["accept", "prepare", "stop"])
@pytest.mark.parametrize("done", [False, True])
async def test_a_consumer_that_wakes_after_its_look_starts_nothing(
    rig: Rig, step: str, done: bool, caplog: pytest.LogCaptureFixture
) -> None:
    event = rig.upgraded()
    await rig.run(until=step)
    zombie = rig.next_delivery(step)
    assert zombie

    async def taken_over() -> None:
        rig.claims.held.clear()  # the server gave it away; the zombie has not noticed
        put(rig, step, zombie[1].message.body, content_type=zombie[1].message.content_type)
        if not done:
            rig.fail(f"{step}.ran", CrashError())
        await rig.handle_next(step)

    rig.at[f"{step}.claimed"] = [taken_over]
    await rig.engine.handle(*zombie)
    assert "another consumer" in caplog.text
    row = rig.journal.steps[rig.row(event).id, 1, step]
    assert (row.state, row.runs) == ("done" if done else "running", 1)
    await rig.run()
    assert rig.row(event).state == "completed"
    assert [what for _, _, what in rig.journal.history].count(f"{step} done") == 1


async def test_a_publish_that_fails_after_the_commit_is_left_to_the_relay(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("publish.migration.requested.before", Unreachable("no broker"))
    delivery = await rig.handle_next("accept")
    assert delivery.acknowledged
    assert rig.published() == []
    assert [one.row.migration_id for one in rig.journal.outbox if one.sent is None] == [migration_of(event)]
    assert await rig.relay.sweep() == 0
    assert rig.published() == ["migration.requested"]


async def test_a_confirm_that_was_lost_leads_to_a_copy_with_the_same_id(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("publish.migration.requested.confirmed", CrashError())
    await rig.handle_next("accept")
    await rig.run()
    copies = rig.events("migration.requested")
    assert len(copies) == 2
    assert copies[0] == copies[1]
    assert rig.row(event).state == "completed"


async def test_without_broker_the_delivery_stays_unacknowledged(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("accept.platform.instance.before", Transient("no answer"))
    found = rig.next_delivery("accept")
    assert found
    rig.node.refusing = Unreachable("no broker")
    with pytest.raises(Unreachable):
        await rig.engine.handle(*found)
    assert not found[1].acknowledged
    rig.node.refusing = None
    await rig.engine.handle(*found)
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_without_journal_the_delivery_comes_back_and_is_no_try(rig: Rig) -> None:
    event = rig.upgraded()
    opening = rig.journal.open

    async def unreachable(*_: object) -> None:
        rig.journal.open = opening  # type: ignore[method-assign]
        raise Unreachable("state database: no answer")

    rig.journal.open = unreachable  # type: ignore[method-assign,assignment]
    delivery = await rig.handle_next("accept")
    assert delivery.acknowledged
    assert in_queue(rig, "migration.retry.1s")[0].headers[headers.ERROR] == "state database: no answer"
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_a_commit_whose_outcome_is_unknown_is_not_done_twice(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    finish = rig.journal.finish

    async def cut_off(*arguments: object, **named: object) -> None:
        rig.journal.finish = finish  # type: ignore[method-assign]
        await finish(*arguments, **named)  # type: ignore[arg-type] # as it came
        raise Unreachable("state database: connection was closed in the middle of operation")

    rig.journal.finish = cut_off  # type: ignore[assignment,method-assign]
    await rig.handle_next("stop")
    await rig.run()
    assert rig.row(event).state == "completed"
    assert [what for _, _, what in rig.journal.history].count("stop done") == 1


async def test_a_delivery_that_meets_a_defect_of_the_engine_is_deferred_and_a_dead_letter_in_the_end(
    rig: Rig,
) -> None:
    rig.upgraded()

    async def broken(*_: object) -> None:
        raise KeyError("a defect")

    rig.journal.open = broken  # type: ignore[method-assign,assignment]
    await rig.handle_next("accept")
    assert in_queue(rig, "migration.retry.1s")[0].headers[headers.EARLY_RETURNS] == 1
    await rig.run()
    assert rig.dead() == [("accept", "gave_up_waiting")]


async def test_a_step_that_is_shut_down_is_deferred_and_is_neither_a_try_nor_a_death(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    found = rig.next_delivery("back_up")
    assert found
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.sleep(3600)

    rig.at["back_up.copier.seal.before"] = [hang]
    handling = asyncio.create_task(rig.engine.handle(*found))
    await reached.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert found[1].acknowledged
    row = rig.journal.steps[rig.row(event).id, 1, "back_up"]
    assert (row.state, row.tries, row.deaths) == ("waiting", 0, 0)
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_a_result_that_makes_no_valid_event_fails_its_step(rig: Rig) -> None:
    event = rig.upgraded()
    rig.site.platform.servers[rig.site.pool.id]["postgres_version"] = "x" * 300
    await rig.run()
    assert rig.dead() == [("accept", "failed")]
    assert rig.row(event).state == "failed"
    assert rig.events("migration.failed")[0].data.next == "operator"


async def test_hostile_text_in_an_error_is_stored_and_published(rig: Rig) -> None:
    event = rig.upgraded()
    rig.fail("prepare.runtime.find.before", Refused("no\x00thing\n\ud800 ' \" % ../ {} 🐘"))
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert rig.events("migration.failed")[0].data.message == "no thing ? ' \" % ../ {} 🐘"


async def test_an_upgrade_of_an_unknown_instance_is_rejected(rig: Rig) -> None:
    event = upgrade(uuid4())
    rig.publish(event)
    await rig.run()
    assert rig.published() == ["migration.rejected"]
    assert rig.row(event).state == "rejected"


async def test_an_upgrade_that_finds_everything_as_it_should_be_emits_nothing(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run()
    again = upgrade(rig.instance(event))
    rig.publish(again)
    published = rig.published()
    await rig.run()
    assert rig.row(again).state == "nothing_to_do"
    assert rig.published() == published


async def test_two_upgrades_at_once_make_one_migration_and_the_second_is_decided_on_later(rig: Rig) -> None:
    first = rig.upgraded()
    second = upgrade(rig.instance(first))
    rig.publish(second)
    await rig.run()
    assert rig.row(first).state == "completed"
    assert rig.row(second).state == "nothing_to_do"
    assert rig.published().count("migration.requested") == 1


async def test_the_second_of_two_upgrades_is_carried_out_if_the_first_is_rolled_back(rig: Rig) -> None:
    first = rig.upgraded()
    second = upgrade(rig.instance(first))
    rig.publish(second)
    rig.fail("stop.runtime.begin_stop.before", Refused("no"))
    await rig.run()
    assert (rig.row(first).state, rig.row(second).state) == ("rolled_back", "completed")


async def test_upgrades_of_two_instances_do_not_meet(rig: Rig) -> None:
    first, second = rig.upgraded("one"), rig.upgraded("two")
    await rig.run()
    assert (rig.row(first).state, rig.row(second).state) == ("completed", "completed")


async def test_the_customer_of_another_instance_gets_nothing(rig: Rig) -> None:
    event = rig.upgraded(customer_id=uuid4())
    await rig.run()
    assert rig.row(event).state == "rejected"
    assert event.data.customer_id != CUSTOMER


async def test_a_step_knows_its_migration_and_the_reader_does_not(rig: Rig) -> None:
    from rehome_consumer.context import current_migration  # noqa: PLC0415 - one use

    event = rig.upgraded()
    found = []
    rig.at["accept.platform.instance.before"] = [lambda: found.append(current_migration.get())]
    await rig.handle_next("accept")
    assert found == [migration_of(event)]
    assert current_migration.get() is None


async def test_an_event_without_its_migration_is_a_dead_letter(rig: Rig) -> None:
    rig.upgraded()
    await rig.run(until="stop")
    body = in_queue(rig, queue_of("stop"))[0].body.replace(b'"migrationid"', b'"somethingelse"')
    assert MigrationPrepared.TYPE.encode() in body
    await rig.run()
    put(rig, "stop", body)
    await rig.handle_next("stop")
    assert rig.dead() == [("stop", "undecodable")]
