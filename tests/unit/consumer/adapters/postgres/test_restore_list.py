"""Dividing the list of a dump's entries."""

from __future__ import annotations

from rehome_consumer.adapters.postgres.restore_list import ExtensionData, divide

LIST = """;
; Archive created at 2026-01-01
;     TOC Entries: 12
;
4; 3079 16400 EXTENSION - pg_trgm
3500; 0 0 COMMENT - EXTENSION "pg_trgm"
6; 2615 2200 SCHEMA - public postgres
7; 2615 16500 SCHEMA - gis tenant
8; 2615 16501 SCHEMA - public_notes tenant
3501; 0 0 COMMENT - SCHEMA "public" tenant
215; 1259 16386 TABLE public ACL tenant
3400; 0 16386 TABLE DATA public ACL tenant
3401; 0 16900 TABLE DATA gis spatial_ref_sys postgres
3402; 0 0 SEQUENCE SET gis spatial_seq postgres
3403; 6104 16901 PUBLICATION - p postgres
3404; 6100 16902 SUBSCRIPTION - s postgres
3405; 0 0 ACL public TABLE "ACL" tenant
3406; 826 16903 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES tenant
3407; 3256 16904 POLICY public private own tenant
""".splitlines(keepends=True)


def test_each_entry_is_restored_by_one_role_or_not_at_all() -> None:
    extensions = ExtensionData(tables={16900}, sequences={"gis spatial_seq"})
    lists = divide(LIST, extensions=extensions, existing_schemas={2200, 16500})
    assert [line.split(";")[0] for line in lists.tenant] == ["8", "3501", "215", "3400", "3407"]
    assert [line.split(";")[0] for line in lists.extensions] == ["3401", "3402"]
    assert [line.split(";")[0] for line in lists.privileges] == ["3500", "3405", "3406"]


CALLING = """
215; 1259 16386 TABLE public child tenant
216; 1259 16390 TABLE public parent tenant
3400; 0 16386 TABLE DATA public child tenant
3401; 0 16390 TABLE DATA public parent tenant
3402; 0 0 SEQUENCE SET public parent_id_seq tenant
3403; 0 0 BLOBS - BLOBS
3404; 2606 16391 CONSTRAINT public parent parent_pkey tenant
3405; 0 16399 MATERIALIZED VIEW DATA public summary tenant
""".splitlines(keepends=True)


def test_rows_whose_checks_call_functions_come_after_all_others_and_before_what_follows_rows() -> None:
    lists = divide(CALLING, extensions=ExtensionData(), existing_schemas=(), calling_tables={16386, 77})
    assert [line.split(";")[0] for line in lists.tenant] == ["215", "216", "3401", "3402", "3403"]
    assert [line.split(";")[0] for line in lists.calling] == ["3400"]
    assert [line.split(";")[0] for line in lists.indexes] == ["3404", "3405"]


def test_without_such_rows_there_is_one_part() -> None:
    lists = divide(CALLING, extensions=ExtensionData(), existing_schemas=(), calling_tables={77})
    assert len(lists.tenant) == len(CALLING) - 1
    assert lists.calling == lists.indexes == ()


PARTITIONED = """
215; 1259 16386 TABLE public deep tenant
3400; 0 16386 TABLE DATA public deep_2025 tenant
3401; 0 0 COMMENT public TABLE deep tenant
3402; 1259 16393 INDEX public INDEX ATTACH tenant
3403; 2606 16391 CONSTRAINT public deep deep_pkey tenant
3404; 0 0 INDEX ATTACH public deep_2025_pkey tenant
3405; 2620 16394 TRIGGER public deep each_part tenant
3406; 2620 16395 TRIGGER public other alone tenant
3407; 2606 16396 FK CONSTRAINT public leaf leaf_deep_fkey tenant
3408; 0 0 COMMENT public CONSTRAINT leaf_deep_fkey ON leaf tenant
3409; 3381 16396 STATISTICS public of_the_same_number tenant
""".splitlines(keepends=True)


def test_what_locks_partitions_is_restored_after_all_else_and_comments_with_it() -> None:
    lists = divide(
        PARTITIONED,
        extensions=ExtensionData(),
        existing_schemas=(),
        calling_tables={16386},
        spreading={16394, 16396},
    )
    assert [line.split(";")[0] for line in lists.tenant] == ["215"]
    assert [line.split(";")[0] for line in lists.calling] == ["3400"]
    assert [line.split(";")[0] for line in lists.indexes] == ["3402", "3403", "3406", "3409"]
    assert [line.split(";")[0] for line in lists.spreading] == ["3401", "3404", "3405", "3407", "3408"]
