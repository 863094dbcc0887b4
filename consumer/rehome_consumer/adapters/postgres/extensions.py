"""Extensions: created in a database that holds nothing else yet, and compared by what belongs to them.

A dump leaves out whatever belongs to an extension, since CREATE EXTENSION makes it again. But the owner of an
extension can add any table to it (ALTER EXTENSION ... ADD TABLE): such a table would be neither dumped nor compared,
and lost. So strays are refused: what belongs to an extension on the source, and not to the one just created.

A dump leaves out, too, what ALTER FUNCTION has changed about an extension's function. `unaccent` is often made
IMMUTABLE, so that an index can use it: volatility and parallel safety are carried over. Anything else is refused.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.adapters.postgres.ownership_tags import making_name
from rehome_consumer.context import current_migration
from rehome_consumer.errors import Incompatible
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.adapters.postgres.sessions import Sessions
    from rehome_consumer.model import Server

log = logging.getLogger(__name__)

_SQL: Final = administrator("copy")
_PROBE_SECONDS: Final = 600.0
_STORED: Final = frozenset({"table", "sequence", "materialized view", "foreign table"})
"""What holds rows. Another version of an extension may lack a function, but not these."""
_SHOWN: Final = 10
_BUILT_IN: Final = re.compile(r"\bpg_catalog\.")
_NEEDLESS_QUOTES: Final = re.compile(r'"([a-z_][a-z0-9_$]*)"')


@dataclass(frozen=True, slots=True)
class Created:
    """An extension that was created here: `same` says whether in the source's version."""

    name: str
    same: bool


async def describe(session: Administrator, tenant: str) -> list[dict[str, Any]]:
    """Extensions of the database that the session is in, as JSON, with what belongs to each.

    Args:
        session: inside the database.
        tenant: the tenant's role there.
    """
    found = [dict(row) for row in await session.fetch(_SQL["source_extensions"], tenant)]
    for extension in found:
        members = await session.fetch(_SQL["extension_members"], extension["name"])
        extension["members"] = [[row["kind"], row["identity"]] for row in members]
        functions = await session.fetch(_SQL["extension_functions"], extension["name"])
        extension["functions"] = [[row["identity"], row["carried"], row["rest"]] for row in functions]
    return found


