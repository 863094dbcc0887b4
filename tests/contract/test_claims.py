"""Port `Claims`: the same suite for the fake and for PostgreSQL's advisory locks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.errors import ClaimLost
from rehome_consumer.ports.engine import Found, Lookup
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.claims import FakeClaims
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.ports.engine import Claims, Journal
    from sandbox.postgres.server import Cluster

PATIENCE = 0.2
LIMIT = 10.0


class Rig(Protocol):
    """What the suite needs besides the port: two consumers, and a way to break a connection."""

    first: Claims
    second: Claims
    journal: Journal

    async def revoke(self, instance_id: UUID) -> None:
        """An operator takes the instance's claim away."""
        ...

    async def cut(self, instance_id: UUID) -> None:
        """The connection that holds the instance's claim ends."""
        ...


class FakeRig:
    def __init__(self) -> None:
        self.journal: Journal = (journal := FakeJournal(FakeClock()))
        self._claims = FakeClaims(PATIENCE, journal)
        self.first: Claims = self._claims
        self.second: Claims = self._claims

    async def revoke(self, instance_id: UUID) -> None:
        self._claims.revoke(self._claims.held[instance_id])

    async def cut(self, instance_id: UUID) -> None:
        self._claims.cut(self._claims.held[instance_id])


class PostgresRig:
    def __init__(self, dsn: str, journal: Journal, views: PostgresJournalViews) -> None:
        self._dsn = dsn
        self._views = views
        self.journal = journal
        self.first: Claims = PostgresClaims(self._connect, patience=PATIENCE)
        self.second: Claims = PostgresClaims(self._connect, patience=PATIENCE)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self._dsn)

    async def revoke(self, instance_id: UUID) -> None:
        await self._views.revoke(instance_id)

    async def cut(self, instance_id: UUID) -> None:
        (holder,) = (await self._views.holders([instance_id])).values()
        await self._views.cut(holder)


@pytest.fixture(scope="module")
async def state(pg: Cluster) -> AsyncIterator[tuple[str, PostgresJournal]]:
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        yield dsn, journal


@pytest.fixture(params=["fake", "postgresql"])
async def rig(request: pytest.FixtureRequest, state: tuple[str, PostgresJournal]) -> AsyncIterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    async with asyncpg.create_pool(state[0], min_size=0, max_size=2) as pool:
        rig = PostgresRig(*state, PostgresJournalViews(pool))
        yield rig
        for claims in (rig.first, rig.second):
            assert isinstance(claims, PostgresClaims)
            await claims.aclose()


async def test_a_free_claim_is_given(rig: Rig) -> None:
    async with rig.first.claim(uuid4()) as claim:
        assert claim
        await claim.check()


async def test_a_held_claim_is_given_to_no_other(rig: Rig) -> None:
    instance = uuid4()
    async with rig.first.claim(instance), rig.second.claim(instance) as claim:
        assert claim is None


async def test_claims_of_two_instances_do_not_meet(rig: Rig) -> None:
    async with rig.first.claim(uuid4()) as one, rig.first.claim(uuid4()) as other:
        assert one
        assert other


async def test_a_claim_is_free_again_after_its_holder_is_done(rig: Rig) -> None:
    instance = uuid4()
    async with rig.first.claim(instance):
        pass
    async with rig.second.claim(instance) as claim:
        assert claim


async def test_a_claim_is_free_again_after_its_holder_failed(rig: Rig) -> None:
    instance = uuid4()
    with pytest.raises(ValueError, match="a step's own"):
        async with rig.first.claim(instance):
            raise ValueError("a step's own")
    async with rig.second.claim(instance) as claim:
        assert claim


