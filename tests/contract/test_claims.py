"""Port `Claims`: the same suite for the fake and for PostgreSQL's advisory locks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.errors import ClaimLost
from tests.fakes.claims import FakeClaims

if TYPE_CHECKING:
    from rehome_consumer.ports.engine import Claims
    from sandbox.postgres.server import Cluster

PATIENCE = 0.2
LIMIT = 10.0


class Rig(Protocol):
    """What the suite needs besides the port: two consumers, and a way to break a connection."""

    first: Claims
    second: Claims

    async def cut(self, instance_id: UUID) -> None:
        """The connection that holds the instance's claim ends."""
        ...


class FakeRig:
    def __init__(self) -> None:
        self._claims = FakeClaims(PATIENCE)
        self.first: Claims = self._claims
        self.second: Claims = self._claims

    async def cut(self, instance_id: UUID) -> None:
        self._claims.cut(self._claims.held[instance_id])


class PostgresRig:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._backends: list[int] = []
        self.first: Claims = PostgresClaims(self._connect, patience=PATIENCE)
        self.second: Claims = PostgresClaims(self._connect, patience=PATIENCE)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(self._cluster.dsn())
        self._backends.append(connection.get_server_pid())
        return connection

    async def cut(self, instance_id: UUID) -> None:
        async with self._cluster.connect() as admin:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", self._backends)


@pytest.fixture(params=["fake", "postgresql"])
def rig(request: pytest.FixtureRequest, pg: Cluster) -> Rig:
    return FakeRig() if request.param == "fake" else PostgresRig(pg)


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
