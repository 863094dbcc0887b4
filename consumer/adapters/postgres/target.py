"""Databases on the dedicated server: made under a scratch name, renamed when verified, dropped if ours.

CREATE DATABASE and its comment cannot be one transaction. So it is made under a name that only this
migration uses, gets its mark there, and takes the scratch name last: what carries that name is complete.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg

from consumer.adapters.postgres import roles
from consumer.adapters.postgres.activity import end_sessions
from consumer.adapters.postgres.marks import Label, label_of, making_name, put_label
from consumer.adapters.postgres.names import literal, quoted
from consumer.errors import Conflict, Incompatible, NotOurs
from consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from consumer.adapters.postgres.sessions import Connection, Sessions
    from consumer.model import DatabaseFacts, Mark, Server

log = logging.getLogger(__name__)

_SQL: Final = load("databases")
_CREATE_SECONDS: Final = 600.0  # a busy server may take its time for the checkpoints of CREATE DATABASE
_PROVIDERS: Final = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCALES: Final = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}
_PROVIDERS_SINCE: Final = 15  # CREATE DATABASE knows LOCALE_PROVIDER
_UNLIMITED: Final = -1


async def make(
    sessions: Sessions, server: Server, name: str, like: DatabaseFacts, owner: str, mark: Mark
) -> None:
    """An empty database `name`, as `Databases.make_scratch` promises."""
    what = f"making database {name} on {server.name}"
    making = making_name(mark.migration_id)
    async with sessions.open(server, what=what, limit=_CREATE_SECONDS) as connection:
        await _remove_earlier(connection, name, mark, server.name)
        await _drop(connection, making)
        await _create(connection, making, like, owner, server.name)
        async with sessions.open(server, making, what=what) as inside:
            await inside.execute(f"ALTER SCHEMA public OWNER TO {quoted(owner)}")
        async with connection.transaction():
            await _set(connection, making, like, owner)
            await _grant(connection, making, like, owner)
            # The source is fenced when it is looked at, and no limit of a pool holds on a server of one's own.
            limit = like.connection_limit or _UNLIMITED
            await put_label(connection, making, Label(mark, connection_limit=limit))
            await connection.execute(f"ALTER DATABASE {quoted(making)} RENAME TO {quoted(name)}")
        await _compare_collations(connection, name, like, server.name)


async def promote(
    connection: Connection, scratch: str, final: str, role: str, mark: Mark, where: str, *, limit: float
) -> None:
    """As `Databases.promote` promises. Name, mark and login change together or not at all.

    A late pg_restore of a lost run cannot write into what this lets the tenant use: its role is gone, its
    sessions are ended, no session may be there at the instant of the rename (PostgreSQL sees to it), and
    afterwards no database has the name it knows.
    """
    label = await label_of(connection, final, where)
    if label is not None:
        _require_same(label, mark, final, where)
        async with connection.transaction():
            await connection.fetchval(_SQL["lock_role"], role)
            await roles.drop_restorer(connection, mark.migration_id)
            await connection.execute(f"ALTER ROLE {quoted(role)} LOGIN")
        return
    label = await label_of(connection, scratch, where)
    if label is None:
        raise Conflict(f"database {scratch} on {where} is gone: it must be made and restored again")
    _require_same(replace(label, mark=replace(label.mark, state="verified")), mark, scratch, where)
    if not label.restored:
        raise Conflict(f"database {scratch} on {where} was made anew and not restored: restore it again")
    await _rename_alone(connection, scratch, final, role, replace(label, mark=mark), where, limit=limit)


async def drop(connection: Connection, name: str, migration_id: UUID, where: str) -> bool:
    """As `Databases.drop` promises; what this migration left half made goes too."""
    await _drop(connection, making_name(migration_id))
    label = await label_of(connection, name, where)
    if label is not None and label.mark.migration_id != migration_id:
        raise NotOurs(
            f"database {name} on {where} is of migration {label.mark.migration_id}: it is left alone"
        )
    if label is not None:
        await _drop(connection, name)
    await roles.drop_restorer(connection, migration_id)
    await roles.drop_lent(connection, migration_id)
    return label is not None


def _require_same(label: Label, mark: Mark, name: str, where: str) -> None:
    if label.mark != mark:
        raise NotOurs(
            f"database {name} on {where} is of migration {label.mark.migration_id} attempt {label.mark.attempt}, "
            f"not of {mark.migration_id} attempt {mark.attempt}: it is left alone"
        )


async def _remove_earlier(connection: Connection, name: str, mark: Mark, where: str) -> None:
    """Drop what an earlier run of this migration made under this name."""
    label = await label_of(connection, name, where)
    if label is None:
        return
    if label.mark.migration_id != mark.migration_id or label.mark.state != "scratch":
        raise NotOurs(
            f"database {name} on {where} is of migration {label.mark.migration_id} "
            f"and {label.mark.state}: it is left alone"
        )
    await _drop(connection, name)


async def _drop(connection: Connection, name: str) -> None:
    await connection.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


async def _create(connection: Connection, name: str, like: DatabaseFacts, owner: str, where: str) -> None:
    """CREATE DATABASE with encoding and locale of `like`."""
    clauses = [
        f"OWNER {quoted(owner)}",
        "TEMPLATE template0",
        f"ENCODING {literal(like.encoding)}",
        f"LC_COLLATE {literal(like.collation)}",
        f"LC_CTYPE {literal(like.ctype)}",
    ]
    if connection.get_server_version().major >= _PROVIDERS_SINCE:
        clauses.append(f"LOCALE_PROVIDER {_PROVIDERS[like.provider]}")
        if like.locale is not None:
            clauses.append(f"{_LOCALES[like.provider]} {literal(like.locale)}")
    elif like.provider != "c":
        raise Incompatible(f"{where} is too old for a database with locale provider {like.provider}")
    try:
        await connection.execute(f"CREATE DATABASE {quoted(name)} {' '.join(clauses)}")
    except asyncpg.DuplicateDatabaseError:
        raise Conflict(f"database {name} on {where} is being made by another run") from None
    except (asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError, asyncpg.DataError) as error:
        raise Incompatible(
            f"{where} cannot have a database with encoding {like.encoding}, LC_COLLATE {like.collation}, LC_CTYPE "
            f"{like.ctype}, provider {_PROVIDERS[like.provider]} {like.locale or ''}: {error.args[0]}"
        ) from None


async def _set(connection: Connection, name: str, like: DatabaseFacts, owner: str) -> None:
    """ALTER DATABASE SET and ALTER ROLE IN DATABASE SET as `like` has them.

    Values are taken from the session (FROM CURRENT): lists such as search_path need no quoting rules then.
    """
    for role, setting in like.settings:
        variable, _, value = setting.partition("=")
        whose = f"ALTER DATABASE {quoted(name)}"
        if role:
            whose = f"ALTER ROLE {quoted(_renamed(role, like, owner))} IN DATABASE {quoted(name)}"
        spelt = ".".join(quoted(part) for part in variable.split("."))
        try:
            async with connection.transaction():
                before = await connection.fetchval("SELECT current_setting($1, true)", variable)
                await connection.execute("SELECT set_config($1, $2, true)", variable, value)
                await connection.execute(f"{whose} SET {spelt} FROM CURRENT")
                await connection.execute("SELECT set_config($1, $2, true)", variable, before or "")
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.CantChangeRuntimeParamError) as error:
            raise Incompatible(f"setting {variable} of database {like.name}: {error.args[0]}") from None


async def _grant(connection: Connection, name: str, like: DatabaseFacts, owner: str) -> None:
    """The database's own privileges as `like` has them; its owner has all anyway."""
    if not like.acl:
        return
    await connection.execute(f"REVOKE ALL ON DATABASE {quoted(name)} FROM PUBLIC")
    for grantee, privilege, grantable in like.acl:
        if grantee == like.owner:
            continue
        to = quoted(_renamed(grantee, like, owner)) if grantee else "PUBLIC"
        option = " WITH GRANT OPTION" if grantable else ""
        await connection.execute(f"GRANT {privilege} ON DATABASE {quoted(name)} TO {to}{option}")