async def test_a_claim_that_is_released_soon_is_waited_for(rig: Rig) -> None:
    instance, held, go = uuid4(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with rig.first.claim(instance):
            held.set()
            await go.wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    waiting = rig.second.claim(instance)
    entering = asyncio.create_task(waiting.__aenter__())
    await asyncio.sleep(0)
    go.set()
    assert await entering
    await waiting.__aexit__(None, None, None)
    await holder


async def test_a_lost_connection_is_a_lost_claim_and_the_holder_notices(rig: Rig) -> None:
    instance = uuid4()
    async with rig.first.claim(instance) as claim:
        assert claim
        await rig.cut(instance)
        async with asyncio.timeout(LIMIT):
            await claim.lost()
        with pytest.raises(ClaimLost, match=str(instance)):
            await claim.check()


async def test_a_lost_claim_is_free_for_others_while_its_holder_still_works(rig: Rig) -> None:
    instance = uuid4()
    async with rig.first.claim(instance):
        await rig.cut(instance)
        async with rig.second.claim(instance) as claim:
            assert claim
            await claim.check()


async def test_the_end_of_a_lost_claim_leaves_the_next_holder_alone(rig: Rig) -> None:
    instance = uuid4()
    lost = rig.first.claim(instance)
    await lost.__aenter__()
    await rig.cut(instance)
    async with rig.second.claim(instance) as claim:
        await lost.__aexit__(None, None, None)
        assert claim
        await claim.check()
        async with rig.first.claim(instance) as third:
            assert third is None


async def test_a_claim_may_be_checked_from_several_tasks_at_once(rig: Rig) -> None:
    async with rig.first.claim(uuid4()) as claim:
        assert claim
        await asyncio.gather(*(claim.check() for _ in range(5)))


async def test_a_lost_connection_is_the_loss_of_every_claim_that_it_held(rig: Rig) -> None:
    if isinstance(rig, FakeRig):
        return  # it has no connections: the simulation cuts all claims of a consumer together
    first, second = uuid4(), uuid4()
    async with rig.first.claim(first) as one, rig.first.claim(second) as other:
        assert one
        assert other
        await rig.cut(first)
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(one.lost(), other.lost())
        async with rig.second.claim(second) as taken_over:
            assert taken_over
            with pytest.raises(ClaimLost, match=str(second)):
                await other.check()
    async with rig.first.claim(first) as again:  # on a new connection
        assert again
        await again.check()


async def test_a_claim_that_an_operator_takes_away_is_lost_and_others_are_not(rig: Rig) -> None:
    instance, other = uuid4(), uuid4()
    async with rig.first.claim(other) as kept:
        assert kept
        async with rig.first.claim(instance) as claim:
            assert claim
            await rig.revoke(instance)
            async with asyncio.timeout(LIMIT):
                await claim.lost()
            with pytest.raises(ClaimLost, match=str(instance)):
                await claim.check()
        async with rig.second.claim(instance) as taken:
            assert taken
        await kept.check()


async def test_one_process_gives_a_claim_to_one_delivery_at_a_time(rig: Rig) -> None:
    instance = uuid4()
    async with rig.first.claim(instance):
        async with rig.first.claim(instance) as claim:
            assert claim is None
        async with rig.second.claim(instance) as claim:
            assert claim is None


async def test_many_claims_at_once_are_given_and_checked(rig: Rig) -> None:
    async def held() -> None:
        async with rig.first.claim(uuid4()) as claim:
            assert claim
            await claim.check()

    await asyncio.gather(*(held() for _ in range(40)))


async def test_who_gives_up_waiting_for_a_claim_leaves_nothing_behind(rig: Rig) -> None:
    instances = [uuid4() for _ in range(5)]
    for instance in instances:
        waiting = asyncio.create_task(rig.first.claim(instance).__aenter__())
        for _ in range(instances.index(instance) + 1):
            await asyncio.sleep(0)
        if not waiting.done():
            waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not waiting.cancelled():
            continue
        async with rig.second.claim(instance) as claim:
            assert claim


async def test_a_claim_says_what_the_journal_has(rig: Rig) -> None:
    event = upgrade(uuid4())
    instance, migration = event.data.instance_id, migration_of(event)
    accept, prepare = Lookup(migration, None, "accept", None), Lookup(migration, 1, "prepare", "accept")
    async with rig.first.claim(instance, accept) as claim:
        assert claim
        assert claim.found == Found()
        row = await rig.journal.open(migration, instance, event, body_of(event))
        begun = await rig.journal.begin(row, "accept", replay=None)
    async with rig.second.claim(instance, accept) as claim:
        assert claim
        now = await rig.journal.migration(migration)
        assert claim.found == Found(now, begun, None)
        await rig.journal.finish(begun, state="requested", event=None, reason=None, past_pivot=False)
    async with rig.first.claim(instance, prepare) as claim:
        assert claim
        now = await rig.journal.migration(migration)
        assert claim.found == Found(now, None, await rig.journal.step(migration, 1, "accept"))
    async with rig.first.claim(instance, Lookup(migration, 2, "prepare", "accept")) as claim:
        assert claim
        assert claim.found == Found(now, None, None)
    async with rig.first.claim(instance) as claim:
        assert claim
        assert claim.found is None


async def test_a_claim_that_was_waited_for_says_what_was_committed_meanwhile(rig: Rig) -> None:
    event = upgrade(uuid4())
    instance, migration = event.data.instance_id, migration_of(event)
    held, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with rig.first.claim(instance):
            held.set()
            await go.wait()
            await rig.journal.open(migration, instance, event, body_of(event))

    holder = asyncio.create_task(hold())
    await held.wait()
    waiting = rig.second.claim(instance, Lookup(migration, None, "accept", None))
    entering = asyncio.create_task(waiting.__aenter__())
    await asyncio.sleep(0)
    go.set()
    claim = await entering
    assert claim
    assert claim.found == Found(await rig.journal.migration(migration))
    await waiting.__aexit__(None, None, None)
    await holder
