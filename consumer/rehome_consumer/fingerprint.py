"""Comparing two databases by their fingerprints. Pure: no input or output, no clock.

A fingerprint is small, however much a tenant has made: it holds digests of parts, not names. So a comparison
takes two looks: `direct_differences` and `suspects` say from the fingerprints what differs, and `named_differences`
says what that is called, from a bounded list of what is in the parts that differ (`Verifier.some`).
"""

from __future__ import annotations

import hashlib
import re
from bisect import insort
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.model import Named, Part
from rehome_events.parts import Verified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rehome_consumer.model import Fingerprint

TENANT: Final = "<tenant>"
"""How a fingerprint writes the tenant's role, whatever its name on that server."""

ADMINISTRATOR: Final = "<administrator>"
"""How a fingerprint writes a superuser that owns something."""

LARGE_OBJECTS: Final = "large objects"
"""What the differences of large objects begin with."""

TABLES: Final = "table content"
SEQUENCES: Final = "sequence"
"""Kinds that are no object of a fingerprint, for the second look."""

OWNED: Final = "owner, as it arrives"
"""Kind: who owns what, as on the target, where what an administrator owned becomes the tenant's: all but schemas and
extensions."""
HOLDERS: Final = "grant, whatever it allows"
"""Kind: who holds any privilege on what; without schema public, from which PostgreSQL 15 took CREATE."""

DEFAULT_HOLDERS: Final = "default grant, whatever it allows"
"""Kind: who will hold any privilege on objects that are created."""

OUTSIDE: Final = ("setting",)
"""Kinds that are stored outside of the database, in catalogs that all share: no signature tells of them."""

COUNTED: Final = ("index", "constraint")
"""Kinds of which a summary says how many there are."""

PARTS: Final = 256
TABLE_PARTS: Final = 4096  # the second look reads the tables of a part once more: there should be few in one
LISTED: Final = 200
"""Names that the second look takes from a part, at most."""
NAMED: Final = 1600
"""Names of one kind that it takes, at most; those of one part always."""
READ_AGAIN: Final = 100
"""The same for tables, which it reads once more."""

_MAJOR: Final = "major"
_DEFINITION: Final = " definition"
_SHOWN: Final = 160
_DIGESTS: Final = 2**256


class Suspect(NamedTuple):
    """A kind that is not the same in both databases.

    Attributes:
        label: its name for operators.
        source_kind, target_kind: what a second look takes from each database.
        parts: those that differ and are read again.
        more: how many others differ.
    """

    label: str
    source_kind: str
    target_kind: str
    parts: tuple[int, ...]
    more: int


class Fold:
    """Turns things, in whatever order they come, into parts."""

    def __init__(self, parts: int = PARTS) -> None:
        self._parts = parts
        self._totals: dict[int, tuple[int, int]] = {}

    def add(self, name: str, value: str) -> None:
        """One more thing."""
        part = part_of(name, self._parts)
        count, total = self._totals.get(part, (0, 0))
        one = int.from_bytes(hashlib.sha256(_hashed(name) + _hashed(value)).digest(), "big")
        self._totals[part] = (count + 1, (total + one) % _DIGESTS)

    def parts(self) -> dict[int, Part]:
        """The parts of all things so far."""
        return {part: Part(count, total.to_bytes(32, "big")) for part, (count, total) in self._totals.items()}


class Shortlist:
    """The first things of some parts, in whatever order they come."""

    def __init__(self, wanted: Iterable[int], parts: int = PARTS) -> None:
        self.found: dict[int, list[Named]] = {part: [] for part in wanted}
        self._parts = parts

    def add(self, name: str, value: str = "") -> None:
        """One more thing; dropped if it is not among the first."""
        found = self.found.get(part_of(name, self._parts))
        if found is not None:
            insort(found, Named(_hashed(name), name, _short(value), _hashed(value)))
            del found[LISTED:]


