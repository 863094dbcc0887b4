"""Whose a database is: the ownership tag, as JSON in the last line of the database's comment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.shared_comments import text_of
from rehome_consumer.errors import NotOurs
from rehome_consumer.model import OwnershipTag
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from typing import Literal

    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")
_KEY: Final = "rehome"
MAKING: Final = "rehome_making_"
"""How the names of databases begin while they are made: they get their tag only after CREATE DATABASE."""
_UNLIMITED: Final = -1
_MOST_CONNECTIONS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TagComment:
    """What the comment holds: the ownership tag, and what is needed until the database is promoted.

    Attributes:
        connection_limit: what the database gets when it is promoted.
        restored: a complete backup was restored into it. A database that an older, lost run created again in the
            last moment has the right tag and is empty; this tells it from the one that was verified.
        comment: the tenant's own comment on the database, above the tag.
    """

    tag: OwnershipTag
    connection_limit: int = -1
    restored: bool = False
    comment: str | None = None

    def text(self) -> str:
        """The comment's text."""
        tag = self.tag
        line = json.dumps(
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
        return f"{self.comment}\n{line}" if self.comment else line


def making_name(migration_id: UUID) -> str:
    """The name under which this migration, and no other, makes a database."""
    return f"{MAKING}{migration_id.hex}"


def parse(text: str | None) -> TagComment | None:
    """What a comment says; None when its last line is no ownership tag."""
    above, _, line = (text or "").rpartition("\n")
    try:
        found = json.loads(line)[_KEY]
        if found["state"] not in {"scratch", "verified"}:
            return None
        state = cast("Literal['scratch', 'verified']", found["state"])
        tag = OwnershipTag(UUID(found["migration"]), int(found["attempt"]), state)
        limit, restored = int(found["connection_limit"]), bool(found["restored"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if not _UNLIMITED <= limit <= _MOST_CONNECTIONS:
        return None
    return TagComment(tag, limit, restored, above or None)


def without_tag(text: str | None) -> str | None:
    """The tenant's own comment on the database, if there is one."""
    found = parse(text)
    return (found.comment if found else text) or None


async def read_comment(session: Administrator, database: str, where: str) -> TagComment | None:
    """What the database's comment says; None when there is no such database.

    Args:
        session: any on its server.
        database: its name.
        where: the server's name, for the error.

    Raises:
        NotOurs: it exists and has no ownership tag.
    """
    row = await session.fetchrow(_SQL["database_comment"], database)
    if row is None:
        return None
    comment = parse(text_of(row["comment"]))
    if comment is None:
        raise NotOurs(f"database {database} on {where} has no ownership tag of rehome: it is left alone")
    return comment


async def write_comment(session: Administrator, database: str, comment: TagComment) -> None:
    """Write the database's comment."""
    await session.execute(ddl("comment_database", database=quoted(database), text=literal(comment.text())))
