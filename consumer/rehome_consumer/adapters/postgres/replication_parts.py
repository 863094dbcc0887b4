"""What a copy that follows its source has on both servers: how its parts are named, made and removed.

On the source: a role that only reads the slot, a publication, a slot and its witness, temporary replica identities. On
the target: a role that owns
the subscription, and the subscription. Each role is made first and dropped last: as long as anything is there, its role
tells of it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres import identities, short_lived_roles
from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.context import reached
from rehome_consumer.errors import NotFound, TimedOut
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

_SQL: Final = administrator("replication")
_ROLES: Final = administrator("databases")
_END_SECONDS: Final = 20.0
_PAUSE: Final = 0.05


def name_of(migration_id: UUID) -> str:
    """The name of a migration's publication, slot and subscription."""
    return f"rehome_{migration_id.hex}"


def witness_of(migration_id: UUID) -> str:
    """The name of the slot that nobody reads until the stop: it tells then what was written."""
    return f"{name_of(migration_id)}_witness"


def sync_role(migration_id: UUID) -> str:
    """The login on the source by which the target's server reads the slot."""
    return f"{short_lived_roles.prefix(migration_id)}sync"


def apply_role(migration_id: UUID) -> str:
    """The owner of the subscription on the target."""
    return f"{short_lived_roles.prefix(migration_id)}apply"


async def remove(sessions: Sessions, server: Server, migration_id: UUID) -> bool:
    """Remove every part that a migration has on a server, whichever end it is; whether there was any.

    What keeps WAL goes first. Replica identities are put back when nothing is published any more: a customer who
    changes a row of a published table without one gets an error.

    Raises:
        TimedOut: the slot is still read.
        TableInUse: a table has its temporary replica identity still, and the role that tells of it stays; all else is
            removed.
    """
    name = name_of(migration_id)
    what = f"removing what {name} has on {server.name}"
    async with sessions.administrator(server, what=what) as session:
        there = await _remove_subscriptions(sessions, server, session, name)
        slots: set[str] = set()
        for slot in (name, witness_of(migration_id)):
            if found := await session.fetch(_SQL["slots"], slot):
                slots |= {row["database"] for row in found}
                await drop_slot(session, slot, what)
        reader = sync_role(migration_id)
        published = {row["database"] for row in await session.fetch(_SQL["role_databases"], reader)}
        for database in sorted(slots | published):
            with suppress(NotFound):  # dropped meanwhile
                async with sessions.administrator(server, database, what=what, beside=session) as inside:
                    if await inside.fetchval(_SQL["publication"], name):
                        await inside.execute(ddl("drop_publication", name=quoted(name)))
        await reached("unpublished")
        await identities.put_back(sessions, server, session, reader)
        await reached("identities_put_back")
        roles = [
            role
            for role in (reader, apply_role(migration_id))
            if await session.fetchrow(_ROLES["short_lived_role"], role) is not None
        ]
        for role in roles:
            await short_lived_roles.drop(sessions, server, session, role)
    return bool(there or slots or roles)


async def remove_from(sessions: Sessions, server: Server, session: Administrator, database: str) -> None:
    """Remove every subscription of rehome's in a database that is about to be dropped: it could not be."""
    for row in await session.fetch(_SQL["subscriptions_in"], database):
        with suppress(NotFound):
            await _drop_subscription(sessions, server, session, database, row["name"])


async def _remove_subscriptions(
    sessions: Sessions, server: Server, session: Administrator, name: str
) -> bool:
    found = await session.fetch(_SQL["subscriptions"], name)
    for row in found:
        with suppress(NotFound):
            await _drop_subscription(sessions, server, session, row["database"], name)
    return bool(found)


async def _drop_subscription(
    sessions: Sessions, server: Server, session: Administrator, database: str, name: str
) -> None:
    """Drop it without its slot, which would need the source; its worker ends, and its origin goes."""
    what = f"dropping subscription {name} on {server.name}"
    async with sessions.administrator(server, database, what=what, beside=session) as inside:
        await inside.execute(ddl("disable_subscription", name=quoted(name)))
        async with inside.transaction():
            await inside.execute(ddl("forget_slot", name=quoted(name)))
            await inside.execute(ddl("drop_subscription", name=quoted(name)))


async def drop_slot(session: Administrator, name: str, what: str) -> None:
    """Drop the slot, and end who reads it.

    Raises:
        TimedOut: it is still read.
    """
    deadline = asyncio.get_running_loop().time() + _END_SECONDS
    while await session.fetchrow(_SQL["slot"], name) is not None:
        await session.fetch(_SQL["end_reader"], name)
        await session.fetch(_SQL["drop_slot"], name)
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(f"{what}: slot {name} is still read after {_END_SECONDS:g} s")
        await asyncio.sleep(_PAUSE)
