"""Databases on the dedicated server: made under a scratch name, renamed when verified, dropped if ours.

CREATE DATABASE and its comment cannot be one transaction. So it is made under a name that only this
migration uses, gets its mark there, and takes the scratch name last: what carries that name is complete.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg

from rehome_consumer.adapters.postgres import roles, short_lived
from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.ownership_tags import TagComment, comment_of, making_name, put_comment
from rehome_consumer.errors import Conflict, Incompatible, NotOurs
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import DatabaseFacts, OwnershipTag, Server

log = logging.getLogger(__name__)

_SQL: Final = administrator("databases")
_CREATE_SECONDS: Final = 600.0  # a busy server may take its time for the checkpoints of CREATE DATABASE
_PROVIDERS: Final = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCALES: Final = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}
_PROVIDERS_SINCE: Final = 15  # CREATE DATABASE knows LOCALE_PROVIDER
_UNLIMITED: Final = -1
# Settings whose stored value is a list of names, quoted where they need it (source: variable_is_guc_list_quote,
# dumputils.c).
_LISTS: Final = frozenset(
    {
        *("local_preload_libraries", "search_path", "session_preload_libraries"),
        *("shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"),
    }
)
_ELEMENT: Final = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^",\s][^",]*?))\s*(?:,|$)')


async def make(
    sessions: Sessions, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
) -> None:
    """An empty database `name`, as `Databases.make_scratch` promises."""
    what = f"making database {name} on {server.name}"
    making = making_name(tag.migration_id)
    async with sessions.administrator(server, what=what, limit=_CREATE_SECONDS) as session:
        await _remove_earlier(session, name, tag, server.name)
        await _drop(session, making)
        await _create(session, making, like, owner, server.name)
        async with sessions.administrator(server, making, what=what) as inside:
            await inside.execute(ddl("own_public_schema", role=quoted(owner)))
        async with session.transaction():
            await _set(session, making, like, owner)
            await _grant(session, making, like, owner)
            # The source is fenced when it is looked at, and no limit of a pool holds on a server of one's own.
            limit = like.connection_limit or _UNLIMITED
            await put_comment(session, making, TagComment(tag, connection_limit=limit))
            await session.execute(ddl("rename_database", database=quoted(making), name=quoted(name)))
        await _compare_collations(session, name, like, server.name)


async def promote(
    sessions: Sessions,
    server: Server,
    session: Administrator,
    scratch: str,
    final: str,
    role: str,
    tag: OwnershipTag,
    *,
    limit: float,
) -> None:
    """As `Databases.promote` promises. Name, mark and login change together or not at all.

    A late pg_restore of a lost run cannot write into what this lets the tenant use: its role is gone, its
    sessions are ended, no session may be there at the instant of the rename (PostgreSQL sees to it), and
    afterwards no database has the name it knows.
    """
    where = server.name
    await short_lived.drop_all(sessions, server, session, tag.migration_id)
    label = await comment_of(session, final, where)
    if label is not None:
        _require_same(label, tag, final, where)
        async with session.transaction():
            await session.fetchval(_SQL["lock_role"], role)
            await session.execute(ddl("let_login", role=quoted(role)))
        return
    label = await comment_of(session, scratch, where)
    if label is None:
        raise Conflict(f"database {scratch} on {where} is gone: it must be made and restored again")
    _require_same(replace(label, tag=replace(label.tag, state="verified")), tag, scratch, where)
    if not label.restored:
        raise Conflict(f"database {scratch} on {where} was made anew and not restored: restore it again")
    for remaining in _shrinking(limit):
        what = f"promoting {scratch} on {where}"
        await short_lived.drop_all(sessions, server, session, tag.migration_id)
        await end_sessions(session, "sessions_on", scratch, limit=remaining, what=what)
        if await _renamed_alone(session, scratch, final, role, replace(label, tag=tag)):
            return
    raise Conflict(f"database {scratch} on {where} is entered again and again: it could not be renamed")


async def drop(
    sessions: Sessions, server: Server, session: Administrator, name: str, migration_id: UUID
) -> bool:
    """As `Databases.drop` promises; what this migration left half made goes too."""
    where = server.name
    await _drop(session, making_name(migration_id))
    label = await comment_of(session, name, where)
    if label is not None and label.tag.migration_id != migration_id:
        raise NotOurs(
            f"database {name} on {where} is of migration {label.tag.migration_id}: it is left alone"
        )
    if label is not None:
        await _drop(session, name)
    await short_lived.drop_all(sessions, server, session, migration_id)
    await roles.drop_lent(session, migration_id)
    return label is not None


def _require_same(label: TagComment, tag: OwnershipTag, name: str, where: str) -> None:
    if label.tag != tag:
        raise NotOurs(
            f"database {name} on {where} is of migration {label.tag.migration_id} attempt {label.tag.attempt}, "
            f"not of {tag.migration_id} attempt {tag.attempt}: it is left alone"
        )


async def _remove_earlier(session: Administrator, name: str, tag: OwnershipTag, where: str) -> None:
    """Drop what an earlier run of this migration made under this name."""
    label = await comment_of(session, name, where)
    if label is None:
        return
    if label.tag.migration_id != tag.migration_id or label.tag.state != "scratch":
        raise NotOurs(
            f"database {name} on {where} is of migration {label.tag.migration_id} "
            f"and {label.tag.state}: it is left alone"
        )
    await _drop(session, name)


async def _drop(session: Administrator, name: str) -> None:
    if await session.fetchval(_SQL["is_template"], name):  # its owner can say so, in a restore too
        await session.execute(ddl("no_template", database=quoted(name)))
    await session.execute(ddl("drop_database", database=quoted(name)))


async def _create(session: Administrator, name: str, like: DatabaseFacts, owner: str, where: str) -> None:
    """CREATE DATABASE with encoding and locale of `like`."""
    clauses = [
        f"OWNER {quoted(owner)}",
        "TEMPLATE template0",
        f"ENCODING {literal(like.encoding)}",
        f"LC_COLLATE {literal(like.collation)}",
        f"LC_CTYPE {literal(like.ctype)}",
    ]
    if session.major >= _PROVIDERS_SINCE:
        clauses.append(f"LOCALE_PROVIDER {_PROVIDERS[like.provider]}")
        if like.locale is not None:
            clauses.append(f"{_LOCALES[like.provider]} {literal(like.locale)}")
    elif like.provider != "c":
        raise Incompatible(f"{where} is too old for a database with locale provider {like.provider}")
    try:
        await session.execute(ddl("create_database", database=quoted(name), clauses=" ".join(clauses)))
    except asyncpg.DuplicateDatabaseError:
        raise Conflict(f"database {name} on {where} is being made by another run") from None
    except (asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError, asyncpg.DataError) as error:
        raise Incompatible(
            f"{where} cannot have a database with encoding {like.encoding}, LC_COLLATE {like.collation}, LC_CTYPE "
            f"{like.ctype}, provider {_PROVIDERS[like.provider]} {like.locale or ''}: {error.args[0]}"
        ) from None


async def _set(session: Administrator, name: str, like: DatabaseFacts, owner: str) -> None:
    """ALTER DATABASE SET and ALTER ROLE IN DATABASE SET as `like` has them.

    The values are stored as they are, and applied nowhere: neither here, where a tenant's search_path would decide
    what a name means, nor by way of the server, which would write `600s` as `10min`.
    """
    for role, setting in like.settings:
        variable, _, value = setting.partition("=")
        parts = {
            "database": quoted(name),
            "variable": ".".join(quoted(part) for part in variable.split(".")),
            "values": ", ".join(map(literal, _elements(variable, value))),
        }
        try:
            async with session.transaction():
                if role:
                    whose = quoted(_renamed(role, like, owner))
                    await session.execute(ddl("set_for_role_in_database", role=whose, **parts))
                else:
                    await session.execute(ddl("set_for_database", **parts))
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.CantChangeRuntimeParamError) as error:
            raise Incompatible(f"setting {variable} of database {like.name}: {error.args[0]}") from None


def _elements(variable: str, value: str) -> list[str]:
    """What stands in ALTER ... SET for a stored value: for a list each of its names, without their quotes."""
    if variable.lower() not in _LISTS:
        return [value]
    elements = [
        found["bare"] if found["bare"] is not None else found["quoted"].replace('""', '"')
        for found in _ELEMENT.finditer(value)
    ]
    return elements or [""]


async def _grant(session: Administrator, name: str, like: DatabaseFacts, owner: str) -> None:
    """The database's own privileges as `like` has them; its owner has all anyway."""
    if not like.acl:
        return
    database = quoted(name)
    await session.execute(ddl("close_database", database=database, grantee="PUBLIC"))
    for grantee, privilege, grantable in like.acl:
        if grantee == like.owner:
            continue
        to = quoted(_renamed(grantee, like, owner)) if grantee else "PUBLIC"
        option = "WITH GRANT OPTION" if grantable else ""
        await session.execute(
            ddl("grant_on_database", privilege=privilege, database=database, grantee=to, option=option)
        )


