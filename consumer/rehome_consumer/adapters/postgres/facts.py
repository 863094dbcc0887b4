"""What a move must know of servers and databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres import fences, movable, roles
from rehome_consumer.adapters.postgres.ownership_tags import without_tag
from rehome_consumer.adapters.postgres.releases import require_patched_server
from rehome_consumer.adapters.postgres.shared_comments import carried
from rehome_consumer.errors import Incompatible, NotFound
from rehome_consumer.model import DatabaseFacts, Grant, ServerFacts
from rehome_consumer.sql import administrator

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator

_SQL: Final = administrator("databases")


async def of_server(session: Administrator, where: str) -> ServerFacts:
    """Version, extensions and settings of a server.

    Raises:
        Incompatible: it is older than the releases that close known holes, or the login is not a superuser.
    """
    row = await session.fetchrow(_SQL["server"])
    if row is None or not row["superuser"]:
        raise Incompatible(
            f"the administrator's login of {where} is not a superuser: correct it in `db_servers`"
        )
    require_patched_server(row["version"], where)
    installable = await session.fetch(_SQL["installable"])
    return ServerFacts(
        version=row["version"],
        extensions=frozenset(found["name"] for found in installable),
        tls=row["tls"],
        standby=row["standby"],
    )


async def size(session: Administrator, database: str, where: str) -> int:
    """Bytes of a database. Raises NotFound."""
    row = await session.fetchrow(_SQL["database"], database)
    if row is None:
        raise NotFound(f"there is no database {database} on {where}")
    return int(row["bytes"])


async def of_database(session: Administrator, database: str, tenant: str, where: str) -> DatabaseFacts:
    """Everything about a database that its copy must have too.

    Args:
        session: on that database.
        database: its name.
        tenant: the tenant's role there.
        where: the server's name, for errors.

    Raises:
        NotFound: there is no such database.
        Incompatible: it holds what cannot be moved; names it.
    """
    row = await session.fetchrow(_SQL["database"], database)
    if row is None:
        raise NotFound(f"there is no database {database} on {where}")
    await movable.require(session, database, tenant, where)
    acl = await session.fetch(_SQL["database_acl"], row["oid"])
    # What is granted by default may be written down, since somebody got a privilege and lost it again.
    granted = {Grant(one["grantee"], one["privilege"], one["grantable"], one["grantor"]) for one in acl}
    settings = await session.fetch(_SQL["database_settings"], row["oid"], tenant)
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
        extensions={found["name"]: found["version"] for found in await session.fetch(_SQL["extensions"])},
        settings=tuple((found["role"], found["setting"]) for found in settings),
        grantees=tuple(found["name"] for found in await session.fetch(_SQL["grantees"], row["oid"], tenant)),
        acl=()
        if granted == fences.default_grants(row["owner"])
        else tuple((found["grantee"], found["privilege"], found["grantable"]) for found in acl),
        collation_version=row["collation_version"],
        icu_rules=row["icu_rules"],
        comment=without_tag(carried(row["comment"], f"database {database} on {where}")),
        role=await roles.attributes(session, tenant, where),
    )
