"""Which releases of PostgreSQL may be used: those without known holes that a tenant can use through its data.

- CVE-2024-7348: the owner of a table can make pg_dump run SQL with the rights of its caller, a superuser.
- CVE-2025-8714, CVE-2025-8715: who names or owns objects can make a restore run commands on the consumer's machine, or
  SQL with the rights of the restoring role.

The releases of August 2025 close all three, in programs and servers.
"""

from __future__ import annotations

import re
from typing import Final

from rehome_consumer.errors import Incompatible

LEAST: Final = {14: 19, 15: 14, 16: 10, 17: 6, 18: 0}
"""The oldest minor release of each major one that has the fixes. Newer majors have them from their first."""

_OLDEST, _NEWEST = min(LEAST), max(LEAST)
_HOLES: Final = "CVE-2024-7348, CVE-2025-8714 and CVE-2025-8715"
_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+)|(devel|alpha\d*|beta\d+|rc\d+))?")


def require_patched_server(version_num: int, where: str) -> None:
    """Raise Incompatible if a server is older than the releases of August 2025.

    Args:
        version_num: its setting `server_version_num`, such as 150018 for 15.18.
        where: the server, as the error names it, such as "server pool-1".
    """
    _require(version_num // 10000, version_num % 10000, where, "update it there")


def require_patched_programs(version_text: str, where: str) -> int:
    """The major version of a client program, if its release is of August 2025 or newer.

    Args:
        version_text: what `pg_dump --version` prints, such as "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
        where: the program, as the error names it, such as its path.

    Raises:
        Incompatible: it is older, or no program of PostgreSQL's.
    """
    found = _VERSION.search(version_text)
    if found is None:
        raise Incompatible(f"{where} is not PostgreSQL's: it calls itself {version_text.strip()[:80]!r}")
    major = int(found[1])
    # What comes before a release counts as older than its first.
    minor = -1 if found[3] else int(found[2] or 0)
    _require(major, minor, where, "update PostgreSQL's client programs, or set REHOME_PG_BIN to newer ones")
    return major


def _require(major: int, minor: int, where: str, what_to_do: str) -> None:
    if major < _OLDEST:
        raise Incompatible(
            f"{where} is of PostgreSQL {major}, which gets no corrections any more: {what_to_do}, to {_OLDEST} or newer"
        )
    if major <= _NEWEST and minor < LEAST[major]:
        shown = f"{major}.{minor}" if minor >= 0 else f"{major}, before its release"
        raise Incompatible(
            f"{where} is of PostgreSQL {shown}, which is open to {_HOLES}: "
            f"{what_to_do}, to {major}.{LEAST[major]} or newer"
        )
