"""The table of contents of a dump, as `pg_restore --list` prints it: who restores which entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# "3341; 1259 16386 TABLE public account_account tenant"
_ENTRY: Final = re.compile(r"\d+; \d+ \d+ (?P<entry>.+)")

# Made before pg_restore runs, or the server's and not the tenant's.
_LEFT_OUT: Final = ("EXTENSION ", "COMMENT - EXTENSION ", "SCHEMA - public ", "PUBLICATION ", "SUBSCRIPTION ")
_PRIVILEGES: Final = ("ACL ", "DEFAULT ACL ")


@dataclass(frozen=True, slots=True)
class Contents:
    """Lines of a table of contents, each for `pg_restore --use-list`.

    Attributes:
        tenants: what the tenant's role restores, which is nearly everything.
        administrators: privileges, which may be about extensions' objects or other roles, and rows that
            users put into extensions' own tables.
    """

    tenants: tuple[str, ...]
    administrators: tuple[str, ...]


def divide(
    lines: Iterable[str], *, extension_tables: Collection[str], made_schemas: Collection[str]
) -> Contents:
    """Divide the list, keeping its order.

    Args:
        lines: of `pg_restore --list`.
        extension_tables: 'schema table' of extensions' tables whose rows are in the dump.
        made_schemas: schemas that were made before.
    """
    tenants: list[str] = []
    administrators: list[str] = []
    left_out = (*_LEFT_OUT, *(f"SCHEMA - {schema} " for schema in made_schemas))
    theirs = (
        *_PRIVILEGES,
        *(f"{kind} {table} " for kind in ("TABLE DATA", "SEQUENCE SET") for table in extension_tables),
    )
    for line in lines:
        found = _ENTRY.match(line)
        if found is not None and not found["entry"].startswith(left_out):
            (administrators if found["entry"].startswith(theirs) else tenants).append(line)
    return Contents(tuple(tenants), tuple(administrators))
