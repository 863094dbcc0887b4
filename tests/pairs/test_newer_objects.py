"""What only newer versions of PostgreSQL have arrives, and what is missing or changed of it is named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.context import current_migration
from sandbox.postgres.databases import create_database, drop_database, major_version, quoted
from sandbox.system.processes import run
from tests.pairs.conftest import add_newer_objects
from tests.support.comparing import compared
from tests.support.moves import Move, add_variety

if TYPE_CHECKING:
    from tests.support.postgres_versions import Pair

# The version that has such an object, what is done to a copy, and how the difference begins. A move within one version
# must find it; between two versions PostgreSQL itself writes the catalogues anew.
CHANGES = [
    (
        17,
        "ALTER TABLE sorted ALTER note TYPE text COLLATE pg_c_utf8",
        "column public.sorted.note: text storage",
    ),
    (
        17,
        "REVOKE MAINTAIN ON sorted FROM {other}",
        "grant table public.sorted.{other}: missing on the target",
    ),
    (
        17,
        "ALTER TABLE counted ALTER id DROP IDENTITY",
        "column public.counted.id: integer not null identity=a",
    ),
    (18, "UPDATE computed SET price = 3 WHERE id = 1", "table public.computed: as many rows"),
    (
        18,
        "ALTER TABLE computed ALTER half SET EXPRESSION AS (price / 4)",
        "default definition public.computed.half: ",
    ),
    (
        18,
        "ALTER TABLE computed DROP COLUMN shown, ADD shown text GENERATED ALWAYS AS ('#' || id) STORED",
        "column public.computed.shown: text generated=v options={} on the source, text generated=s",
    ),
    (
        18,
        "ALTER TABLE filled RENAME CONSTRAINT must_have_id TO other",
        "not null definition public.filled.must_have_id: missing on the target",
    ),
    (
        18,
        "UPDATE filled SET late = 1; ALTER TABLE filled VALIDATE CONSTRAINT from_now_on",
        "not null definition public.filled.from_now_on: ",
    ),
    (
        18,
        "ALTER TABLE filled ALTER CONSTRAINT only_here INHERIT",
        "not null definition public.filled.only_here: ",
    ),
    (
        18,
        "ALTER TABLE filled DROP CONSTRAINT from_now_on",
        "not null definition public.filled.from_now_on: missing on the target",
    ),
    (
        18,
        (
            "ALTER TABLE cleaned DROP CONSTRAINT cleaned_room; ALTER TABLE booked DROP CONSTRAINT booked_key, "
            "ADD CONSTRAINT booked_key PRIMARY KEY (room, during)"
        ),
        "constraint definition public.booked.booked_key: ",
    ),
    (
        18,
        "ALTER TABLE cleaned DROP CONSTRAINT cleaned_room",
        "constraint public.cleaned.cleaned_room: missing",
    ),
    (
        18,
        "DELETE FROM trusting; ALTER TABLE trusting ALTER CONSTRAINT of_computed ENFORCED",
        "constraint public.trusting.of_computed: ",
    ),
    (
        18,
        "ALTER TABLE trusting DROP CONSTRAINT positive, ADD CONSTRAINT positive CHECK (id > 0) NOT VALID",
        "constraint public.trusting.positive: ",
    ),
    (
        18,
        "ALTER TABLE folded ALTER name TYPE text",
        "column public.folded.name: text collation=pg_unicode_fast",
    ),
    (
        18,
        "ALTER DEFAULT PRIVILEGES FOR ROLE {tenant} REVOKE SELECT ON LARGE OBJECTS FROM {other}",
        'default grant <tenant>."".L.{other}: missing on the target',
    ),
]


@pytest.mark.representative
async def test_everything_that_the_source_can_hold_arrives(move: Move) -> None:
    await add_variety(move)
    other = await add_newer_objects(move.stage.pool_cluster, move.tenant)
    backup = await move.fence_and_back_up()
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    assert not await move.left_over()
    async with move.stage.dedicated_cluster.connect(move.scratch) as there:
        analysed = "SELECT count(*) FROM pg_stats WHERE schemaname = 'public' AND tablename = 'res_partner'"
        assert await there.fetchval(analysed) > 0
        if int(await major_version(move.stage.pool_cluster)) >= 17:
            assert await there.fetchval("SELECT has_table_privilege($1, 'sorted', 'MAINTAIN')", other)


async def test_statistics_are_not_part_of_a_backup(move: Move, versions: Pair) -> None:
    """Those of a tenant's server could make another server plan badly; ANALYZE collects them anew."""
    backup = await move.fence_and_back_up()
    listed = await run([versions.clients / "pg_restore", "--list", backup.place / "dump"], limit=60)
    assert "TABLE DATA public res_partner" in listed
    assert "STATISTICS DATA" not in listed


@pytest.mark.parametrize(("since", "statements", "expected"), CHANGES, ids=[change[1] for change in CHANGES])
async def test_a_difference_in_what_is_new_is_found_and_named(
    move: Move, since: int, statements: str, expected: str
) -> None:
    pool, tenant = move.stage.pool_cluster, move.tenant
    if int(await major_version(pool)) < since:
        pytest.skip(f"the pool's version has no such thing: PostgreSQL {since} has")
    other = await add_newer_objects(pool, tenant)
    copy = f"{tenant.database}_copy"
    await create_database(pool, copy, owner=tenant.role, template=tenant.database)
    try:
        names = {"{other}": quoted(other), "{tenant}": quoted(tenant.role)}
        statements = re.sub(r"\{\w+\}", lambda found: names[found[0]], statements)
        async with pool.connect(copy) as connection:
            await connection.execute(statements)
        current_migration.set(None)  # the same server is read twice, by roles of two names
        found = await compared(
            move.stage.verifier,
            (move.stage.pool, tenant.database, tenant.role),
            (move.stage.pool, copy, tenant.role),
        )
    finally:
        await drop_database(pool, copy)
    expected = expected.replace("{other}", other)
    assert any(difference.startswith(expected) for difference in found), found