def _renamed(role: str, like: DatabaseFacts, owner: str) -> str:
    """The tenant's role may have another name here."""
    return owner if role == like.owner else role


async def _compare_collations(session: Administrator, name: str, like: DatabaseFacts, where: str) -> None:
    """Say when the two servers' libraries may sort differently; a restore builds every index anew."""
    facts = await session.fetchrow(_SQL["database"], name)
    here = facts["collation_version"] if facts else None
    if here != like.collation_version:
        log.warning(
            "collation.differs database=%s server=%s collation=%s source_version=%s version=%s",
            name, where, like.collation, like.collation_version, here,
        )  # fmt: skip


async def _renamed_alone(
    session: Administrator, scratch: str, final: str, role: str, label: TagComment
) -> bool:
    """Rename `scratch` and let the role in, if nobody is connected to it and no role of ours may be."""
    migration = label.tag.migration_id
    try:
        async with session.transaction():
            await session.fetchval(_SQL["lock_role"], role)
            if await session.fetch(_SQL["short_lived_names"], short_lived.prefix(migration)):
                return False
            await session.execute(ddl("rename_database", database=quoted(scratch), name=quoted(final)))
            limited = str(label.connection_limit)
            await session.execute(ddl("limit_database", database=quoted(final), sessions=limited))
            await put_comment(session, final, label)
            await session.execute(ddl("let_login", role=quoted(role)))
    except asyncpg.ObjectInUseError:
        return False
    return True


def _shrinking(limit: float) -> Iterator[float]:
    """What is left of `limit` seconds, again and again, until nothing is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while (remaining := deadline - loop.time()) > 0:
        yield remaining
