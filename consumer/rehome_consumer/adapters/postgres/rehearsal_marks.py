"""The mark of a rehearsal without a migration: what it makes on a server, for whoever finds that it did not end.

The journal does not know it. So the mark is a role without login, which no tenant can create, and its comment, which no
tenant can write. It is made first and dropped last.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ValidationError

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.model import RehearsalMark
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("inspection")
_PREFIX: Final = "rehearsal_mark_"
_NAME: Final = re.compile(rf"{_PREFIX}([0-9a-f]{{32}})")


class _Comment(BaseModel):
    since: AwareDatetime
    database: str
    roles: tuple[str, ...]


def mark_name(rehearsal: UUID) -> str:
    """The name of its role."""
    return f"{_PREFIX}{rehearsal.hex}"


async def make(session: Administrator, mark: RehearsalMark) -> None:
    """Create the role and its comment."""
    name = mark_name(mark.id)
    comment = _Comment(since=mark.since, database=mark.database, roles=mark.roles).model_dump_json()
    async with session.transaction():
        await session.execute(ddl("create_other_role", role=quoted(name)))
        await session.execute(ddl("comment_role", role=quoted(name), text=literal(comment)))


async def found(session: Administrator) -> tuple[RehearsalMark, ...]:
    """The marks there are; a role whose comment cannot be read is none."""
    marks = [_mark(row) for row in await session.fetch(_SQL["rehearsal_marks"])]
    return tuple(one for one in marks if one is not None)


def _mark(row: Any) -> RehearsalMark | None:
    name = _NAME.fullmatch(row["name"])
    try:
        comment = _Comment.model_validate_json(row["comment"] or b"")
    except ValidationError:
        return None
    return RehearsalMark(UUID(name[1]), comment.since, comment.database, comment.roles) if name else None
