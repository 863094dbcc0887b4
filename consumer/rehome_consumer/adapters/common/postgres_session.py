"""One piece of work on a pooled PostgreSQL connection, with one time limit for all of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.errors import TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = PoolConnectionProxy[asyncpg.Record]


class KeptConnections:
    """Connections of a pool that stay with who uses them again and again.

    asyncpg's pool takes longer to give one and to take it back than a client takes for a statement. One on which
    something went wrong goes back to its pool, which waits for what is under way, or opens another one.
    """

    def __init__(self, pool: Pool, most: int) -> None:
        """Take the pool; at most so many connections stay here while nobody uses them, the others go back to it."""
        self._pool = pool
        self._most = most
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[Connection]:
        """A connection for the length of the block; `timeout` in seconds is for getting it."""
        connection = await self._kept() or await self._pool.acquire(timeout=timeout)
        try:
            yield connection
        except BaseException:
            await self._pool.release(connection)
            raise
        if len(self._idle) < self._most:
            self._idle.append(connection)
        else:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        """Give back what is kept."""
        while self._idle:
            await self._pool.release(self._idle.pop())

    async def _kept(self) -> Connection | None:
        """The one used last; those that were lost meanwhile go back."""
        while self._idle:
            connection = self._idle.pop()
            if _is_open(connection):
                return connection
            await self._pool.release(connection)
        return None


def _is_open(connection: Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it was lost, and its pool knows
        return False


@asynccontextmanager
async def session(pool: Pool | KeptConnections, what: str, limit: float) -> AsyncIterator[Connection]:
    """A connection for the length of the block; errors are translated and start with `what`.

    A server that hangs does not answer a ROLLBACK either, so a time-out around a transaction alone would
    wait for ever for its end. After `limit` seconds the connection is cut instead.

    Args:
        pool: where the connection is taken from, and returned to; or those of it that are kept.
        what: what is being done and to what, such as "reading instance 7d9f...".
        limit: seconds for getting a connection, and again for the work on it.

    Raises:
        TimedOut: the limit passed.
        Unreachable, Conflict, Refused, Incompatible, Transient: as `translated` says.
    """
    cut = False
    try:
        with translated(what):
            async with pool.acquire(timeout=limit) as connection:

                def give_up() -> None:
                    nonlocal cut
                    cut = True
                    connection.terminate()

                watch = asyncio.get_running_loop().call_later(limit, give_up)
                try:
                    yield connection
                finally:
                    watch.cancel()
    except Unreachable:
        if cut:
            raise TimedOut(f"{what}: no answer from PostgreSQL in {limit:g} s") from None
        raise
