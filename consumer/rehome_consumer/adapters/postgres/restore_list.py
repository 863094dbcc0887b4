"""The list of a dump's entries, as `pg_restore --list` prints it: who restores which entry.

An entry is identified by numbers wherever it has some. The list does not quote names, and a tenant may call a table
`spatial_ref_sys x`: identified by its name alone, it could make the administrator run the tenant's functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# "3341; 1259 16386 TABLE public account_account tenant": dump id; the catalogue's oid, the object's oid, the entry.
# Source: pg_dump.c; entries without an object of their own (privileges, comments, data) have catalogue 0.
_ENTRY: Final = re.compile(r"\d+; (?P<catalogue>\d+) (?P<oid>\d+) (?P<entry>.+)")
_NONE: Final = 0
_ROWS: Final = ("TABLE DATA ", "SEQUENCE SET ", "BLOBS ", "BLOB DATA ")
_DEFAULT_ACL: Final = 826
_NAMESPACE: Final = 2615
_ADMINISTRATORS: Final = ("ACL ", "COMMENT - EXTENSION ")
_CONSTRAINT: Final = 2606
_TRIGGER: Final = 2620
_INDEX_ATTACH: Final = "INDEX ATTACH "
_NOT_RESTORED: Final = frozenset({3079, 6100, 6104, 6106, 6237})  # extensions, publications, subscriptions


@dataclass(frozen=True, slots=True)
class RestoreLists:
    """Lines of the list, each part for one `pg_restore --use-list`.

    Attributes:
        tenant: what the tenant's role restores, which is nearly everything.
        calling: rows of its tables whose checks call its functions, which may read other tables: after all other rows,
            and one table after the other, so that the order is the same each time.
        indexes: what follows rows, such as indexes; empty where `calling` is: then it is in `tenant`.
        spreading: what locks other tables than those that its entry depends on: partitions, or a partitioned table's
            other indexes. pg_restore keeps entries apart by what they depend on, so two of these deadlock in sessions
            side by side: one after the other, after all else. Comments are with them, since some are on these.
        extensions: rows that users put into extensions' own tables: the administrator restores them before
            anything of the tenant's exists.
        privileges: they may concern extensions' objects or other roles: the administrator restores them last, and
            with them the comments on extensions, whose owner it may be.
    """

    tenant: tuple[str, ...]
    extensions: tuple[str, ...]
    privileges: tuple[str, ...]
    calling: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    spreading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExtensionData:
    """What a dump holds of extensions, by oids on the source.

    Attributes:
        tables: those whose rows are in the dump.
        sequences: 'schema sequence' of those whose positions are; these have no number in the list, and setting
            a position runs nothing of the tenant's.
    """

    tables: Collection[int] = ()
    sequences: Collection[str] = ()


def divide(
    lines: Iterable[str],
    *,
    extensions: ExtensionData,
    existing_schemas: Collection[int],
    calling_tables: Collection[int] = (),
    spreading: Collection[int] = (),
) -> RestoreLists:
    """Divide the list, keeping its order. What is in no part exists already, or belongs to the server.

    Args:
        lines: of `pg_restore --list`.
        extensions: whose rows the administrator restores.
        existing_schemas: oids on the source of schemas that exist already.
        calling_tables: oids on the source of tables whose checks call functions.
        spreading: oids on the source of constraints and triggers that concern partitions or child tables, too.
    """
    tenant: list[str] = []
    rows: list[str] = []
    privileges: list[str] = []
    positions = tuple(f"SEQUENCE SET {sequence} " for sequence in extensions.sequences)
    for line in lines:
        found = _ENTRY.match(line)
        if found is None:
            continue
        catalogue, oid, entry = int(found["catalogue"]), int(found["oid"]), found["entry"]
        if catalogue in _NOT_RESTORED or (catalogue == _NAMESPACE and oid in existing_schemas):
            continue
        privilege = catalogue == _DEFAULT_ACL or (catalogue == _NONE and entry.startswith(_ADMINISTRATORS))
        row = catalogue == _NONE and entry.startswith("TABLE DATA ") and oid in extensions.tables
        position = catalogue == _NONE and entry.startswith(positions)
        (privileges if privilege else rows if row or position else tenant).append(line)
    parallel, alone = _set_apart(tenant, spreading)
    in_turn = _in_turn(parallel, calling_tables, tuple(rows), tuple(privileges))
    return replace(RestoreLists(*in_turn), spreading=alone)


def _set_apart(tenant: list[str], spreading: Collection[int]) -> tuple[list[str], tuple[str, ...]]:
    """The tenant's entries that sessions side by side restore, and those that one session restores after them."""

    def is_spreading(entry: re.Match[str]) -> bool:
        catalogue = int(entry["catalogue"])
        if catalogue == _NONE:
            return entry["entry"].startswith(_INDEX_ATTACH)
        return catalogue in (_CONSTRAINT, _TRIGGER) and int(entry["oid"]) in spreading

    found = [(line, entry) for line in tenant if (entry := _ENTRY.match(line))]
    if not any(is_spreading(entry) for _, entry in found):
        return tenant, ()
    parallel: list[str] = []
    alone: list[str] = []
    for line, entry in found:
        comment = int(entry["catalogue"]) == _NONE and entry["entry"].startswith("COMMENT ")
        (alone if comment or is_spreading(entry) else parallel).append(line)
    return parallel, tuple(alone)


def _in_turn(
    tenant: list[str], calling_tables: Collection[int], rows: tuple[str, ...], privileges: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    """The tenant's entries in three parts, if there are rows of such tables; a list ends with what follows rows."""
    entries = [_ENTRY.match(line) for line in tenant]
    is_row = [bool(one and one["entry"].startswith(_ROWS)) for one in entries]
    is_calling = [
        bool(row and one and int(one["oid"]) in calling_tables and one["entry"].startswith("TABLE DATA "))
        for one, row in zip(entries, is_row, strict=True)
    ]
    if not any(is_calling):
        return tuple(tenant), rows, privileges
    end = max(place for place, row in enumerate(is_row) if row) + 1
    first = tuple(line for line, calling in zip(tenant[:end], is_calling, strict=False) if not calling)
    calling = tuple(line for line, calls in zip(tenant, is_calling, strict=True) if calls)
    return first, rows, privileges, calling, tuple(tenant[end:])
