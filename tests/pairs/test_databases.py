"""What databases, roles and servers of newer versions can have besides objects."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.client_programs import environment
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.errors import Incompatible
from rehome_consumer.model import Credentials, Secret
from rehome_consumer.steps import prepare
from rehome_consumer.steps.support.identity import require_alone
from sandbox.postgres.databases import create_database, drop_database, major_version, quoted
from sandbox.system.processes import run
from tests.support.moves import Move, add_variety
from tests.support.postgres_versions import has_icu

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from rehome_consumer.ports.steps import Ports
    from sandbox.postgres.server import Cluster
    from tests.contract.real_servers import RealStage
    from tests.support.postgres_versions import Pair

LOCALES = [
    (
        17,
        "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LC_COLLATE 'C' LC_CTYPE 'C'",
        ("b", "C.UTF-8", None),
    ),
    (18, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST'", ("b", "PG_UNICODE_FAST", None)),
    (
        16,
        "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < g' LC_COLLATE 'C' LC_CTYPE 'C'",
        ("i", "de-DE", "&a < g"),
    ),
]


@pytest.mark.parametrize(("since", "options", "expected"), LOCALES, ids=["builtin", "unicode", "icu rules"])
async def test_locale_of_a_database_arrives(
    move: Move, since: int, options: str, expected: tuple[str, str, str | None]
) -> None:
    stage, tenant = move.stage, move.tenant
    if int(await major_version(stage.pool_cluster)) < since:
        pytest.skip(f"the pool's version has no such database: PostgreSQL {since} has")
    if expected[0] == "i" and not await has_icu(stage.pool_cluster):
        pytest.skip("this server was built without ICU")
    await drop_database(stage.pool_cluster, tenant.database)
    await create_database(stage.pool_cluster, tenant.database, owner=tenant.role, options=options)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    made = await stage.databases.database_facts(stage.dedicated, move.scratch, move.login.user)
    assert (made.provider, made.locale, made.icu_rules) == expected
    # and a copy without them is noticed
    await drop_database(stage.dedicated_cluster, move.scratch)
    async with stage.dedicated_cluster.connect() as there:
        await there.execute(f"DROP ROLE {quoted(move.login.user)}")
        await there.execute(f"CREATE ROLE {quoted(move.login.user)}")
    await create_database(
        stage.dedicated_cluster,
        move.scratch,
        owner=move.login.user,
        options="LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LC_COLLATE 'C' LC_CTYPE 'C'"
        if expected[2]
        else "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    named = "database icu_rules:" if expected[2] else "database provider:"
    assert any(one.startswith(named) for one in await move.differences())


async def test_client_programs_that_do_not_know_what_the_pool_stores_are_refused(
    move: Move, versions: Pair, tmp_path: Path
) -> None:
    """17.12 keeps `pg_attver` with each column; pg_dump 18.6 writes that into a dump as an option of the column's."""
    if versions.clients == versions.dedicated:
        pytest.skip("the dedicated server's programs know all that the pool stores")
    move.stage.copier = PgCopier(BackupPlace(tmp_path), versions.dedicated, jobs=2)
    with pytest.raises(Incompatible, match=r"pg_attver.* set REHOME_PG_BIN to the latest .* PostgreSQL 17"):
        await move.stage.copier.require_dumpable(move.stage.pool, move.tenant.database)
    backup = await move.fence_and_back_up()
    await move.provision()
    # Once this is restored, the check can go.
    with pytest.raises(Incompatible, match='unrecognized parameter "pg_attver"'):
        await move.restore(backup)


async def test_client_programs_of_the_pools_version_do_it_too(
    move: Move, versions: Pair, tmp_path: Path
) -> None:
    """They write GRANT ALL, which grants more on a server with more privileges: MAINTAIN since version 17."""
    move.stage.copier = PgCopier(BackupPlace(tmp_path), versions.pool, jobs=2)
    await add_variety(move)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []


