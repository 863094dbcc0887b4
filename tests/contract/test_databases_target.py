"""Port `Databases` on the dedicated server: scratch databases, their promotion and removal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.errors import Conflict, Incompatible, NotOurs
from rehome_consumer.model import RoleAttributes
from tests.contract.servers import ENDED, a_promoted, a_scratch, new_login, new_tag, verified

if TYPE_CHECKING:
    from tests.contract.servers import Stage

LIMIT = timedelta(seconds=20)
SHORT = timedelta(seconds=0.3)


# Scratch databases


async def test_a_scratch_database_is_like_its_source_and_has_the_ownership_tag(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    like = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    made = await stage.databases.database_facts(stage.dedicated, scratch, login.user)
    assert (made.encoding, made.collation, made.ctype) == (like.encoding, like.collation, like.ctype)
    assert (made.provider, made.locale, made.owner) == (like.provider, like.locale, login.user)
    assert set(made.settings) == {
        ("", 'search_path="$user", public'),
        (login.user, "TimeZone=Europe/Paris"),
    }
    assert await stage.databases.ownership_tag(stage.dedicated, scratch) == tag


async def test_comment_and_role_are_those_of_the_source_from_beginning_to_end(stage: Stage) -> None:
    """The comment is above the ownership tag, and hides it from nobody."""
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    found = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    role = RoleAttributes(
        create_databases=True, inherit=False, connection_limit=7, valid_until="2091-05-05T10:00:00.5+00"
    )
    role = replace(role, comment="Acme's \\ login")
    like = replace(found, role=role, comment="of Acme\n{\"rehome\": 'their own'}\n")
    await stage.databases.make_role(stage.dedicated, login, RoleAttributes(valid_until="2031-01-01"), ())
    await stage.databases.make_role(stage.dedicated, login, role, ())
    scratch = f"{tenant.database}__rehome"
    await stage.databases.make_scratch(stage.dedicated, scratch, like, login.user, tag)
    made = await stage.databases.database_facts(stage.dedicated, scratch, login.user)
    assert (made.comment, made.role) == (like.comment, role)
    assert await stage.databases.ownership_tag(stage.dedicated, scratch) == tag
    await stage.pretend_restored(stage.dedicated, scratch)
    await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
    made = await stage.databases.database_facts(stage.dedicated, tenant.database, login.user)
    assert (made.comment, made.role) == (like.comment, role)
    assert await stage.databases.ownership_tag(stage.dedicated, tenant.database) == verified(tag)


async def test_a_role_that_an_earlier_run_made_loses_what_the_source_has_not(stage: Stage) -> None:
    login = new_login()
    more = RoleAttributes(
        create_databases=True, connection_limit=7, valid_until="2091-05-05T10:00:00+00", comment="x"
    )
    for like in (more, RoleAttributes()):
        await stage.databases.make_role(stage.dedicated, login, like, ())
        made = await stage.databases.database_facts(stage.dedicated, "postgres", login.user)
        assert made.role == like


async def test_a_scratch_database_made_again_is_empty_again(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    await stage.pretend_restored(stage.dedicated, scratch)
    async with stage.client(stage.dedicated, stage.dedicated.admin, scratch):
        assert await a_scratch(stage, tenant, login, tag) == scratch
    with pytest.raises(Conflict, match="restore"):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))


async def test_a_name_that_is_taken_is_left_alone(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ())
    await stage.add_database(stage.dedicated, "taken", "postgres")
    with pytest.raises(NotOurs, match="taken"):
        await stage.databases.make_scratch(stage.dedicated, "taken", facts, login.user, tag)
    with pytest.raises(NotOurs, match="taken"):
        await stage.databases.ownership_tag(stage.dedicated, "taken")
    with pytest.raises(NotOurs, match="taken"):
        await stage.databases.drop(stage.dedicated, "taken", tag.migration_id)
    assert await stage.databases.connections(stage.dedicated, "taken", "postgres") >= 0  # still there


async def test_another_migrations_database_is_left_alone(stage: Stage) -> None:
    tenant, login, earlier = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, earlier)
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    tag = new_tag()
    with pytest.raises(NotOurs, match=scratch):
        await stage.databases.make_scratch(stage.dedicated, scratch, facts, login.user, tag)
    with pytest.raises(NotOurs, match=scratch):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
    with pytest.raises(NotOurs, match=scratch):
        await stage.databases.drop(stage.dedicated, scratch, tag.migration_id)
    assert await stage.databases.ownership_tag(stage.dedicated, scratch) == earlier


async def test_a_locale_that_the_server_lacks_is_named(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    await stage.databases.make_role(stage.dedicated, login, RoleAttributes(), ())
    strange = replace(facts, collation="tlh_QO.UTF-8")
    with pytest.raises(Incompatible, match="tlh_QO"):
        await stage.databases.make_scratch(stage.dedicated, "scratch", strange, login.user, tag)
    assert await stage.databases.ownership_tag(stage.dedicated, "scratch") is None


# Promotion


async def test_promoting_renames_tags_and_ends_sessions_on_the_scratch_database(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    await stage.pretend_restored(stage.dedicated, scratch)
    async with stage.client(stage.dedicated, stage.dedicated.admin, scratch) as late:
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
        with pytest.raises(ENDED):
            await late.add_partner()
    assert await stage.databases.ownership_tag(stage.dedicated, scratch) is None
    assert await stage.databases.ownership_tag(stage.dedicated, tenant.database) == verified(tag)
    state = await stage.databases.fence_state(stage.dedicated, tenant.database, login.user)
    assert (state.connection_limit, state.can_login) == (-1, True)


async def test_promoting_again_only_allows_the_role_to_log_in(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    final = await a_promoted(stage, tenant, login, tag)
    await stage.databases.close_role(stage.dedicated, login.user)
    await stage.databases.promote(stage.dedicated, f"{final}__rehome", final, login.user, verified(tag))
    async with stage.client(stage.dedicated, login, final):
        pass


async def test_a_database_that_was_never_restored_is_not_promoted(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    with pytest.raises(Conflict, match="restore"):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
    await stage.databases.drop(stage.dedicated, scratch, tag.migration_id)
    with pytest.raises(Conflict, match="missing"):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))


async def test_a_final_name_that_is_taken_is_left_alone(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    scratch = await a_scratch(stage, tenant, login, tag)
    await stage.pretend_restored(stage.dedicated, scratch)
    await stage.add_database(stage.dedicated, tenant.database, "postgres")
    with pytest.raises(NotOurs, match=tenant.database):
        await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))


async def test_an_earlier_attempts_database_is_not_promoted(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    final = await a_promoted(stage, tenant, login, tag)
    with pytest.raises(NotOurs, match="attempt 1"):
        await stage.databases.promote(
            stage.dedicated, "scratch", final, login.user, replace(verified(tag), attempt=2)
        )


# Removal


async def test_dropping_removes_scratch_and_promoted_databases_once(stage: Stage) -> None:
    tenant, login, tag = await stage.add_tenant(), new_login(), new_tag()
    final = await a_promoted(stage, tenant, login, tag)
    scratch = await a_scratch(stage, tenant, login, tag)
    async with stage.client(stage.dedicated, login, final):
        assert await stage.databases.drop(stage.dedicated, final, tag.migration_id) is True
    assert await stage.databases.drop(stage.dedicated, scratch, tag.migration_id) is True
    assert await stage.databases.drop(stage.dedicated, scratch, tag.migration_id) is False
    assert await stage.databases.ownership_tag(stage.dedicated, final) is None
