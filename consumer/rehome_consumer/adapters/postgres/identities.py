"""Temporary replica identities: tables without a key have REPLICA IDENTITY FULL while a copy follows them.

Which tables, and what they had before, is remembered in the comment of the role that reads the slot, in the transaction
that makes this role: before anything is changed. The role is dropped after they have been put back. So whoever finds
the role, the next run, a rollback or the doctor, knows what is to be put back, and needs nothing else for it.

A table is altered only when its lock is had at once: whoever waits for it keeps all others from the table.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.shared_comments import text_of
from rehome_consumer.adapters.postgres.snapshots import see
from rehome_consumer.context import reached
from rehome_consumer.errors import FellBehind, NotFound, TableInUse
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Followed, Server
    from rehome_consumer.sql import AdministratorSql

log = logging.getLogger(__name__)

LARGE_VALUES_AT_MOST: Final = 256 * 1024**2
"""Bytes that a table may have in TOAST: with FULL each change of a row writes the row's large values to the WAL."""

TABLES_AT_MOST: Final = 2000
"""Tables that are lent one: each is altered in a transaction of its own while the customer works."""

FORMER: Final = {"d": "DEFAULT", "n": "NOTHING"}
"""Replica identities that are put back: as `pg_class` has them, and as a statement has them."""

_SQL: Final = administrator("replication")
_ROLES: Final = administrator("databases")
_FULL: Final = "f"
_SHORT, _LONG = "200ms", "3s"  # the longer one, where nobody is kept waiting: autovacuum gives way after 1 s
_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 0.0)
_PAUSES_BACK: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 1.6, 1.6, 0.0)
_AT_ONCE: Final = 200  # tables that one transaction locks
_ALL_SECONDS: Final = 60.0
_ONE: Final = re.compile(r"([0-9]+)=([dn])")
_COMMENT: Final = re.compile(rf"rehome replica identities of database ([0-9]+): ({_ONE.pattern}(?: |$))+")


class _FollowedError(Exception):
    """A copy of another migration follows the table: without its identity the customer could not change its rows."""


class _ElsewhereError(Exception):
    """The name is another table's by now: the transaction changes nothing."""


_MOVED: Final = (
    _ElsewhereError,
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.WrongObjectTypeError,
    asyncpg.InsufficientPrivilegeError,  # a view in its place, of what its owner may not lock
)
_LOCKED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


@dataclass(frozen=True, slots=True)
class Temporary:
    """Temporary replica identities.

    Attributes:
        database: its oid.
        former: oid of a table -> what it had before (a key of `FORMER`).
    """

    database: int
    former: Mapping[int, str]

    def text(self) -> str:
        """As the comment of a role; `fingerprint.sql` reads it, too."""
        ones = (f"{oid}={former}" for oid, former in sorted(self.former.items()))
        return f"rehome replica identities of database {self.database}: {' '.join(ones)}"


def parsed(text: str | None) -> Temporary | None:
    """What a comment says; None: nothing of this kind."""
    if text is None or (found := _COMMENT.fullmatch(text)) is None:
        return None
    ones = _ONE.findall(text.partition(": ")[2])
    return Temporary(int(found[1]), {int(oid): former for oid, former in ones})


async def keyless(inside: Administrator) -> list[asyncpg.Record]:
    """Tables whose rows could not be told apart; `why` where a temporary identity does not help, either."""
    return await inside.fetch(_SQL["keyless"], LARGE_VALUES_AT_MOST)


async def wanted(inside: Administrator, what: str) -> Temporary | None:
    """What would be set now; None: every table has a replica identity.

    Raises:
        FellBehind: a table can be lent none.
    """
    rows = await keyless(inside)
    _require_none(what, [row for row in rows if row["why"]])
    former = {row["oid"]: row["former"] for row in rows}
    return Temporary(await inside.fetchval(_SQL["this_database"]), former) if former else None


async def require_all(inside: Administrator, what: str) -> None:
    """No table would refuse changes to its users now that it is published, in a transaction that has just done so.

    Raises:
        FellBehind: one would; it has lost its identity, or was made, meanwhile.
    """
    _require_none(what, await keyless(inside))


