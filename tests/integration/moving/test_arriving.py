"""Everything in a database arrives, whatever it is and whatever its name is."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres import checksums
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.fingerprint import summary
from rehome_consumer.sql import administrator
from sandbox.postgres.databases import create_database, create_role, drop_database, quoted
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.contract.real_servers import RealStage
from tests.contract.servers import ProgressRecorder
from tests.support.moves import Move, add_variety
from tests.support.postgres_versions import has_icu

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.postgres.server import Cluster
    from tests.conftest import OdooTenantFactory
    from tests.support.postgres_versions import Pair


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
    assert not await move.left_over()


async def test_what_locks_partitions_is_known_before_the_dump(move: Move) -> None:
    """Restored in sessions side by side, such constraints and triggers deadlock now and then."""
    await add_variety(move)
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute("ALTER TABLE animal ADD CONSTRAINT legs_are_few CHECK (legs < 9) NOT VALID")
        found = [row["oid"] for row in await connection.fetch(str(administrator("copy")["spreading"]))]
        names = await connection.fetch(
            # From version 18 on NOT NULL is a constraint, too; it is made with its table.
            "SELECT conname AS name FROM pg_constraint WHERE oid = ANY ($1) AND conparentid = 0 AND conislocal "
            "AND contype <> 'n' UNION ALL SELECT tgname FROM pg_trigger WHERE oid = ANY ($1) AND NOT tgisinternal "
            "AND tgparentid = 0 ORDER BY name",
            found,
        )
    assert [row["name"] for row in names] == ["each_part", "leaf_deep_id_deep_at_fkey", "legs_are_few"]


async def test_odoos_own_database_arrives(
    odoo_pool: Cluster, odoo_tenant: OdooTenantFactory, second_pg: Cluster, quick_files: Path
) -> None:
    move = Move(RealStage(odoo_pool, second_pg, quick_files / "backups"), await odoo_tenant())
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    found = await move.stage.verifier.fingerprint(move.stage.dedicated, move.scratch, move.login.user)
    assert summary(found).tables == 402
    assert await move.differences() == []
    await move.promote()
    async with move.stage.client(move.stage.dedicated, move.login, move.tenant.database):
        pass
    await drop_database(second_pg, move.tenant.database)


async def test_names_with_special_characters_are_moved(stage: RealStage) -> None:
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
    """An ICU database to which PUBLIC may not connect, and whose role has settings of all kinds."""
    stage, tenant = move.stage, move.tenant
    if not await has_icu(stage.pool_cluster):
        pytest.skip("this server was built without ICU")
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
    like = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    made = await stage.databases.database_facts(stage.dedicated, move.scratch, move.login.user)
    assert (made.provider, made.locale, made.grantees) == ("i", "de-DE", (other,))
    assert ("", 'search_path="a, b", "C d", public') in made.settings
    assert (move.login.user, "work_mem=2MB") in made.settings
    assert (move.login.user, "lock_timeout=7s") in made.settings
    assert len(made.settings) == len(like.settings)


# Reading


async def test_large_tables_are_read_in_pieces_with_the_same_result(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, tenant = move.stage, move.tenant
    complete = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    monkeypatch.setattr(checksums, "_SPLIT_BLOCKS", 1)
    assert await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role) == complete


async def test_a_dump_is_made_without_zstd_where_the_programs_lack_it(
    move: Move, versions: Pair, tmp_path: Path
) -> None:
    """Given client programs of version 16 that were built without zstd, the dump is made without it."""
    real = versions.clients
    for name in ("pg_dump", "pg_restore", "vacuumdb"):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/sh\n"
            f'[ "$1" = --version ] && echo "{name} (PostgreSQL) 16.10" && exit\n'
            f'case "$*" in *=zstd*) echo "{name}: error: this build does not support compression with ZSTD" >&2;'
            f" exit 1;; esac\n"
            f'exec {real}/{name} "$@"\n'
        )
        program.chmod(0o755)
    stage = move.stage
    copier = PgCopier(BackupPlace(stage.backup_root), tmp_path, jobs=1)
    assert await copier.client_version() == 16
    await copier.dump(stage.pool, move.tenant.database, move.tenant.role, "b-1", ProgressRecorder())
    assert (await copier.seal("b-1", {}, {})).files > 1
