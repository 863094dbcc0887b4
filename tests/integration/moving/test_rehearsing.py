"""Untidy databases on real servers: what cannot be moved, and what would change, is told by the rehearsal."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.engine.outcome import describe_error, gravest
from rehome_consumer.errors import Incompatible, Refused
from rehome_consumer.model import Policy
from rehome_consumer.steps.support import rehearsal
from rehome_consumer.steps.support.comparing import differences
from sandbox.postgres.tenants import Tenant, create_tiny_tenant
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.real_servers import RealStage


@pytest.fixture
async def rehearsing(stage: RealStage) -> AsyncIterator[Rehearsing]:
    tenant = Tenant(f"rehearsed_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    made = Rehearsing(stage, tenant)
    await made.begin()
    yield made
    await made.remove()


async def test_a_database_is_rehearsed_and_nothing_is_left(rehearsing: Rehearsing) -> None:
    result = await rehearsing.run()
    assert result
    assert result.mode == "full"
    assert result.database_bytes > 1_000_000
    assert await rehearsing.left_over() == []


async def test_definitions_alone_are_rehearsed(stage: RealStage, rehearsing: Rehearsing) -> None:
    alone = Rehearsing(stage, rehearsing.tenant, Policy(rehearse="definitions"))
    await alone.begin()
    result = await alone.run()
    assert result
    assert result.mode == "definitions"
    assert await alone.left_over() == []


# Who does it, what, and what the operator is told.
UNTIDY: dict[str, tuple[str, str, str]] = {
    "a materialized view over a function that names a table without its schema": (
        "tenant",
        (
            "CREATE FUNCTION partners() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM res_partner'; "
            "CREATE MATERIALIZED VIEW summary AS SELECT public.partners() AS partners"
        ),
        r'relation "res_partner" does not exist',
    ),
    "an index over a function that calls another without its schema": (
        "tenant",
        (
            "CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; "
            "CREATE FUNCTION wrapped(text) RETURNS text LANGUAGE plpgsql IMMUTABLE "
            "AS 'BEGIN RETURN plain($1); END'; CREATE INDEX wrapped_idx ON res_partner (wrapped(name))"
        ),
        r"function plain\(text\) does not exist",
    ),
    "duplicates below a unique index": (
        "superuser",
        (
            "CREATE TABLE twice (a integer); INSERT INTO twice VALUES (4141), (4141); "
            "CREATE INDEX twice_a ON twice (a); "
            "ALTER TABLE twice OWNER TO {role}; "
            "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'twice_a'::regclass"
        ),
        r"could not create unique index.*twice_a.*Key \(a\)=\(\.\.\.\) is duplicated",
    ),
    "a check that reads another table": (
        "tenant",
        (
            "CREATE TABLE a_child (id integer); CREATE TABLE z_parent (id integer); INSERT INTO z_parent VALUES (1); "
            "CREATE FUNCTION has_parent(integer) RETURNS boolean LANGUAGE sql "
            "AS 'SELECT EXISTS (SELECT FROM public.z_parent WHERE id = $1)'; "
            "ALTER TABLE a_child ADD CHECK (public.has_parent(id)); INSERT INTO a_child VALUES (1)"
        ),
        r"violates check constraint",
    ),
}


@pytest.mark.parametrize("name", UNTIDY)
async def test_what_cannot_be_moved_is_told_in_the_servers_words(rehearsing: Rehearsing, name: str) -> None:
    who, statements, expected = UNTIDY[name]
    statements = statements.replace("{database}", rehearsing.tenant.database).replace(
        "{role}", rehearsing.tenant.role
    )
    await (rehearsing.as_tenant if who == "tenant" else rehearsing.as_superuser)(statements)
    with pytest.raises((Refused, ExceptionGroup)) as raised:
        await rehearsing.run()
    error = gravest(raised.value)
    assert isinstance(error, Refused)
    assert re.search(expected, describe_error(error))
    assert "4141" not in describe_error(error)  # a value of the tenant's
    assert await rehearsing.left_over() == []


async def test_a_function_of_an_extension_that_was_made_immutable_stays_so(
    rehearsing: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unaccent` in an index, as Odoo's administrators make it."""
    await rehearsing.as_superuser(
        "ALTER FUNCTION unaccent(text) IMMUTABLE; CREATE INDEX plain_name ON res_partner (unaccent(name)); "
        "ALTER FUNCTION similarity(text, text) PARALLEL UNSAFE"
    )
    kept: list[str] = []

    async def looking(*arguments: Any) -> list[str]:
        async with rehearsing.stage.dedicated_cluster.connect(await rehearsing.move.scratch_name()) as copy:
            kept.extend(row[0] for row in await copy.fetch(VOLATILITY))
        return await differences(*arguments)

    monkeypatch.setattr(rehearsal, "differences", looking)  # for a look before it is removed
    assert await rehearsing.run()
    assert kept == ["similarity i u", "unaccent i s"]


async def test_a_function_of_an_extension_that_was_changed_otherwise_is_refused(
    rehearsing: Rehearsing,
) -> None:
    await rehearsing.as_superuser("ALTER FUNCTION unaccent(text) SET search_path = public")
    with pytest.raises(
        Incompatible, match=r"function public\.unaccent\(.*text\) of extension unaccent.*config="
    ):
        await rehearsing.stage.databases.require_genuine_extensions(
            rehearsing.stage.pool,
            rehearsing.tenant.database,
            rehearsing.tenant.role,
            rehearsing.stage.dedicated,
        )


VOLATILITY = (
    "SELECT proname || ' ' || provolatile::text || ' ' || proparallel::text FROM pg_proc "
    "WHERE oid IN ('unaccent(text)'::regprocedure, 'similarity(text, text)'::regprocedure) ORDER BY 1"
)


async def test_a_database_setting_that_names_something_in_it_is_kept(rehearsing: Rehearsing) -> None:
    await rehearsing.as_superuser(
        "CREATE TEXT SEARCH CONFIGURATION public.fr (COPY = french); "
        f"ALTER DATABASE {rehearsing.tenant.database} SET default_text_search_config = 'public.fr'"
    )
    assert await rehearsing.run()


async def test_definitions_that_changed_are_rehearsed_again(rehearsing: Rehearsing) -> None:
    assert await rehearsing.run()
    await rehearsing.as_tenant("INSERT INTO import_log (line) VALUES ('rows change all the time')")
    await rehearsal.require_current(rehearsing.move)
    await rehearsing.as_tenant(
        "CREATE FUNCTION partners() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM res_partner'; "
        "CREATE MATERIALIZED VIEW summary AS SELECT public.partners() AS partners"
    )
    with pytest.raises((Refused, ExceptionGroup)) as raised:
        await rehearsal.require_current(rehearsing.move)
    assert isinstance(gravest(raised.value), Refused)
