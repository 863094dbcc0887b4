"""Port `Replicator`, the same on the fake and on PostgreSQL; the dedicated server is of version 16 or newer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres import witness
from rehome_consumer.adapters.postgres.inspection import PostgresInspector
from rehome_consumer.adapters.postgres.replication_parts import name_of, witness_of
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.context import current_migration
from rehome_consumer.errors import Conflict, FellBehind, TableInUse
from rehome_consumer.model import Followed, Scope
from tests.contract.fake_servers import FakeStage
from tests.contract.real_servers import RealStage
from tests.contract.servers import A_ROW_MORE, Change, ProgressRecorder, a_scratch, new_login, new_tag
from tests.fakes.inspection import FakeInspector
from tests.support.comparing import compared
from tests.support.warm_stage import FOLLOWABLE, new_enough

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.model import OwnershipTag
    from rehome_consumer.ports.operators import Inspector
    from sandbox.postgres.server import Cluster
    from sandbox.postgres.tenants import Tenant
    from tests.contract.servers import Stage
    from tests.fakes.world import FakeDatabase
    from tests.support.postgres_versions import Pair

LIMIT = timedelta(seconds=30)
KEEP = 10**9
NEW_ENOUGH = 170012


def _without_large_objects(database: FakeDatabase) -> None:
    del database.tables["large objects"]


BECOMES_FOLLOWABLE = Change(FOLLOWABLE, _without_large_objects)
SEQUENCE_MOVES = Change(
    "SELECT nextval('res_partner_id_seq')",
    lambda database: database.sequences.update(
        {"public.res_partner_id_seq": "last_value=201 is_called=true"}
    ),
)

A_NAME_CHANGED = Change(
    "UPDATE public.res_partner SET name = 'Another' WHERE id = 1",
    lambda database: database.tables["public.res_partner"].append((1, "Another")),
)


@pytest.fixture(scope="module")
async def new_server(scratch: Path, versions: Pair) -> AsyncIterator[Cluster]:
    async with new_enough(scratch, versions) as cluster:
        yield cluster


@pytest.fixture(params=["fake", "postgresql"])
async def stage(
    request: pytest.FixtureRequest, pool_server: Cluster, new_server: Cluster, tmp_path: Path
) -> AsyncIterator[Stage]:
    if request.param == "fake":
        fake = FakeStage()
        fake.world.at(fake.dedicated).version = NEW_ENOUGH
        yield fake
        return
    real = RealStage(pool_server, new_server, tmp_path / "backups")
    yield real
    await real.clean()


@pytest.fixture
async def tenant(stage: Stage) -> Tenant:
    made = await stage.add_tenant()
    await stage.change(made.database, BECOMES_FOLLOWABLE)
    return made


@pytest.fixture
async def followed(stage: Stage, tenant: Tenant) -> AsyncIterator[Followed]:
    """Nothing is made yet; removed afterwards."""
    tag: OwnershipTag = new_tag()
    made = Followed(
        tag.migration_id, stage.pool, tenant.database, tenant.role, stage.dedicated, "not made", "not made"
    )
    yield made
    for server in (stage.dedicated, stage.pool):
        await stage.replicator.remove(server, tag.migration_id)


async def following(stage: Stage, tenant: Tenant, followed: Followed) -> Followed:
    """A copy that follows."""
    login, tag = new_login(), replace(new_tag(), migration_id=followed.migration_id)
    current_migration.set(followed.migration_id)
    made = replace(followed, copy=f"{tenant.database}__rehome", role=login.user)

    async def base(snapshot: str) -> None:
        name = f"{followed.migration_id}-1-rehearsal"
        scope = Scope(snapshot=snapshot)
        await stage.copier.dump(stage.pool, tenant.database, tenant.role, name, ProgressRecorder(), scope)
        backup = await stage.copier.seal(name, {}, {})
        assert await a_scratch(stage, tenant, login, tag) == made.copy
        await stage.copier.restore(stage.dedicated, made.copy, backup, login.user, ProgressRecorder())
        await stage.replicator.restore_identities(made, snapshot)

    await stage.replicator.with_slot(made, LIMIT, base)
    await stage.replicator.follow(made, LIMIT)
    return made


async def test_a_copy_follows_and_has_all_that_was_committed(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    await stage.change(tenant.database, A_ROW_MORE)
    await stage.change(tenant.database, SEQUENCE_MOVES)
    assert await stage.replicator.reach(both, LIMIT, KEEP) <= LIMIT
    await stage.replicator.detach(both)
    sides = (both.source, both.database, both.tenant), (both.target, both.copy, both.role)
    found = await compared(stage.verifier, *sides)
    assert [one for one in found if not one.startswith("sequence")] == []
    assert [one for one in found if one.startswith("sequence")] != []
    await stage.replicator.settle(both)
    assert await compared(stage.verifier, *sides) == []


async def test_a_witness_tells_what_was_written_since_the_copy_began(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    assert await stage.replicator.written(both) == {}
    await stage.change(tenant.database, A_ROW_MORE)
    told = await stage.replicator.written(both)
    assert set(told) == {"public.import_log"}
    assert told == await stage.replicator.written(both)  # it is told again
    await stage.change(tenant.database, A_NAME_CHANGED)
    told = await stage.replicator.written(both)
    assert set(told) == {"public.import_log", "public.res_partner"}
    await stage.replicator.reach(both, LIMIT, KEEP)
    await stage.replicator.detach(both)
    await stage.replicator.settle(both)
    assert await stage.replicator.strays(both, told) == ()
    scope = Scope(contents=told)
    here = await stage.verifier.fingerprint(both.source, both.database, both.tenant, scope)
    there = await stage.verifier.fingerprint(both.target, both.copy, both.role, scope)
    assert (here.tables, here.rows) == (there.tables, there.rows)


async def test_a_fence_is_no_change_to_a_witness(stage: Stage, tenant: Tenant, followed: Followed) -> None:
    both = await following(stage, tenant, followed)
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    assert await stage.replicator.written(both) == {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            Change(
                "ALTER TABLE import_log ALTER line TYPE text USING line || '!'",
                lambda database: database.objects.setdefault("rewritten", {}).update(import_log="yes"),
            ),
            id="a table is rewritten",
        ),
        pytest.param(
            Change(
                "CREATE TABLE later (id int PRIMARY KEY)",
                lambda database: database.tables.update({"public.later": []}),
            ),
            id="a table is made",
        ),
    ],
)
async def test_a_witness_does_not_speak_for_what_is_not_in_its_slot(
    stage: Stage, tenant: Tenant, followed: Followed, change: Change
) -> None:
    both = await following(stage, tenant, followed)
    await stage.change(tenant.database, change)
    with pytest.raises(FellBehind, match="made or changed"):
        await stage.replicator.written(both)


async def test_a_witness_for_which_too_much_is_kept_is_dropped_and_the_copy_follows_on(
    stage: Stage, tenant: Tenant, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = await following(stage, tenant, followed)
    if isinstance(stage, FakeStage):
        stage.world.at(stage.pool).slots[witness_of(both.migration_id)].kept = KEEP + 1
    else:
        bound = witness.bound

        async def none_at_all(source: Administrator, migration: UUID, what: str, _keep: int) -> None:
            await bound(source, migration, what, -1)

        monkeypatch.setattr(witness, "bound", none_at_all)
    await stage.replicator.reach(both, LIMIT, KEEP)
    with pytest.raises(FellBehind, match="no "):
        await stage.replicator.written(both)
    assert await stage.replicator.reach(both, LIMIT, KEEP) <= LIMIT


async def test_what_somebody_else_changed_in_the_copy_is_seen(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    await stage.replicator.reach(both, LIMIT, KEEP)
    await stage.replicator.detach(both)
    if isinstance(stage, FakeStage):
        stage.world.database(both.target, both.copy).meddled.add("public.res_partner")
    else:
        assert isinstance(stage, RealStage)
        async with stage.dedicated_cluster.connect(both.copy) as connection:
            await connection.execute("UPDATE res_partner SET name = 'other' WHERE id = 1")
    assert await stage.replicator.strays(both, {}) == ("public.res_partner",)
    assert await stage.replicator.strays(both, {"public.res_partner": None}) == ()


async def test_it_follows_what_is_fenced_to_its_last_position(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    await stage.change(tenant.database, A_ROW_MORE)
    before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    state = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert (state.closed, state.inside) == (True, ())
    await stage.replicator.reach(both, LIMIT, KEEP)
    await stage.replicator.remove(stage.pool, both.migration_id)
    await stage.databases.unfence(stage.pool, tenant.database, tenant.role, before)
    after = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert (after.owner, after.closed, after.can_login) == (before.owner, before.closed, before.can_login)


async def test_what_follows_outlives_the_sessions_of_a_run(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    for server in (stage.pool, stage.dedicated):
        await stage.databases.end_sessions(server, both.migration_id)
    await stage.change(tenant.database, A_ROW_MORE)
    await stage.replicator.reach(both, LIMIT, KEEP)


async def test_facts_of_both_are_those_of_databases_that_nothing_follows(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    before = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    attached = await stage.databases.attached(stage.pool, tenant.database, tenant.role)
    both = await following(stage, tenant, followed)
    after = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    assert replace(after, bytes=0) == replace(before, bytes=0)
    assert await stage.databases.attached(stage.pool, tenant.database, tenant.role) == attached
    await stage.databases.database_facts(both.target, both.copy, both.role)


async def test_everything_is_removed_once(stage: Stage, tenant: Tenant, followed: Followed) -> None:
    both = await following(stage, tenant, followed)
    for server in (stage.pool, stage.dedicated):
        assert await stage.replicator.remove(server, both.migration_id)
        assert not await stage.replicator.remove(server, both.migration_id)
        assert (await inspector_of(stage).inventory(server)).followed == ()
    with pytest.raises(FellBehind, match=r"there is no (subscription|slot)"):
        await stage.replicator.reach(both, LIMIT, KEEP)


async def test_a_copy_that_follows_can_be_dropped(stage: Stage, tenant: Tenant, followed: Followed) -> None:
    both = await following(stage, tenant, followed)
    assert await stage.databases.drop(both.target, both.copy, both.migration_id)
    assert (await inspector_of(stage).inventory(both.target)).followed == ()
    assert (await inspector_of(stage).inventory(both.source)).followed == (both.migration_id,)


async def test_what_was_made_for_work_that_failed_stays_until_it_is_removed(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    async def fail(_snapshot: str) -> None:
        raise Conflict("the work failed")

    with pytest.raises(Conflict, match="the work failed"):
        await stage.replicator.with_slot(followed, LIMIT, fail)
    found = await inspector_of(stage).inventory(stage.pool)
    assert found.followed == (followed.migration_id,)
    assert [(one.migration_id, one.behind is None) for one in found.slots] == [
        (followed.migration_id, False),
        (followed.migration_id, True),  # the witness, which nobody reads
    ]
    assert all(one.retained >= (one.behind or 0) >= 0 for one in found.slots)
    with pytest.raises(FellBehind):
        await stage.replicator.with_slot(followed, LIMIT, fail)
    assert await stage.replicator.remove(stage.pool, followed.migration_id)


async def test_a_slot_that_keeps_more_than_it_may_is_no_use(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    if isinstance(stage, FakeStage):
        stage.world.at(stage.pool).slots[name_of(both.migration_id)].kept = 1000
    with pytest.raises(FellBehind, match="bytes of WAL"):
        await stage.replicator.reach(both, LIMIT, -1)


async def test_obstacles_are_named(stage: Stage, tenant: Tenant) -> None:
    target = stage.dedicated
    assert await stage.replicator.obstacles(stage.pool, tenant.database, tenant.role, target) == ()
    assert await stage.replicator.obstacles(stage.pool, tenant.database, tenant.role, None) == ()
    if await stage.major() < 16:
        (old,) = await stage.replicator.obstacles(stage.pool, tenant.database, tenant.role, stage.pool)
        assert f"{stage.pool.name} runs PostgreSQL {await stage.major()}" in old


WITHOUT_KEY = ("public.import_log", "public.res_company_users_rel")


async def test_tables_without_a_key_are_lent_an_identity_until_it_is_removed(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    before = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    assert await stage.replicator.keyless(stage.pool, tenant.database) == WITHOUT_KEY
    assert await stage.replicator.lent(followed) == ()
    both = await following(stage, tenant, followed)
    assert await stage.replicator.keyless(stage.pool, tenant.database) == ()
    assert await stage.replicator.lent(both) == WITHOUT_KEY
    # Who compares sees what the customer made.
    during = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    assert during.objects == before.objects
    await stage.replicator.remove(stage.pool, both.migration_id)
    assert await stage.replicator.lent(both) == ()
    assert await stage.replicator.keyless(stage.pool, tenant.database) == WITHOUT_KEY
    after = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    assert after.objects == before.objects


async def test_what_is_lent_is_given_back_though_the_work_failed(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    async def fail(_snapshot: str) -> None:
        raise Conflict("the work failed")

    with pytest.raises(Conflict, match="the work failed"):
        await stage.replicator.with_slot(followed, LIMIT, fail)
    assert await stage.replicator.lent(followed) == WITHOUT_KEY
    assert await stage.replicator.remove(stage.pool, followed.migration_id)
    assert await stage.replicator.keyless(stage.pool, tenant.database) == WITHOUT_KEY


async def test_a_table_in_use_is_lent_nothing(stage: Stage, tenant: Tenant, followed: Followed) -> None:
    async def work(_snapshot: str) -> None:
        raise AssertionError("it was lent")

    async with in_use(stage, tenant):
        with pytest.raises(FellBehind, match="in use"):
            await stage.replicator.with_slot(followed, LIMIT, work)


async def test_a_table_in_use_keeps_what_was_lent_and_the_role_that_tells_of_it(
    stage: Stage, tenant: Tenant, followed: Followed
) -> None:
    both = await following(stage, tenant, followed)
    async with in_use(stage, tenant):
        with pytest.raises(TableInUse, match="in use"):
            await stage.replicator.remove(stage.pool, both.migration_id)
        assert await stage.replicator.lent(both) == ("public.import_log",)
        assert (await inspector_of(stage).inventory(stage.pool)).followed == (both.migration_id,)
    assert await stage.replicator.remove(stage.pool, both.migration_id)
    assert (await inspector_of(stage).inventory(stage.pool)).followed == ()
    assert await stage.replicator.keyless(stage.pool, tenant.database) == WITHOUT_KEY


@asynccontextmanager
async def in_use(stage: Stage, tenant: Tenant) -> AsyncIterator[None]:
    """A transaction that lasts has read import_log."""
    if isinstance(stage, FakeStage):
        table = stage.world.database(stage.pool, tenant.database).in_use
        table.add("public.import_log")
        yield
        table.clear()
        return
    assert isinstance(stage, RealStage)
    async with (
        stage.pool_cluster.connect(tenant.database) as connection,
        connection.transaction(),
    ):
        await connection.execute("SELECT FROM public.import_log")
        yield


def inspector_of(stage: Stage) -> Inspector:
    return FakeInspector(stage.world) if isinstance(stage, FakeStage) else PostgresInspector(Sessions())
