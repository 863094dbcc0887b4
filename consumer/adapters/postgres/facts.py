"""What servers and databases say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consumer.errors import Incompatible, NotFound
from consumer.model import DatabaseFacts, ServerFacts
from consumer.sql import load

if TYPE_CHECKING:
    from consumer.adapters.postgres.sessions import Connection

_SQL: Final = load("databases")
_OLDEST: Final = 130000


async def of_server(connection: Connection, where: str) -> ServerFacts:
    """Version, extensions and settings of a server.

    Raises:
        Incompatible: it is too old, or our login is not a superuser and could not end sessions or read all.
    """
    row = await connection.fetchrow(_SQL["server"])
    if row is None or not row["superuser"]:
        raise Incompatible(
            f"the administrator's login of {where} is not a superuser: correct it in `db_servers`"
        )
    if row["version"] < _OLDEST:
        raise Incompatible(
            f"{where} runs PostgreSQL {row['version'] // 10000}; 13 is the oldest that can be moved"
        )
    installable = await connection.fetch(_SQL["installable"])
    return ServerFacts(
        version=row["version"],
        extensions=frozenset(found["name"] for found in installable),
        wal_level=row["wal_level"],
        extension_versions=frozenset((found["name"], found["version"]) for found in installable),
    )


async def of_database(connection: Connection, database: str, where: str) -> DatabaseFacts:
    """Everything about a database that its copy must share.

    Args:
        connection: the administrator's, on that database.
        database: its name.
        where: the server's name, for errors.

    Raises:
        NotFound: there is no such database.
        Incompatible: it holds things that cannot go with it; names them.
    """
    row = await connection.fetchrow(_SQL["database"], database)
    if row is None:
        raise NotFound(f"there is no database {database} on {where}")
    await _require_movable(connection, database, where)
    acl = await connection.fetch(_SQL["database_acl"], row["oid"])
    settings = await connection.fetch(_SQL["database_settings"], row["oid"])
    contents = await connection.fetchrow(_SQL["contents"])
    return DatabaseFacts(
        name=database,
        owner=row["owner"],
        encoding=row["encoding"],
        collation=row["collation"],
        ctype=row["ctype"],
        provider=row["provider"],
        locale=row["locale"],
        bytes=row["bytes"],
        connection_limit=row["connection_limit"],
        extensions={found["name"]: found["version"] for found in await connection.fetch(_SQL["extensions"])},
        settings=tuple((found["role"], found["setting"]) for found in settings),
        grantees=tuple(found["name"] for found in await connection.fetch(_SQL["grantees"], row["oid"])),
        acl=tuple((found["grantee"], found["privilege"], found["grantable"]) for found in acl),
        unlogged_tables=contents["unlogged_tables"] if contents else 0,
        large_objects=contents["large_objects"] if contents else 0,
        collation_version=row["collation_version"],
    )


async def _require_movable(connection: Connection, database: str, where: str) -> None:
    found = await connection.fetch(_SQL["immovable"])
    if found:
        named = ", ".join(f"{row['kind']} {row['name']}" for row in found)
        raise Incompatible(
            f"database {database} on {where} holds what an ordinary role cannot take along: {named}. "
            "Remove it, or move this database by hand"
        )
