"""Short-lived roles, fences and administrators' sessions on real servers, with code of the tenant's running."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.postgres import extensions
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.errors import Incompatible, NotOurs
from rehome_consumer.model import Credentials, RoleAttributes
from rehome_consumer.sql import AdministratorSql
from sandbox.postgres.databases import create_database, create_role, drop_database, quoted
from sandbox.postgres.tenants import nasty_password
from sandbox.system.net import wait_until
from tests.contract.servers import REFUSED, ProgressRecorder

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from rehome_consumer.adapters.postgres.short_lived import Login
    from sandbox.postgres.server import Cluster
    from tests.support.moves import Move

LIMIT = timedelta(seconds=20)
SESSIONS = Sessions()
EVERY_SETTING = AdministratorSql(
    "SELECT current_setting('search_path') AS path, current_setting('role') AS role, "
    "current_setting('standard_conforming_strings') AS strings, current_setting('work_mem') AS memory, "
    "current_setting('my.own', true) AS own"
)


def reading(move: Move) -> AbstractAsyncContextManager[Login]:
    tenant = move.tenant
    return short_lived_login(
        SESSIONS, move.stage.pool, tenant.database, tenant.role, "read", jobs=2, limit=60.0
    )


def opened(
    move: Move, login: Login, database: str | None = None
) -> AbstractAsyncContextManager[TenantSession]:
    """A session of the short-lived login, in which the tenant's code could run."""
    where = database or move.tenant.database
    return SESSIONS.tenant(move.stage.pool, where, login.credentials, what="trying")


async def as_login(move: Move, login: Login, statement: str) -> object:
    """Run a statement as code in such a session could."""
    async with opened(move, login) as session:
        return await session.fetchval(statement)


async def roles(move: Move) -> list[str]:
    async with move.stage.pool_cluster.connect() as connection:
        start = prefix(move.tag.migration_id)
        found = await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", start)
        return [row["rolname"] for row in found]


# Short-lived roles


async def test_a_short_lived_role_has_the_tenants_rights_and_no_others(move: Move) -> None:
    async with reading(move) as login:
        assert await as_login(move, login, "SELECT count(*) FROM public.res_partner") == 200
        for forbidden in (
            "SELECT count(*) FROM pg_authid",
            "COPY (SELECT 1) TO PROGRAM 'true'",
            "CREATE ROLE more",
            f"ALTER ROLE {quoted(login.name)} VALID UNTIL 'infinity'",
            f"ALTER ROLE {quoted(login.name)} LOGIN",
            f"ALTER ROLE {quoted(move.tenant.role)} CREATEDB",
            "SELECT lo_export(1, '/tmp/x')",
            "SELECT pg_read_file('PG_VERSION')",
        ):
            with pytest.raises((asyncpg.PostgresError, Incompatible)):
                await as_login(move, login, forbidden)
    assert await roles(move) == []


async def test_a_closed_login_admits_no_one_who_knows_its_password(move: Move) -> None:
    async with reading(move) as login:
        await login.close()
        with pytest.raises(REFUSED):
            async with move.stage.client(move.stage.pool, login.credentials, move.tenant.database):
                pass


@pytest.mark.parametrize(
    "statement",
    ["ALTER ROLE {role} PASSWORD 'known'", "ALTER ROLE {role} SET work_mem = '1MB'"],
    ids=["a password", "a setting"],
)
async def test_code_that_changes_its_short_lived_role_is_reported_and_the_role_is_dropped(
    move: Move, statement: str
) -> None:
    with pytest.raises(Incompatible, match="tried to keep a way in"):
        async with reading(move) as login, opened(move, login) as session:
            await session.execute(statement.format(role=quoted(login.name)))
    assert await roles(move) == []


