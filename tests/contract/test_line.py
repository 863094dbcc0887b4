"""Those who wait for slots, in line: the same suite for the fake journal and for PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.errors import ClaimLost, NotFound, Refused
from rehome_consumer.facts import FENCE
from rehome_consumer.model import Fence
from rehome_consumer.model.line import GRACE, LEVEL, NEXT, OFTEN, SELDOM
from rehome_consumer.operators.prioritizing import prioritize
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.claims import FakeClaims
from tests.fakes.clock import FakeClock
from tests.fakes.inspection import FakeViews
from tests.fakes.journal import FakeJournal
from tests.support.events import body_of, migration_of, replay_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta
    from uuid import UUID

    from rehome_consumer.model import InLine
    from rehome_consumer.ports.engine import Journal, StepRow
    from rehome_consumer.ports.operators import JournalViews, MigrationView
    from rehome_consumer.ports.steps import Facts
    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent
    from sandbox.postgres.server import Cluster

PASSED = """
UPDATE rehome.slot_waiters
SET since = since - $1::interval, looked_at = looked_at - $1::interval, called_at = called_at - $1::interval
"""
LATE = OFTEN + GRACE + GRACE


@dataclass
class Mover:
    """A migration at a step that needs slots."""

    event: CloudEvent[PlanUpgraded]
    row: StepRow
    facts: Facts

    @property
    def id(self) -> UUID:
        return self.row.migration_id


class Stand:
    """A journal, and time that a test moves.

    Attributes:
        slot: a resource of this test's own.
    """

    def __init__(
        self, journal: Journal, views: JournalViews, pool: asyncpg.Pool[asyncpg.Record] | None
    ) -> None:
        self.journal = journal
        self.views = views
        self.pool = pool
        self.slot = f"dump {uuid4()}"

    async def mover(self, priority: int | None = None) -> Mover:
        event = upgrade(uuid4(), priority=priority)
        migration = await self.journal.open(
            migration_of(event), event.data.instance_id, event, body_of(event)
        )
        row = await self.journal.begin(migration, "stop", replay=None)
        return Mover(event, row, self.journal.facts(row))

    async def look(self, mover: Mover, *others: str, places: int = 1) -> InLine | None:
        """For a slot, and others that it needs with it; a second later."""
        await self.later(OFTEN / 10)
        return await mover.facts.acquire_slots(dict.fromkeys((self.slot, *others), places))

    async def later(self, passed: timedelta) -> None:
        if self.pool is None:
            assert isinstance(self.journal, FakeJournal)
            assert isinstance(self.journal.clock, FakeClock)
            self.journal.clock.advance(passed.total_seconds())
        else:
            await self.pool.execute(PASSED, passed)

    async def view(self, mover: Mover) -> MigrationView:
        (found,) = await self.views.by_ids([mover.id])
        return found


@pytest.fixture(scope="module")
async def dsn(pg: Cluster) -> AsyncIterator[str]:
    async with state_database(pg) as made:
        yield made


@pytest.fixture(params=["fake", "postgresql"])
async def stand(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Stand]:
    if request.param == "fake":
        journal = FakeJournal(FakeClock())
        yield Stand(journal, FakeViews(journal, FakeClaims()), None)
        return
    async with postgres_journal(dsn) as real, asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        yield Stand(real, PostgresJournalViews(pool), pool)


async def test_who_has_waited_longest_goes_first(stand: Stand) -> None:
    holder, first, second = [await stand.mover() for _ in range(3)]
    assert await stand.look(holder) is None
    place = await stand.look(first)
    assert place is not None
    assert (place.place, place.of, place.lacks, place.soon) == (1, 1, stand.slot, True)
    place = await stand.look(second)
    assert place is not None
    assert (place.place, place.of) == (2, 2)
    await holder.facts.release_slots([stand.slot])
    place = await stand.look(second)
    assert place is not None
    assert (place.place, place.of, place.lacks) == (2, 2, None)
    assert await stand.look(first) is None
    assert await stand.look(second) is not None
    await first.facts.release_slots([stand.slot])
    assert await stand.look(second) is None


async def test_a_higher_priority_goes_first(stand: Stand) -> None:
    holder, low, normal, high = [await stand.mover(priority) for priority in (4, 0, None, 9)]
    assert await stand.look(holder) is None
    for one in (low, normal, high):
        assert await stand.look(one) is not None
    for one in (normal, low, high):
        assert await stand.look(one) is not None
    assert [(await stand.view(one)).place_in_line for one in (low, normal, high)] == [3, 2, 1]
    assert [(await stand.view(one)).priority for one in (low, normal, high)] == [0, 4, 9]
    assert (await stand.view(low)).length_of_line == 3
    assert (await stand.view(holder)).place_in_line is None
    for one in (high, normal, low):
        await holder.facts.release_slots([stand.slot])
        others = [other for other in (low, normal, high) if other is not one]
        for other in others:
            if (await stand.view(other)).place_in_line:
                assert await stand.look(other) is not None
        assert await stand.look(one) is None
        holder = one


async def test_a_level_of_priority_is_worth_as_much_as_half_a_day_of_waiting(stand: Stand) -> None:
    holder, low, high = [await stand.mover(priority) for priority in (4, 4, 5)]
    assert await stand.look(holder) is None
    assert await stand.look(low) is not None
    await stand.later(LEVEL - OFTEN)
    place = await stand.look(high)
    assert place is not None
    assert place.place == 1
    third = await stand.mover(5)
    await stand.later(OFTEN + OFTEN)
    place = await stand.look(third)
    assert place is not None
    assert place.place == 3  # the low one has waited so much longer by now


async def test_the_lowest_is_served_after_four_and_a_half_days_of_nothing_but_the_highest(
    stand: Stand,
) -> None:
    """One of the highest comes each hour, and has the slot for an hour."""
    low, holder = await stand.mover(0), await stand.mover(9)
    assert await stand.look(holder) is None
    assert await stand.look(low) is not None
    hours = 0
    while hours < 200:
        hours += 1
        high = await stand.mover(9)
        assert await stand.look(high) is not None
        await stand.later(LEVEL / 12)
        await holder.facts.release_slots([stand.slot])
        if await stand.look(low) is None:
            break
        assert await stand.look(high) is None
        holder = high
    assert hours / 24 == pytest.approx(4.5, abs=0.1)


async def test_who_is_called_and_does_not_look_is_passed_over(stand: Stand) -> None:
    holder, gone, next_one = [await stand.mover() for _ in range(3)]
    for one in (holder, gone, next_one):
        await stand.look(one)
    await holder.facts.release_slots([stand.slot])
    assert await stand.look(next_one) is not None  # calls it
    assert await stand.look(next_one) is not None
    await stand.later(LATE)
    assert await stand.look(next_one) is None
    # it comes back, and is the first again, since it kept its age
    last = await stand.mover()
    assert await stand.look(last) is not None
    place = await stand.look(gone)
    assert place is not None
    assert (place.place, place.of) == (1, 2)


async def test_who_comes_when_it_is_called_is_not_passed_over(stand: Stand) -> None:
    holder, first, second = [await stand.mover() for _ in range(3)]
    for one in (holder, first, second):
        await stand.look(one, "down")
    await holder.facts.release_slots([stand.slot])  # and not the other: so the first cannot go either
    for _ in range(3):
        await stand.later(LATE / 2)
        for one in (second, first):
            assert await stand.look(one, "down") is not None
    await holder.facts.release_slots(["down"])
    await stand.later(LATE / 2)
    assert await stand.look(second, "down") is not None
    assert await stand.look(first, "down") is None
    await first.facts.release_slots([stand.slot, "down"])


async def test_one_that_was_kept_from_looking_passes_over_nobody_until_it_looks_again(stand: Stand) -> None:
    """Its consumers were at work on others for an hour, so that nobody had the chance to look."""
    holder, first, second = [await stand.mover() for _ in range(3)]
    for one in (holder, first, second):
        await stand.look(one)
    await holder.facts.release_slots([stand.slot])
    assert await stand.look(second) is not None
    await stand.later(60 * SELDOM)
    assert await stand.look(second) is not None
    assert await stand.look(first) is None


async def test_one_that_waits_for_something_else_leaves_the_line_and_keeps_its_age(stand: Stand) -> None:
    holder, paused, second = [await stand.mover() for _ in range(3)]
    for one in (holder, paused, second):
        await stand.look(one)
    await paused.facts.release_slots([stand.slot])
    await holder.facts.release_slots([stand.slot])
    assert (await stand.view(paused)).place_in_line is None
    assert await stand.look(second) is None
    third = await stand.mover()
    assert await stand.look(third) is not None
    place = await stand.look(paused)
    assert place is not None
    assert place.place == 1


@pytest.mark.parametrize("state", ["failed", "failing"])
async def test_one_that_waits_for_an_operator_or_is_undone_keeps_nobody_waiting(
    stand: Stand, state: str
) -> None:
    holder, stuck, second = [await stand.mover() for _ in range(3)]
    for one in (holder, stuck, second):
        await stand.look(one)
    await stand.journal.fail(stuck.row, state=state, error="no", event=None)
    await holder.facts.release_slots([stand.slot])
    assert await stand.look(second) is None


async def test_one_that_is_over_keeps_nobody_waiting(stand: Stand) -> None:
    holder, over, second = [await stand.mover() for _ in range(3)]
    for one in (holder, over, second):
        await stand.look(one)
    await stand.journal.finish(over.row, state="rolled_back", event=None, reason=None, past_pivot=False)
    await holder.facts.release_slots([stand.slot])
    assert await stand.look(second) is None


async def test_the_next_attempt_waits_anew_with_the_same_priority(stand: Stand) -> None:
    holder, again, second = await stand.mover(), await stand.mover(6), await stand.mover(6)
    for one in (holder, again, second):
        await stand.look(one)
    await stand.journal.finish(again.row, state="rolled_back", event=None, reason=None, past_pivot=False)
    replay = replay_of(again.event)
    migration = await stand.journal.open(again.id, replay.data.instance_id, replay, body_of(replay))
    row = await stand.journal.begin(migration, "stop", replay=None)
    place = await stand.look(Mover(replay, row, stand.journal.facts(row)))
    assert place is not None
    assert (place.place, place.of) == (2, 2)
    assert (await stand.view(again)).priority == 6


async def test_slots_are_taken_together_or_not_at_all(stand: Stand) -> None:
    other = f"dump {uuid4()}"
    down = f"down {uuid4()}"
    first, second = await stand.mover(), await stand.mover()
    assert await stand.look(first, down) is None
    place = await second.facts.acquire_slots({other: 1, down: 1})
    assert place is not None
    assert place.lacks == down
    third = await stand.mover()
    assert await third.facts.acquire_slots({other: 1}) is None  # the second one has got nothing of it
    await first.facts.release_slots([stand.slot, down])
    place = await second.facts.acquire_slots({other: 1, down: 1})
    assert place is not None
    assert place.lacks == other
    await third.facts.release_slots([other])
    assert await second.facts.acquire_slots({other: 1, down: 1}) is None


async def test_who_lacks_one_of_its_slots_keeps_nobody_waiting_for_the_other(stand: Stand) -> None:
    down, elsewhere = f"down {uuid4()}", f"dump {uuid4()}"
    holder, first, second = [await stand.mover() for _ in range(3)]
    assert await stand.look(holder, places=1) is None
    assert await first.facts.acquire_slots({stand.slot: 1, down: 1}) is not None
    await stand.later(OFTEN / 10)
    assert await second.facts.acquire_slots({elsewhere: 1, down: 1}) is None


async def test_one_that_does_not_wait_goes_first_and_stands_in_no_line(stand: Stand) -> None:
    holder, waiting, down = [await stand.mover() for _ in range(3)]
    for one in (holder, waiting):
        await stand.look(one)
    assert await down.facts.acquire_slots({stand.slot: 1}, waits=False) is not None
    assert (await stand.view(down)).place_in_line is None
    await holder.facts.release_slots([stand.slot])
    assert await down.facts.acquire_slots({stand.slot: 1}, waits=False) is None
    assert await stand.look(waiting) is not None


async def test_ten_for_each_place_look_often(stand: Stand) -> None:
    holders = [await stand.mover() for _ in range(2)]
    waiting = [await stand.mover() for _ in range(2 * NEXT + 1)]
    for one in holders:
        assert await stand.look(one, places=2) is None
    places = [await stand.look(one, places=2) for one in waiting]
    assert [place.soon for place in places if place] == [True] * 2 * NEXT + [False]
    # one that looks seldom has as much longer to come when it is called
    first, last = waiting[0], waiting[-1]
    if isinstance(stand.journal, FakeJournal):
        stand.journal.priorities[last.id] = 9
    else:
        assert isinstance(stand.views, PostgresJournalViews)
        await stand.views.prioritize(last.id, 1, 9, "by anna@host")
    for one in holders:
        await one.facts.release_slots([stand.slot])
    for one in waiting[1:-1]:
        await one.facts.release_slots([stand.slot])
    assert await stand.look(first, places=1) is not None
    await stand.later(LATE)
    assert await stand.look(first, places=1) is not None
    await stand.later(SELDOM - OFTEN)
    assert await stand.look(first, places=1) is not None  # was kept from looking itself
    assert await stand.look(first, places=1) is None


async def test_a_run_that_lost_the_migration_neither_waits_nor_releases(stand: Stand) -> None:
    holder, late = await stand.mover(), await stand.mover()
    await stand.look(holder)
    migration = await stand.journal.migration(late.id)
    assert migration is not None
    await stand.journal.begin(migration, "stop", replay=None)
    with pytest.raises(ClaimLost):
        await stand.look(late)
    with pytest.raises(ClaimLost):
        await late.facts.release_slots([stand.slot])
    assert (await stand.view(late)).place_in_line is None


async def test_an_operator_changes_the_priority_of_one_that_waits(pg: Cluster) -> None:
    async with (
        state_database(pg) as dsn,
        postgres_journal(dsn) as journal,
        asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool,
    ):
        views = PostgresJournalViews(pool)
        stand = Stand(journal, views, pool)
        with pytest.raises(NotFound, match="is open"):
            await prioritize(views, uuid4(), 9, by="anna@host", why="")
        holder, first, second = [await stand.mover() for _ in range(3)]
        for one in (holder, first, second):
            await stand.look(one)
        instance = second.event.data.instance_id
        done = await prioritize(views, instance, 9, by="anna@host", why="the customer asked")
        assert (done.migration_id, done.before, done.priority) == (second.id, 4, 9)
        assert (done.place_in_line, done.length_of_line) == (1, 2)
        last = (await views.history(second.id))[-1]
        assert (last["what"], last["detail"]) == (
            "priority changed",
            "by anna@host: the customer asked; from 4 to 9",
        )
        await holder.facts.release_slots([stand.slot])
        assert await stand.look(first) is not None
        assert await stand.look(second) is None
        await second.facts.remember(FENCE, Fence(-1, can_login=True, ended=0))
        with pytest.raises(Refused, match="has stopped its instance"):
            await prioritize(views, second.id, 0, by="anna@host", why="")
        await journal.fail(first.row, state="failing", error="no", event=None)
        with pytest.raises(Refused, match="is failing"):
            await prioritize(views, first.id, 0, by="anna@host", why="")


async def test_a_waiter_of_a_migration_that_is_over_is_deleted_in_time(dsn: str) -> None:
    async with postgres_journal(dsn) as journal, asyncpg.create_pool(dsn, min_size=0, max_size=2) as pool:
        stand = Stand(journal, PostgresJournalViews(pool), pool)
        holder, over = await stand.mover(), await stand.mover()
        for one in (holder, over):
            await stand.look(one)
        query = "SELECT count(*) FROM rehome.slot_waiters WHERE migration_id = $1"
        assert await pool.fetchval(query, over.id) == 1
        await journal.finish(over.row, state="rolled_back", event=None, reason=None, past_pivot=False)
        await journal.purge(LEVEL)
        assert await pool.fetchval(query, over.id) == 0
