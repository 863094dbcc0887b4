"""Port `Databases`, on the fake and on real servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.context import claim_check
from rehome_consumer.errors import ClaimLost, Incompatible, NotFound, NotOurs, TimedOut, Unreachable
from rehome_consumer.model import Fence, RoleAttributes
from tests.contract.servers import (
    ENDED,
    REFUSED,
    Change,
    a_promoted,
    a_scratch,
    login_of,
    new_login,
    new_tag,
    verified,
)

if TYPE_CHECKING:
    from tests.contract.servers import Stage

A_REPORT = Change(
    "CREATE TABLE public.yearly (total integer); ALTER TABLE public.yearly OWNER TO reporting; "
    "GRANT SELECT ON public.yearly TO PUBLIC",
    lambda database: database.objects["owner"].__setitem__("table public.yearly", "reporting"),
)
LIMIT = timedelta(seconds=20)
SHORT = timedelta(seconds=0.3)


# Facts


async def test_the_version_and_extensions_of_a_server_are_read(stage: Stage) -> None:
    facts = await stage.databases.server_facts(stage.pool)
    assert facts.major == await stage.major()
    assert "pg_trgm" in facts.extensions
    assert not facts.tls


async def test_a_server_that_does_not_answer_is_unreachable(stage: Stage) -> None:
    nowhere = replace(stage.pool, port=1)
    with pytest.raises(Unreachable, match="pool-1"):
        await stage.databases.server_facts(nowhere)


async def test_what_a_copy_must_have_too_is_read(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    assert (facts.name, facts.owner) == (tenant.database, tenant.role)
    assert (facts.encoding, facts.collation, facts.provider, facts.locale) == ("UTF8", "C", "c", None)
    assert (facts.connection_limit, facts.grantees) == (-1, ())
    assert facts.extensions == {"plpgsql": "1.0", "pg_trgm": "1.6", "unaccent": "1.1"}
    assert (tenant.role, "TimeZone=Europe/Paris") in facts.settings
    assert facts.bytes > 0
    assert (facts.comment, facts.role) == ("A tenant's database; 100% theirs", RoleAttributes())


async def test_an_object_of_another_role_is_refused(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.add_role(stage.pool, "reporting")
    await stage.change(tenant.database, A_REPORT)
    with pytest.raises(Incompatible, match=r"yearly.*reporting|reporting.*yearly"):
        await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)


async def test_who_else_uses_a_database_is_told(stage: Stage) -> None:
    tenant, neighbour = await stage.add_tenant(), await stage.add_tenant()
    asked = (stage.pool, tenant.database, tenant.role)
    async with stage.client(stage.pool, login_of(tenant), tenant.database):
        assert await stage.databases.attached(*asked) == ()
    async with stage.client(stage.pool, login_of(neighbour), tenant.database):
        found = await stage.databases.attached(*asked)
    assert [one.partition(",")[0] for one in found] == [f"role {neighbour.role} is connected: 1 session(s)"]
    with pytest.raises(NotFound, match="no_such"):
        await stage.databases.attached(stage.pool, "no_such", tenant.role)


async def test_a_missing_database_or_role_is_named(stage: Stage) -> None:
    with pytest.raises(NotFound, match="no_such"):
        await stage.databases.database_facts(stage.pool, "no_such", "postgres")
    with pytest.raises(NotFound, match="no_such"):
        await stage.databases.role_facts(stage.pool, "no_such", "postgres")
    with pytest.raises(NotFound, match="no_such"):
        await stage.databases.fence(stage.pool, "no_such", "postgres", LIMIT)


async def test_what_else_a_role_owns_is_read(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.add_database(stage.pool, "another", tenant.role)
    facts = await stage.databases.role_facts(stage.pool, tenant.role, tenant.database)
    assert (facts.superuser, facts.can_login, facts.elsewhere) == (False, True, ("owns database another",))


# The fence


async def test_connections_to_the_database_and_of_the_role_are_counted_once_each(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.add_database(stage.pool, "elsewhere", tenant.role)
    async with (
        stage.client(stage.pool, login_of(tenant), tenant.database),
        stage.client(stage.pool, login_of(tenant), "elsewhere"),
        stage.client(stage.pool, stage.pool.admin, tenant.database),
        stage.client(stage.pool, stage.pool.admin, "elsewhere"),
    ):
        assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 3


async def test_a_fence_ends_connections_and_admits_only_the_administrator(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    async with stage.client(stage.pool, login_of(tenant), tenant.database) as odoo:
        await odoo.add_partner()
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        with pytest.raises(ENDED):
            await odoo.add_partner()
    assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 0
    for database in (tenant.database, "postgres"):
        with pytest.raises(REFUSED):
            async with stage.client(stage.pool, login_of(tenant), database):
                pass
    assert await stage.partners(stage.pool, tenant.database) == 201


async def test_a_fence_lets_an_open_transaction_end_and_lets_nobody_else_in(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    async with (
        stage.client(stage.pool, login_of(tenant), tenant.database) as idle,
        stage.client(stage.pool, login_of(tenant), tenant.database) as at_work,
    ):
        await at_work.begin()
        await at_work.add_partner()
        fencing = asyncio.create_task(
            stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT, patience=LIMIT)
        )
        await asyncio.sleep(0.5)
        with pytest.raises(ENDED):
            await idle.add_partner()
        with pytest.raises(REFUSED):
            async with stage.client(stage.pool, login_of(tenant), tenant.database):
                pass
        assert not fencing.done()
        await at_work.add_partner()
        await at_work.commit()
        await fencing
    assert await stage.partners(stage.pool, tenant.database) == 202


async def test_a_fence_ends_a_transaction_that_stays_open(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    async with stage.client(stage.pool, login_of(tenant), tenant.database) as at_work:
        await at_work.begin()
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT, patience=SHORT)
        with pytest.raises(ENDED):
            await at_work.commit()
    assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 0


async def test_a_fence_closes_its_database_to_other_roles_and_no_other_database(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    neighbour = await stage.add_tenant()
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    with pytest.raises(REFUSED):
        async with stage.client(stage.pool, login_of(neighbour), tenant.database):
            pass
    async with stage.client(stage.pool, login_of(neighbour), neighbour.database) as odoo:
        await odoo.add_partner()


async def test_unfencing_restores_exactly_the_state_before_the_fence(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    usual = Fence(connection_limit=7, can_login=True)
    await stage.databases.unfence(stage.pool, tenant.database, tenant.role, usual)
    usual = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert (usual.connection_limit, usual.can_login, usual.closed) == (7, True, False)
    assert (usual.owner, usual.inside) == (tenant.role, ())
    async with stage.client(stage.pool, login_of(tenant), tenant.database):
        before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert before == replace(usual, ended=1, inside=before.inside)
    assert [tenant.role in one for one in before.inside] == [True]
    for _ in range(2):  # a second call changes nothing
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    fenced = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert (fenced.connection_limit, fenced.can_login, fenced.closed) == (0, False, True)
    assert (fenced.owner, fenced.ended) == (stage.pool.admin.user, 0)
    for _ in range(2):
        await stage.databases.unfence(stage.pool, tenant.database, tenant.role, before)
    assert await stage.databases.fence_state(stage.pool, tenant.database, tenant.role) == usual
    async with stage.client(stage.pool, login_of(tenant), tenant.database) as odoo:
        await odoo.add_partner()


async def test_a_session_that_does_not_end_is_named(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    async with stage.stubborn_client(stage.pool, login_of(tenant), tenant.database):
        with pytest.raises(TimedOut, match=rf"pid \d+ \(user {tenant.role}, .*database {tenant.database}"):
            await stage.databases.fence(stage.pool, tenant.database, tenant.role, SHORT)


async def test_a_superuser_cannot_be_fenced(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.add_role(stage.pool, "root", superuser=True)
    with pytest.raises(Incompatible, match="superuser"):
        await stage.databases.fence(stage.pool, tenant.database, "root", LIMIT)
    assert (await stage.databases.fence_state(stage.pool, tenant.database, "root")).connection_limit == -1


async def test_a_prepared_transaction_is_named_while_the_tenant_serves(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    await stage.prepare_transaction(tenant)
    with pytest.raises(Incompatible, match=r"prepared transactions.*left open"):
        await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)


async def test_a_prepared_transaction_prevents_the_fence(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    await stage.prepare_transaction(tenant)
    with pytest.raises(Incompatible, match="left open"):
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    assert (await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)).can_login


# Roles


async def test_a_new_role_may_not_log_in_until_its_database_is_promoted(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    for database in (scratch, "postgres"):
        with pytest.raises(REFUSED):
            async with stage.client(stage.dedicated, login, database):
                pass
    await stage.pretend_restored(stage.dedicated, scratch)
    await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
    async with stage.client(stage.dedicated, login, tenant.database):
        assert await stage.databases.connections(stage.dedicated, tenant.database, login.user) == 1


async def test_an_existing_ordinary_role_gets_the_password_and_loses_its_login(stage: Stage) -> None:
    login = new_login()
    await stage.add_role(stage.dedicated, login.user)
    for _ in range(2):
        await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ("reporting",))
    for name in (login.user, "reporting"):
        facts = await stage.databases.role_facts(stage.dedicated, name, "none")
        assert (facts.superuser, facts.can_login) == (False, False)


async def test_a_superuser_is_refused_as_a_tenants_role(stage: Stage) -> None:
    await stage.add_role(stage.dedicated, "root", superuser=True)
    with pytest.raises(Incompatible, match="superuser"):
        await stage.databases.make_role(stage.dedicated, new_login("root"), RoleAttributes(), ())
    with pytest.raises(NotOurs, match="superuser"):
        await stage.databases.close_role(stage.dedicated, "root")
    assert (await stage.databases.role_facts(stage.dedicated, "root", "none")).can_login


async def test_a_role_that_owns_another_database_is_left_alone(stage: Stage) -> None:
    new_tag()
    await stage.add_role(stage.dedicated, "theirs")
    await stage.add_database(stage.dedicated, "precious", "theirs")
    with pytest.raises(NotOurs, match="precious"):
        await stage.databases.make_role(stage.dedicated, new_login("theirs"), RoleAttributes(), ())
    with pytest.raises(NotOurs, match="precious"):
        await stage.databases.close_role(stage.dedicated, "theirs")
    assert (await stage.databases.role_facts(stage.dedicated, "theirs", "none")).can_login


async def test_making_the_role_late_does_not_lock_out_a_tenant_that_was_moved(stage: Stage) -> None:
    tenant, login = await stage.add_tenant(), new_login()
    final = await a_promoted(stage, tenant, login, new_tag())
    await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ())
    async with stage.client(stage.dedicated, login, final):
        pass


async def test_closing_a_role_ends_its_sessions_and_its_login(stage: Stage) -> None:
    tenant, login = await stage.add_tenant(), new_login()
    final = await a_promoted(stage, tenant, login, new_tag())
    async with stage.client(stage.dedicated, login, final) as odoo:
        await stage.databases.close_role(stage.dedicated, login.user)
        with pytest.raises(ENDED):
            await odoo.add_partner()
    with pytest.raises(REFUSED):
        async with stage.client(stage.dedicated, login, final):
            pass
    await stage.databases.close_role(stage.dedicated, login.user)
    await stage.databases.close_role(stage.dedicated, "never made")


async def test_a_role_that_was_opened_is_closed_whatever_it_has_made_since(stage: Stage) -> None:
    """It may have CREATEDB: left open, it would go on writing while somebody decides about its database."""
    tenant, login = await stage.add_tenant(), new_login()
    final = await a_promoted(stage, tenant, login, new_tag())
    async with stage.client(stage.dedicated, login, final) as odoo:
        await stage.add_database(stage.dedicated, "made_since", login.user)
        with pytest.raises(NotOurs, match="made_since"):  # of another customer's, for all it knows
            await stage.databases.close_role(stage.dedicated, login.user)
        await stage.databases.close_role(stage.dedicated, login.user, opened=True)
        with pytest.raises(ENDED):
            await odoo.add_partner()
    assert not (await stage.databases.role_facts(stage.dedicated, login.user, final)).can_login


async def test_a_role_that_has_nothing_and_may_not_log_in_is_dropped(stage: Stage) -> None:
    new_tag()
    await stage.databases.make_role(stage.dedicated, new_login("for_a_rehearsal"), RoleAttributes(), ())
    await stage.databases.drop_role(stage.dedicated, "for_a_rehearsal")
    with pytest.raises(NotFound):
        await stage.databases.role_facts(stage.dedicated, "for_a_rehearsal", "none")
    await stage.databases.drop_role(stage.dedicated, "for_a_rehearsal")


async def test_a_role_that_may_be_counted_on_is_not_dropped_while_a_database_is_made(stage: Stage) -> None:
    tenant, tag, login = await stage.add_tenant(), new_tag(), new_login("counting")
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ("readers",))
    scratch = "counting__rehome_0123456789ab-1"
    await stage.databases.make_scratch(stage.dedicated, scratch, facts, login.user, tag)
    with pytest.raises(NotOurs, match=f"{scratch} is being made there"):
        await stage.databases.drop_role(stage.dedicated, "readers", counted_on=True)
    await stage.databases.drop(stage.dedicated, scratch, tag.migration_id)
    await stage.databases.drop_role(stage.dedicated, "readers", counted_on=True)
    with pytest.raises(NotFound):
        await stage.databases.role_facts(stage.dedicated, "readers", "none")


async def test_a_role_that_may_log_in_is_not_dropped(stage: Stage) -> None:
    await stage.add_role(stage.dedicated, "somebody")
    with pytest.raises(NotOurs, match="somebody"):
        await stage.databases.drop_role(stage.dedicated, "somebody")
    assert (await stage.databases.role_facts(stage.dedicated, "somebody", "none")).can_login


@pytest.mark.parametrize("purpose", ["read", "dump", "restore"])
async def test_a_short_lived_role_that_a_lost_run_left_is_dropped_with_its_sessions(
    stage: Stage, purpose: str
) -> None:
    migration = new_tag().migration_id
    left = new_login(f"{prefix(migration)}{purpose}")
    await stage.add_role(stage.pool, left.user, password=left.password)
    async with stage.client(stage.pool, left, "postgres"):
        assert await stage.databases.end_sessions(stage.pool, migration) == 1
    with pytest.raises(NotFound):
        await stage.databases.role_facts(stage.pool, left.user, "none")


async def test_a_session_that_only_has_rehomes_name_is_neither_ended_nor_left_out(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    migration = new_tag().migration_id
    async with stage.forged(stage.pool, login_of(tenant), tenant.database, migration) as forger:
        assert await stage.databases.end_sessions(stage.pool, migration) == 0
        await forger.add_partner()
        assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 1
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        with pytest.raises(ENDED):
            await forger.add_partner()


async def test_only_sessions_of_the_migration_are_ended(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    lost, other = new_tag().migration_id, new_tag().migration_id
    async with (
        stage.left_over(stage.pool, tenant.database, lost) as of_lost,
        stage.left_over(stage.pool, tenant.database, other) as of_other,
    ):
        assert await stage.databases.end_sessions(stage.pool, lost) == 1
        assert await stage.databases.end_sessions(stage.pool, lost) == 0
        await of_other.add_partner()
        with pytest.raises(ENDED):
            await of_lost.add_partner()


async def test_a_session_that_opens_after_the_claim_was_lost_does_nothing(stage: Stage) -> None:
    async def lost() -> None:
        raise ClaimLost("another consumer took over")

    login = new_login()
    unclaimed = claim_check.set(lost)
    try:
        with pytest.raises(ClaimLost):
            await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ())
    finally:
        claim_check.reset(unclaimed)
    with pytest.raises(NotFound):
        await stage.databases.role_facts(stage.dedicated, login.user, "none")
