"""Moving real databases: everything arrives, nobody interferes, nothing is left."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from consumer.adapters.copy import PgCopier
from consumer.adapters.postgres import sums
from consumer.errors import ChildFailed, Incompatible, RehomeError
from consumer.fingerprint import differences
from consumer.model import Credentials, Secret
from sandbox.databases import create_database, create_role, drop_database, quoted
from sandbox.net import wait_until
from sandbox.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.servers import RealStage, Told, login_of, new_mark, verified

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer.model import Backup, Mark
    from sandbox.postgres import Cluster
    from tests.conftest import OdooTenantFactory

VARIETY = (Path(__file__).parent.parent / "support" / "variety.sql").read_text()
LIMIT = timedelta(seconds=30)


class Move:
    """One tenant's way from `stage.pool` to `stage.dedicated`, step by step."""

    def __init__(self, stage: RealStage, tenant: Tenant) -> None:
        self.stage = stage
        self.tenant = tenant
        self.login = Credentials(f"{tenant.role}_new", Secret(nasty_password()))
        self.mark: Mark = new_mark()
        self.scratch = f"{tenant.database}__rehome"

    async def fence_and_back_up(self) -> Backup:
        stage, tenant = self.stage, self.tenant
        name = f"{self.mark.migration_id}-1"
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        await stage.copier.dump(stage.pool, tenant.database, name, Told())
        return await stage.copier.seal(name, {}, {})

    async def provision(self) -> None:
        stage = self.stage
        facts = await stage.databases.database_facts(stage.pool, self.tenant.database)
        await stage.databases.make_role(stage.dedicated, self.login, facts.grantees)
        await stage.databases.make_scratch(stage.dedicated, self.scratch, facts, self.login.user, self.mark)

    async def restore(self, backup: Backup) -> None:
        await self.stage.copier.restore(self.stage.dedicated, self.scratch, backup, self.login.user, Told())

    async def promote(self) -> None:
        await self.stage.databases.promote(
            self.stage.dedicated, self.scratch, self.tenant.database, self.login.user, verified(self.mark)
        )

    async def differences(self) -> list[str]:
        stage = self.stage
        return differences(
            await stage.verifier.fingerprint(stage.pool, self.tenant.database, self.tenant.role),
            await stage.verifier.fingerprint(stage.dedicated, self.scratch, self.login.user),
        )

    async def remove(self) -> None:
        for cluster in (self.stage.pool_cluster, self.stage.dedicated_cluster):
            for name in (self.tenant.database, self.scratch):
                await drop_database(cluster, name)


@pytest.fixture
def stage(pg: Cluster, second_pg: Cluster, tmp_path: Path) -> RealStage:
    return RealStage(pg, second_pg, tmp_path / "backups")


@pytest.fixture
async def move(stage: RealStage) -> AsyncIterator[Move]:
    tenant = Tenant(f"moved_{secrets.token_hex(4)}")
    await create_tiny_tenant(stage.pool_cluster, tenant)
    move = Move(stage, tenant)
    yield move
    await move.remove()


async def add_variety(move: Move) -> str:
    """Everything of `variety.sql` in the tenant's database; the name of another role that it mentions."""
    other = f"auditor_{secrets.token_hex(4)}"
    await create_role(move.stage.pool_cluster, other, nasty_password())
    script = VARIETY.replace("{tenant}", quoted(move.tenant.role)).replace("{other}", quoted(other))
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute(script)
        with pytest.raises(asyncpg.UniqueViolationError):  # leaves an index that is not valid
            await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON import_log (at)")
    return other


async def roles_and_sessions(cluster: Cluster) -> set[str]:
    """Our short-lived roles, and the sessions that our programs have open."""
    async with cluster.connect() as connection:
        return {row[0] for row in await connection.fetch(_LEFT_OVER)}


