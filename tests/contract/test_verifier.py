"""Port `Verifier`, on the fake and on real servers: no difference of the copy goes unnoticed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.errors import Conflict, NotFound
from rehome_consumer.fingerprint import COUNTED, LISTED, OUTSIDE, SEQUENCES, TABLES, digest, summary
from rehome_consumer.model import DEFINITIONS, EVERYTHING, Scope
from tests.contract.servers import A_ROW_MORE, Change
from tests.support.comparing import compared

if TYPE_CHECKING:
    from rehome_consumer.model import Fingerprint
    from sandbox.postgres.tenants import Tenant
    from tests.contract.servers import Stage

PARTNER = "public.res_partner"

# What is changed in the copy, and what the difference must name.
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
            "CREATE TABLE public.extra (); GRANT SELECT ON public.extra TO PUBLIC",
            lambda database: database.tables.__setitem__("public.extra", []),
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
            "ALTER TABLE public.sale_order OWNER TO postgres; GRANT SELECT ON public.sale_order TO PUBLIC; "
            "GRANT SELECT ON SEQUENCE public.sale_order_id_seq TO PUBLIC",
            lambda database: database.objects["owner"].__setitem__("table public.sale_order", "postgres"),
        ),
        "owner table public.sale_order: <tenant> on the source, <administrator> on the target",
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


async def differences(stage: Stage, tenant: Tenant, copy: str) -> list[str]:
    source = stage.pool, tenant.database, tenant.role
    return await compared(stage.verifier, source, (stage.pool, copy, tenant.role))


async def test_an_exact_copy_has_no_difference(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    copy = await stage.copy_of(tenant)
    assert await differences(stage, tenant, copy) == []
    source, target = [
        await stage.verifier.fingerprint(stage.pool, database, tenant.role)
        for database in (tenant.database, copy)
    ]
    assert digest(source) == digest(target)


async def test_the_order_of_rows_does_not_matter(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    copy = await stage.copy_of(tenant)
    for statement in REORDERED.sql.split("; "):
        await stage.change(copy, Change(statement, REORDERED.fake))
    assert await differences(stage, tenant, copy) == []


@pytest.mark.parametrize("name", CHANGES)
async def test_a_difference_is_found_and_named(stage: Stage, name: str) -> None:
    change, expected = CHANGES[name]
    tenant = await stage.add_tenant()
    copy = await stage.copy_of(tenant)
    await stage.change(copy, change)
    assert any(found.startswith(expected) for found in await differences(stage, tenant, copy))


async def test_rows_are_counted_exactly(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    counts = await stage.verifier.row_counts(stage.pool, tenant.database, tenant.role)
    assert counts["public.res_partner"] == 200
    assert counts["public.import_log"] == 3
    fingerprint = await stage.verifier.fingerprint(stage.pool, tenant.database, tenant.role)
    assert (summary(fingerprint).tables, summary(fingerprint).rows) == (len(counts), sum(counts.values()))


@pytest.mark.parametrize(("kind", "name"), [(TABLES, PARTNER), (SEQUENCES, "public.res_partner_id_seq")])
async def test_what_is_spared_is_in_neither_look(stage: Stage, kind: str, name: str) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role
    complete = await stage.verifier.fingerprint(*place)

    def spared(asked: str, which: str) -> bool:
        return (asked, which) == (kind, name)

    without = await stage.verifier.fingerprint(*place, Scope(spared=spared))
    before, after = (
        fingerprint.tables if kind == TABLES else fingerprint.sequences for fingerprint in (complete, without)
    )
    changed = [part for part in before if before[part] != after.get(part)]
    assert len(changed) == 1
    assert sum(part.size for part in before.values()) == 1 + sum(part.size for part in after.values())
    assert name in await _names(stage, tenant, kind, changed, EVERYTHING)
    assert name not in await _names(stage, tenant, kind, changed, Scope(spared=spared))


async def test_a_snapshot_shows_the_database_as_it_was(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role
    before = await stage.verifier.fingerprint(*place)

    async def changed_meanwhile(snapshot: str) -> tuple[Fingerprint, Fingerprint]:
        await stage.change(tenant.database, A_ROW_MORE)
        now = await stage.verifier.fingerprint(*place)
        return await stage.verifier.fingerprint(*place, Scope(snapshot=snapshot)), now

    then, now = await stage.verifier.with_snapshot(*place, changed_meanwhile)
    assert (then.rows, then.tables) == (before.rows, before.tables)
    assert now.rows == before.rows + 1


async def test_a_snapshot_ends_with_the_work(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role

    async def nothing(snapshot: str) -> str:
        return snapshot

    held = await stage.verifier.with_snapshot(*place, nothing)
    with pytest.raises(Conflict, match="gone"):
        await stage.verifier.fingerprint(*place, Scope(snapshot=held))


async def test_definitions_stay_the_same_while_users_write(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role
    before = await stage.verifier.fingerprint(*place, DEFINITIONS)
    assert (before.rows, before.tables, before.large_objects) == (0, {}, None)
    await stage.change(tenant.database, A_ROW_MORE)
    assert await stage.verifier.fingerprint(*place, DEFINITIONS) == before
    await stage.change(tenant.database, CHANGES["an index missing"][0])
    assert await stage.verifier.fingerprint(*place, DEFINITIONS) != before


async def _names(stage: Stage, tenant: Tenant, kind: str, parts: list[int], scope: Scope) -> list[str]:
    found = await stage.verifier.some(stage.pool, tenant.database, tenant.role, kind, parts, scope)
    return [one.name for listed in found.values() for one in listed]


@pytest.mark.parametrize("kind", [TABLES, SEQUENCES, "default definition", "owner"])
async def test_the_second_look_finds_what_is_in_the_parts_of_the_first(stage: Stage, kind: str) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role
    complete = await stage.verifier.fingerprint(*place)
    parts = {TABLES: complete.tables, SEQUENCES: complete.sequences}.get(kind) or complete.objects[kind]
    found = await stage.verifier.some(*place, kind, [*parts, 255])
    assert {part: len(listed) for part, listed in found.items() if listed} == {
        part: counted.size for part, counted in parts.items()
    }
    for listed in found.values():
        assert [one.key for one in listed] == sorted({one.key for one in listed})
        assert len(listed) <= LISTED


async def test_a_signature_is_the_same_while_users_write_and_another_one_after_a_change(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database
    before = await stage.verifier.signature(*place)
    await stage.change(tenant.database, A_ROW_MORE)
    assert await stage.verifier.signature(*place) == before

    async def changed_meanwhile(snapshot: str) -> str:
        await stage.change(tenant.database, CHANGES["an index missing"][0])
        return await stage.verifier.signature(*place, snapshot)

    assert await stage.verifier.with_snapshot(*place, tenant.role, changed_meanwhile) == before
    assert await stage.verifier.signature(*place) != before


async def test_without_definitions_settings_are_read_and_how_many_objects_there_are(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    place = stage.pool, tenant.database, tenant.role
    complete = await stage.verifier.fingerprint(*place)
    without = await stage.verifier.fingerprint(*place, Scope(definitions=False))
    assert set(without.objects) == set(OUTSIDE) < set(complete.objects)
    assert all(without.objects[kind] == complete.objects[kind] for kind in OUTSIDE)
    assert replace(without, objects=complete.objects) == complete
    counted = {kind: sum(part.size for part in complete.objects[kind].values()) for kind in COUNTED}
    assert without.counts == counted
    assert summary(without) == summary(complete)


async def test_a_missing_database_is_named(stage: Stage) -> None:
    tenant = await stage.add_tenant()
    with pytest.raises(NotFound, match="no_such"):
        await stage.verifier.fingerprint(stage.pool, "no_such", tenant.role)
    with pytest.raises(NotFound, match="no_such"):
        await stage.verifier.row_counts(stage.pool, "no_such", tenant.role)
    with pytest.raises(NotFound, match="no_such"):
        await stage.verifier.signature(stage.pool, "no_such")
