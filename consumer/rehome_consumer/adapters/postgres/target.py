"""Databases on the dedicated server: made under a scratch name, renamed when verified, dropped if this migration's.

CREATE DATABASE and the comment cannot be one transaction. So the database is made under a name that only this
migration uses, gets its ownership tag there, and the scratch name last: what has that name is complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg

from rehome_consumer.adapters.postgres import empty_database, replication_parts, roles, short_lived_roles
from rehome_consumer.adapters.postgres.activity import end_sessions
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.adapters.postgres.ownership_tags import (
    TagComment,
    making_name,
    read_comment,
    write_comment,
)
from rehome_consumer.errors import Conflict, NotOurs
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import DatabaseFacts, OwnershipTag, Server

_SQL: Final = administrator("databases")
_CREATE_SECONDS: Final = 600.0  # a busy server may take its time for the checkpoints of CREATE DATABASE
_UNLIMITED: Final = -1


async def make(
    sessions: Sessions, server: Server, name: str, like: DatabaseFacts, owner: str, tag: OwnershipTag
) -> None:
    """An empty database `name`, as `Databases.make_scratch` promises."""
    what = f"making database {name} on {server.name}"
    making = making_name(tag.migration_id)
    async with sessions.administrator(server, what=what, limit=_CREATE_SECONDS) as session:
        await _remove_earlier(sessions, server, session, name, tag)
        await _drop(session, making)
        await empty_database.create(session, making, like, owner, server.name)
        async with sessions.administrator(server, making, what=what) as inside:
            # Until everything is restored into it; then it gets the owner that it has on the source.
            await inside.execute(ddl("set_schema_owner", schema="public", role=quoted(owner)))
        async with session.transaction():
            await empty_database.apply_settings(session, making, like, owner)
            await empty_database.apply_grants(session, making, like, owner)
            # The source may have been fenced when it was read, with limit 0; on its own server it has no limit then.
            limit = like.connection_limit or _UNLIMITED
            comment = TagComment(tag, connection_limit=limit, comment=like.comment)
            await write_comment(session, making, comment)
            await session.execute(ddl("rename_database", database=quoted(making), name=quoted(name)))
        await empty_database.warn_about_collation(session, name, like, server.name)


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
    """As `Databases.promote` promises. Name, ownership tag and login change together or not at all.

    A late pg_restore of a lost run cannot write into what the tenant may use from now on: its role is dropped, its
    sessions are ended, PostgreSQL refuses the rename while there is any session, and afterwards no database has
    the name that it uses.
    """
    where = server.name
    await short_lived_roles.drop_all(sessions, server, session, tag.migration_id)
    comment = await read_comment(session, final, where)
    if comment is not None:
        _require_tag(comment.tag, tag, final, where)
        async with session.transaction():
            await session.fetchval(_SQL["lock_role"], role)
            await session.execute(ddl("allow_login", role=quoted(role)))
        return
    comment = await read_comment(session, scratch, where)
    if comment is None:
        raise Conflict(f"database {scratch} on {where} is missing: it must be made and restored again")
    _require_tag(replace(comment.tag, state="verified"), tag, scratch, where)
    if not comment.restored:
        raise Conflict(f"database {scratch} on {where} was made again and not restored: restore it again")
    for remaining in _remaining(limit):
        what = f"promoting {scratch} on {where}"
        await short_lived_roles.drop_all(sessions, server, session, tag.migration_id)
        await end_sessions(session, "sessions_on", scratch, limit=remaining, what=what)
        if await _renamed_without_sessions(session, scratch, final, role, replace(comment, tag=tag)):
            return
    raise Conflict(f"database {scratch} on {where} gets new sessions all the time: it could not be renamed")


async def drop(
    sessions: Sessions, server: Server, session: Administrator, name: str, migration_id: UUID
) -> bool:
    """As `Databases.drop` promises; what this migration left unfinished is dropped too."""
    where = server.name
    await _drop(session, making_name(migration_id))
    comment = await read_comment(session, name, where)
    if comment is not None and comment.tag.migration_id != migration_id:
        raise NotOurs(
            f"database {name} on {where} is of migration {comment.tag.migration_id}: it is left alone"
        )
    if comment is not None:
        await replication_parts.remove_from(sessions, server, session, name)
        await _drop(session, name)
    await short_lived_roles.drop(sessions, server, session, replication_parts.apply_role(migration_id))
    await short_lived_roles.drop_all(sessions, server, session, migration_id)
    await roles.drop_left_under_source_name(session, migration_id)
    return comment is not None


def _require_tag(found: OwnershipTag, wanted: OwnershipTag, name: str, where: str) -> None:
    if found != wanted:
        raise NotOurs(
            f"database {name} on {where} is of migration {found.migration_id} attempt {found.attempt}, "
            f"not of {wanted.migration_id} attempt {wanted.attempt}: it is left alone"
        )


async def _remove_earlier(
    sessions: Sessions, server: Server, session: Administrator, name: str, tag: OwnershipTag
) -> None:
    """Drop what an earlier run of this migration made under this name."""
    comment = await read_comment(session, name, server.name)
    if comment is None:
        return
    found = comment.tag
    if found.migration_id != tag.migration_id or found.state != "scratch":
        raise NotOurs(
            f"database {name} on {server.name} is of migration {found.migration_id} and {found.state}: it is left alone"
        )
    await replication_parts.remove_from(sessions, server, session, name)
    await _drop(session, name)


async def _drop(session: Administrator, name: str) -> None:
    if await session.fetchval(_SQL["is_template"], name):  # its owner can set that, in a restore too
        await session.execute(ddl("unset_template", database=quoted(name)))
    await session.execute(ddl("drop_database", database=quoted(name)))


async def _renamed_without_sessions(
    session: Administrator, scratch: str, final: str, role: str, comment: TagComment
) -> bool:
    """Rename `scratch` and allow the role to log in, unless there is a session on it or a short-lived role."""
    migration = comment.tag.migration_id
    try:
        async with session.transaction():
            await session.fetchval(_SQL["lock_role"], role)
            if await session.fetch(_SQL["short_lived_names"], short_lived_roles.prefix(migration)):
                return False
            await session.execute(ddl("rename_database", database=quoted(scratch), name=quoted(final)))
            limited = str(comment.connection_limit)
            await session.execute(ddl("set_connection_limit", database=quoted(final), sessions=limited))
            await write_comment(session, final, comment)
            await session.execute(ddl("allow_login", role=quoted(role)))
    except asyncpg.ObjectInUseError:
        return False
    return True


def _remaining(limit: float) -> Iterator[float]:
    """How many of `limit` seconds remain, again and again, until none do."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while (remaining := deadline - loop.time()) > 0:
        yield remaining
