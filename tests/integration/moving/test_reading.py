"""Reading a database to compare it takes little memory and few rights, whatever a tenant has made."""

from __future__ import annotations

import secrets
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres import checksums, schema_objects
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.fingerprint import PARTS, SEQUENCES, TABLES, suspects
from rehome_consumer.model import Credentials, Part, Secret
from sandbox.postgres.databases import create_role, quoted
from sandbox.postgres.tenants import nasty_password
from tests.support.moves import add_variety

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from tests.support.moves import Move

MEBIBYTE = 2**20

# 30,000 columns with defaults of 200 characters in 300 tables, 20,000 functions, 2,000 sequences; one
# constraint's text has 15 MB. Names are as long as they may be.
LARGE_CATALOGUE = """
SET client_min_messages = error;
DO $$
DECLARE long text := repeat('x', 50); columns text;
BEGIN
    SELECT string_agg(format('%s_%s text DEFAULT %L', long, i, repeat('d', 200)), ', ')
    INTO columns FROM generate_series(1, 100) AS i;
    FOR i IN 1..300 LOOP
        EXECUTE format('CREATE TABLE %s_%s (%s)', long, i, columns);
    END LOOP;
    FOR i IN 1..20000 LOOP
        EXECUTE format('CREATE FUNCTION %s_%s() RETURNS integer LANGUAGE sql AS %L', long, i, 'SELECT 1');
    END LOOP;
    FOR i IN 1..2000 LOOP
        EXECUTE format('CREATE SEQUENCE %s_s%s', long, i);
    END LOOP;
    EXECUTE format('CREATE TABLE wordy (a text, CONSTRAINT long CHECK (a <> %L))', repeat('y', 15000000));
END $$;
"""


@pytest.mark.long
async def test_a_large_catalogue_needs_no_more_memory_than_a_small_one(move: Move) -> None:
    """Its names and definitions alone are more than 30 MB; each look must use less than 8."""
    stage, tenant = move.stage, move.tenant
    place = stage.pool, tenant.database, tenant.role
    small = await stage.verifier.fingerprint(*place)
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute(f"SET ROLE {quoted(tenant.role)}")
        await connection.execute(LARGE_CATALOGUE, timeout=300)
    tracemalloc.start()
    try:
        large = await stage.verifier.fingerprint(*place)
        peaks = [tracemalloc.get_traced_memory()[1]]
        for suspect in suspects(small, large):
            tracemalloc.reset_peak()
            await stage.verifier.some(*place, suspect.target_kind, suspect.parts)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert len(peaks) > 10
    assert max(peaks) < 8 * MEBIBYTE


async def test_the_result_does_not_depend_on_how_much_is_read_at_a_time(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_variety(move)
    place = move.stage.pool, move.tenant.database, move.tenant.role
    complete = await move.stage.verifier.fingerprint(*place)
    counts = await move.stage.verifier.row_counts(*place)
    monkeypatch.setattr(checksums, "_TABLES_AT_ONCE", 3)
    monkeypatch.setattr(checksums, "_COLUMNS_AT_ONCE", 5)
    monkeypatch.setattr(schema_objects, "_SEQUENCES_AT_ONCE", 2)
    for jobs in (1, 4):
        verifier = PostgresVerifier(jobs=jobs)
        assert await verifier.fingerprint(*place) == complete
        assert await verifier.row_counts(*place) == counts


# Rights


async def read_with(reader: TenantSession) -> dict[str, Mapping[int, Part]]:
    """All but large objects, and the second look at every part."""
    tables: dict[str, str] = {}
    found: dict[str, Mapping[int, Part]] = {}
    async with reader.transaction(isolation="repeatable_read", readonly=True):
        await checksums.read_tables(
            [reader], lambda name, rows, checksum: tables.update({name: f"{rows} {checksum}"}), checksums=True
        )
        found = {
            **await schema_objects.objects([reader]),
            SEQUENCES: await schema_objects.sequence_parts(reader),
        }
        for kind in schema_objects.KINDS:
            named = await schema_objects.some(reader, kind, range(PARTS))
            assert {part: len(things) for part, things in named.items() if things} == {
                part: counted.size for part, counted in found[kind].items()
            }
        assert await schema_objects.extensions(reader)
        assert await schema_objects.database(reader)
    return {
        **found,
        TABLES: {place: Part(1, f"{row}".encode()) for place, row in enumerate(sorted(tables.items()))},
    }


async def test_an_ordinary_role_reads_the_same_as_a_superuser_except_large_objects(move: Move) -> None:
    """It is a member of the tenant's role, and bypasses row security."""
    stage, tenant = move.stage, move.tenant
    await add_variety(move)
    login = Credentials(f"reader_{secrets.token_hex(4)}", Secret(nasty_password()))
    await create_role(stage.pool_cluster, login.user, login.password.reveal())
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute(
            f"GRANT {quoted(tenant.role)} TO {login.user}; ALTER ROLE {login.user} BYPASSRLS"
        )
    settings = {"rehome.tenant": tenant.role, "row_security": "off"}
    found = []
    for one in (stage.pool.admin, login):
        async with Sessions().tenant(
            stage.pool, tenant.database, one, what="reading", settings=settings
        ) as reader:
            found.append(await read_with(reader))
    assert found[0] == found[1]
    assert set(found[0]) == {*schema_objects.KINDS, SEQUENCES, TABLES}
    async with stage.pool_cluster.connect() as connection:
        await connection.execute(f"DROP ROLE {login.user}")


async def test_the_fingerprint_is_the_same_while_the_database_belongs_to_the_administrator(
    move: Move,
) -> None:
    """As while it is fenced: the tenant's objects are known by the role's name."""
    stage, tenant = move.stage, move.tenant
    other = await add_variety(move)
    database, role = quoted(tenant.database), quoted(tenant.role)
    async with stage.pool_cluster.connect(tenant.database) as connection:
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {quoted(other)}")
        await connection.execute(f"ALTER ROLE {role} SET lock_timeout = '7s'")
        await connection.execute(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(other)} GRANT SELECT ON TABLES TO {role}"
        )
        await connection.execute(f"CREATE POLICY mine ON private TO {role} USING (true)")
    place = stage.pool, tenant.database, tenant.role
    before = await stage.verifier.fingerprint(*place)
    async with stage.pool_cluster.connect() as connection:
        await connection.execute(f"ALTER DATABASE {database} OWNER TO postgres")
    assert await stage.verifier.fingerprint(*place) == before
