"""Port `Verifier`, held by the fake and by real servers alike: no difference of the copy goes unnoticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.errors import NotFound
from consumer.fingerprint import LARGE_OBJECTS, differences, digest
from tests.contract.servers import Change

if TYPE_CHECKING:
    from consumer.model import Fingerprint
    from sandbox.tenants import Tenant
    from tests.contract.servers import Stage

PARTNER = "public.res_partner"

# What was changed in the copy, and what the difference must name.
CHANGES: dict[str, tuple[Change, str]] = {
    "a row changed": (
        Change(
            "UPDATE public.res_partner SET name = 'Partner 7 ' WHERE id = 7",
            lambda database: database.tables[PARTNER].__setitem__(6, (7, "Partner 7 ")),
        ),
        "table public.res_partner: as many rows (200), but not the same content",
    ),
    "a row missing": (
        Change(
            "SET session_replication_role = replica; DELETE FROM public.res_partner WHERE id = 199",
            lambda database: database.tables[PARTNER].remove((199, "Partner 199")),
        ),
        "table public.res_partner: 200 rows on the source, 199 on the target",
    ),
    "one row twice instead of another": (
        Change(
            "UPDATE public.import_log SET (at, line) = ('2025-06-01 12:00+02', 'twice') WHERE line IS NULL",
            lambda database: database.tables["public.import_log"].__setitem__(2, ("12:00", "twice")),
        ),
        "table public.import_log: as many rows (3), but not the same content",
    ),
    "two rows with their values swapped": (
        Change(
            "UPDATE public.res_partner SET name = 'Partner ' || 3 - id WHERE id IN (1, 2)",
            lambda database: database.tables[PARTNER].__setitem__(
                slice(0, 2), [(1, "Partner 2"), (2, "Partner 1")]
            ),
        ),
        "table public.res_partner: as many rows (200), but not the same content",
    ),
    "a table missing": (
        Change(
            "DROP TABLE public.import_log", lambda database: database.tables.__delitem__("public.import_log")
        ),
        "table public.import_log: missing on the target (3 rows on the source)",
    ),
    "a table too many": (
        Change(
            "CREATE TABLE public.extra ()", lambda database: database.tables.__setitem__("public.extra", [])
        ),
        "table public.extra: only on the target",
    ),
    "a large object changed": (
        Change(
            "SELECT lo_put(oid, 5, '\\x01') FROM pg_largeobject_metadata",
            lambda database: database.tables["large objects"].__setitem__(0, (16400, b"\x00")),
        ),
        "large objects: as many rows (1), but not the same content",
    ),
    "a sequence off by one": (
        Change(
            "SELECT setval('public.res_partner_id_seq', 199)",
            lambda database: database.sequences.__setitem__(
                "public.res_partner_id_seq", "last_value=199 is_called=true"
            ),
        ),
        "sequence public.res_partner_id_seq: last_value=200 is_called=true",
    ),
    "an index missing": (
        Change(
            "DROP INDEX public.res_partner_parent_id_idx",
            lambda database: database.objects["index"].__delitem__("public.res_partner_parent_id_idx"),
        ),
        "index public.res_partner_parent_id_idx: missing on the target",
    ),
    "a constraint that was not checked": (
        Change(
            "ALTER TABLE public.res_partner DROP CONSTRAINT check_name, "
            "ADD CONSTRAINT check_name CHECK (type <> 'contact' OR name IS NOT NULL) NOT VALID",
            lambda database: database.objects["constraint"].__setitem__(
                "public.res_partner.check_name", "validated=false"
            ),
        ),
        "constraint public.res_partner.check_name: ",
    ),
    "a default changed": (
        Change(
            "ALTER TABLE public.res_partner ALTER active SET DEFAULT false",
            lambda database: database.objects["default definition"].__setitem__(
                "public.res_partner.active", "false"
            ),
        ),
        "default definition public.res_partner.active: true on the source, false on the target",
    ),
    "a trigger disabled": (
        Change(
            "ALTER TABLE public.sale_order DISABLE TRIGGER count_change",
            lambda database: database.objects["trigger"].__setitem__(
                "public.sale_order.count_change", "enabled=D"
            ),
        ),
        "trigger public.sale_order.count_change: enabled=O",
    ),
    "an owner that is not the tenant": (
        Change(
            "ALTER TABLE public.sale_order OWNER TO postgres",
            lambda database: database.objects["owner"].__setitem__("table public.sale_order", "postgres"),
        ),
        "owner table public.sale_order: <tenant> on the source, postgres on the target",
    ),
    "an extension missing": (
        Change("DROP EXTENSION unaccent", lambda database: database.extensions.__delitem__("unaccent")),
        "extension unaccent: missing on the target",
    ),
}

REORDERED = Change(
    "UPDATE public.res_partner SET id = id WHERE id % 2 = 0; VACUUM FULL public.res_partner",
    lambda database: database.tables[PARTNER].reverse(),
)


async def both(stage: Stage, tenant: Tenant, copy: str) -> tuple[Fingerprint, Fingerprint]:
    return (
        await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role),
        await stage.verifier.fingerprint(stage.pool, copy, tenant.role),
    )


async def test_a_true_copy_has_no_difference(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    source, target = await both(stage, tenant, await stage.copy_of(tenant))
    assert differences(source, target) == []
    assert digest(source) == digest(target)


async def test_the_order_of_rows_does_not_matter(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    copy = await stage.copy_of(tenant)
    for statement in REORDERED.sql.split("; "):
        await stage.change(copy, Change(statement, REORDERED.fake))
    source, target = await both(stage, tenant, copy)
    assert differences(source, target) == []


@pytest.mark.parametrize("name", CHANGES)
async def test_a_difference_is_found_and_named(stage: Stage, name: str) -> None:
    change, expected = CHANGES[name]
    tenant = await stage.add_tenant()
    copy = await stage.copy_of(tenant)
    await stage.change(copy, change)
    source, target = await both(stage, tenant, copy)
    assert any(found.startswith(expected) for found in differences(source, target))


async def test_rows_are_counted_exactly(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    counts = await stage.verifier.row_counts(stage.pool, tenant.database, tenant.role)
    assert counts["public.res_partner"] == 200
    assert counts["public.import_log"] == 3
    fingerprint = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    summed = {name: rows for name, (rows, _) in fingerprint.tables.items() if name != LARGE_OBJECTS}
    assert summed == counts


async def test_a_missing_database_is_named(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    with pytest.raises(NotFound, match="no_such"):
        await stage.verifier.fingerprint(stage.pool, "no_such", tenant.role)
    with pytest.raises(NotFound, match="no_such"):
        await stage.verifier.row_counts(stage.pool, "no_such", tenant.role)
