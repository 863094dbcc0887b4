"""Statements recognize short-lived roles and rehome's sessions by the names that the code gives them."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import rehome_consumer.sql
from rehome_consumer.adapters.postgres.replication_parts import apply_role, name_of, sync_role, witness_of
from rehome_consumer.adapters.postgres.sessions import APPLICATION_PREFIX, application_name
from rehome_consumer.adapters.postgres.short_lived_roles import prefix

MIGRATION = UUID("7d9f2a54-0b6c-4d7e-8f90-4a1bb2c3d4e5")
FILES = (Path(rehome_consumer.sql.__file__).parent / "administrator").glob("*.sql")
SQL = "".join(re.sub(r"--.*", "", file.read_text()) for file in FILES)
NAMES = set(re.findall(r"'(\^rehome_\[[^']*)'", SQL))


def test_short_lived_roles_are_recognized_and_no_other_role() -> None:
    patterns = {one for one in NAMES if one.endswith("_[a-z]+$")}
    assert patterns
    for pattern in patterns:
        for purpose in ("read", "dump", "restore"):
            assert re.search(pattern, f"{prefix(MIGRATION)}{purpose}")
        for other in ("rehome", "rehome_read", f"x{prefix(MIGRATION)}read", f"{prefix(MIGRATION)}read2"):
            assert not re.search(pattern, other)


def test_what_lets_a_copy_follow_is_recognized_and_nothing_else() -> None:
    patterns = {one for one in NAMES if one.endswith(("{32}$", "_apply$", "(_witness)?$"))}
    assert len(patterns) == 3
    assert {one for one in NAMES if not one.endswith("_[a-z]+$")} == patterns | {
        "^rehome_[0-9a-f]{32}(_[a-z]+)?$",
        "^rehome_[0-9a-f]{32}_sync$",
    }
    assert re.search("^rehome_[0-9a-f]{32}_sync$", sync_role(MIGRATION))
    for pattern in patterns:
        name = apply_role(MIGRATION) if pattern.endswith("_apply$") else name_of(MIGRATION)
        assert re.search(pattern, name)
        for other in (f"x{name}", f"{name}_", "rehome_", sync_role(MIGRATION)):
            assert not re.search(pattern, other)
        assert bool(re.search(pattern, witness_of(MIGRATION))) == pattern.endswith("(_witness)?$")


def test_the_migration_is_cut_out_of_a_short_lived_roles_name() -> None:
    ((start, length),) = set(re.findall(r"name::pg_catalog\.text, (\d+), (\d+)\) (?:END )?AS migration", SQL))
    assert prefix(MIGRATION)[int(start) - 1 :][: int(length)] == MIGRATION.hex


def test_rehomes_sessions_are_recognized_and_their_migration_is_cut_out() -> None:
    assert set(re.findall(r"LIKE '(rehome[^']*)'", SQL)) == {f"{APPLICATION_PREFIX}%"}
    (pattern,) = re.findall(r"application_name ~ '([^']*)'", SQL)
    assert re.search(pattern, application_name(MIGRATION))
    assert not re.search(pattern, application_name(None))
    (start,) = re.findall(r"substr\(application_name, (\d+)\)", SQL)
    assert application_name(MIGRATION)[int(start) - 1 :] == str(MIGRATION)
