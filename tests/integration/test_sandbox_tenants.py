"""Tenants' databases, restored, copied from the cache, or tiny."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from sandbox.postgres.pool import add_odoo_tenant, cache_directory, start_odoo_pool
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import Tenant, create_odoo_tenant, nasty_password
from tests.conftest import OdooTenantFactory, TinyTenantFactory

# Everything in a database that has an owner, apart from what PostgreSQL itself brought.
NOT_OWNED_BY_TENANT = """
    SELECT pg_describe_object(classid, objid, objsubid) AS object, owner::regrole::text
      FROM (SELECT 'pg_class'::regclass AS classid, oid AS objid, 0 AS objsubid, relowner AS owner FROM pg_class
             WHERE oid >= 16384
            UNION ALL SELECT 'pg_proc'::regclass, oid, 0, proowner FROM pg_proc WHERE oid >= 16384
            UNION ALL SELECT 'pg_type'::regclass, oid, 0, typowner FROM pg_type
             WHERE oid >= 16384 AND typcategory <> 'A'
            UNION ALL SELECT 'pg_extension'::regclass, oid, 0, extowner FROM pg_extension WHERE oid >= 16384
            UNION ALL SELECT 'pg_largeobject'::regclass, oid, 0, lomowner FROM pg_largeobject_metadata
            UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, nspowner FROM pg_namespace
             WHERE nspname = 'public' OR oid >= 16384
            UNION ALL SELECT 'pg_database'::regclass, oid, 0, datdba FROM pg_database
             WHERE datname = current_database()) AS owned
     WHERE owner <> $1::text::regrole
       AND NOT EXISTS (SELECT 1 FROM pg_depend AS d
                        WHERE d.classid = owned.classid AND d.objid = owned.objid AND d.deptype = 'e')
       AND NOT EXISTS (SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                        WHERE c.oid = owned.objid AND n.nspname IN ('pg_toast', 'pg_catalog'))
"""


async def _uuid(cluster: Cluster, tenant: Tenant) -> str:
    async with cluster.connect(tenant.database, user=tenant.role, password=tenant.password) as connection:
        return str(
            await connection.fetchval("SELECT value FROM ir_config_parameter WHERE key = 'database.uuid'")
        )


async def _objects_of_others(cluster: Cluster, tenant: Tenant) -> list[asyncpg.Record]:
    async with cluster.connect(tenant.database) as connection:
        return await connection.fetch(NOT_OWNED_BY_TENANT, tenant.role)


async def test_a_tiny_tenant_owns_its_database_and_everything_in_it(
    pg: Cluster, tiny_tenant: TinyTenantFactory
) -> None:
    assert await _objects_of_others(pg, await tiny_tenant()) == []


async def test_an_odoo_tenant_owns_its_database_and_everything_in_it(
    odoo_pool: Cluster, odoo_tenant: OdooTenantFactory
) -> None:
    assert await _objects_of_others(odoo_pool, await odoo_tenant()) == []


async def test_a_tenant_is_an_ordinary_role(pg: Cluster, tiny_tenant: TinyTenantFactory) -> None:
    tenant = await tiny_tenant()
    async with pg.connect() as connection:
        role = await connection.fetchrow(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles"
            " WHERE rolname = $1",
            tenant.role,
        )
    assert role is not None
    assert not any(role.values())


async def test_a_tenant_logs_in_with_a_password_of_difficult_characters(
    pg: Cluster, tiny_tenant: TinyTenantFactory
) -> None:
    tenant = await tiny_tenant()
    assert set("%$'\";#=`:/?@&\\ ") <= set(tenant.password)

    connection = await asyncpg.connect(tenant.dsn(pg))
    assert await connection.fetchval("SELECT current_user") == tenant.role
    await connection.close()


async def test_each_tenant_has_its_own_uuid(
    odoo_pool: Cluster, odoo_tenant: OdooTenantFactory, pg: Cluster, tiny_tenant: TinyTenantFactory
) -> None:
    odoo, tiny = [await odoo_tenant(), await odoo_tenant()], [await tiny_tenant(), await tiny_tenant()]
    found = [await _uuid(odoo_pool, tenant) for tenant in odoo] + [await _uuid(pg, tenant) for tenant in tiny]

    assert found == [tenant.uuid for tenant in odoo + tiny]
    assert len(set(found)) == 4


async def test_a_tiny_tenant_has_every_kind_of_object(pg: Cluster, tiny_tenant: TinyTenantFactory) -> None:
    tenant = await tiny_tenant()
    async with pg.connect(tenant.database) as connection:
        kinds = await connection.fetchval(
            "SELECT array_agg(DISTINCT relkind::text ORDER BY relkind::text) FROM pg_class WHERE oid >= 16384"
        )
        counts = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal) AS triggers,
                   (SELECT count(*) FROM pg_largeobject_metadata) AS large_objects,
                   (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql') AS extensions,
                   (SELECT count(*) FROM pg_default_acl) AS default_privileges,
                   (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                     WHERE d.datname = current_database()) AS settings,
                   (SELECT count(*) FROM pg_attribute WHERE attgenerated = 's') AS generated,
                   (SELECT count(*) FROM pg_attribute WHERE attidentity = 'a') AS identities
            """
        )
    # index, partitioned index, matview, partitioned table, table, sequence, toast, view
    assert kinds == ["I", "S", "i", "m", "p", "r", "t", "v"]
    assert dict(counts or {}) == {
        "triggers": 1,
        "large_objects": 1,
        "extensions": 2,
        "default_privileges": 1,
        "settings": 2,
        "generated": 1,
        "identities": 1,
    }


