"""The witness: a second slot, which nobody reads while the copy follows. After the fence it tells what was written.

It is made before the snapshot from which the copy is taken, so it tells of every transaction that this snapshot does
not have; and all WAL that it needs is kept, or it is lost and says so. Whatever is not certain here is an error, after
which everything is compared.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres import replication_parts as parts
from rehome_consumer.adapters.postgres import short_lived_roles
from rehome_consumer.adapters.postgres.names import spelt
from rehome_consumer.adapters.postgres.pgoutput import Changes, Misunderstood
from rehome_consumer.errors import FellBehind, TimedOut
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Followed, Written

log = logging.getLogger(__name__)

READ_AT_MOST: Final = 256 * 1024**2
"""Bytes of WAL that it is read from in a downtime: beyond that, decoding them takes as long as it saves."""

FILES_AT_MOST: Final = "512MB"
"""What the server may put into temporary files for that: a few bytes of WAL may be many of text."""

_SQL: Final = administrator("replication")
_CHANGES_AT_MOST: Final = 200_000
_BEGINNING: Final = 8 * 1024  # bytes of a message: keys are short, and most tables have them first
_AT_ONCE: Final = 500
_READ_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 2.0
_PAUSE: Final = 0.02
_USABLE: Final = ("reserved", "extended")


async def bound(source: Administrator, migration_id: UUID, what: str, keep: int) -> None:
    """Drop it when the server keeps more for it than it may (`keep`, bytes): the copy can do without."""
    name = parts.witness_of(migration_id)
    row = await source.fetchrow(_SQL["slot"], name)
    if row is None or (row["status"] in _USABLE and row["kept"] is not None and row["kept"] <= keep):
        return
    log.warning("sync.witness_dropped slot=%s status=%s kept=%s", name, row["status"], row["kept"])
    await parts.drop_slot(source, name, what)


async def written(sessions: Sessions, followed: Followed) -> Written:
    """As `Replicator.written`. Raises FellBehind."""
    source, name = followed.source, parts.witness_of(followed.migration_id)
    what = f"reading slot {name} on {source.name}"
    async with sessions.administrator(source, followed.database, what=what, limit=_READ_SECONDS) as session:
        row = await session.fetchrow(_SQL["slot"], name)
        if row is None:
            raise FellBehind(f"{what}: there is no such slot")
        if row["status"] not in _USABLE or row["kept"] is None:
            raise FellBehind(f"{what}: it is {row['status'] or 'lost'}")
        if row["kept"] > READ_AT_MOST:
            raise FellBehind(f"{what}: there are {row['kept']} bytes of WAL, more than {READ_AT_MOST}")
        await _until_flushed(session, what)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                found = await told(session, name, parts.name_of(followed.migration_id), what)
        except TimeoutError:
            raise FellBehind(f"{what}: not done in {_READ_SECONDS:g} s") from None
        altered = await session.fetchrow(_SQL["altered"], name)
        if altered is None or altered["altered"] is not False:
            raise FellBehind(f"{what}: a table, a type or a function was made or changed since it began")
        return found


async def strays(sessions: Sessions, followed: Followed, written: Written) -> tuple[str, ...]:
    """As `Replicator.strays`. Raises TimedOut."""
    what = f"looking who wrote to {followed.copy} on {followed.target.name}"
    async with sessions.administrator(followed.target, followed.copy, what=what) as session:
        # A session tells the statistics what it wrote when it ends, before it is gone from the list of sessions.
        deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
        reader = f"{short_lived_roles.prefix(followed.migration_id)}read"
        while await session.fetchval(_SQL["others"], reader):
            if asyncio.get_running_loop().time() > deadline:
                raise TimedOut(f"{what}: another session is there after {_WAIT_SECONDS:g} s")
            await asyncio.sleep(_PAUSE)
        found = (spelt(row["name"]) for row in await session.fetch(_SQL["touched"]))
        return tuple(sorted(name for name in found if name not in written))


async def _until_flushed(session: Administrator, what: str) -> None:
    """All that was committed until now can be decoded. Raises FellBehind."""
    position = await session.fetchval(_SQL["position"])
    deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
    await session.fetchval(_SQL["mark"])
    while not await session.fetchval(_SQL["flushed"], position):
        if asyncio.get_running_loop().time() > deadline:
            raise FellBehind(f"{what}: the WAL is not on disk after {_WAIT_SECONDS:g} s")
        await asyncio.sleep(_PAUSE)


async def told(session: Administrator, name: str, publication: str, what: str) -> Written:
    """What a slot has to tell about a publication. Raises FellBehind."""
    changes, count = Changes(), 0
    async with session.transaction(readonly=True):
        await session.fetchval(_SQL["limit_files"], FILES_AT_MOST)
        rows = session.cursor(
            _SQL["changes"], name, _CHANGES_AT_MOST, publication, _BEGINNING, prefetch=_AT_ONCE
        )
        async for row in rows:
            count += 1
            if count >= _CHANGES_AT_MOST:
                raise FellBehind(f"{what}: there are more than {_CHANGES_AT_MOST} changes")
            try:
                changes.add(row["data"], cut=row["cut"])
            except Misunderstood as error:
                raise FellBehind(f"{what}: {error}") from None
    return changes.written()
