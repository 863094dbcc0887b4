"""What of a database cannot be carried over as it is, and what other programs hang on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import Incompatible
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("movable")


async def require(session: Administrator, database: str, tenant: str, where: str) -> None:
    """Everything in the database arrives as it is, or is in the list of what may differ.

    Args:
        session: on that database.
        database: its name.
        tenant: the tenant's role there.
        where: the server's name, for the error.

    Raises:
        Incompatible: something would not; names it, and says what to do.
    """
    found = await session.fetch(_SQL["immovable"], tenant)
    if found:
        named = "; ".join(f"{row['kind']} {row['name']} ({row['remedy']})" for row in found)
        more = found[0]["total"] - len(found)
        raise Incompatible(
            f"database {database} on {where} holds what role {tenant} cannot take along: {named}"
            f"{f'; and {more} more' if more else ''}. Do that, or move this database by hand"
        )


async def attached(session: Administrator, tenant: str) -> tuple[str, ...]:
    """What other programs hang on the database, in words: at most 20."""
    return tuple(row["what"] for row in await session.fetch(_SQL["attached"], tenant))
