"""What replication leaves out and a copy needs: where sequences stand, and the contents of materialized views.

Both are read and written by short-lived roles with the tenant's rights: a materialized view runs its functions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from rehome_consumer.adapters.postgres.checksums import run_together
from rehome_consumer.adapters.postgres.schema_objects import sequence_positions
from rehome_consumer.adapters.postgres.short_lived import short_lived_login
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rehome_consumer.adapters.postgres.kinds import TenantSession
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.adapters.postgres.short_lived import Login
    from rehome_consumer.model import Followed

Page: TypeAlias = "list[tuple[str, int, bool]]"

_SQL: Final = load("settling")
_SECONDS: Final = 3600.0
_PAGES_AHEAD: Final = 2


async def settle(sessions: Sessions, followed: Followed) -> None:
    """As `Replicator.settle` promises."""
    pages: asyncio.Queue[Page | None] = asyncio.Queue(_PAGES_AHEAD)
    await run_together([_read(sessions, followed, pages), _write(sessions, followed, pages)])


async def _read(sessions: Sessions, followed: Followed, pages: asyncio.Queue[Page | None]) -> None:
    """Where the source's sequences stand; None: these were all."""
    what = f"reading sequences of {followed.database} on {followed.source.name}"
    async with (
        short_lived_login(
            # Not "read": the verifier may be reading the source at the same time.
            *(sessions, followed.source, followed.database, followed.tenant, "hold"),
            jobs=1,
            limit=_SECONDS,
        ) as login,
        # Code in the database may put a view in a sequence's place.
        _session(sessions, login, what, refused="view, foreign-table") as reader,
    ):
        await login.close()
        async for page in sequence_positions(reader):
            await pages.put(page)
        await pages.put(None)


async def _write(sessions: Sessions, followed: Followed, pages: asyncio.Queue[Page | None]) -> None:
    """Set those of the copy, then refresh."""
    what = f"setting sequences of {followed.copy} on {followed.target.name}"
    async with (
        short_lived_login(
            *(sessions, followed.target, followed.copy, followed.role, "restore"), jobs=1, limit=_SECONDS
        ) as login,
        # A materialized view may read views.
        _session(sessions, login, what, refused="foreign-table") as writer,
    ):
        while (page := await pages.get()) is not None:
            names, values, called = zip(*page, strict=True)
            await writer.fetch(_SQL["set_positions"], list(names), list(values), list(called))
        for row in await writer.fetch(_SQL["materialized_views"]):
            await writer.execute(f"REFRESH MATERIALIZED VIEW {row['quoted']}")


def _session(
    sessions: Sessions, login: Login, what: str, *, refused: str
) -> AbstractAsyncContextManager[TenantSession]:
    return sessions.tenant(
        login.server,
        login.database,
        login.credentials,
        what=what,
        limit=_SECONDS,
        settings={"lock_timeout": "0", "restrict_nonsystem_relation_kind": refused},
    )
