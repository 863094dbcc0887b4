"""A copy that follows its source by logical replication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.model.platform import Server


@dataclass(frozen=True, slots=True)
class Followed:
    """A source and the copy that follows it.

    Attributes:
        migration_id: whose copy it is; the parts on both servers are named after it.
        source, database, tenant: the original, and the tenant's role there.
        target, copy, role: the copy on the dedicated server, and the role that owns it there.
    """

    migration_id: UUID
    source: Server
    database: str
    tenant: str
    target: Server
    copy: str
    role: str


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the data of a move is copied, and why so.

    Attributes:
        name: `warm`: a copy follows its source until the stop. `cold`: it is copied after the stop.
        why: for operators.
    """

    name: Literal["warm", "cold"]
    why: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Some rows of a table, by their key.

    Attributes:
        columns: the key's columns: each one's name, and its type as the server calls it in `pg_catalog`.
        rows: one value for each column, as text.
    """

    columns: tuple[tuple[str, str], ...]
    rows: frozenset[tuple[str, ...]]


Written: TypeAlias = Mapping[str, Keys | None]
"""Tables that were written to, 'schema.table' -> the rows that were, or may have been; None: perhaps all of them."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """Signatures of both databases' catalogs (`Verifier.signature`), as their definitions were compared, and equal.

    Attributes:
        source: as of the snapshot of which the source's definitions were read.
        target: from before the copy's were read.
    """

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Compared:
    """How much was compared after the stop of a warm move; counts, sequences and settings always are.

    Attributes:
        how: `everything`; `changed`: the tables that were written to since the copy began, no others.
        why: why it was everything.
        tables: how many tables that were; of everything it is not counted again.
        by_key: of how many of them only the rows that were written to.
        rows: how many rows these were.
        definitions: `read`: they were compared again. `unchanged`: nothing has changed them in either database since
            they were compared, as the catalogs' signatures show.
        definitions_why: why they were read again.
    """

    how: Literal["changed", "everything"]
    why: str = ""
    tables: int = 0
    by_key: int = 0
    rows: int = 0
    definitions: Literal["read", "unchanged"] = "read"
    definitions_why: str = ""
