"""What it costs to verify with a tenant's rights: the same readings by a short-lived role and a superuser, in turn."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from benchmarks.report import Table, median
from rehome_consumer.adapters.postgres import verification
from rehome_consumer.adapters.postgres.short_lived import Login
from rehome_consumer.adapters.postgres.verification import PostgresVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

ROUNDS: Final = 5


class _Superuser(Login):
    """The administrator's own login instead of a short-lived one: for the comparison only."""

    async def close(self) -> None:
        """Nothing to forbid: it must keep its login."""


@asynccontextmanager
async def _superuser_login(
    sessions: Sessions, server: Server, database: str, tenant: str, _purpose: str, **_limits: Any
) -> AsyncIterator[Login]:
    yield _Superuser(sessions, server, database, server.admin, tenant, "")


async def _seconds(read: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await read()
    return time.perf_counter() - started


async def measure(
    sessions: Sessions, server: Server, database: str, role: str, jobs: int, size: float
) -> Table:
    """Row counts and fingerprints, with both logins in turn."""
    verifier = PostgresVerifier(sessions, jobs=jobs)
    readings: dict[str, Callable[[], Awaitable[object]]] = {
        "rows counted": lambda: verifier.row_counts(server, database, role),
        "fingerprint": lambda: verifier.fingerprint(server, database, role),
    }
    table = Table(
        f"Reading a database of {size:.0f} MB: a short-lived role with the tenant's rights against a superuser",
        ("reading", "role, seconds (median)", "superuser", "ratio"),
    )
    for name, reading in readings.items():
        short_lived: list[float] = []
        superuser: list[float] = []
        for _ in range(ROUNDS):
            short_lived.append(await _seconds(reading))
            with mock.patch.object(verification, "short_lived_login", _superuser_login):
                superuser.append(await _seconds(reading))
        table.rows.append(
            (name, median(short_lived), median(superuser), median(short_lived) / median(superuser))
        )
    return table