def _require_none(what: str, rows: list[asyncpg.Record]) -> None:
    if rows:
        why = rows[0]["why"] or "has no primary key since a moment ago"
        raise FellBehind(f"{what}: table {rows[0]['quoted']} {why}")


async def remember(session: Administrator, reader: str, temporary: Temporary) -> None:
    """Write them down, before they are set."""
    await session.execute(ddl("comment_role", role=quoted(reader), text=literal(temporary.text())))


async def remembered(session: Administrator, reader: str) -> Temporary | None:
    """Those that were written down; None: there are none, or no such role."""
    row = await session.fetchrow(_SQL["comment_of"], reader)
    return parsed(text_of(row["comment"])) if row is not None else None


async def lend(inside: Administrator, temporary: Temporary, what: str) -> None:
    """Set them.

    Raises:
        TableInUse: the lock of a table was not had.
    """
    deadline = asyncio.get_running_loop().time() + _ALL_SECONDS
    for oid, former in temporary.former.items():
        await _alter_soon(inside, oid, (former, _FULL), what, _PAUSES, deadline)
        await reached("identity_lent")
        if asyncio.get_running_loop().time() > deadline:
            raise TableInUse(f"{what}: not all of {len(temporary.former)} tables in {_ALL_SECONDS:g} s")
    log.info("sync.identities_lent what=%s tables=%s", what, len(temporary.former))


async def lent(inside: Administrator, reader: str) -> tuple[str, ...]:
    """Tables that have one now, by their names."""
    temporary = await remembered(inside, reader)
    rows = await inside.fetch(_SQL["temporary"], list(temporary.former)) if temporary else []
    return tuple(sorted(row["quoted"] for row in rows))


async def put_back(sessions: Sessions, server: Server, session: Administrator, reader: str) -> None:
    """Put back those that are still FULL; a table that has another identity by now, or is gone, is left alone.

    Raises:
        TableInUse: the lock of a table was not had; all others are put back.
    """
    temporary = await remembered(session, reader)
    found = await session.fetchrow(_SQL["database_of"], temporary.database) if temporary else None
    if temporary is None or found is None:
        return
    database = found["name"]
    what = f"putting back the replica identities of {database} on {server.name}"
    state = await session.fetchrow(_ROLES["fence_state"], database, reader)
    with suppress(NotFound):  # dropped meanwhile
        async with sessions.administrator(server, database, what=what, beside=session) as inside:
            if state is not None and state["closed"] and await _put_back_together(inside, temporary, what):
                return
            await _put_back_singly(inside, temporary, what)


async def _put_back_together(inside: Administrator, temporary: Temporary, what: str) -> bool:
    """Where nobody is kept waiting: in few transactions, since it is done in a downtime. False: not all of them."""
    await _require_no_trigger(inside, what)
    rows = await inside.fetch(_SQL["temporary"], list(temporary.former))
    for row in rows:
        if await inside.fetchval(_SQL["followed_by"], row["oid"]):
            return False
    for few in (rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)):
        try:
            async with inside.transaction():
                await inside.fetchval(_SQL["wait_for_locks"], _LONG)
                for row in few:
                    await inside.execute(_set(row["quoted"], temporary.former[row["oid"]]))
                if await inside.fetch(_SQL["temporary"], [row["oid"] for row in few]):
                    raise _ElsewhereError(what)
        except (*_LOCKED, *_MOVED) as error:
            log.info("sync.identities_in_use what=%s why=%s", what, error)
            return False
        await reached("identity_put_back")
    return True