def schemas(wanted: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The schemas of extensions as `describe` has them, for the session that creates them.

    A script may go back to the search_path that its session was opened with, and need the extensions before it there:
    `postgis_topology` reads that value, adds its own schema to it unless that is in it, and stores it for the database.
    """
    return tuple(dict.fromkeys(one["schema"] for one in wanted if one["schema"] != "pg_catalog"))


async def create(
    session: Administrator,
    wanted: Iterable[Mapping[str, Any]],
    role: str | None,
    database: str,
    where: str,
    *,
    source_major: int,
) -> list[Created]:
    """Create extensions as `describe` has them, in an empty database.

    Args:
        session: inside it, opened with `schemas` of them.
        wanted: extensions of the source, in the order of their creation.
        role: gets schemas that extensions are put into, and extensions that the tenant created; None: nobody.
        database: its name, for the log.
        where: the server's name, for errors.
        source_major: the source's major version; a newer server may offer only newer versions of extensions.

    Raises:
        Incompatible: one is not available.
    """
    created = []
    newer = session.major > source_major
    for extension in wanted:
        name, version = extension["name"], extension["version"]
        offered = {
            row["version"]: row["trusted"] for row in await session.fetch(_SQL["extension_versions"], name)
        }
        if version not in offered and not (offered and newer):
            raise Incompatible(
                f"{where} does not offer extension {name} in version {version}, "
                f"only {', '.join(sorted(offered)) or 'none at all'}: install it there"
            )
        if version not in offered:
            log.warning("extension.newer database=%s extension=%s source=%s", database, name, version)
        # Who created it may update or drop it: the tenant keeps these rights.
        trusted = offered[version] if version in offered else all(offered.values())
        as_role = role if extension["by_owner"] and trusted else None
        await _create(session, extension, version if version in offered else None, role, as_role)
        created.append(Created(name, same=version in offered))
        if version in offered:
            await _alter_functions(session, extension)
    return created


async def _alter_functions(session: Administrator, extension: Mapping[str, Any]) -> None:
    """Change the extension's functions here, which is in the same version, as they were changed on the source.

    The same version of an extension makes the same functions on PostgreSQL 15, 17 and 18: all of contrib were compared.

    Raises:
        Incompatible: something else about one was changed.
    """
    name = extension["name"]
    here = {_plain(row["identity"]): row for row in await session.fetch(_SQL["extension_functions"], name)}
    for identity, carried, rest in extension.get("functions", ()):
        found = here.get(_plain(identity))
        if found is None:
            continue  # a stray, or another version's: `strays` judges
        if found["rest"] != rest:
            raise Incompatible(
                f"function {identity} of extension {name} was changed by ALTER FUNCTION or CREATE OR REPLACE, and no "
                f"dump contains that ({_changes(found['rest'], rest)}): change it back, or drop and create the "
                "extension, and replay the upgrade"
            )
        if found["carried"] != carried:
            await session.execute(ddl("alter_function", function=found["identity"], attributes=carried))


def _changes(genuine: str, changed: str) -> str:
    """Which attributes differ, as they are now."""
    before = set(genuine.split(" "))
    return ", ".join(one for one in changed.split(" ") if one not in before) or "something was removed"


async def _create(
    session: Administrator,
    extension: Mapping[str, Any],
    version: str | None,
    role: str | None,
    as_role: str | None,
) -> None:
    clauses = [f"VERSION {literal(version)}"] if version else []
    async with session.transaction():
        if not extension["own_schema"]:
            schema = quoted(extension["schema"])
            clauses.append(f"SCHEMA {schema}")
            if not await session.fetchval(_SQL["schema_exists"], extension["schema"]):
                owner = quoted(role) if role else "CURRENT_USER"
                await session.execute(ddl("create_schema", schema=schema, role=owner))
        if as_role:
            await session.execute(ddl("set_role", role=quoted(as_role)))
        await session.execute(
            ddl("create_extension", extension=quoted(extension["name"]), clauses=" ".join(clauses))
        )


async def strays(
    session: Administrator, wanted: Iterable[Mapping[str, Any]], created: Iterable[Created]
) -> list[str]:
    """What belongs to an extension on the source and not to the one created here, in words."""
    same = {one.name: one.same for one in created}
    found = []
    for extension in wanted:
        name = extension["name"]
        if name not in same:
            continue
        here = {
            (row["kind"], _plain(row["identity"]))
            for row in await session.fetch(_SQL["extension_members"], name)
        }
        found += [
            f"{kind} {identity} (extension {name})"
            for kind, identity in extension.get("members", ())
            if (kind, _plain(identity)) not in here and (same[name] or kind in _STORED)
        ]
    return found


def _plain(identity: str) -> str:
    """As every version writes it: `json` has a schema in 16 and none in 18, `json_value` has quotes since 17."""
    return _BUILT_IN.sub("", _NEEDLESS_QUOTES.sub(r"\1", identity))


def refuse_strays(found: list[str], database: str) -> None:
    """Raise Incompatible, naming them, if there are any."""
    if not found:
        return
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise Incompatible(
        f"in database {database} extensions hold what CREATE EXTENSION does not make: {', '.join(found[:_SHOWN])}"
        f"{more}. No dump contains that: ALTER EXTENSION ... DROP it and replay the upgrade"
    )


async def require_genuine(
    sessions: Sessions, source: Server, database: str, tenant: str, target: Server
) -> None:
    """Create the source's extensions in a database of their own on the target, compare, and drop it.

    Raises:
        Incompatible: an extension of the source has strays, or is not available on the target.
    """
    what = f"comparing the extensions of {database}"
    async with sessions.administrator(source, database, what=what) as session:
        wanted = [one for one in await describe(session, tenant) if one["name"] != "plpgsql"]
        major = session.major
    if not wanted:
        return
    probe = making_name(current_migration.get() or uuid4())
    async with sessions.administrator(target, what=what, limit=_PROBE_SECONDS) as session:
        await session.execute(ddl("drop_database", database=quoted(probe)))
        await session.execute(ddl("create_database", database=quoted(probe), clauses="TEMPLATE template0"))
        try:
            async with sessions.administrator(
                target, probe, what=what, limit=_PROBE_SECONDS, schemas=schemas(wanted)
            ) as inside:
                created = await create(inside, wanted, None, database, target.name, source_major=major)
                refuse_strays(await strays(inside, wanted, created), database)
        finally:
            await session.execute(ddl("drop_database", database=quoted(probe)))
