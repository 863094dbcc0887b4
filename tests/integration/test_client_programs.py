"""Client programs of PostgreSQL: which are let near a tenant's data, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.adapters.postgres import client_programs
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.errors import Incompatible
from rehome_consumer.model import Credentials, Secret, Server

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("pg_dump", "pg_restore", "vacuumdb")


def install(directory: Path, **versions: str) -> None:
    for name in NAMES:
        program = directory / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {versions.get(name, '16.10')}'\n")
        program.chmod(0o755)


async def test_patched_programs_are_used(tmp_path: Path) -> None:
    install(tmp_path)
    assert await client_programs.major_version(tmp_path) == 16


async def test_programs_with_a_known_hole_are_not_used_though_others_beside_them_are_newer(
    tmp_path: Path,
) -> None:
    install(tmp_path, pg_restore="16.9")
    with pytest.raises(
        Incompatible, match=rf"^{tmp_path}/pg_restore is of PostgreSQL 16\.9, which is open to CVE-2024"
    ):
        await client_programs.major_version(tmp_path)


async def test_programs_that_get_no_corrections_are_not_used(tmp_path: Path) -> None:
    install(tmp_path, **dict.fromkeys(NAMES, "13.23"))
    with pytest.raises(Incompatible, match="13, which gets no corrections any more"):
        await client_programs.major_version(tmp_path)


def test_programs_are_told_to_answer_scram_alone() -> None:
    login = Credentials("postgres", Secret("secret"))
    server = Server(uuid4(), "pool-1", "pool-1", 5432, "shared", "active", login)
    told = client_programs.environment(Sessions(), server, login, server_major=16)
    assert told["PGREQUIREAUTH"] == "scram-sha-256"