async def test_a_session_that_others_opened_with_the_short_lived_role_is_ended(move: Move) -> None:
    stolen: list[asyncpg.Connection[asyncpg.Record]] = []

    async def steal() -> None:
        async with reading(move) as login, opened(move, login) as session:
            await session.execute("ALTER ROLE CURRENT_USER PASSWORD 'known'")
            dsn = move.stage.pool_cluster.dsn(move.tenant.database, user=login.name, password="known")
            stolen.append(await asyncpg.connect(dsn))

    with pytest.raises(Incompatible, match="tried to keep a way in"):
        await steal()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await stolen[0].fetchval("SELECT 1")
    stolen[0].terminate()


async def test_a_short_lived_role_is_dropped_whatever_it_created_or_was_granted(move: Move) -> None:
    """Tables, grants and default privileges, in the tenant's database and in another one."""
    other = f"next_door_{uuid4().hex[:8]}"
    await create_database(move.stage.pool_cluster, other)
    async with move.stage.pool_cluster.connect(other) as connection:
        await connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        usual = await connection.fetchval("SELECT count(*) FROM pg_default_acl")
    async with reading(move) as login:
        for database in (move.tenant.database, other):
            async with opened(move, login, database) as session:
                await session.execute("CREATE TABLE public.left_here (id integer)")
                await session.execute("GRANT SELECT ON public.left_here TO PUBLIC")
                await session.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
        async with opened(move, login) as session:
            await session.execute(f"GRANT SELECT ON public.res_partner TO {quoted(login.name)}")
    assert await roles(move) == []
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_default_acl") == usual
        owner = await connection.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'left_here'")
        assert owner == move.tenant.role
    await drop_database(move.stage.pool_cluster, other)


async def test_a_short_lived_role_is_dropped_whatever_it_was_granted_on_the_database(move: Move) -> None:
    async with reading(move) as login, opened(move, login) as session:
        database = quoted(move.tenant.database)
        await session.execute(f"GRANT CREATE, TEMPORARY ON DATABASE {database} TO {quoted(login.name)}")
    assert await roles(move) == []


async def test_a_copy_that_code_in_a_restore_made_a_template_is_dropped(move: Move) -> None:
    stage = move.stage
    await move.provision()
    async with (
        short_lived_login(
            SESSIONS, stage.dedicated, move.scratch, move.login.user, "restore", jobs=2, limit=60.0
        ) as login,
        SESSIONS.tenant(stage.dedicated, move.scratch, login.credentials, what="trying") as session,
    ):
        await session.execute(f"ALTER DATABASE {quoted(move.scratch)} IS_TEMPLATE true")
    assert await stage.databases.drop(stage.dedicated, move.scratch, move.tag.migration_id)
    assert await stage.databases.ownership_tag(stage.dedicated, move.scratch) is None