_LEFT_OVER = (
    "SELECT rolname FROM pg_roles WHERE rolname LIKE 'rehome\\_%' "
    "OR shobj_description(oid, 'pg_authid') LIKE 'rehome%' "
    "UNION ALL SELECT datname FROM pg_database WHERE datname LIKE 'rehome\\_making%' "
    "UNION ALL SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'rehome:%'"
)


async def test_everything_a_database_can_hold_arrives(move: Move) -> None:
    other = await add_variety(move)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    async with move.stage.dedicated_cluster.connect(move.scratch) as connection:
        assert await connection.fetchval("SELECT has_table_privilege($1, 'private', 'SELECT')", other)
        owner = await connection.fetchval(
            "SELECT extowner::regrole::text FROM pg_extension WHERE extname = 'pg_trgm'"
        )
        assert owner == move.login.user
        assert not await connection.fetchval(
            "SELECT has_table_privilege($1, 'private', 'DELETE')", move.login.user
        )
        assert await connection.fetchval("SELECT count(*) FROM pg_publication") == 0
    assert await roles_and_sessions(move.stage.dedicated_cluster) == set()


async def test_odoos_own_database_arrives(
    odoo_pool: Cluster, odoo_tenant: OdooTenantFactory, second_pg: Cluster, tmp_path: Path
) -> None:
    move = Move(RealStage(odoo_pool, second_pg, tmp_path / "backups"), await odoo_tenant())
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    found = await move.stage.verifier.fingerprint(move.stage.dedicated, move.scratch, move.login.user)
    assert len(found.tables) == 402
    assert await move.differences() == []
    await move.promote()
    async with move.stage.client(move.stage.dedicated, move.login, move.tenant.database):
        pass
    await drop_database(second_pg, move.tenant.database)


async def test_names_with_every_nasty_character_are_moved(stage: RealStage) -> None:
    tenant = Tenant(
        f"dbname='x' \"{secrets.token_hex(3)}\" = %s \\ é", role=f"r'o\"l=e é {secrets.token_hex(3)}"
    )
    await create_tiny_tenant(stage.pool_cluster, tenant)
    move = Move(stage, tenant)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    await move.promote()
    await move.remove()


async def test_locale_provider_privileges_and_settings_of_the_database_arrive(move: Move) -> None:
    """An ICU database that PUBLIC may not enter, whose role has settings everywhere."""
    stage, tenant = move.stage, move.tenant
    other = f"auditor_{secrets.token_hex(4)}"
    await create_role(stage.pool_cluster, other, nasty_password())
    await drop_database(stage.pool_cluster, tenant.database)
    await create_database(
        stage.pool_cluster,
        tenant.database,
        owner=tenant.role,
        options="LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    )
    database, role = quoted(tenant.database), quoted(tenant.role)
    async with stage.pool_cluster.connect() as connection:
        for statement in (
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO {quoted(other)} WITH GRANT OPTION",
            f"ALTER DATABASE {database} SET search_path = 'a, b', \"C d\", public",
            f"ALTER DATABASE {database} SET datestyle = 'German, DMY'",
            f"ALTER DATABASE {database} SET my.own = '1=2, ''x'''",
            f"ALTER DATABASE {database} SET default_transaction_read_only = on",
            f"ALTER ROLE {role} SET lock_timeout = '7s'",
            f"ALTER ROLE {role} SET work_mem = '1MB'",
            f"ALTER ROLE {role} IN DATABASE {database} SET work_mem = '2MB'",
            f"ALTER ROLE {quoted(other)} IN DATABASE {database} SET work_mem = '3MB'",
        ):
            await connection.execute(statement)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    like = await stage.databases.database_facts(stage.pool, tenant.database)
    made = await stage.databases.database_facts(stage.dedicated, move.scratch)
    assert (made.provider, made.locale, made.grantees) == ("i", "de-DE", (other,))
    assert ("", 'search_path="a, b", "C d", public') in made.settings
    assert (move.login.user, "work_mem=2MB") in made.settings
    assert (move.login.user, "lock_timeout=7s") in made.settings
    assert len(made.settings) == len(like.settings)


# Somebody interferes


async def test_a_late_restore_cannot_write_into_what_was_promoted(move: Move) -> None:
    """Given a restore of a lost run half-way, when another run promotes, then the lost one fails and adds nothing."""
    move.login = replace(move.login, user=move.tenant.role)
    backup = await move.fence_and_back_up()
    await move.provision()
    stage, cluster = move.stage, move.stage.dedicated_cluster
    async with cluster.connect() as watching, cluster.connect(move.scratch) as holding:
        await holding.execute("BEGIN; LOCK TABLE pg_catalog.pg_sequence IN SHARE MODE")
        late = asyncio.create_task(move.restore(backup))

        async def waits() -> bool:
            return bool(await watching.fetchval(_RESTORER_WAITS))

        await wait_until(waits, what="pg_restore to wait for our lock", limit=30)
        await stage.pretend_restored(stage.dedicated, move.scratch)
        await move.promote()  # ends the session that holds the lock, too
        objects = await objects_in(cluster, move.tenant.database)
        with pytest.raises(RehomeError):
            await late
    assert await objects_in(cluster, move.tenant.database) == objects
    assert await roles_and_sessions(cluster) == set()
    await stage.databases.drop(stage.dedicated, move.tenant.database, move.mark.migration_id)


_RESTORER_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rehome\\_%' AND wait_event_type = 'Lock'"
)


