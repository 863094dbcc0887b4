"""Whose a database is: our mark, written into its comment as JSON. Every server keeps comments by itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.errors import NotOurs
from rehome_consumer.model import OwnershipTag
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from typing import Literal

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")
_KEY: Final = "rehome"
MAKING: Final = "rehome_making_"
"""How the names of databases begin that are being made: they get their mark only after they are there."""
_UNLIMITED: Final = -1
_MOST_CONNECTIONS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TagComment:
    """A mark, and what the way from scratch to verified must not forget.

    Attributes:
        connection_limit: what the database gets once it is verified.
        restored: a whole backup was restored into it. A database that an older, lost run made anew in the
            last moment has the right mark and is empty; this tells it from the one that was verified.
    """

    tag: OwnershipTag
    connection_limit: int = -1
    restored: bool = False

    def text(self) -> str:
        """As a comment."""
        tag = self.tag
        return json.dumps(
            {
                _KEY: {
                    "migration": str(tag.migration_id),
                    "attempt": tag.attempt,
                    "state": tag.state,
                    "connection_limit": self.connection_limit,
                    "restored": self.restored,
                }
            }
        )


def making_name(migration_id: UUID) -> str:
    """The name under which a database of this migration is made, and no other is."""
    return f"{MAKING}{migration_id.hex}"


def parse(comment: str | None) -> TagComment | None:
    """The label in a comment; None when there is none in it."""
    try:
        found = json.loads(comment or "")[_KEY]
        if found["state"] not in {"scratch", "verified"}:
            return None
        state = cast("Literal['scratch', 'verified']", found["state"])
        tag = OwnershipTag(UUID(found["migration"]), int(found["attempt"]), state)
        label = TagComment(tag, int(found["connection_limit"]), bool(found["restored"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return label if _UNLIMITED <= label.connection_limit <= _MOST_CONNECTIONS else None


async def comment_of(session: Administrator, database: str, where: str) -> TagComment | None:
    """The database's label; None when there is no such database.

    Args:
        session: any on its server.
        database: its name.
        where: the server's name, for the error.

    Raises:
        NotOurs: it is there and carries none.
    """
    row = await session.fetchrow(_SQL["comment"], database)
    if row is None:
        return None
    label = parse(row["comment"])
    if label is None:
        raise NotOurs(f"database {database} on {where} carries no mark of ours: it is left alone")
    return label


async def put_comment(session: Administrator, database: str, label: TagComment) -> None:
    """Write the label into the database's comment."""
    await session.execute(ddl("comment_database", database=quoted(database), text=literal(label.text())))
