"""Port `Journal`: the same suite for the fake and for PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.command_slots import CommandFacts
from rehome_consumer.errors import ClaimLost
from rehome_consumer.facts import SOURCE
from rehome_consumer.ports.engine import ENDED, AnotherOpen, encode_for_outbox
from rehome_events.envelope import CONTENT_TYPE, decode
from sandbox.system.net import wait_until
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.support.events import AT, body_of, emitted, failed, migration_of, rejected, replay_of, upgrade
from tests.support.slots import got

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from rehome_consumer.ports.engine import Journal, MigrationRow, OutboxRow, StepRow
    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent
    from sandbox.postgres.server import Cluster


@pytest.fixture(scope="module")
async def real_journal(pg: Cluster) -> AsyncIterator[Journal]:
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        yield journal


@pytest.fixture(params=["fake", "postgresql"])
def journal(request: pytest.FixtureRequest, real_journal: Journal) -> Journal:
    return FakeJournal(FakeClock()) if request.param == "fake" else real_journal


async def opened(journal: Journal, event: CloudEvent[PlanUpgraded] | None = None) -> MigrationRow:
    event = event or upgrade(uuid4())
    return await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))


async def started(journal: Journal, migration: MigrationRow, step: str = "prepare") -> StepRow:
    return await journal.begin(await row_of(journal, migration.id), step, replay=None)


async def row_of(journal: Journal, migration_id: UUID) -> MigrationRow:
    row = await journal.migration(migration_id)
    assert row
    return row


async def step_of(journal: Journal, row: StepRow) -> StepRow:
    found = await journal.step(row.migration_id, row.attempt, row.step)
    assert found
    return found


async def finish(journal: Journal, row: StepRow, state: str = "prepared", event: Any = None) -> None:
    await journal.finish(row, state=state, event=event, reason=None, past_pivot=False)


async def rolled_back(journal: Journal, migration: MigrationRow) -> None:
    await finish(journal, await started(journal, migration, "roll_back"), "rolled_back")


async def unsent(journal: Journal, migration_id: UUID) -> list[str]:
    async with journal.sending(migration_id) as sending:
        return [row.routing_key for row in sending.rows]


async def test_an_upgrade_opens_a_migration_that_keeps_it_as_it_came(journal: Journal) -> None:
    event = upgrade(uuid4())
    row = await opened(journal, event)
    assert (row.instance_id, row.attempt, row.state) == (event.data.instance_id, 1, "open")
    assert not row.ended
    assert not row.past_pivot
    assert decode(row.trigger) == event
    assert await journal.migration(row.id) == row


async def test_a_second_copy_of_the_upgrade_finds_the_same_migration(journal: Journal) -> None:
    event = upgrade(uuid4())
    first = await opened(journal, event)
    await finish(journal, await started(journal, first, "accept"), "requested")
    second = await opened(journal, event)
    assert (second.id, second.state) == (first.id, "requested")


async def test_what_was_never_started_is_none(journal: Journal) -> None:
    row = await opened(journal)
    assert await journal.migration(uuid4()) is None
    assert await journal.step(row.id, 1, "accept") is None


async def test_another_upgrade_of_the_instance_waits_for_the_end_of_the_first(journal: Journal) -> None:
    first, second = upgrade(instance := uuid4()), upgrade(instance)
    migration = await opened(journal, first)
    with pytest.raises(AnotherOpen, match=str(migration.id)):
        await opened(journal, second)
    await finish(journal, await started(journal, migration, "accept"), "rejected")
    assert (await opened(journal, second)).state == "open"


async def test_of_many_upgrades_at_once_one_opens_a_migration(journal: Journal) -> None:
    instance = uuid4()
    answers = await asyncio.gather(
        *(opened(journal, upgrade(instance)) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(answer, AnotherOpen) for answer in answers) == 5


async def test_a_replay_opens_the_next_attempt_of_a_migration_that_was_rolled_back(journal: Journal) -> None:
    event = upgrade(uuid4())
    await rolled_back(journal, await opened(journal, event))
    row = await opened(journal, replay_of(event))
    assert (row.id, row.attempt, row.state, row.ended_at) == (migration_of(event), 2, "open", None)


async def test_what_was_only_opened_is_told_from_what_others_worked_on(journal: Journal) -> None:
    event = upgrade(uuid4())
    first = await opened(journal, event)
    assert first.only_opened_since(None)
    assert first.only_opened_since(first)
    await rolled_back(journal, first)
    known = await opened(journal, event)
    assert not known.only_opened_since(None)
    assert not known.only_opened_since(first)
    again = replay_of(event)
    second = await opened(journal, again)
    assert second.attempt == 2
    assert second.only_opened_since(known)
    await started(journal, second, "accept")
    assert not (await opened(journal, again)).only_opened_since(known)


async def test_a_copy_that_is_no_replay_opens_no_attempt(journal: Journal) -> None:
    event = upgrade(uuid4())
    await rolled_back(journal, await opened(journal, event))
    row = await opened(journal, event)
    assert (row.attempt, row.state) == (1, "rolled_back")


async def test_a_replay_opens_one_attempt_however_often_it_is_delivered(journal: Journal) -> None:
    event = upgrade(uuid4())
    await rolled_back(journal, await opened(journal, event))
    again = replay_of(event)
    await rolled_back(journal, await opened(journal, again))
    assert (await opened(journal, again)).attempt == 2
    assert (await opened(journal, replay_of(event))).attempt == 3


async def test_a_replay_that_opened_the_migration_does_not_open_it_again(journal: Journal) -> None:
    event = replay_of(upgrade(uuid4()))
    await rolled_back(journal, await opened(journal, event))
    assert (await opened(journal, event)).attempt == 1


async def test_a_replay_waits_while_another_migration_holds_the_instance(journal: Journal) -> None:
    first, second = upgrade(instance := uuid4()), upgrade(instance)
    await rolled_back(journal, await opened(journal, first))
    holder = await opened(journal, second)
    with pytest.raises(AnotherOpen, match=str(holder.id)):
        await opened(journal, replay_of(first))


async def test_a_replay_of_a_migration_under_way_changes_nothing(journal: Journal) -> None:
    event = upgrade(uuid4())
    row = await opened(journal, event)
    assert await opened(journal, replay_of(event)) == row


async def test_every_start_counts_a_run_and_takes_a_greater_token(journal: Journal) -> None:
    migration = await opened(journal)
    first = await started(journal, migration)
    second = await started(journal, migration)
    assert (first.runs, second.runs) == (1, 2)
    assert second.token > first.token
    assert await step_of(journal, second) == second


async def test_a_step_cannot_start_on_an_old_row_of_the_migration(journal: Journal) -> None:
    old = await opened(journal)
    row = await started(journal, old)
    with pytest.raises(ClaimLost, match=str(old.id)):
        await journal.begin(old, "prepare", replay=None)
    old = await row_of(journal, old.id)
    await finish(journal, row)
    with pytest.raises(ClaimLost):
        await journal.begin(old, "prepare", replay=None)
    assert (await step_of(journal, row)).state == "done"


async def test_a_run_that_ended_with_neither_result_nor_error_is_a_death(journal: Journal) -> None:
    migration = await opened(journal)
    assert (await started(journal, migration)).deaths == 0
    again = await started(journal, migration)
    assert again.deaths == 1
    await journal.wait(again, "no answer", timedelta(seconds=1))
    assert (await started(journal, migration)).deaths == 1


async def test_an_interrupted_run_is_neither_a_death_nor_a_try(journal: Journal) -> None:
    migration = await opened(journal)
    await journal.interrupted(await started(journal, migration), "no slot yet", timedelta(seconds=1))
    row = await started(journal, migration)
    assert (row.runs, row.tries, row.deaths, row.error) == (2, 0, 0, "no slot yet")


async def test_a_run_that_was_taken_over_and_lives_is_no_death(journal: Journal) -> None:
    migration = await opened(journal)
    slow = await started(journal, migration)
    newer = await started(journal, migration)
    await journal.interrupted(slow, "lost", timedelta(seconds=1))
    row = await step_of(journal, newer)
    assert (row.deaths, row.state, row.error) == (0, "running", None)


async def test_the_end_of_a_step_is_committed_with_its_event(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration, "accept")
    event = emitted(rejected(migration.instance_id), migration.id)
    await journal.finish(
        row, state="rejected", event=encode_for_outbox(event), reason="terminated", past_pivot=False
    )
    ended = await row_of(journal, migration.id)
    assert (ended.state, ended.ended, ended.reason) == ("rejected", True, "terminated")
    assert ended.ended_at is not None
    assert (await step_of(journal, row)).state == "done"
    async with journal.sending(migration.id) as sending:
        (out,) = sending.rows
    assert (out.exchange, out.routing_key) == ("migration", "migration.rejected")
    assert decode(out.message.body, out.message.content_type) == event
    assert (out.message.message_id, out.message.type) == (str(event.id), event.type)
    assert (out.message.correlation_id, out.message.app_id) == (str(migration.id), "migrations")
    assert (out.message.content_type, out.message.timestamp) == (CONTENT_TYPE, AT)


@pytest.mark.parametrize("state", [*sorted(ENDED), "prepared", "started", "failing", "failed"])
async def test_a_migration_has_an_end_in_the_states_that_end_it(journal: Journal, state: str) -> None:
    migration = await opened(journal)
    await finish(journal, await started(journal, migration), state)
    row = await row_of(journal, migration.id)
    assert (row.ended, row.ended_at is not None) == (state in ENDED, state in ENDED)


async def test_an_old_token_ends_nothing(journal: Journal) -> None:
    migration = await opened(journal)
    old = await started(journal, migration)
    new = await started(journal, migration)
    event = emitted(failed(migration.instance_id), migration.id)
    with pytest.raises(ClaimLost):
        await finish(journal, old, event=encode_for_outbox(event))
    with pytest.raises(ClaimLost):
        await journal.wait(old, "no answer", timedelta(seconds=1))
    with pytest.raises(ClaimLost):
        await journal.fail(old, state="failing", error="no", event=encode_for_outbox(event))
    assert (await row_of(journal, migration.id)).state == "open"
    assert await step_of(journal, new) == new
    assert await unsent(journal, migration.id) == []


async def test_a_step_ends_once(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    await finish(journal, row)
    with pytest.raises(ClaimLost):
        await finish(journal, row, "stopped")
    assert (await row_of(journal, migration.id)).state == "prepared"


async def test_the_point_of_no_return_stays_passed(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration, "start")
    await journal.finish(row, state="started", event=None, reason=None, past_pivot=True)
    await finish(journal, await started(journal, migration, "complete"), "completed")
    assert (await row_of(journal, migration.id)).past_pivot


async def test_a_try_that_did_not_succeed_is_counted_with_its_error(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    await journal.wait(row, "no answer", timedelta(seconds=10))
    waiting = await step_of(journal, row)
    assert (waiting.state, waiting.tries, waiting.error) == ("waiting", 1, "no answer")
    assert (await started(journal, migration)).tries == 1


async def test_a_failure_is_committed_with_its_event(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    event = emitted(failed(migration.instance_id), migration.id)
    await journal.fail(row, state="failing", error="no room", event=encode_for_outbox(event))
    step = await step_of(journal, row)
    assert (step.state, step.tries, step.error, step.dead_lettered) == ("failed", 1, "no room", False)
    failing = await row_of(journal, migration.id)
    assert (failing.state, failing.ended, failing.reason) == ("failing", False, "no room")
    assert await unsent(journal, migration.id) == ["migration.failed"]


async def test_a_confirmed_dead_letter_is_recorded(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    await journal.fail(row, state="failing", error="no", event=None)
    await journal.dead_letter_sent(row)
    assert (await step_of(journal, row)).dead_lettered


async def test_a_replay_resets_a_step_once(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    await journal.fail(row, state="failed", error="no", event=None)
    await journal.dead_letter_sent(row)
    replay = uuid4()
    row = await journal.begin(await row_of(journal, migration.id), "prepare", replay=replay)
    assert (row.runs, row.tries, row.deaths, row.dead_lettered, row.error) == (1, 0, 0, False, None)
    assert row.replays == (replay,)
    await journal.wait(row, "no answer", timedelta(seconds=1))
    row = await journal.begin(await row_of(journal, migration.id), "prepare", replay=replay)
    assert (row.runs, row.tries) == (2, 1)
    other = uuid4()
    row = await journal.begin(await row_of(journal, migration.id), "prepare", replay=other)
    assert (row.runs, row.tries, row.replays) == (1, 0, (replay, other))


async def test_a_replay_that_starts_a_step_for_the_first_time_is_recorded(journal: Journal) -> None:
    replay = uuid4()
    row = await journal.begin(await opened(journal), "accept", replay=replay)
    assert (row.runs, row.replays) == (1, (replay,))


async def test_the_next_attempt_begins_without_the_facts_and_steps_of_the_last(journal: Journal) -> None:
    event = upgrade(uuid4())
    migration = await opened(journal, event)
    await journal.facts(await started(journal, migration, "accept")).remember(SOURCE, uuid4())
    await rolled_back(journal, migration)
    again = await opened(journal, replay_of(event))
    facts = journal.facts(await started(journal, again, "accept"))
    assert await facts.recall(SOURCE) is None
    assert await facts.started() == {"accept"}


async def test_steps_that_were_started_and_the_time_of_those_that_ended_are_known(journal: Journal) -> None:
    migration = await opened(journal)
    await finish(journal, await started(journal, migration, "accept"), "requested")
    facts = journal.facts(await started(journal, migration, "prepare"))
    assert await facts.started() == {"accept", "prepare"}
    seconds = await facts.seconds_per_step()
    assert list(seconds) == ["accept"]
    assert seconds["accept"] >= 0


async def test_reporting_progress_never_fails(journal: Journal) -> None:
    facts = journal.facts(await started(journal, await opened(journal)))
    await facts.progress(10, 100)


async def two_events(journal: Journal) -> UUID:
    migration = await opened(journal)
    row = await started(journal, migration)
    await journal.fail(
        row,
        state="failing",
        error="no",
        event=encode_for_outbox(emitted(failed(migration.instance_id), migration.id)),
    )
    row = await started(journal, migration, "accept")
    await finish(
        journal, row, "rejected", encode_for_outbox(emitted(rejected(migration.instance_id), migration.id))
    )
    return migration.id


async def test_events_are_sent_in_the_order_of_their_commits(journal: Journal) -> None:
    migration_id = await two_events(journal)
    assert await unsent(journal, migration_id) == ["migration.failed", "migration.rejected"]


async def test_what_was_confirmed_is_not_sent_again(journal: Journal) -> None:
    migration_id = await two_events(journal)
    async with journal.sending(migration_id) as sending:
        sending.confirmed.append(sending.rows[0].seq)
    async with journal.sending(migration_id) as sending:
        assert [row.routing_key for row in sending.rows] == ["migration.rejected"]
        sending.confirmed.append(sending.rows[0].seq)
    assert await unsent(journal, migration_id) == []
    assert migration_id not in await journal.unsent()


async def in_hand(journal: Journal) -> tuple[OutboxRow, ...]:
    """The event of a step that has just ended."""
    migration = await opened(journal)
    row = await started(journal, migration, "accept")
    event = encode_for_outbox(emitted(rejected(migration.instance_id), migration.id))
    return await journal.finish(row, state="rejected", event=event, reason=None, past_pivot=False)


async def test_the_event_of_a_step_is_in_the_hand_of_who_ended_it(journal: Journal) -> None:
    (row,) = await in_hand(journal)
    assert row.migration_id not in await journal.unsent()
    async with journal.sending(row.migration_id) as sending:
        assert sending.rows == (row,)


async def test_an_event_in_two_versions_is_in_nobodys_hand(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration, "accept")
    event = encode_for_outbox(emitted(rejected(migration.instance_id), migration.id))
    (body,) = event.bodies.values()
    event = replace(event, bodies={**event.bodies, uuid4(): body})
    assert await journal.finish(row, state="rejected", event=event, reason=None, past_pivot=False) == ()
    assert migration.id in await journal.unsent()
    assert await unsent(journal, migration.id) == ["migration.rejected"] * 2


async def test_a_step_without_an_event_leaves_nothing_in_hand(journal: Journal) -> None:
    row = await started(journal, await opened(journal))
    assert await journal.finish(row, state="nothing_to_do", event=None, reason="no", past_pivot=False) == ()


async def test_an_event_waits_for_earlier_ones_that_nobody_has_in_hand(journal: Journal) -> None:
    migration = await opened(journal)
    event = encode_for_outbox(emitted(failed(migration.instance_id), migration.id))
    await journal.fail(await started(journal, migration), state="failing", error="no", event=event)
    row = await started(journal, migration, "accept")
    event = encode_for_outbox(emitted(rejected(migration.instance_id), migration.id))
    assert await journal.finish(row, state="rejected", event=event, reason=None, past_pivot=False) == ()
    assert await unsent(journal, migration.id) == ["migration.failed", "migration.rejected"]


async def test_confirms_are_recorded_by_themselves_or_with_the_start_of_any_step(journal: Journal) -> None:
    first, second = await in_hand(journal), await in_hand(journal)
    await journal.sent(first)
    assert await unsent(journal, first[0].migration_id) == []
    assert await unsent(journal, second[0].migration_id) == ["migration.rejected"]
    await journal.begin(await opened(journal), "accept", replay=None, sent=second)
    assert await unsent(journal, second[0].migration_id) == []


async def test_a_confirm_of_an_event_says_nothing_of_what_replaced_it_since(journal: Journal) -> None:
    migration = await opened(journal)
    for step in ("stop", "start"):
        row = await started(journal, migration, step)
        event = encode_for_outbox(emitted(failed(migration.instance_id, step), migration.id))
        put = await journal.finish(row, state="failed", event=event, reason="no", past_pivot=False)
        if step == "stop":
            before = put
    await journal.sent(before)
    async with journal.sending(migration.id) as sending:
        assert [decode(one.message.body).data.step for one in sending.rows] == ["start"]
        assert [(one.seq, one.revision) for one in sending.rows] == [(before[0].seq, 2)]


async def test_what_was_confirmed_before_a_crash_is_sent_again(journal: Journal) -> None:
    migration_id = await two_events(journal)

    async def crash() -> None:
        async with journal.sending(migration_id) as sending:
            sending.confirmed.append(sending.rows[0].seq)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await crash()
    assert await unsent(journal, migration_id) == ["migration.failed", "migration.rejected"]


async def test_events_of_one_migration_are_sent_by_one_at_a_time(journal: Journal) -> None:
    first, other = await two_events(journal), await two_events(journal)
    async with journal.sending(first) as sending:
        assert await unsent(journal, first) == []
        assert len(await unsent(journal, other)) == 2
        assert len(sending.rows) == 2


async def test_an_event_that_is_committed_again_is_sent_again_with_its_new_content(journal: Journal) -> None:
    migration = await opened(journal)
    row = await started(journal, migration)
    await journal.fail(
        row,
        state="failed",
        error="no",
        event=encode_for_outbox(emitted(failed(migration.instance_id), migration.id)),
    )
    async with journal.sending(migration.id) as sending:
        sending.confirmed.append(sending.rows[0].seq)
    row = await started(journal, migration)
    again = emitted(failed(migration.instance_id, "start"), migration.id)
    await journal.fail(row, state="failed", error="no", event=encode_for_outbox(again))
    async with journal.sending(migration.id) as sending:
        assert [decode(row.message.body).data.step for row in sending.rows] == ["start"]


async def test_sent_events_are_deleted_and_unsent_ones_are_not(journal: Journal) -> None:
    migration_id = await two_events(journal)
    async with journal.sending(migration_id) as sending:
        sending.confirmed.append(sending.rows[0].seq)
    await journal.purge(timedelta(hours=-1))
    assert await unsent(journal, migration_id) == ["migration.rejected"]


async def test_a_slot_is_held_by_so_many_migrations_at_a_time(journal: Journal) -> None:
    resource = f"dump {uuid4()}"
    first, second, third = [
        journal.facts(await started(journal, await opened(journal), "stop")) for _ in range(3)
    ]
    assert await got(first, resource, 2)
    assert await got(first, resource, 2)
    assert await got(second, resource, 2)
    assert not await got(third, resource, 2)
    assert await got(second, resource, 1)  # there are fewer places since
    assert await got(third, "another resource", 1)
    await first.release_slots([resource])
    await first.release_slots([resource])
    assert await got(third, resource, 2)


async def test_a_slot_of_a_command_counts_until_its_end_on_whatever_machine(pg: Cluster) -> None:
    async with state_database(pg) as dsn:
        made = [CommandFacts(lambda: asyncpg.connect(dsn)) for _ in range(3)]
        first, second, third = made
        try:
            # before a consumer ever ran
            assert await got(first, "rehearsal pool", 2)
            assert await got(second, "rehearsal pool", 2)
            assert await got(second, "rehearsal pool", 2)
            assert not await got(third, "rehearsal pool", 2)
            assert await got(third, "rehearsal of another pool", 1)
            async with postgres_journal(dsn) as journal:
                facts = journal.facts(await started(journal, await opened(journal)))
                assert not await got(facts, "rehearsal pool", 2)
                await first.release_slots(["rehearsal pool"])
                assert await got(facts, "rehearsal pool", 2)
                assert not await got(first, "rehearsal pool", 2)
                await second.aclose()  # as when it is killed
                await wait_until(
                    lambda: got(first, "rehearsal pool", 2),
                    what="its slot to be free",
                    limit=20,
                    pause=0.05,
                )
        finally:
            for one in made:
                await one.aclose()


async def test_a_slot_of_a_command_outlives_the_servers_patience_with_silent_sessions(pg: Cluster) -> None:
    """A rehearsal may take hours, and its slot's session says nothing meanwhile."""
    async with state_database(pg) as dsn, aclosing(CommandFacts(lambda: asyncpg.connect(dsn))) as held:
        asking = await asyncpg.connect(dsn)
        await asking.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_session_timeout = 300', current_database()); END $$"
        )
        await asking.close()
        assert await got(held, "rehearsal pool", 1)
        await asyncio.sleep(1)
        async with aclosing(CommandFacts(lambda: asyncpg.connect(dsn))) as other:
            assert not await got(other, "rehearsal pool", 1)


async def test_a_slot_is_free_after_the_end_of_its_migration(journal: Journal) -> None:
    resource = f"dump {uuid4()}"
    migration, other = await opened(journal), await opened(journal)
    facts, others = [journal.facts(await started(journal, one, "stop")) for one in (migration, other)]
    assert await got(facts, resource, 1)
    assert not await got(others, resource, 1)
    await rolled_back(journal, migration)
    assert await got(others, resource, 1)


async def test_a_migration_that_waits_for_an_operator_holds_no_slot(journal: Journal) -> None:
    waiting, other = await opened(journal), await opened(journal)
    row = await started(journal, waiting)
    resource = f"dump {uuid4()}"
    facts = journal.facts(await started(journal, other))
    assert await got(journal.facts(row), resource, 1)
    assert not await got(facts, resource, 1)
    await journal.fail(row, state="failed", error="no", event=None)
    assert await got(facts, resource, 1)


async def test_a_run_that_lost_the_migration_takes_no_slot(journal: Journal) -> None:
    migration = await opened(journal)
    facts = journal.facts(await started(journal, migration, "stop"))
    await started(journal, migration, "stop")
    with pytest.raises(ClaimLost):
        await got(facts, "dump", 1)