async def objects_in(cluster: Cluster, database: str) -> int:
    async with cluster.connect(database) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class"))


async def test_a_fence_holds_while_clients_storm_the_door(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    stormed = asyncio.Event()

    async def storm() -> None:
        while True:
            try:
                async with stage.client(stage.pool, login_of(tenant), tenant.database) as client:
                    stormed.set()
                    await client.add_partner()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(0)

    storms = [asyncio.create_task(storm()) for _ in range(4)]
    try:
        await asyncio.wait_for(stormed.wait(), 30)
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        counted = await stage.partners(stage.pool, tenant.database)
        for _ in range(20):
            assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 0
        assert await stage.partners(stage.pool, tenant.database) == counted
    finally:
        for task in storms:
            task.cancel()
        await asyncio.gather(*storms, return_exceptions=True)


async def test_what_a_run_left_half_made_is_removed(move: Move) -> None:
    making = f"rehome_making_{move.mark.migration_id.hex}"
    cluster = move.stage.dedicated_cluster
    for finish in (
        move.provision,
        lambda: move.stage.databases.drop(move.stage.dedicated, "x", move.mark.migration_id),
    ):
        async with cluster.connect() as connection:
            await connection.execute(f"CREATE DATABASE {quoted(making)}")
        await finish()
        assert await roles_and_sessions(cluster) == set()


async def test_a_lent_name_that_a_lost_run_left_is_returned_to_nobody(move: Move) -> None:
    """Given a run that died while the tenant's role had its old name, the next one restores all the same."""
    backup = await move.fence_and_back_up()
    await move.provision()
    cluster = move.stage.dedicated_cluster
    async with cluster.connect() as connection:
        comment = f"rehome: under this name while migration {move.mark.migration_id} restores"
        await connection.execute(
            f"ALTER ROLE {quoted(move.login.user)} RENAME TO {quoted(move.tenant.role)}; "
            f"COMMENT ON ROLE {quoted(move.tenant.role)} IS '{comment}'"
        )
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    assert await roles_and_sessions(cluster) == set()


# Something is wrong


async def test_a_dump_that_lost_a_file_is_not_restored_and_leaves_no_role(move: Move) -> None:
    backup = await move.fence_and_back_up()
    await move.provision()
    max((backup.place / "dump").glob("*.dat*"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(ChildFailed, match="pg_restore: error: could not open"):
        await move.restore(backup)
    assert await roles_and_sessions(move.stage.dedicated_cluster) == set()
    facts = await move.stage.databases.role_facts(move.stage.dedicated, move.login.user, move.scratch)
    assert not facts.can_login


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            (
                "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
                "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch()"
            ),
            "event trigger watching",
        ),
        ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w", "foreign server far"),
        (
            "CREATE FUNCTION inside(text) RETURNS integer LANGUAGE internal STRICT AS 'textlen'",
            "function in a language that is not trusted public.inside",
        ),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)", "subscription s"),
        (
            "CREATE CAST (integer AS oidvector) WITH INOUT; CREATE CAST (bytea AS text) WITHOUT FUNCTION",
            "cast without a function",
        ),
    ],
)
async def test_what_cannot_be_moved_is_told_before_anything_is_stopped(
    move: Move, statement: str, named: str
) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        for part in statement.split("; "):
            await connection.execute(part)
        try:
            with pytest.raises(Incompatible, match=named):
                await move.stage.databases.database_facts(move.stage.pool, move.tenant.database)
        finally:
            if named == "subscription s":
                await connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
                await connection.execute("DROP SUBSCRIPTION s")


