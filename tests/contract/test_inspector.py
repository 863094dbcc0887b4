"""Port `Inspector`, the same on the fake and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.adapters.postgres.inspection import PostgresInspector
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.errors import Unreachable
from rehome_consumer.model import RehearsalMark
from tests.contract.fake_servers import FakeStage
from tests.contract.servers import a_promoted, a_scratch, login_of, new_login, new_tag, verified
from tests.fakes.inspection import FakeInspector

if TYPE_CHECKING:
    from rehome_consumer.ports.operators import Inspector
    from tests.contract.servers import Stage

LIMIT = timedelta(seconds=20)


@pytest.fixture
def inspector(stage: Stage) -> Inspector:
    return FakeInspector(stage.world) if isinstance(stage, FakeStage) else PostgresInspector(Sessions())


async def test_the_state_of_a_tenant_s_database_is_open_then_fenced(
    stage: Stage, inspector: Inspector
) -> None:
    tenant = await stage.add_tenant()
    async with stage.client(stage.pool, login_of(tenant), tenant.database):
        state = await inspector.database_state(stage.pool, tenant.database, tenant.role)
        assert (state.exists, state.open, state.fenced, state.sessions) == (True, True, False, 1)
        assert state.bytes
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    state = await inspector.database_state(stage.pool, tenant.database, tenant.role)
    assert (state.exists, state.open, state.fenced, state.sessions) == (True, False, True, 0)


async def test_a_database_that_does_not_exist_is_neither_open_nor_fenced(
    stage: Stage, inspector: Inspector
) -> None:
    state = await inspector.database_state(stage.dedicated, "no_such_database", "no_such_role")
    assert (state.exists, state.open, state.fenced) == (False, False, False)
    assert (state.can_login, state.bytes, state.tag, state.sessions) == (None, None, None, 0)


async def test_databases_of_rehome_are_known_by_their_ownership_tags(
    stage: Stage, inspector: Inspector
) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    await stage.add_database(stage.dedicated, "of_another_application", "postgres")
    scratch = await a_scratch(stage, tenant, login, tag)
    found = (await inspector.inventory(stage.dedicated)).databases
    assert [(one.name, one.tag) for one in found] == [(scratch, tag)]
    final = await a_promoted(stage, tenant, login, tag)
    found = (await inspector.inventory(stage.dedicated)).databases
    assert [(one.name, one.tag) for one in found] == [(final, verified(tag))]
    assert (await inspector.database_state(stage.dedicated, final, login.user)).tag == verified(tag)


async def test_sessions_of_a_migration_are_known_by_their_name(stage: Stage, inspector: Inspector) -> None:
    tenant, migration = await stage.add_tenant(), uuid4()
    assert (await inspector.inventory(stage.pool)).sessions == ()
    async with (
        stage.left_over(stage.pool, tenant.database, migration),
        stage.left_over(stage.pool, tenant.database, migration),
    ):
        (found,) = (await inspector.inventory(stage.pool)).sessions
    assert (found.migration_id, found.count) == (migration, 2)


async def test_a_short_lived_role_is_known_by_its_name(stage: Stage, inspector: Inspector) -> None:
    migration = uuid4()
    await stage.add_role(stage.dedicated, f"rehome_{migration.hex}")
    assert (await inspector.inventory(stage.dedicated)).short_lived == (migration,)


async def test_a_rehearsal_without_a_migration_is_known_by_its_mark(
    stage: Stage, inspector: Inspector
) -> None:
    mark = RehearsalMark(uuid4(), datetime.now(UTC), "acme__rehome_0-1", ("rehearsal_0", "reporting"))
    await stage.databases.mark_rehearsal(stage.dedicated, mark)
    assert (await inspector.inventory(stage.dedicated)).rehearsals == (mark,)
    await stage.databases.unmark_rehearsal(stage.dedicated, mark.id)
    await stage.databases.unmark_rehearsal(stage.dedicated, mark.id)
    assert (await inspector.inventory(stage.dedicated)).rehearsals == ()


async def test_a_server_that_does_not_answer_is_unreachable(stage: Stage, inspector: Inspector) -> None:
    with pytest.raises(Unreachable):
        await inspector.inventory(replace(stage.pool, port=1))


async def test_sizes_are_those_of_the_databases_that_are_there(stage: Stage, inspector: Inspector) -> None:
    one, other = await stage.add_tenant(), await stage.add_tenant()
    found = await inspector.database_sizes(stage.pool, {one.database, "gone", 'it\'s "gone"'})
    state = await inspector.database_state(stage.pool, one.database, one.role)
    assert found == {one.database: state.bytes}
    both = await inspector.database_sizes(stage.pool, [one.database, other.database])
    assert both.keys() == {one.database, other.database}
    assert await inspector.database_sizes(stage.pool, []) == {}


async def test_sessions_whose_statement_runs_are_active_without_those_of_rehome(
    stage: Stage, inspector: Inspector
) -> None:
    tenant, migration = await stage.add_tenant(), uuid4()
    async with stage.client(stage.pool, login_of(tenant), tenant.database) as client:
        await client.begin()
        assert await inspector.active_sessions(stage.pool) == 0
        await client.commit()
        async with client.statement():
            assert await inspector.active_sessions(stage.pool) == 1
            async with (
                stage.left_over(stage.pool, tenant.database, migration) as own,
                own.statement(),
            ):
                assert await inspector.active_sessions(stage.pool) == 1
            # a name that any client can choose hides nobody
            async with (
                stage.forged(stage.pool, login_of(tenant), tenant.database, migration) as forged,
                forged.statement(),
            ):
                assert await inspector.active_sessions(stage.pool) == 2
        assert await inspector.active_sessions(stage.pool) == 0
