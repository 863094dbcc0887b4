"""Client programs that would write what no server takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rehome_consumer.adapters.postgres.client_programs import require_column_numbers_known
from rehome_consumer.errors import Incompatible

if TYPE_CHECKING:
    from pathlib import Path


async def test_programs_that_know_the_numbers_of_columns_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "pg_dump").write_bytes(b"\x7fELF\x00pg_attver\x00")
    await require_column_numbers_known(tmp_path, "pool-1", 17)


async def test_others_are_refused_with_the_version_to_use(tmp_path: Path) -> None:
    (tmp_path / "pg_dump").write_bytes(b"\x7fELF\x00n_distinct\x00")
    wanted = r"^pool-1 keeps a number .* set REHOME_PG_BIN to the latest client programs of PostgreSQL 17, "
    with pytest.raises(Incompatible, match=wanted):
        await require_column_numbers_known(tmp_path, "pool-1", 17)


async def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"/pg_dump cannot be read: No such file .* REHOME_PG_BIN"):
        await require_column_numbers_known(tmp_path, "pool-1", 17)


async def test_a_script_that_runs_another_program_cannot_be_judged_and_is_left_to_the_rehearsal(
    tmp_path: Path,
) -> None:
    (tmp_path / "pg_dump").write_bytes(b"#!/usr/bin/perl -w\n")
    await require_column_numbers_known(tmp_path, "pool-1", 17)
