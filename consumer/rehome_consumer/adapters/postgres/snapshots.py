"""Letting a session see what another one sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from rehome_consumer.adapters.postgres.kinds import Administrator
from rehome_consumer.adapters.postgres.names import literal
from rehome_consumer.errors import Conflict
from rehome_consumer.sql import ddl

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import TenantSession


async def see(session: TenantSession | Administrator, snapshot: str | None, what: str) -> None:
    """Let the session's transaction, which has just begun, see an exported snapshot; None: as it is now.

    Raises:
        Conflict: nobody holds it any more.
    """
    if snapshot is None:
        return
    try:
        statement = ddl("see_snapshot", snapshot=literal(snapshot))
        if isinstance(session, Administrator):
            await session.execute(statement)
        else:
            await session.execute(str(statement))
    except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError) as error:
        raise Conflict(f"{what}: its snapshot is gone ({error}): the session that held it ended") from None