async def test_a_fenced_database_admits_only_the_short_lived_role(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    friend = Credentials(f"friend_{uuid4().hex[:8]}", move.login.password)
    await create_role(stage.pool_cluster, friend.user, friend.password.reveal())
    async with stage.pool_cluster.connect() as connection:
        await connection.execute(
            f"GRANT CONNECT ON DATABASE {quoted(tenant.database)} TO {quoted(friend.user)}"
        )
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    async with reading(move) as login:
        assert await as_login(move, login, "SELECT 1") == 1
        with pytest.raises(REFUSED):
            async with stage.client(stage.pool, friend, tenant.database):
                pass
    state = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    assert (state.closed, state.connection_limit) == (True, 0)


async def test_a_role_that_is_dropped_late_does_not_close_an_unfenced_database(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    async with reading(move):
        await stage.databases.unfence(stage.pool, tenant.database, tenant.role, before)
    assert await stage.databases.fence_state(stage.pool, tenant.database, tenant.role) == before


async def test_tables_that_hide_rows_from_their_owner_are_counted(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute(f"SET ROLE {quoted(tenant.role)}")
        await connection.execute(
            "CREATE TABLE forced (id integer); INSERT INTO forced VALUES (1), (2); "
            "ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        )
    counts = await stage.verifier.row_counts(stage.pool, tenant.database, tenant.role)
    assert counts["public.forced"] == 2
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, f"{uuid4()}-1", ProgressRecorder())


async def test_privileges_that_the_tenant_revokes_from_itself_open_no_catalogue_with_passwords(
    move: Move,
) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute(f"SET ROLE {quoted(move.tenant.role)}")
        await connection.execute(
            "CREATE TABLE closed (id integer); REVOKE ALL ON closed FROM CURRENT_USER, PUBLIC"
        )
    async with reading(move) as login:
        for statement in (
            "SELECT rolpassword FROM pg_authid",
            "SELECT subconninfo FROM pg_subscription",
            "SELECT data FROM pg_largeobject",
        ):
            with pytest.raises(Incompatible, match="permission denied"):
                await as_login(move, login, statement)


async def test_a_schema_that_only_the_databases_owner_may_use_is_read_behind_the_fence(move: Move) -> None:
    """As version 15 makes schema public, with USAGE revoked from PUBLIC; a table in it is the administrator's."""
    stage, tenant = move.stage, move.tenant
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute(
            "ALTER SCHEMA public OWNER TO pg_database_owner; REVOKE ALL ON SCHEMA public FROM PUBLIC; "
            f"REVOKE ALL ON SCHEMA public FROM {quoted(tenant.role)}; "
            "CREATE TABLE public.shown (id integer); GRANT SELECT ON public.shown TO PUBLIC"
        )
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            "CREATE TABLE secret (id integer)",
            "table of role postgres, which the tenant may not read, public.secret",
        ),
        (
            """CREATE TABLE shown (id integer); GRANT SELECT ON shown TO PUBLIC;
            ALTER TABLE shown ENABLE ROW LEVEL SECURITY""",
            "table of role postgres that hides rows from the tenant public.shown",
        ),
        (
            """CREATE TABLE closed (id integer); ALTER TABLE closed OWNER TO {tenant};
            REVOKE ALL ON closed FROM {tenant}, PUBLIC""",
            "which the tenant may not read, public.closed",
        ),
        ("SELECT lo_from_bytea(77, 'x')", "large object of role postgres, which the tenant may not read, 77"),
    ],
)
async def test_what_the_tenant_may_not_read_is_refused_with_advice(
    move: Move, statement: str, named: str
) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute(statement.replace("{tenant}", quoted(move.tenant.role)))
    with pytest.raises(Incompatible, match=named):
        await move.stage.databases.database_facts(move.stage.pool, move.tenant.database, move.tenant.role)


