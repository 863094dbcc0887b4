"""PostgreSQL's client programs, as today's platform and people by hand call them: as the superuser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sandbox.postgres.server import SUPERUSER, programs
from sandbox.system.processes import run

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.postgres.server import Cluster

LIMIT_SECONDS: Final = 1800.0


async def client_program(cluster: Cluster, program: str, database: str, *arguments: str) -> None:
    """Run one on a database, to its end."""
    login = {
        "PGHOST": cluster.host, "PGPORT": str(cluster.port),
        "PGUSER": SUPERUSER, "PGPASSWORD": cluster.password,
    }  # fmt: skip
    command: list[str | Path] = [programs() / program, f"--dbname={database}", *arguments]
    await run(command, limit=LIMIT_SECONDS, env=login)
