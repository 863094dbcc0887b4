"""The two kinds of session, which cannot be mixed up: an administrator's, and one with a tenant's rights.

An administrator's session is a superuser's. It reads catalogues, changes servers, roles and databases, and accepts
only the statements of `sql/administrator`: none of them is planned or executed over anything that a tenant made.
Whatever a tenant made is read or written in a tenant's session: a short-lived login with the tenant's rights
(`short_lived`). See docs/decisions/0007.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer.sql import AdministratorSql

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.cursor import CursorFactory
    from asyncpg.transaction import Transaction
    from asyncpg.types import ServerVersion

    Raw = asyncpg.Connection[asyncpg.Record]
    Records = list[asyncpg.Record]


class Administrator:
    """A superuser's session, for the statements of `consumer/rehome_consumer/sql/administrator` only."""

    def __init__(self, connection: Raw) -> None:
        """Take an open connection; who opened it closes it."""
        self._connection = connection

    async def fetch(self, statement: AdministratorSql, *arguments: Any) -> Records:
        """All rows."""
        query = _allowed(statement)
        return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, statement: AdministratorSql, *arguments: Any) -> asyncpg.Record | None:
        """The first row, if there is one."""
        query = _allowed(statement)
        return await self._connection.fetchrow(query, *arguments)

    async def fetchval(self, statement: AdministratorSql, *arguments: Any) -> Any:
        """The first row's first value, if there is one."""
        query = _allowed(statement)
        return await self._connection.fetchval(query, *arguments)

    async def execute(self, statement: AdministratorSql) -> None:
        """Run a statement without arguments."""
        query = _allowed(statement)
        await self._connection.execute(query)

    def cursor(
        self, statement: AdministratorSql, *arguments: Any, prefetch: int
    ) -> CursorFactory[asyncpg.Record]:
        """Rows one after another, within a transaction; `prefetch` of them at a time."""
        return self._connection.cursor(_allowed(statement), *arguments, prefetch=prefetch)

    async def copied(self, query: AdministratorSql) -> str:
        """What a query without arguments gives, as text: also where a session takes replication commands."""
        chunks: list[bytes] = []

        async def take(chunk: bytes) -> None:
            chunks.append(chunk)

        await self._connection.copy_from_query(_allowed(query), output=take)
        return b"".join(chunks).decode().rstrip("\n")

    def transaction(self, **options: Any) -> Transaction:
        """A transaction, as an async context manager; `options` as asyncpg's."""
        return self._connection.transaction(**options)

    @property
    def major(self) -> int:
        """The server's major version."""
        return self._connection.get_server_version().major


class TenantSession:
    """A session of a short-lived login with a tenant's rights; its statements cannot be given to `Administrator`."""

    def __init__(self, connection: Raw) -> None:
        """Take an open connection; who opened it closes it."""
        self._connection = connection

    async def fetch(self, query: str, *arguments: Any) -> Records:
        """All rows."""
        return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row, if there is one."""
        return await self._connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first row's first value, if there is one."""
        return await self._connection.fetchval(query, *arguments)

    async def execute(self, query: str) -> None:
        """Run a statement without arguments."""
        await self._connection.execute(query)

    def cursor(self, query: str, *arguments: Any) -> CursorFactory[asyncpg.Record]:
        """Rows one after another, within a transaction."""
        return self._connection.cursor(query, *arguments)

    def transaction(self, **options: Any) -> Transaction:
        """A transaction, as an async context manager; `options` as asyncpg's."""
        return self._connection.transaction(**options)

    def get_server_version(self) -> ServerVersion:
        """The server's version."""
        return self._connection.get_server_version()


def _allowed(statement: AdministratorSql) -> str:
    """The statement, if it comes from `sql/administrator`.

    Raises:
        TypeError: it does not (a programming error).
    """
    if not isinstance(statement, AdministratorSql):
        raise TypeError("an administrator's session takes only statements of sql/administrator")
    return str(statement)
