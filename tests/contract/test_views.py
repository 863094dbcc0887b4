"""Port `JournalViews`, held by the fake and by the journal's tables in PostgreSQL alike."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.facts import (
    FENCE,
    HEALTHY_AT,
    LET_GO_AT,
    NEW_PASSWORD,
    REHEARSAL,
    REPLICAS,
    SOURCE,
    STOPPED_AT,
    STRATEGY,
    WARM_GIVEN_UP,
    RecordedFacts,
)
from rehome_consumer.model import Fence, Secret, Strategy
from rehome_consumer.operators.moving_now import move_now
from rehome_consumer.ports.engine import UNMOVED, encode_for_outbox
from rehome_consumer.ports.operators import UnsentEvents
from rehome_events.envelope import event_id
from rehome_events.parts import Rehearsal
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.claims import FakeClaims
from tests.fakes.clock import FakeClock
from tests.fakes.inspection import FakeViews
from tests.fakes.journal import FakeJournal
from tests.support.events import body_of, emitted, failed, migration_of, rejected, replay_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.ports.engine import Claims, Journal, MigrationRow
    from rehome_consumer.ports.operators import JournalViews
    from rehome_events.envelope import CloudEvent
    from sandbox.postgres.server import Cluster


REHEARSED = Rehearsal(mode="full", database_bytes=2**30, dump_seconds=1, restore_seconds=2, compare_seconds=1)


@dataclass
class Stand:
    """A journal, who holds claims, and how operators see both."""

    journal: Journal
    claims: Claims
    views: JournalViews

    async def opened(self) -> MigrationRow:
        return await self.open(upgrade(uuid4()))

    async def open(self, event: CloudEvent[Any]) -> MigrationRow:
        return await self.journal.open(migration_of(event), event.data.instance_id, event, body_of(event))

    async def put_off(self, event: CloudEvent[Any], *, seconds: float) -> None:
        await self.journal.put_off(migration_of(event), event, timedelta(seconds=seconds))


@asynccontextmanager
async def journal_and_pool(pg: Cluster) -> AsyncIterator[tuple[str, PostgresJournal, Any]]:
    """The address of a state database, its journal, and a pool of it."""
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn) as journal,
        asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool,
    ):
        yield dsn, journal, pool


@pytest.fixture(scope="module")
async def real(pg: Cluster) -> AsyncIterator[Stand]:
    async with journal_and_pool(pg) as (dsn, journal, pool):

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            return await asyncpg.connect(dsn, timeout=10)

        async with aclosing(PostgresClaims(connect)) as claims:
            yield Stand(journal, claims, PostgresJournalViews(pool))


@pytest.fixture(params=["fake", "postgresql"])
def stand(request: pytest.FixtureRequest, real: Stand) -> Stand:
    if request.param == "postgresql":
        return real
    journal, claims = FakeJournal(FakeClock()), FakeClaims()
    return Stand(journal, claims, FakeViews(journal, claims))


async def test_a_migration_is_shown_with_the_step_it_is_at(stand: Stand) -> None:
    migration = await stand.opened()
    row = await stand.journal.begin(migration, "accept", replay=None)
    await stand.journal.wait(row, "no answer", timedelta(seconds=30))
    (view,) = await stand.views.migrations(migration.id)
    assert (view.instance_id, view.state, view.to_plan) == (migration.instance_id, "open", "premium-monthly")
    assert (view.step, view.step_state, view.tries, view.error) == ("accept", "waiting", 1, "no answer")
    assert await stand.views.migrations(migration.instance_id) == [view]
    assert await stand.views.by_ids([migration.id]) == [view]
    assert await stand.views.by_ids([]) == []
    assert [one["state"] for one in await stand.views.steps(migration.id)] == ["waiting"]


@pytest.mark.parametrize("state", sorted(UNMOVED))
async def test_ended_migrations_can_be_left_out_and_some_moved_nothing(stand: Stand, state: str) -> None:
    migration = await stand.opened()
    assert [one.id for one in await stand.views.newest_moves(migration.instance_id)] == [migration.id]
    row = await stand.journal.begin(migration, "accept", replay=None)
    event = emitted(rejected(migration.instance_id), migration.id)
    await stand.journal.finish(
        row, state=state, event=encode_for_outbox(event), reason="terminated", past_pivot=False
    )
    assert await stand.views.migrations(migration.id, ended=False) == []
    assert [one.ended for one in await stand.views.migrations(migration.id)] == [True]
    assert await stand.views.newest_moves(migration.instance_id) == []


async def test_moves_from_a_server_are_the_last_of_each_instance_and_what_left_it_and_is_open(
    stand: Stand,
) -> None:
    server, views = uuid4(), stand.views
    assert await views.moves_from(server, []) == []
    # an instance that was rolled back long ago, then rejected: the move counts
    undone = await stand.opened()
    row = await stand.journal.begin(undone, "accept", replay=None)
    event = encode_for_outbox(emitted(rejected(undone.instance_id), undone.id))
    await stand.journal.finish(row, state="rolled_back", event=event, reason="full", past_pivot=False)
    again = await stand.open(upgrade(undone.instance_id))
    row = await stand.journal.begin(again, "accept", replay=None)
    event = encode_for_outbox(emitted(rejected(again.instance_id), again.id))
    await stand.journal.finish(row, state="rejected", event=event, reason="no", past_pivot=False)
    # one whose record is on the server, and one that has left it and is not over
    open_, left, other = await stand.opened(), await stand.opened(), await stand.opened()
    for one, source in ((left, server), (other, uuid4())):
        row = await stand.journal.begin(one, "accept", replay=None)
        await stand.journal.facts(row).remember(SOURCE, source)
    found = await views.moves_from(server, [undone.instance_id, open_.instance_id, uuid4()])
    assert {(one.id, one.state, one.reason) for one in found} == {
        (undone.id, "rolled_back", "full"),
        (open_.id, "open", None),
        (left.id, "open", None),
    }


async def test_a_pause_is_one_for_all_and_every_order_is_kept(pg: Cluster) -> None:
    async with journal_and_pool(pg) as (_, journal, pool):
        views, event = PostgresJournalViews(pool), upgrade(uuid4())
        row = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
        facts = journal.facts(await journal.begin(row, "prepare", replay=None))
        assert (await views.paused(), await facts.paused()) == (None, None)
        assert not await views.order_pause("anna@host", "by mistake", paused=False)
        assert await views.order_pause("anna@host", "the storage is slow", paused=True)
        pause = await views.paused()
        assert pause is not None
        assert (pause.by, pause.why) == ("anna@host", "the storage is slow")
        assert await facts.paused() == pause
        # a second order changes nothing: who paused first is shown
        assert not await views.order_pause("bert@host", "me too", paused=True)
        assert await views.paused() == pause
        assert await views.order_pause("bert@host", "", paused=False)
        assert (await views.paused(), await facts.paused()) == (None, None)
        assert [(one["paused"], one["by"], one["why"]) for one in await views.pauses(9)] == [
            (False, "bert@host", ""),
            (True, "anna@host", "the storage is slow"),
        ]
        # two at the same moment are one
        both = await asyncio.gather(*(views.order_pause("carl@host", "", paused=True) for _ in range(4)))
        assert sorted(both) == [False, False, False, True]


async def test_a_move_is_let_go_for_its_present_attempt(pg: Cluster) -> None:
    async with journal_and_pool(pg) as (_, journal, pool):
        views, event = PostgresJournalViews(pool), upgrade(uuid4())
        with pytest.raises(NotFound, match="no migration of instance"):
            await move_now(views, event.data.instance_id, by="anna@host", why="")
        row = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
        facts = journal.facts(await journal.begin(row, "stop", replay=None))
        assert await facts.recall(LET_GO_AT) is None
        assert not await views.let_go(row.id, 2, "of another attempt")
        done = await move_now(views, row.instance_id, by="anna@host", why="the customer asked")
        assert (done.migration_id, done.pause) == (row.id, None)
        when = await facts.recall(LET_GO_AT)
        assert when is not None
        assert (await views.history(row.id))[-1]["detail"] == "by anna@host: the customer asked"
        await move_now(views, row.id, by="bert@host", why="")  # again: it is as it was
        assert await facts.recall(LET_GO_AT) == when
        await facts.remember(FENCE, Fence(-1, can_login=True, ended=0))
        with pytest.raises(Refused, match="has stopped its instance"):
            await move_now(views, row.id, by="anna@host", why="")


async def test_completed_moves_say_how_long_their_customers_were_down(pg: Cluster) -> None:
    async with journal_and_pool(pg) as (_, journal, pool):
        views, now = PostgresJournalViews(pool), datetime.now(UTC)
        assert await views.moved(9) == []
        for chosen, given_up, state in (
            (Strategy("cold", "so it is"), None, "completed"),
            (Strategy("warm", "so it is"), None, "completed"),
            (Strategy("warm", "so it is"), "it fell behind", "completed"),
            (Strategy("cold", "so it is"), None, "rolled_back"),
        ):
            event = upgrade(uuid4())
            row = await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))
            step = await journal.begin(row, "complete", replay=None)
            facts = journal.facts(step)
            await facts.remember(STRATEGY, chosen)
            if given_up:
                await facts.remember(WARM_GIVEN_UP, given_up)
            await facts.remember(REHEARSAL, REHEARSED)
            await facts.remember(STOPPED_AT, now)
            await facts.remember(HEALTHY_AT, now + timedelta(seconds=4.5))
            await journal.finish(step, state=state, event=None, reason=None, past_pivot=True)
        assert await views.moved(9) == [
            {"strategy": strategy, "bytes": REHEARSED.database_bytes, "downtime": 4.5}
            for strategy in ("cold", "warm", "cold")
        ]
        assert len(await views.moved(1)) == 1


async def test_a_journal_of_the_last_release_is_not_paused(pg: Cluster) -> None:
    async with journal_and_pool(pg) as (_, _, pool):
        await pool.execute("DROP TABLE rehome.pauses")
        views = PostgresJournalViews(pool)
        assert await views.paused() is None
        with pytest.raises(NotFound):
            await views.order_pause("anna@host", "", paused=True)


async def test_an_upgrade_that_waits_is_shown_since_when_behind_which_and_until_when(stand: Stand) -> None:
    # Given an open migration of an instance, and another upgrade that it holds up
    first = await stand.opened()
    second = upgrade(first.instance_id)
    await stand.put_off(second, seconds=1)
    (view,) = await stand.views.waiting(first.instance_id)
    assert (view.id, view.instance_id, view.state) == (migration_of(second), first.instance_id, "waiting")
    assert (view.step, view.step_state, view.to_plan) == ("accept", "waiting", "premium-monthly")
    assert view.error == f"migration {first.id} holds the instance (open): this upgrade waits for its end"
    assert (view.behind, view.ended) == (first.id, False)
    assert view.next_try_at == view.created_at + timedelta(seconds=1)
    # each deferral updates until when, and leaves since when
    await stand.put_off(second, seconds=60)
    (again,) = await stand.views.waiting(view.id)
    assert (again.created_at, again.next_try_at) == (
        view.created_at,
        again.updated_at + timedelta(seconds=60),
    )
    assert [one.id for one in await stand.views.waiting(first.id)] == [view.id]
    assert view.id in [one.id for one in await stand.views.waiting()]
    # and it is no migration yet
    assert [one.id for one in await stand.views.migrations(first.instance_id)] == [first.id]
    # When the first is over, then that is said
    row = await stand.journal.begin(first, "accept", replay=None)
    await stand.journal.finish(row, state="rejected", event=None, reason="no", past_pivot=False)
    (last,) = await stand.views.waiting(first.instance_id)
    assert last.error == f"migration {first.id} is over (rejected): this upgrade goes on at its next try"
    # Once it is opened it waits no more
    await stand.open(second)
    assert await stand.views.waiting(first.instance_id) == []


async def test_what_waits_for_no_other_migration_is_not_shown_as_waiting(stand: Stand) -> None:
    first = await stand.opened()
    event = upgrade(first.instance_id)
    # a copy of what opened the open one, and an upgrade of an instance without any
    await stand.journal.put_off(first.id, event, timedelta(seconds=1))
    await stand.journal.put_off(first.id, replay_of(event), timedelta(seconds=1))
    await stand.put_off(other := upgrade(uuid4()), seconds=1)
    assert await stand.views.waiting(first.instance_id) == []
    assert await stand.views.waiting(other.data.instance_id) == []
    # and a late copy of one that is over, while the next is open
    row = await stand.journal.begin(first, "accept", replay=None)
    await stand.journal.finish(row, state="rolled_back", event=None, reason="no", past_pivot=False)
    await stand.open(event)
    await stand.journal.put_off(first.id, event, timedelta(seconds=1))
    assert await stand.views.waiting(first.instance_id) == []
    # but a replay of it waits
    await stand.journal.put_off(first.id, replay_of(event), timedelta(seconds=1))
    assert [one.id for one in await stand.views.waiting(first.instance_id)] == [first.id]


async def test_an_upgrade_whose_event_was_lost_is_forgotten_when_another_one_of_the_instance_opens(
    stand: Stand,
) -> None:
    first = await stand.opened()
    lost, late, of_others = upgrade(first.instance_id), upgrade(first.instance_id), await stand.opened()
    await stand.put_off(lost, seconds=-3700)
    await stand.put_off(late, seconds=-60)
    await stand.put_off(elsewhere := upgrade(of_others.instance_id), seconds=-3700)
    row = await stand.journal.begin(first, "accept", replay=None)
    await stand.journal.finish(row, state="rejected", event=None, reason="no", past_pivot=False)
    await stand.open(upgrade(first.instance_id))
    assert [one.id for one in await stand.views.waiting(first.instance_id)] == [migration_of(late)]
    assert [one.id for one in await stand.views.waiting(of_others.instance_id)] == [migration_of(elsewhere)]


async def test_a_dead_letter_that_the_engine_recorded_is_shown_until_its_step_is_started_again(
    stand: Stand,
) -> None:
    async def recorded() -> list[tuple[str, str, str]]:
        dead_letters = [one for one in await stand.views.dead_letters() if one.migration_id == migration.id]
        assert all(one.since for one in dead_letters)
        return [(one.id, one.handler, one.reason) for one in dead_letters]

    migration = await stand.opened()
    await stand.journal.dead_lettered(uuid4(), 1, "stop", "none", "crashed")  # of no migration: nothing
    await stand.journal.dead_lettered(migration.id, 1, "stop", "m1", "crashed")
    await stand.journal.dead_lettered(migration.id, None, "accept", "m2", "crashed")  # of the present attempt
    await stand.journal.dead_lettered(migration.id, 1, "stop", "m3 \x00", "gave_up_waiting")
    assert {(one[1], one[2]) for one in await recorded()} == {
        ("stop", "gave_up_waiting"),
        ("accept", "crashed"),
    }
    # a consumer that lives deletes it, and so does the start of the step
    await stand.journal.not_dead_lettered(migration.id, None, "stop")
    assert await recorded() == [("m2", "accept", "crashed")]
    row = await stand.journal.begin(migration, "accept", replay=None)
    assert await recorded() == []
    # none is shown of another attempt, or of a migration that is over
    await stand.journal.dead_lettered(migration.id, 2, "stop", "m1", "crashed")
    assert await recorded() == []
    await stand.journal.dead_lettered(migration.id, 1, "stop", "m1", "crashed")
    await stand.journal.finish(row, state="rejected", event=None, reason="no", past_pivot=False)
    assert await recorded() == []


async def test_facts_are_shown_and_of_secrets_only_that_they_are_there(stand: Stand) -> None:
    migration = await stand.opened()
    facts = stand.journal.facts(await stand.journal.begin(migration, "accept", replay=None))
    await facts.remember(REPLICAS, 2)
    await facts.remember(NEW_PASSWORD, Secret("hidden"))
    assert await stand.views.facts(migration.id, 1) == RecordedFacts({"replicas": 2, "new_password": None})


async def test_the_holder_of_a_claim_is_shown(stand: Stand) -> None:
    instance, other = uuid4(), uuid4()
    async with stand.claims.claim(instance) as claim:
        assert claim
        found = await stand.views.holders([instance, other])
        assert list(found) == [instance]
        assert found[instance].address
    assert await stand.views.holders([instance]) == {}


async def test_unsent_events_are_shown_and_every_event_can_be_looked_up(stand: Stand) -> None:
    migration = await stand.opened()
    row = await stand.journal.begin(migration, "accept", replay=None)
    event = emitted(failed(migration.instance_id, "accept"), migration.id)
    await stand.journal.fail(row, state="failed", error="no", event=encode_for_outbox(event))
    (waiting,) = [one for one in await stand.views.unsent() if one.migration_id == migration.id]
    assert waiting == UnsentEvents(
        migration.id, migration.instance_id, waiting.count, waiting.since, event.type
    )
    assert waiting.count >= 1
    assert await stand.views.outbox_body(event_id(migration.id, 1, event.type)) is not None
    assert await stand.views.outbox_body(uuid4()) is None
    async with stand.journal.sending(migration.id) as sending:
        sending.confirmed += [one.seq for one in sending.rows]
    assert migration.id not in [one.migration_id for one in await stand.views.unsent()]


async def test_a_line_of_history_is_stored(stand: Stand) -> None:
    migration = await stand.opened()
    await stand.views.add_to_history(migration.id, "repaired by the doctor", "removed a file \x00")
    if isinstance(stand.views, PostgresJournalViews):
        last = (await stand.views.history(migration.id))[-1]
        assert (last["what"], last["detail"]) == ("repaired by the doctor", "removed a file  ")
    else:
        assert isinstance(stand.views, FakeViews)
        assert stand.views.noted


async def test_a_discarded_dead_letter_is_stored_once_however_often_it_is_asked_for(real: Stand) -> None:
    assert isinstance(real.views, PostgresJournalViews)
    dead_letter = {
        "message_id": str(uuid4()),
        "handler": "restore",
        "type_": "migration.conf_rewritten",
        "instance": None,
        "migration_id": None,
        "reason": "failed",
        "error": "no",
        "body": b"{}",
    }
    assert await real.views.discard(**dead_letter, why="tested")  # type: ignore[arg-type] # its values are of these types
    assert not await real.views.discard(**dead_letter, why="tested")  # type: ignore[arg-type] # as above
    assert await real.views.discard(**dead_letter, why="another reason")  # type: ignore[arg-type] # as above
    reasons = [one["why"] for one in await real.views.discards(10) if one["id"] == dead_letter["message_id"]]
    assert reasons == ["another reason", "tested"]
    other = str(uuid4())
    assert await real.views.discarded([str(dead_letter["message_id"]), other]) == {dead_letter["message_id"]}
    assert await real.views.discarded([]) == frozenset()


async def test_the_record_of_a_discarded_dead_letter_is_deleted(real: Stand) -> None:
    assert isinstance(real.views, PostgresJournalViews)
    first = await real.opened()
    second = upgrade(first.instance_id)
    await real.put_off(second, seconds=1)
    await real.journal.dead_lettered(first.id, 1, "accept", str(second.id), "crashed")
    await real.journal.dead_lettered(first.id, 1, "stop", str(second.id), "crashed")
    assert await real.views.discard(
        message_id=str(second.id), handler="accept", type_=second.type, instance=None, migration_id=None,
        reason="crashed", error="no", why="tested", body=b"{}",
    )  # fmt: skip
    assert await real.views.waiting(first.instance_id) == []
    handlers = [one.handler for one in await real.views.dead_letters() if one.migration_id == first.id]
    assert handlers == ["stop"]


async def test_a_journal_of_an_older_consumer_has_neither_waiting_upgrades_nor_dead_letters(
    pg: Cluster,
) -> None:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn),
        asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool,
    ):
        await pool.execute("DROP TABLE rehome.waiting, rehome.dead_letters")
        assert await PostgresJournalViews(pool).waiting() == []
        assert await PostgresJournalViews(pool).dead_letters() == []


async def test_a_database_without_a_journal_is_named_as_that(pg: Cluster) -> None:
    async with state_database(pg) as dsn, asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        with pytest.raises(NotFound, match="the journal is not there: does REHOME_STATE_DSN"):
            await PostgresJournalViews(pool).migrations()
