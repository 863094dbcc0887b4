"""One piece of work on a pooled PostgreSQL connection, with one time limit for all of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.errors import TimedOut, Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = PoolConnectionProxy[asyncpg.Record]


@asynccontextmanager
async def session(pool: Pool, what: str, limit: float) -> AsyncIterator[Connection]:
    """A connection for the length of the block; errors are translated and start with `what`.

    A server that hangs does not answer a ROLLBACK either, so a time-out around a transaction alone would
    wait for ever for its end. After `limit` seconds the connection is cut instead.

    Args:
        pool: where the connection is taken from, and returned to.
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