async def _put_back_singly(inside: Administrator, temporary: Temporary, what: str) -> None:
    rows = await inside.fetch(_SQL["temporary"], list(temporary.former))
    deadline = asyncio.get_running_loop().time() + _ALL_SECONDS
    failures: list[TableInUse] = []
    for row in rows:
        change = _FULL, temporary.former[row["oid"]]
        try:
            await _alter_soon(inside, row["oid"], change, what, _PAUSES_BACK, deadline)
        except TableInUse as error:
            failures.append(error)
        await reached("identity_put_back")
        if asyncio.get_running_loop().time() > deadline:
            break
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise TableInUse(f"{failures[0]}{more}")
    if await inside.fetch(_SQL["temporary"], [row["oid"] for row in rows]):
        raise TableInUse(f"{what}: not all of {len(rows)} tables in {_ALL_SECONDS:g} s")


async def without(sessions: Sessions, followed: Followed, snapshot: str, reader: str) -> None:
    """Give the copy's tables the replica identities that those of the source had before rehome lent others.

    Args:
        sessions: how servers are reached.
        followed: the source, and the copy that was made from the snapshot.
        snapshot: exported; the names are those of then.
        reader: the role in whose comment they are.
    """
    source, what = followed.source, f"looking for replica identities of {followed.database}"
    async with (
        sessions.administrator(source, followed.database, what=what) as inside,
        inside.transaction(isolation="repeatable_read", readonly=True),
    ):
        await see(inside, snapshot, what)
        temporary = await remembered(inside, reader)
        if temporary is None:
            return
        rows = await inside.fetch(_SQL["temporary"], list(temporary.former))
    what = f"giving {followed.copy} on {followed.target.name} the replica identities of its source"
    async with (
        sessions.administrator(followed.target, followed.copy, what=what) as copy,
        copy.transaction(),
    ):
        await copy.fetchval(_SQL["wait_for_locks"], _LONG)
        for row in rows:
            await copy.execute(_set(row["quoted"], temporary.former[row["oid"]]))


async def _alter_soon(
    inside: Administrator,
    oid: int,
    change: tuple[str, str],
    what: str,
    pauses: Sequence[float],
    deadline: float,
) -> None:
    """Give a table another identity, from and to `change`; nothing where it has not the first one, or is gone.

    Raises:
        TableInUse: its lock was not had.
    """
    await _require_no_trigger(inside, what)
    for pause in pauses:
        try:
            await _alter(inside, oid, *change)
        except _LOCKED:
            pass
        except _FollowedError as error:
            raise TableInUse(
                f"{what}: a copy of another migration follows it ({error}); it is put back when that is over"
            ) from None
        except _MOVED as error:
            log.info("sync.table_moved what=%s why=%s", what, error)
        else:
            return
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(pause)
    row = await inside.fetchrow(_SQL["identity"], oid)
    name = row["quoted"] if row is not None else f"with oid {oid}"
    raise TableInUse(f"{what}: table {name} is in use, its lock was not had in {len(pauses)} tries")


async def _alter(inside: Administrator, oid: int, before: str, after: str) -> None:
    """By name, since there is no statement that takes an oid; the table meant is looked at before and after."""
    async with inside.transaction():
        await inside.fetchval(_SQL["wait_for_locks"], _SHORT)
        first = await inside.fetchrow(_SQL["identity"], oid)
        if first is None or first["identity"] != before:
            return
        await inside.execute(ddl("lock_table", table=first["quoted"]))
        locked = await inside.fetchrow(_SQL["identity"], oid)
        if locked is None or locked["identity"] != before:
            return
        if after != _FULL and (publication := await inside.fetchval(_SQL["followed_by"], oid)):
            raise _FollowedError(publication)
        await inside.execute(_set(first["quoted"], after))
        done = await inside.fetchrow(_SQL["identity"], oid)
        if done is None or done["identity"] != after:
            raise _ElsewhereError(first["quoted"])


async def _require_no_trigger(inside: Administrator, what: str) -> None:
    if trigger := await inside.fetchval(_SQL["event_trigger"]):
        raise TableInUse(
            f"{what}: event trigger {trigger} would run as the administrator: drop or disable it"
        )


def _set(table: str, identity: str) -> AdministratorSql:
    spelt = "FULL" if identity == _FULL else FORMER[identity]
    return ddl("set_replica_identity", table=table, identity=spelt)
