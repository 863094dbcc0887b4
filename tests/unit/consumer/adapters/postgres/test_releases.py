"""Which releases of PostgreSQL are refused, and the messages."""

from __future__ import annotations

import pytest

from rehome_consumer.adapters.postgres.releases import require_patched_programs, require_patched_server
from rehome_consumer.errors import Incompatible


@pytest.mark.parametrize("version", [140019, 150014, 150018, 160010, 170006, 180000, 180006, 190000, 210003])
def test_a_server_without_the_known_holes_is_accepted(version: int) -> None:
    require_patched_server(version, "server pool-1")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            140018,
            r"server pool-1 is of PostgreSQL 14\.18, which is open to CVE-2024-7348, .*: update it there, to 14\.19",
        ),
        (150013, r"to 15\.14 or newer"),
        (160009, r"to 16\.10 or newer"),
        (170005, r"to 17\.6 or newer"),
        (
            130022,
            r"server pool-1 is of PostgreSQL 13, which gets no corrections any more: update it there, to 14",
        ),
        (90624, r"PostgreSQL 9, which gets no corrections any more"),
    ],
)
def test_an_older_server_is_refused_with_what_to_do(version: int, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        require_patched_server(version, "server pool-1")


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15),
        ("pg_restore (PostgreSQL) 18.0", 18),
        ("vacuumdb (PostgreSQL) 19beta1", 19),
        ("pg_dump (PostgreSQL) 20devel", 20),
    ],
)
def test_programs_without_the_known_holes_are_accepted(version: str, major: int) -> None:
    assert require_patched_programs(version, "pg_dump") == major


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            "pg_dump (PostgreSQL) 15.13",
            r"^x/pg_dump is of PostgreSQL 15\.13, which is open .* set REHOME_PG_BIN .*, to 15\.14",
        ),
        (
            "pg_dump (PostgreSQL) 18beta2",
            r"is of PostgreSQL 18, before its release, which is open .*, to 18\.0 or newer",
        ),
        ("pg_dump (PostgreSQL) 13.23", r"is of PostgreSQL 13, which gets no corrections any more"),
        ("pg_dump (PostgreSQL) 9.6.24", r"is of PostgreSQL 9, which gets"),
        ("pg_dump of another vendor 15.18", r"is not PostgreSQL's: it calls itself"),
    ],
)
def test_older_programs_are_refused_with_what_to_do(version: str, message: str) -> None:
    with pytest.raises(Incompatible, match=message):
        require_patched_programs(version, "x/pg_dump")