async def test_an_extension_version_that_is_not_to_be_had_is_named(move: Move) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute("UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'pg_trgm'")
    backup = await move.fence_and_back_up()
    await move.provision()
    with pytest.raises(Incompatible, match=r"pg_trgm in version 9\.9"):
        await move.restore(backup)


async def test_a_setting_that_the_server_does_not_know_is_named(move: Move) -> None:
    stage = move.stage
    facts = await stage.databases.database_facts(stage.pool, move.tenant.database)
    await stage.databases.make_role(stage.dedicated, move.login, ())
    strange = replace(facts, settings=(("", "no_such_setting=1"),))
    with pytest.raises(Incompatible, match="no_such_setting"):
        await stage.databases.make_scratch(stage.dedicated, move.scratch, strange, move.login.user, move.mark)


# Secrets


async def test_no_password_reaches_the_servers_log(move: Move) -> None:
    cluster = move.stage.dedicated_cluster
    async with cluster.connect() as connection:
        await connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        await connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            backup = await move.fence_and_back_up()
            await move.provision()
            await move.restore(backup)
        finally:
            await connection.execute("ALTER SYSTEM RESET ALL")
            await connection.execute("SELECT pg_reload_conf()")
    log = cluster.log.read_text()
    assert f'RENAME TO "{move.tenant.database}__rehome"' in log  # it did log
    assert not any(
        secret in log for secret in (move.login.password.reveal(), "SCRAM-SHA-256$", cluster.password)
    )


# Reading


async def test_large_tables_are_read_in_pieces_with_the_same_result(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, tenant = move.stage, move.tenant
    whole = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    monkeypatch.setattr(sums, "_SPLIT_BLOCKS", 1)
    assert await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role) == whole


async def test_zstd_is_left_where_the_programs_lack_it(move: Move, tmp_path: Path) -> None:
    """Given client programs of version 16 that were built without zstd, the dump is made all the same."""
    real = "/usr/lib/postgresql/15/bin"
    for name in ("pg_dump", "pg_restore", "vacuumdb"):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\n"
            f'[ "$1" = --version ] && echo "{name} (PostgreSQL) 16.4" && exit\n'
            f'case "$*" in *=zstd*) echo "{name}: error: this build does not support compression with zstd" >&2;'
            f" exit 1;; esac\n"
            f'exec {real}/{name} "$@"\n'
        )
        program.chmod(0o755)
    stage = move.stage
    copier = PgCopier(tmp_path / "backups", tmp_path, jobs=1)
    assert await copier.client_version() == 16
    await copier.dump(stage.pool, move.tenant.database, "b-1", Told())
    assert (await copier.seal("b-1", {}, {})).files > 1
