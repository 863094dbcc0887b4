"""Ending other people's sessions, and making sure that they are gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import TimedOut
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    import asyncpg

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")
_PAUSE = 0.05  # seconds between two looks
_NAMED = 10  # sessions named in an error


async def end_sessions(session: Administrator, query: str, *arguments: str, limit: float, what: str) -> int:
    """End sessions until a look shows none; how many there were.

    Args:
        session: on the maintenance database.
        query: which: a name that begins with `sessions_`, or `tenants_sessions`.
        arguments: the query's.
        limit: seconds.
        what: what the sessions stand in the way of, for the error.

    Raises:
        TimedOut: some are still there; names them.
    """
    seen: set[int] = set()
    deadline = asyncio.get_running_loop().time() + limit
    while sessions := await session.fetch(_SQL[query], *arguments):
        pids = [session["pid"] for session in sessions]
        seen.update(pids)
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(f"{what}: still connected after {limit:g} s: {told(sessions)}")
        await session.fetchval(_SQL["terminate"], pids)
        await asyncio.sleep(_PAUSE)
    return len(seen)


async def wait_until_entered(session: Administrator, database: str, *, limit: float) -> None:
    """Wait for who is half-way into a database now, until each is in `pg_stat_activity` or was refused.

    Who comes later finds the doors as they are now.

    Raises:
        TimedOut: some are still on their way.
    """
    deadline = asyncio.get_running_loop().time() + limit
    waiting = await _entering(session, database)
    while waiting:
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(f"sessions have been opening on {database} for {limit:g} s: pid {sorted(waiting)}")
        await asyncio.sleep(_PAUSE)
        waiting &= await _entering(session, database)


async def _entering(session: Administrator, database: str) -> set[int]:
    return {row["pid"] for row in await session.fetch(_SQL["entering"], database)}


def told(sessions: list[asyncpg.Record]) -> str:
    """Who they are, in words."""
    named = [
        f"pid {session['pid']} (user {session['user']}, application {session['application']!r}, "
        f"database {session['database']}, {session['state'] or 'no state'})"
        for session in sessions[:_NAMED]
    ]
    more = f" and {len(sessions) - _NAMED} more" if len(sessions) > _NAMED else ""
    return ", ".join(named) + more
