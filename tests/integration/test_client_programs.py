"""Client programs of PostgreSQL: which may be used, and what they get in their environment."""

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


async def test_programs_are_not_used_if_one_of_them_has_a_known_hole(
    tmp_path: Path,
) -> None:
    install(tmp_path, pg_restore="16.9")
    with pytest.raises(
        Incompatible, match=rf"^{tmp_path}/pg_restore is of PostgreSQL 16\.9, which is open to CVE-2024"
    ):
        await client_programs.major_version(tmp_path)


async def test_programs_without_updates_are_not_used(tmp_path: Path) -> None:
    install(tmp_path, **dict.fromkeys(NAMES, "13.23"))
    with pytest.raises(Incompatible, match="13, which gets no corrections any more"):
        await client_programs.major_version(tmp_path)


def test_programs_answer_only_scram() -> None:
    login = Credentials("postgres", Secret("secret"))
    server = Server(uuid4(), "pool-1", "pool-1", 5432, "shared", "active", login)
    variables = client_programs.environment(Sessions(), server, login, server_major=16)
    assert variables["PGREQUIREAUTH"] == "scram-sha-256"