@asynccontextmanager
async def _set(clusters: tuple[Cluster, ...], setting: str, value: str) -> AsyncIterator[None]:
    async def everywhere(statement: str) -> None:
        for cluster in clusters:
            async with cluster.connect() as connection:
                await connection.execute(statement)
                await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(0.3)  # until every postmaster has read it

    await everywhere(f"ALTER SYSTEM SET {setting} = '{value}'")
    try:
        yield
    finally:
        await everywhere(f"ALTER SYSTEM RESET {setting}")


async def test_a_servers_limit_for_transactions_does_not_hold_for_rehome(move: Move, versions: Pair) -> None:
    """`transaction_timeout` came with version 17. A copy of a real database takes longer than any such limit."""
    having = [
        (cluster, server)
        for cluster, server in (
            (move.stage.pool_cluster, move.stage.pool),
            (move.stage.dedicated_cluster, move.stage.dedicated),
        )
        if int(await major_version(cluster)) >= 17
    ]
    if not having:
        pytest.skip("neither server has transaction_timeout: PostgreSQL 17 has")
    sessions, show = Sessions(), "SHOW transaction_timeout"
    async with _set(tuple(cluster for cluster, _ in having), "transaction_timeout", "30s"):
        for cluster, server in having:
            login = Credentials("postgres", Secret(cluster.password))
            async with cluster.connect() as other:
                assert await other.fetchval(show) == "30s"
            async with sessions.administrator(server, what="x") as session:
                assert await session._connection.fetchval(show) == "0"
            async with sessions.tenant(server, "postgres", login, what="x") as tenant:
                assert await tenant.fetchval(show) == "0"
            env = environment(sessions, server, login, server_major=int(await major_version(cluster)))
            assert (
                await run([versions.clients / "psql", "-Atc", show, "postgres"], env=env, limit=30) == "0\n"
            )


async def test_a_tenants_role_with_a_built_in_roles_rights_is_refused(move: Move) -> None:
    """Roles such as pg_maintain (17) and pg_signal_autovacuum_worker (18) reach into every database."""
    stage, tenant = move.stage, move.tenant
    async with stage.pool_cluster.connect() as pool:
        names = [
            row[0]
            for row in await pool.fetch(
                "SELECT rolname FROM pg_roles WHERE rolname ~ '^pg_' AND rolname <> 'pg_database_owner'"
            )
        ]
        for name in names:
            await pool.execute(f"GRANT {name} TO {quoted(tenant.role)}")
            facts = await stage.databases.role_facts(stage.pool, tenant.role, tenant.database)
            with pytest.raises(Incompatible, match=name):
                require_alone(tenant.database, facts, stage.pool)
            await pool.execute(f"REVOKE {name} FROM {quoted(tenant.role)}")


def _ports(stage: RealStage) -> Ports:
    return cast("Ports", SimpleNamespace(databases=stage.databases, copier=stage.copier))


async def test_an_older_dedicated_server_is_refused_before_anything_is_stopped(
    move: Move, versions: Pair
) -> None:
    stage = move.stage
    here = await major_version(stage.pool_cluster)
    there = await major_version(stage.dedicated_cluster)
    if here == there:
        pytest.skip("both servers are of one version")
    database = await stage.databases.database_facts(stage.pool, move.tenant.database, move.tenant.role)
    await prepare.check_pair(_ports(stage), stage.pool, stage.dedicated, database)
    with pytest.raises(Incompatible, match=f"runs PostgreSQL {there}, .* only {here}: .*older server"):
        await prepare.check_pair(_ports(stage), stage.dedicated, stage.pool, database)
    stage.copier = PgCopier(BackupPlace(stage.backup_root), versions.pool)
    await prepare.check_pair(_ports(stage), stage.pool, stage.dedicated, database)
    with pytest.raises(Incompatible, match=rf"of PostgreSQL {here}\b.* REHOME_PG_BIN"):
        await prepare.check_pair(_ports(stage), stage.dedicated, stage.dedicated, database)
