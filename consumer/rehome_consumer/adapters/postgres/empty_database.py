"""An empty database with encoding, locale, settings and privileges of another."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

import asyncpg

from rehome_consumer.adapters.postgres.names import literal, quoted
from rehome_consumer.errors import Conflict, Incompatible
from rehome_consumer.sql import administrator, ddl

if TYPE_CHECKING:
    from rehome_consumer.adapters.postgres.kinds import Administrator
    from rehome_consumer.model import DatabaseFacts

log = logging.getLogger(__name__)

_SQL: Final = administrator("databases")
_PROVIDERS: Final = {"c": "libc", "i": "icu", "b": "builtin"}
_LOCALES: Final = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}
_PROVIDERS_SINCE: Final = 15  # CREATE DATABASE knows LOCALE_PROVIDER
# Settings whose stored value is a list of names, quoted where they need it (source: variable_is_guc_list_quote,
# dumputils.c).
_LISTS: Final = frozenset(
    {
        *("local_preload_libraries", "search_path", "session_preload_libraries"),
        *("shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"),
    }
)
_ELEMENT: Final = re.compile(r'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?P<bare>[^",\s][^",]*?))\s*(?:,|$)')


async def create(session: Administrator, name: str, like: DatabaseFacts, owner: str, where: str) -> None:
    """CREATE DATABASE with encoding and locale of `like`.

    Raises:
        Conflict: another run makes it at this moment.
        Incompatible: the server does not have that encoding or locale.
    """
    clauses = [
        f"OWNER {quoted(owner)}",
        "TEMPLATE template0",
        f"ENCODING {literal(like.encoding)}",
        f"LC_COLLATE {literal(like.collation)}",
        f"LC_CTYPE {literal(like.ctype)}",
    ]
    if session.major >= _PROVIDERS_SINCE:
        clauses.append(f"LOCALE_PROVIDER {_PROVIDERS[like.provider]}")
        if like.locale is not None:
            clauses.append(f"{_LOCALES[like.provider]} {literal(like.locale)}")
        if like.icu_rules is not None:  # a server that does not know them says so
            clauses.append(f"ICU_RULES {literal(like.icu_rules)}")
    elif like.provider != "c":
        raise Incompatible(f"{where} is too old for a database with locale provider {like.provider}")
    try:
        await session.execute(ddl("create_database", database=quoted(name), clauses=" ".join(clauses)))
    except asyncpg.DuplicateDatabaseError:
        raise Conflict(f"database {name} on {where} is being made by another run") from None
    except (asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError, asyncpg.DataError) as error:
        raise Incompatible(
            f"{where} cannot have a database with encoding {like.encoding}, LC_COLLATE {like.collation}, LC_CTYPE "
            f"{like.ctype}, provider {_PROVIDERS[like.provider]} {like.locale or ''}: {error.args[0]}"
        ) from None


async def apply_settings(session: Administrator, name: str, like: DatabaseFacts, owner: str) -> None:
    """ALTER DATABASE SET and ALTER ROLE IN DATABASE SET as `like` has them.

    The values are stored as they are, and not applied: neither in this session, where a tenant's search_path would
    decide what a name means, nor by way of the server, which would write `600s` as `10min`.
    """
    for role, setting in like.settings:
        variable, _, value = setting.partition("=")
        parts = {
            "database": quoted(name),
            "variable": ".".join(quoted(part) for part in variable.split(".")),
            "values": ", ".join(map(literal, _elements(variable, value))),
        }
        try:
            async with session.transaction():
                if role:
                    whose = quoted(_renamed(role, like, owner))
                    await session.execute(ddl("set_for_role_in_database", role=whose, **parts))
                else:
                    await session.execute(ddl("set_for_database", **parts))
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.CantChangeRuntimeParamError) as error:
            raise Incompatible(f"setting {variable} of database {like.name}: {error.args[0]}") from None


def _elements(variable: str, value: str) -> list[str]:
    """The values in ALTER ... SET for a stored value: of a list each of its names, without their quotes."""
    if variable.lower() not in _LISTS:
        return [value]
    elements = [
        found["bare"] if found["bare"] is not None else found["quoted"].replace('""', '"')
        for found in _ELEMENT.finditer(value)
    ]
    return elements or [""]


async def apply_grants(session: Administrator, name: str, like: DatabaseFacts, owner: str) -> None:
    """The database's own privileges as `like` has them; its owner has all anyway."""
    if not like.acl:
        return
    database = quoted(name)
    await session.execute(ddl("revoke_all_on_database", database=database, grantee="PUBLIC"))
    for grantee, privilege, grantable in like.acl:
        if grantee == like.owner:
            continue
        to = quoted(_renamed(grantee, like, owner)) if grantee else "PUBLIC"
        option = "WITH GRANT OPTION" if grantable else ""
        await session.execute(
            ddl("grant_on_database", privilege=privilege, database=database, grantee=to, option=option)
        )


def _renamed(role: str, like: DatabaseFacts, owner: str) -> str:
    """The role's name here; the tenant's may have another one."""
    return owner if role == like.owner else role


async def warn_about_collation(session: Administrator, name: str, like: DatabaseFacts, where: str) -> None:
    """Log when the two servers' libraries may sort differently; a restore builds every index again."""
    facts = await session.fetchrow(_SQL["database"], name)
    here = facts["collation_version"] if facts else None
    if here != like.collation_version:
        log.warning(
            "collation.differs database=%s server=%s collation=%s source_version=%s version=%s",
            name, where, like.collation, like.collation_version, here,
        )  # fmt: skip