async def test_a_server_that_rejects_such_roles_is_reported_before_anything_is_stopped(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    usual = await asyncio.to_thread(hba(stage.pool_cluster).read_text)
    try:
        await admit(stage.pool_cluster, f"host all postgres,{tenant.role} all scram-sha-256\n")
        with pytest.raises(Incompatible, match=r"let its pg_hba\.conf admit members of the tenant's role"):
            await stage.databases.require_admitted(stage.pool, tenant.database, tenant.role)
        await admit(stage.pool_cluster, f"host all postgres,+{tenant.role} all scram-sha-256\n")
        await stage.databases.require_admitted(stage.pool, tenant.database, tenant.role)
    finally:
        await admit(stage.pool_cluster, usual)
    assert await roles(move) == []


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        (
            "host all {login} all scram-sha-256",
            (
                r"dedicated-1 lets no short-lived role with the rights of {login} into .*from 127\.0\.0\.1.*"
                r"`host all \+{login} 127\.0\.0\.1/32 scram-sha-256`"
            ),
        ),
        ("hostssl all all all scram-sha-256", "lets no short-lived role"),
        (
            "host {database},postgres all all scram-sha-256",
            "lets no short-lived role with the rights of {login} into {database}__rehome",
        ),
        (
            "host {scratch} all all scram-sha-256",
            (
                "lets role {login}, the customer's login there, into {database} from nowhere.*"
                "`host {database} {login} NETWORK scram-sha-256`"
            ),
        ),
        (
            "host {database} all all reject\nhost all all all scram-sha-256",
            "lets role {login}, the customer's login there, into {database} from nowhere",
        ),
    ],
)
async def test_a_dedicated_server_that_would_reject_a_login_is_named_before_anything_is_stopped(
    move: Move, lines: str, missing: str
) -> None:
    stage, names = move.stage, (move.tenant.database, f"{move.tenant.database}__rehome_1", move.login.user)
    words = dict(zip(("database", "scratch", "login"), names, strict=True))
    usual = await asyncio.to_thread(hba(stage.dedicated_cluster).read_text)
    await stage.databases.require_login_rules(stage.dedicated, *names)
    administrator = "host postgres postgres all scram-sha-256\n"
    try:
        await admit(stage.dedicated_cluster, f"{administrator}{lines.format(**words)}\n")
        with pytest.raises(Incompatible, match=missing.format(**words)):
            await stage.databases.require_login_rules(stage.dedicated, *names)
        fitting = (
            "host all +{login} 127.0.0.1/32 scram-sha-256\nhost {database} {login} 10.0.0.0/8 scram-sha-256\n"
        )
        await admit(stage.dedicated_cluster, f"{administrator}{fitting.format(**words)}")
        await stage.databases.require_login_rules(stage.dedicated, *names)
    finally:
        await admit(stage.dedicated_cluster, usual)


def hba(cluster: Cluster) -> Path:
    return cluster.directory / "data" / "pg_hba.conf"


async def admit(cluster: Cluster, lines: str) -> None:
    """Let the server use these lines as its pg_hba.conf."""
    await asyncio.to_thread(hba(cluster).write_text, lines)
    async with cluster.connect() as connection:
        before = await connection.fetchval("SELECT pg_conf_load_time()")
        await connection.execute("SELECT pg_reload_conf()")

        async def reloaded() -> bool:
            return bool(await connection.fetchval("SELECT pg_conf_load_time() > $1", before))

        await wait_until(reloaded, what="the server to read its settings", limit=10)


async def test_a_database_that_admits_few_sessions_is_read_by_few_sessions(move: Move) -> None:
    """On the dedicated server the original limit applies once it was promoted, and a rollback reads it."""
    stage, tenant = move.stage, move.tenant
    async with stage.pool_cluster.connect() as connection:
        await connection.execute(f"ALTER DATABASE {quoted(tenant.database)} CONNECTION LIMIT 1")
    counts = await PostgresVerifier(jobs=4).row_counts(stage.pool, tenant.database, tenant.role)
    assert counts["public.res_partner"] == 200


# Administrators' sessions


async def test_no_setting_of_the_database_applies_to_an_administrators_session(move: Move) -> None:
    database = quoted(move.tenant.database)
    async with move.stage.pool_cluster.connect() as connection:
        usual = await connection.fetchval("SHOW work_mem")
        for setting in (
            "search_path = evil, pg_catalog",
            f"role = {quoted(move.tenant.role)}",
            "standard_conforming_strings = off",
            "seed = 0.5",
            "work_mem = '77MB'",
            "my.own = 'x'",
        ):
            await connection.execute(f"ALTER DATABASE {database} SET {setting}")
    async with SESSIONS.administrator(move.stage.pool, move.tenant.database, what="looking") as session:
        found = await session.fetchrow(EVERY_SETTING)
    assert found
    assert tuple(found) == ("pg_catalog", "none", "on", usual, "")


