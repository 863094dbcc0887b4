"""The table of contents of a dump, as `pg_restore --list` prints it: who restores which entry.

An entry is known by numbers wherever it has some. Its names stand in the list without quotes, and a tenant may
call a table `spatial_ref_sys x`: by its name alone the administrator could be made to run the tenant's functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# "3341; 1259 16386 TABLE public account_account tenant": dump id; the catalogue's oid, the object's oid, the entry.
# Source: pg_dump.c; entries without an object of their own (privileges, comments, data) have catalogue 0.
_ENTRY: Final = re.compile(r"\d+; (?P<catalogue>\d+) (?P<oid>\d+) (?P<entry>.+)")
_NONE: Final = 0
_DEFAULT_ACL: Final = 826
_NAMESPACE: Final = 2615
_THE_SERVERS: Final = frozenset({3079, 6100, 6104, 6106, 6237})  # extensions, publications, subscriptions


@dataclass(frozen=True, slots=True)
class Contents:
    """Lines of a table of contents, each for `pg_restore --use-list`.

    Attributes:
        tenants: what the tenant's role restores, which is nearly everything.
        extensions: rows that users put into extensions' own tables: the administrator restores them before
            anything of the tenant's is there.
        privileges: which may be about extensions' objects or other roles: the administrator restores them last.
    """

    tenants: tuple[str, ...]
    extensions: tuple[str, ...]
    privileges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a dump holds of extensions, by oids on the source.

    Attributes:
        tables: those whose rows are in the dump.
        sequences: 'schema sequence' of those whose positions are; these have no number in the list, and setting
            a position runs nothing of the tenant's.
    """

    tables: Collection[int] = ()
    sequences: Collection[str] = ()


def divide(lines: Iterable[str], *, extensions: Extensions, made_schemas: Collection[int]) -> Contents:
    """Divide the list, keeping its order. What is in neither part was made before, or is the server's.

    Args:
        lines: of `pg_restore --list`.
        extensions: whose rows the administrator restores.
        made_schemas: oids on the source of schemas that are there already.
    """
    tenants: list[str] = []
    rows: list[str] = []
    privileges: list[str] = []
    positions = tuple(f"SEQUENCE SET {sequence} " for sequence in extensions.sequences)
    for line in lines:
        found = _ENTRY.match(line)
        if found is None:
            continue
        catalogue, oid, entry = int(found["catalogue"]), int(found["oid"]), found["entry"]
        if catalogue in _THE_SERVERS or (catalogue == _NAMESPACE and oid in made_schemas):
            continue
        if catalogue == _NONE and entry.startswith("COMMENT - EXTENSION "):
            continue
        privilege = catalogue == _DEFAULT_ACL or (catalogue == _NONE and entry.startswith("ACL "))
        row = catalogue == _NONE and entry.startswith("TABLE DATA ") and oid in extensions.tables
        position = catalogue == _NONE and entry.startswith(positions)
        (privileges if privilege else rows if row or position else tenants).append(line)
    return Contents(tuple(tenants), tuple(rows), tuple(privileges))
