"""Ending sessions of others, and making sure that they have ended."""

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
_AT_WORK = frozenset({"active", "idle in transaction", "fastpath function call"})  # of pg_stat_activity.state
_NAMED = 10  # sessions named in an error


async def end_sessions(
    session: Administrator, query: str, *arguments: str, limit: float, what: str, patience: float = 0.0
) -> int:
    """End sessions until the query returns none; how many there were.

    Args:
        session: on the maintenance database.
        query: which: a name that begins with `sessions_`, or `tenants_sessions`.
        arguments: the query's.
        limit: seconds.
        what: what the sessions stand in the way of, for the error.
        patience: seconds before `limit` begins, in which only idle sessions are ended: a transaction may end by itself.

    Raises:
        TimedOut: some are still there; names them.
    """
    ended: set[int] = set()
    now = asyncio.get_running_loop().time
    patient_until = now() + patience
    while sessions := await session.fetch(_SQL[query], *arguments):
        patient = now() < patient_until
        pids = [one["pid"] for one in sessions if not (patient and one["state"] in _AT_WORK)]
        ended.update(pids)
        if now() > patient_until + limit:
            raise TimedOut(f"{what}: still connected after {patience + limit:g} s: {_described(sessions)}")
        await session.fetchval(_SQL["terminate"], pids)
        await asyncio.sleep(_PAUSE)
    return len(ended)


async def wait_for_opening_sessions(session: Administrator, database: str, *, limit: float) -> None:
    """Wait until every session that is opening on a database now is in `pg_stat_activity`, or was refused.

    Those that open later are checked against the privileges and limits as they are now.

    Raises:
        TimedOut: some are still opening.
    """
    deadline = asyncio.get_running_loop().time() + limit
    waiting = await _opening(session, database)
    while waiting:
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(f"sessions have been opening on {database} for {limit:g} s: pid {sorted(waiting)}")
        await asyncio.sleep(_PAUSE)
        waiting &= await _opening(session, database)


async def _opening(session: Administrator, database: str) -> set[int]:
    return {row["pid"] for row in await session.fetch(_SQL["opening_sessions"], database)}


def _described(sessions: list[asyncpg.Record]) -> str:
    named = [
        f"pid {session['pid']} (user {session['user']}, application {session['application']!r}, "
        f"database {session['database']}, {session['state'] or 'no state'})"
        for session in sessions[:_NAMED]
    ]
    more = f" and {len(sessions) - _NAMED} more" if len(sessions) > _NAMED else ""
    return ", ".join(named) + more
