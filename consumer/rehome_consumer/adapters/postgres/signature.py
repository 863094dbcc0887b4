"""The signature of a database's catalogs: equal as long as no definition was changed.

`sql/administrator/signature.sql` says what it is made of, and why that is certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.snapshots import see
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

_SQL: Final = administrator("signature")
_SECONDS: Final = 10.0
_ALWAYS: Final = ("roles", "place")


async def read(sessions: Sessions, server: Server, database: str, snapshot: str | None) -> str:
    """As `Verifier.signature`."""
    what = f"reading the catalogs of {database} on {server.name}"
    async with (
        sessions.administrator(server, database, what=what, limit=_SECONDS) as session,
        session.transaction(isolation="repeatable_read", readonly=True),
    ):
        await see(session, snapshot, what)
        names = [row["name"] for row in await session.fetch(_SQL["catalogs"])]
        parts = [
            _SQL.get(name)
            or ddl("rows_of_catalog", label=literal(name), catalog=f"pg_catalog.{quoted(name)}")
            for name in names
        ]
        parts += [_SQL[name] for name in _ALWAYS]
        rows = " UNION ALL ".join(part.rstrip(";") for part in parts)
        return str(await session.fetchval(ddl("signature", rows=rows)))