def part_of(name: str, parts: int = PARTS) -> int:
    """The part of a name, where PostgreSQL does not sort it."""
    return int.from_bytes(_hashed(name)[-4:], "big") % parts


def direct_differences(source: Fingerprint, target: Fingerprint) -> list[str]:
    """What is not the same and needs no second look, each in a sentence that names it."""
    return [
        *_database(source, target),
        *_large_objects(source.large_objects, target.large_objects),
        *_extensions(source, target),
    ]


def suspects(source: Fingerprint, target: Fingerprint) -> list[Suspect]:
    """What else is not the same; when `direct_differences` is empty and this too, the copy is exact.

    Content first. Between two major versions of PostgreSQL the texts that it writes from parse trees are left
    out (their spelling may change), privileges are compared by who holds any (new versions have new ones),
    and an extension may be newer on the target.
    """
    same_major = source.database.get(_MAJOR) == target.database.get(_MAJOR)
    found = [
        _suspect("table", (TABLES, TABLES), source.tables, target.tables),
        _suspect("sequence", (SEQUENCES, SEQUENCES), source.sequences, target.sequences),
    ]
    for kind in sorted({*source.objects, *target.objects} - {OWNED, HOLDERS, DEFAULT_HOLDERS}):
        if not same_major and kind.endswith(_DEFINITION):
            continue
        here = there = kind
        if kind == "owner":
            here = OWNED
        elif kind == "grant" and not same_major:
            here = there = HOLDERS
        elif kind == "default grant" and not same_major:
            here = there = DEFAULT_HOLDERS
        parts = source.objects.get(here, {}), target.objects.get(there, {})
        found.append(_suspect(kind, (here, there), *parts))
    return [suspect for suspect in found if suspect.parts]


def named_differences(
    suspect: Suspect, source: Mapping[int, Sequence[Named]], target: Mapping[int, Sequence[Named]]
) -> list[str]:
    """What differs, each in a sentence that names it, from what `Verifier.some` found in both databases.

    Never empty: a second look that does not find the difference again is no proof that there is none.
    """
    found: list[tuple[str, str]] = []
    unnamed: list[str] = []
    for part in suspect.parts:
        here, there = source.get(part, ()), target.get(part, ())
        sentences = list(_compared(suspect, here, there))
        found += sentences
        if sentences:
            continue
        unnamed.append(
            f"{suspect.label}: something differs that is not among the first {LISTED} names of part {part}"
            if LISTED in {len(here), len(there)}
            else f"{suspect.label}: differed when all was read, and no longer when it was read again for the "
            "names: something writes to a database that must not change"
        )
    if suspect.more:
        unnamed.append(f"{suspect.label}: more differ, in {suspect.more} parts of all names")
    return [*(sentence for _, sentence in sorted(found)), *dict.fromkeys(unnamed)]


def counted_difference(suspect: Suspect) -> str:
    """The sentence for a kind that is not read again, since enough is named."""
    return f"{suspect.label}: {len(suspect.parts) + suspect.more} parts of all names differ"


def digest(fingerprint: Fingerprint) -> str:
    """SHA-256, hexadecimal, over rows and checksums of all tables; equal for equal contents that were read alike."""
    hashed = hashlib.sha256(repr(fingerprint.large_objects).encode())
    for number, part in sorted(fingerprint.tables.items()):
        hashed.update(f"{number} {part.size} ".encode() + part.digest)
    return hashed.hexdigest()


def definitions_digest(fingerprint: Fingerprint) -> str:
    """SHA-256, hexadecimal, over everything but rows and where sequences stand (`Scope.positions` must be false)."""
    kinds = (*sorted(fingerprint.objects.items()), (SEQUENCES, fingerprint.sequences))
    hashed = hashlib.sha256(
        repr((sorted(fingerprint.extensions.items()), sorted(fingerprint.database.items()))).encode()
    )
    for kind, parts in kinds:
        for number, part in sorted(parts.items()):
            hashed.update(f"{kind} {number} {part.size} ".encode() + part.digest)
    return hashed.hexdigest()


