"""Client programs of PostgreSQL: which may be used, and what they get in their environment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.adapters.postgres import client_programs
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.errors import ChildFailed, Incompatible, NotReady
from rehome_consumer.model import Credentials, Secret, Server

if TYPE_CHECKING:
    from pathlib import Path

    from rehome_consumer.errors import RehomeError

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
        NotReady, match=rf"^{tmp_path}/pg_restore is of PostgreSQL 16\.9, which is open to CVE-2024"
    ):
        await client_programs.major_version(tmp_path)


async def test_programs_without_updates_are_not_used(tmp_path: Path) -> None:
    install(tmp_path, **dict.fromkeys(NAMES, "13.23"))
    with pytest.raises(NotReady, match="13, which gets no corrections any more"):
        await client_programs.major_version(tmp_path)


async def test_a_program_that_is_missing_or_does_not_run_is_named(tmp_path: Path) -> None:
    install(tmp_path)
    assert await client_programs.major_version(tmp_path) == 16
    (tmp_path / "vacuumdb").unlink()
    with pytest.raises(NotReady, match=f"there is no program {tmp_path}/vacuumdb .*REHOME_PG_BIN"):
        await client_programs.major_version(tmp_path)
    (tmp_path / "vacuumdb").write_text("#!/bin/sh\necho cannot open shared object >&2; exit 127\n")
    with pytest.raises(NotReady, match=r"there is no program .*vacuumdb; set REHOME_PG_BIN"):
        await client_programs.major_version(tmp_path)  # not executable
    (tmp_path / "vacuumdb").chmod(0o755)
    with pytest.raises(NotReady, match="vacuumdb ended with exit code 127: cannot open shared object"):
        await client_programs.major_version(tmp_path)
    # and once it is there again, it is used
    install(tmp_path)
    assert await client_programs.major_version(tmp_path) == 16


async def test_a_program_is_asked_again_when_it_was_replaced(tmp_path: Path) -> None:
    install(tmp_path)
    assert await client_programs.major_version(tmp_path) == 16
    install(tmp_path, vacuumdb="17.6")
    with pytest.raises(NotReady, match="of different versions"):
        await client_programs.major_version(tmp_path)


@pytest.mark.parametrize(
    ("line", "meaning", "advised"),
    [
        ('could not execute query: ERROR:  relation "res_partner" does not exist', Incompatible, True),
        ("could not execute query: ERROR:  out of shared memory", ChildFailed, False),
    ],
)
async def test_what_a_server_says_of_a_definition_is_final_and_says_what_to_do(
    tmp_path: Path, line: str, meaning: type[RehomeError], advised: bool
) -> None:
    program = tmp_path / "pg_restore"
    program.write_text(
        f"#!/bin/sh\necho 'pg_restore: error: {line}' >&2\n"
        "echo 'HINT:  Do it otherwise.' >&2\necho 'DETAIL:  Key (a)=(4141) is duplicated.' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    with pytest.raises(meaning) as raised:
        await client_programs.run([program], env={}, limit=20, what="restoring acme")
    said = str(raised.value)
    assert type(raised.value) is meaning
    assert f"{line} | HINT:  Do it otherwise. | DETAIL:  Key (a)=(...) is duplicated." in said
    assert said.endswith("in the tenant's database, then replay the upgrade") == advised


def test_programs_answer_only_scram() -> None:
    login = Credentials("postgres", Secret("secret"))
    server = Server(uuid4(), "pool-1", "pool-1", 5432, "shared", "active", login)
    variables = client_programs.environment(Sessions(), server, login, server_major=16)
    assert variables["PGREQUIREAUTH"] == "scram-sha-256"