def _renamed(role: str, like: DatabaseFacts, owner: str) -> str:
    """The tenant's role may have another name here."""
    return owner if role == like.owner else role


async def _compare_collations(connection: Connection, name: str, like: DatabaseFacts, where: str) -> None:
    """Say when the two servers' libraries may sort differently; a restore builds every index anew."""
    facts = await connection.fetchrow(_SQL["database"], name)
    here = facts["collation_version"] if facts else None
    if here != like.collation_version:
        log.warning(
            "collation.differs database=%s server=%s collation=%s source_version=%s version=%s",
            name, where, like.collation, like.collation_version, here,
        )  # fmt: skip


async def _rename_alone(
    connection: Connection, scratch: str, final: str, role: str, label: Label, where: str, *, limit: float
) -> None:
    """End every session on `scratch` and rename it before another one comes; then let the role in."""
    for remaining in _shrinking(limit):
        what = f"promoting {scratch} on {where}"
        await end_sessions(connection, "sessions_on", scratch, limit=remaining, what=what)
        try:
            async with connection.transaction():
                await connection.fetchval(_SQL["lock_role"], role)
                await roles.drop_restorer(connection, label.mark.migration_id)
                await connection.execute(f"ALTER DATABASE {quoted(scratch)} RENAME TO {quoted(final)}")
                await connection.execute(
                    f"ALTER DATABASE {quoted(final)} CONNECTION LIMIT {label.connection_limit:d}"
                )
                await put_label(connection, final, label)
                await connection.execute(f"ALTER ROLE {quoted(role)} LOGIN")
        except asyncpg.ObjectInUseError:
            continue
        return
    raise Conflict(f"database {scratch} on {where} is entered again and again: it could not be renamed")


def _shrinking(limit: float) -> Iterator[float]:
    """What is left of `limit` seconds, again and again, until nothing is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while (remaining := deadline - loop.time()) > 0:
        yield remaining
