"""No setting that a tenant gave its database applies to an administrator's session on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Conflict, Incompatible
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")
_MOST_BYTES: Final = 8000  # a server takes 10,000 for all that opens a session (source: pqcomm.h)


async def overrides(session: Administrator, database: str, what: str, where: str) -> dict[str, str]:
    """What to send at the start of an administrator's session so that no setting of the database applies to it.

    Args:
        session: on the maintenance database.
        database: on which the other session will be opened.
        what: what is being done and to what, for the error.
        where: the server's name, for the error.

    Raises:
        Incompatible: the database has too many settings.
    """
    rows = await session.fetch(_SQL["settings_of_database"], database)
    found = {row["name"]: row["value"] for row in rows}
    if sum(len(name.encode()) + len(value.encode()) + 2 for name, value in found.items()) > _MOST_BYTES:
        raise Incompatible(
            f"{what}: database {database} on {where} has {len(found)} settings of its own, more than a session can be "
            "opened without: ALTER DATABASE ... RESET those that nobody needs, and replay the upgrade"
        )
    return found


async def require_none_applied(session: Administrator, database: str) -> None:
    """Raise Conflict if a setting of the database applies to this session on it all the same."""
    if applied := await session.fetch(_SQL["settings_applied"]):
        named = ", ".join(row["name"] for row in applied)
        raise Conflict(f"the settings of database {database} changed at this moment ({named})")