async def test_a_session_that_waits_for_a_long_restore_is_not_ended(move: Move) -> None:
    async with move.stage.pool_cluster.connect() as connection:
        await connection.execute("ALTER ROLE postgres SET idle_session_timeout = '100ms'")
    try:
        async with SESSIONS.administrator(move.stage.pool, move.tenant.database, what="waiting") as session:
            await asyncio.sleep(0.5)
            assert await session.fetchrow(EVERY_SETTING)
    finally:
        async with move.stage.pool_cluster.connect() as connection:
            await connection.execute("ALTER ROLE postgres RESET idle_session_timeout")


async def test_a_database_with_too_many_settings_to_override_is_reported(move: Move) -> None:
    settings = "; ".join(
        f"ALTER DATABASE {quoted(move.tenant.database)} SET my.setting_with_a_long_name_{number} = 'x'"
        for number in range(400)
    )
    async with move.stage.pool_cluster.connect() as connection:
        await connection.execute(settings)
    with pytest.raises(Incompatible, match=r"has 4\d\d settings of its own"):
        await move.stage.databases.database_facts(move.stage.pool, move.tenant.database, move.tenant.role)


# Fences


async def test_a_fence_cannot_be_opened_from_another_database(move: Move) -> None:
    """By a function of the tenant's in a neighbour's database, which the neighbour calls."""
    stage, tenant = move.stage, move.tenant
    other = f"next_door_{uuid4().hex[:8]}"
    await create_database(stage.pool_cluster, other)
    database = quoted(tenant.database)
    async with stage.pool_cluster.connect(other) as neighbour:
        await neighbour.execute(
            f"CREATE FUNCTION open_up() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
            f"EXECUTE 'ALTER DATABASE {database} CONNECTION LIMIT -1'; END $$; "
            f"CREATE FUNCTION grant_connect() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
            f"EXECUTE 'GRANT CONNECT ON DATABASE {database} TO PUBLIC'; END $$; "
            f"ALTER FUNCTION open_up() OWNER TO {quoted(tenant.role)}; "
            f"ALTER FUNCTION grant_connect() OWNER TO {quoted(tenant.role)}"
        )
        role = await stage.databases.role_facts(stage.pool, tenant.role, tenant.database)
        assert role.elsewhere == (f"owns something in database {other}",)
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        for function in ("open_up", "grant_connect"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await neighbour.execute(f"SELECT {function}()")
    assert (await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)).closed
    await drop_database(stage.pool_cluster, other)