def summary(fingerprint: Fingerprint) -> Verified:
    """What `migration.restored` says of a fingerprint that both databases have."""
    return Verified(
        tables=_count(fingerprint.tables),
        rows=fingerprint.rows,
        sequences=_count(fingerprint.sequences),
        indexes=fingerprint.counts.get("index", 0),
        constraints=fingerprint.counts.get("constraint", 0),
        extensions=len(fingerprint.extensions),
        digest=digest(fingerprint),
    )


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _count(parts: Mapping[int, Part]) -> int:
    return sum(part.size for part in parts.values())


def _suspect(
    label: str, kinds: tuple[str, str], source: Mapping[int, Part], target: Mapping[int, Part]
) -> Suspect:
    """What differs between the two, as much of it as can be read again."""
    unlike = sorted(part for part in {*source, *target} if source.get(part) != target.get(part))
    room = READ_AGAIN if TABLES in kinds else NAMED
    parts: list[int] = []
    for part in unlike:
        room -= max(min(parts_of[part].size, LISTED) for parts_of in (source, target) if part in parts_of)
        if parts and room < 0:
            break
        parts.append(part)
    return Suspect(label, *kinds, tuple(parts), len(unlike) - len(parts))


def _database(source: Fingerprint, target: Fingerprint) -> Iterator[str]:
    for name in sorted({*source.database, *target.database} - {_MAJOR}):
        here, there = source.database.get(name), target.database.get(name)
        if here != there:
            yield f"database {name}: {here} on the source, {there} on the target"


def _large_objects(source: tuple[int, str] | None, target: tuple[int, str] | None) -> Iterator[str]:
    here, there = (f"{found[0]} {found[1]}" if found else None for found in (source, target))
    if here != there:
        yield _content(LARGE_OBJECTS, here, there)


def _extensions(source: Fingerprint, target: Fingerprint) -> Iterator[str]:
    same_major = source.database.get(_MAJOR) == target.database.get(_MAJOR)
    for name in sorted({*source.extensions, *target.extensions}):
        here, there = source.extensions.get(name), target.extensions.get(name)
        newer = here is not None and there is not None and _version(there) > _version(here)
        if here != there and (same_major or not newer):
            yield _sentence("extension", name, here, there)


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _compared(
    suspect: Suspect, source: Sequence[Named], target: Sequence[Named]
) -> Iterator[tuple[str, str]]:
    """Name and sentence of what differs, up to where one of the lists was cut off."""
    ends = [listed[-1].key for listed in (source, target) if len(listed) >= LISTED]
    here, there = (
        {one.key: one for one in listed if not ends or one.key <= min(ends)} for listed in (source, target)
    )
    for key in {*here, *there}:
        one, other = here.get(key), there.get(key)
        if one and other and one.digest == other.digest:
            continue
        name = (one or other or Named(key, "", "", b"")).name
        values = one.value if one else None, other.value if other else None
        if suspect.source_kind == TABLES:
            yield name, _content(f"table {name}", *values)
        else:
            yield name, _sentence(suspect.label, name, *values)


def _content(what: str, here: str | None, there: str | None) -> str:
    """Of something that has rows and a checksum, in one text."""
    mine, others = (value.partition(" ")[0] if value else None for value in (here, there))
    if others is None:
        return f"{what}: missing on the target ({mine} rows on the source)"
    if mine is None:
        return f"{what}: only on the target"
    if mine != others:
        return f"{what}: {mine} rows on the source, {others} on the target"
    return f"{what}: as many rows ({mine}), but not the same content"


def _sentence(kind: str, name: str, here: str | None, there: str | None) -> str:
    if there is None:
        return f"{kind} {name}: missing on the target"
    if here is None:
        return f"{kind} {name}: only on the target"
    return f"{kind} {name}: {_short(here)} on the source, {_short(there)} on the target"


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
