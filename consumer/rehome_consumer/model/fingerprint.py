"""What two databases are compared by; `rehome_consumer.fingerprint` compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rehome_consumer.model.replication import Written

Spared: TypeAlias = "Callable[[str, str], bool]"
"""Whether something is left out of a fingerprint; asked with `fingerprint.TABLES` or `SEQUENCES`, and its name."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a database is read, and as of when.

    Attributes:
        spared: tables and sequences that are left out; None: none.
        snapshot: an exported snapshot that the server still holds; None: the database as it is now.
        rows: whether tables and large objects are read; without, only definitions are.
        positions: whether it is read where the sequences stand. They stand where they are now, in every snapshot.
        jobs: parallel sessions; None: as many as the settings say.
        nice: how much a client program that reads it gives way to other processes, 0 to 19.
        definitions: whether all kinds of objects are read; without, only those outside of the database
            (`fingerprint.OUTSIDE`): of the others somebody knows that they did not change.
        contents: the tables of which contents are read, and which rows of each; of all others only the number of rows
            is. None: of all tables, whole.
    """

    spared: Spared | None = None
    snapshot: str | None = None
    rows: bool = True
    positions: bool = True
    jobs: int | None = None
    nice: int = 0
    definitions: bool = True
    contents: Written | None = None

    def has(self, kind: str, name: str) -> bool:
        """Whether it is read."""
        return not (self.spared and self.spared(kind, name))


EVERYTHING: Final = Scope()
"""All of it, as it is now."""

DEFINITIONS: Final = Scope(rows=False, positions=False)
"""Everything but rows, and where sequences stand."""


class Part(NamedTuple):
    """Things of one kind whose names have the same hash part: how many, and a digest of names and values.

    The digest does not depend on their order.
    """

    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A database's content and schema objects, in a form by which two servers can be compared.

    Its size does not depend on the database's: names are sorted into a fixed number of parts by a hash, and what
    differs within a part is named by a second look (`Verifier.some`).

    Attributes:
        tables: of the tables' rows and checksums, part -> how many and digest.
        rows: of all tables.
        large_objects: how many, and their checksum; None when there are none.
        sequences: of last_value, is_called, increment, ...
        objects: kind ('index', 'constraint', 'function', 'trigger', 'view', 'owner', 'column', ...) -> parts.
        counts: kind -> how many, of `fingerprint.COUNTED`.
        extensions: name -> version.
        database: 'encoding', 'collation', 'ctype', 'provider', 'locale', 'icu_rules' -> value.
    """

    tables: Mapping[int, Part]
    rows: int
    large_objects: tuple[int, str] | None
    sequences: Mapping[int, Part]
    objects: Mapping[str, Mapping[int, Part]]
    counts: Mapping[str, int]
    extensions: Mapping[str, str]
    database: Mapping[str, str]


class Named(NamedTuple):
    """One thing of a part, as the second look shows it.

    Attributes:
        key: decides the order within a part, the same on every server.
        name: cut to what operators are shown, as `value` is.
        digest: of the complete value; equal for equal ones.
    """

    key: bytes
    name: str
    value: str
    digest: bytes