async def test_privileges_on_the_database_are_as_before_once_it_is_unfenced(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    database = quoted(tenant.database)
    chain = [f"role_{place}_{uuid4().hex[:8]}" for place in range(6)]
    for name in chain:
        await create_role(stage.pool_cluster, name, nasty_password())
    passed_on = [
        f"SET ROLE {quoted(by)}; GRANT CONNECT ON DATABASE {database} TO {quoted(to)} WITH GRANT OPTION; RESET ROLE"
        for by, to in pairwise(chain)
    ]
    async with stage.pool_cluster.connect() as connection:
        for statement in (
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO {quoted(chain[0])} WITH GRANT OPTION",
            f"GRANT CONNECT ON DATABASE {database} TO postgres",
            *passed_on,
            f"REVOKE TEMPORARY ON DATABASE {database} FROM {quoted(tenant.role)}",
        ):
            await connection.execute(statement)
    before = await stage.databases.fence_state(stage.pool, tenant.database, tenant.role)
    await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
    await stage.databases.unfence(stage.pool, tenant.database, tenant.role, before)
    assert await stage.databases.fence_state(stage.pool, tenant.database, tenant.role) == before


# What arrives on the dedicated server


async def test_settings_arrive_as_they_were_written(move: Move) -> None:
    database = quoted(move.tenant.database)
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute("INSERT INTO public.res_partner (name, autopost_bills) VALUES ('€', 'ask')")
    async with move.stage.pool_cluster.connect() as connection:
        for setting in (
            *("statement_timeout = '600s'", "work_mem = '65536kB'", "search_path = ''"),
            "client_encoding = 'LATIN1'",
        ):
            await connection.execute(f"ALTER DATABASE {database} SET {setting}")
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []


async def test_settings_that_change_what_a_dump_means_do_not_apply_to_the_restore(move: Move) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        for statement in (
            f"ALTER DATABASE {quoted(move.tenant.database)} SET array_nulls = off",
            f"ALTER DATABASE {quoted(move.tenant.database)} SET transform_null_equals = on",
            f"SET ROLE {quoted(move.tenant.role)}",
            "CREATE TABLE public.lists (names text[])",
            "INSERT INTO public.lists VALUES (ARRAY['a', NULL])",
            "CREATE VIEW public.never AS SELECT names = NULL AS it FROM public.lists",
        ):
            await connection.execute(statement)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []


async def test_a_role_may_have_connect_on_the_maintenance_database(move: Move) -> None:
    """As where a pool has revoked CONNECT there from PUBLIC: Odoo listens on it."""
    stage, tenant = move.stage, move.tenant
    for privilege, ties in (("CONNECT", ()), ("CREATE", ("has privileges on database postgres",))):
        async with stage.pool_cluster.connect() as connection:
            await connection.execute(f"GRANT {privilege} ON DATABASE postgres TO {quoted(tenant.role)}")
        role = await stage.databases.role_facts(stage.pool, tenant.role, tenant.database)
        assert role.elsewhere == ties
    async with stage.pool_cluster.connect() as connection:
        await connection.execute(f"REVOKE ALL ON DATABASE postgres FROM {quoted(tenant.role)}")


async def test_a_table_that_was_added_to_an_extension_is_refused(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute("ALTER EXTENSION pg_trgm ADD TABLE res_partner")
    found = r"table public\.res_partner \(extension pg_trgm\)"
    with pytest.raises(Incompatible, match=found):
        await stage.databases.require_genuine_extensions(
            stage.pool, tenant.database, tenant.role, stage.dedicated
        )
    backup = await move.fence_and_back_up()
    await move.provision()
    with pytest.raises(Incompatible, match=found):
        await move.restore(backup)


async def test_built_in_types_may_be_spelt_differently_by_another_version(move: Move) -> None:
    """PostgreSQL 16 identifies hstore's cast by pg_catalog.json, 18 by json."""
    cluster, database = move.stage.pool_cluster, move.tenant.database
    async with cluster.connect(database) as connection:
        await connection.execute("CREATE EXTENSION hstore SCHEMA public")
    async with SESSIONS.administrator(move.stage.pool, database, what="looking") as session:
        described = next(
            one for one in await extensions.describe(session, move.tenant.role) if one["name"] == "hstore"
        )
        described["members"] = [
            [kind, name.replace("pg_catalog.json", "json")] for kind, name in described["members"]
        ]
        assert ["cast", "(public.hstore AS json)"] in described["members"]
        assert await extensions.strays(session, [described], [extensions.Created("hstore", same=True)]) == []


async def test_a_role_that_is_in_use_on_the_dedicated_server_is_left_alone(move: Move) -> None:
    stage = move.stage
    await create_role(stage.dedicated_cluster, move.login.user, nasty_password())
    other = f"theirs_{uuid4().hex[:8]}"
    await create_database(stage.dedicated_cluster, other)
    async with stage.dedicated_cluster.connect(other) as connection:
        await connection.execute(f"CREATE SCHEMA theirs AUTHORIZATION {quoted(move.login.user)}")
    with pytest.raises(NotOurs, match=f"owns something in database {other}"):
        await stage.databases.make_role(stage.dedicated, move.login, RoleAttributes(), ())
    await drop_database(stage.dedicated_cluster, other)
    async with stage.dedicated_cluster.connect() as connection:
        await connection.execute(f"GRANT pg_monitor TO {quoted(move.login.user)}")
    with pytest.raises(Incompatible, match="member of pg_monitor"):
        await stage.databases.make_role(stage.dedicated, move.login, RoleAttributes(), ())
