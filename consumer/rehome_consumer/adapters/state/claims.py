"""Claims: one advisory lock per instance, each on a connection of its own in the state database.

The lock lives as long as its connection. A lost connection is a lost claim: the engine races `Claim.lost` against
the step. Before the loss is noticed another consumer may take over; the journal's fencing token keeps the first one
from writing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from rehome_consumer.adapters.common.postgres_errors import FOREIGN, translated
from rehome_consumer.errors import ClaimLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    Connect = Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]

LIMITS = """
    SELECT set_config(wanted.name, wanted.value, false)
    FROM (VALUES ('lock_timeout', $1), ('idle_session_timeout', $2)) AS wanted (name, value)
    WHERE EXISTS (SELECT FROM pg_settings AS known WHERE known.name = wanted.name)
"""
LOCK = "SELECT pg_advisory_lock(hashtextextended('rehome.instance:' || $1::text, 0))"
ALIVE = "SELECT 1"


class PostgresClaim:
    """A held claim."""

    def __init__(
        self, instance_id: UUID, connection: asyncpg.Connection[asyncpg.Record], answer_within: float
    ) -> None:
        """Take a connection that holds the lock, and how long (seconds) it may take to answer."""
        self._instance_id = instance_id
        self._answer_within = answer_within
        self._connection = connection
        self._lost = asyncio.Event()
        self._busy = asyncio.Lock()  # a connection does one thing at a time
        connection.add_termination_listener(lambda _: self._lost.set())

    async def check(self) -> None:
        """See `Claim.check`."""
        try:
            async with self._busy, asyncio.timeout(self._answer_within):
                if self._lost.is_set() or self._connection.is_closed():
                    raise ClaimLost(
                        f"the claim on instance {self._instance_id} is lost: its connection ended"
                    )
                await self._connection.fetchval(ALIVE)
        except FOREIGN as error:
            self._lost.set()
            why = str(error) or "its connection does not answer"
            raise ClaimLost(f"the claim on instance {self._instance_id} is lost: {why}") from error

    async def lost(self) -> None:
        """See `Claim.lost`."""
        await self._lost.wait()

    async def watch(self, every: float) -> None:
        """Ask the server every so many seconds: a half-open connection is not noticed otherwise."""
        while not self._lost.is_set():
            await asyncio.sleep(every)
            try:
                await self.check()
            except ClaimLost:
                return


class PostgresClaims:
    """Claims port on the state database."""

    def __init__(
        self,
        connect: Connect,
        *,
        patience: float = 2.0,
        watch_every: float = 5.0,
        answer_within: float = 10.0,
        silent_for: float = 45.0,
    ) -> None:
        """Take a function that opens a new connection.

        Args:
            connect: opens a connection of the claim's own.
            patience: seconds to wait for a claim that another holds; the event that a step emits often
                arrives before that step's claim is released.
            watch_every: seconds between checks of whether a held claim's connection lives.
            answer_within: seconds such a check may take before the claim counts as lost.
            silent_for: seconds without a check after which the server itself ends the claim: a frozen
                consumer's connection stays open (from PostgreSQL 14 on).
        """
        self._connect = connect
        self._patience = patience
        self._watch_every = watch_every
        self._answer_within = answer_within
        self._silent_for = silent_for

    @asynccontextmanager
    async def claim(self, instance_id: UUID) -> AsyncIterator[PostgresClaim | None]:
        """See `Claims.claim`."""
        with translated("state database"):
            connection = await self._connect()
        try:
            if not await self._locked(connection, instance_id):
                yield None
                return
            claim = PostgresClaim(instance_id, connection, self._answer_within)
            watching = asyncio.create_task(claim.watch(self._watch_every))
            try:
                yield claim
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        finally:
            await _close(connection, self._answer_within)

    async def _locked(self, connection: asyncpg.Connection[asyncpg.Record], instance_id: UUID) -> bool:
        """Take the lock; False when another holds it for longer than `patience`."""
        with translated("state database"):
            async with asyncio.timeout(self._patience + self._answer_within):
                limits = (f"{seconds * 1000:.0f}ms" for seconds in (self._patience, self._silent_for))
                await connection.execute(LIMITS, *limits)
                try:
                    await connection.execute(LOCK, str(instance_id))
                except asyncpg.LockNotAvailableError:
                    return False
        return True


async def _close(connection: Any, within: float) -> None:
    """Close, or terminate when the server does not answer; the lock ends with it either way."""
    try:
        await connection.close(timeout=within)
    except FOREIGN:
        connection.terminate()