async def test_a_tiny_tenant_can_be_made_without_a_large_object(
    pg: Cluster, tiny_tenant: TinyTenantFactory
) -> None:
    tenant = await tiny_tenant(large_object=False)
    async with pg.connect(tenant.database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_largeobject_metadata") == 0


async def test_an_odoo_tenant_has_the_same_content_restored_or_copied_from_the_cache(
    odoo_pool: Cluster, odoo_tenant: OdooTenantFactory
) -> None:
    copied, restored = await odoo_tenant(), Tenant("restored")
    await create_odoo_tenant(odoo_pool, restored)

    assert await _content(odoo_pool, copied) == await _content(odoo_pool, restored)


async def test_pools_started_at_the_same_time_build_the_cache_once_each_and_agree(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tenants = [Tenant("left"), Tenant("right")]
    pools = await asyncio.gather(
        *(
            start_odoo_pool(scratch / tenant.database, [tenant], password=nasty_password())
            for tenant in tenants
        )
    )
    for pool, tenant in zip(pools, tenants, strict=True):
        assert await _uuid(pool, tenant) == tenant.uuid
        await pool.destroy()

    archives = _names(cache_directory())
    assert archives
    assert not [name for name in archives if name.startswith("unfinished")]


async def test_a_pool_has_the_callers_password_and_no_other(odoo_pool: Cluster) -> None:
    in_cache = {name.split(".")[1] for name in _names(cache_directory())}

    for password in in_cache:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(odoo_pool.dsn(password=password))


async def test_names_that_must_be_quoted_make_no_difference(odoo_pool: Cluster) -> None:
    tenant = Tenant("""odoo "b" 'c' %s; é""")
    await add_odoo_tenant(odoo_pool, tenant)

    assert await _uuid(odoo_pool, tenant) == tenant.uuid


async def _content(cluster: Cluster, tenant: Tenant) -> tuple[int, int, int]:
    """Tables, sequences, and rows of the largest table."""
    async with cluster.connect(tenant.database) as connection:
        row = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = 'public'),
                   (SELECT count(*) FROM pg_sequences),
                   (SELECT count(*) FROM ir_model_fields)
            """
        )
    assert row is not None
    return row[0], row[1], row[2]


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]
