"""Comparing two databases by their fingerprints. Pure: no world, no clock.

A fingerprint is small, however much a tenant has made: it holds digests of parts, not names. So a comparison
takes two looks: `told` and `suspects` say from the fingerprints what differs, and `named` says what that is
called, from a bounded list of what is in the parts that differ (`Verifier.some`).
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

LARGE_OBJECTS: Final = "large objects"
"""What the differences of large objects begin with."""

TABLES: Final = "table content"
SEQUENCES: Final = "sequence"
"""Kinds of what is no object of a fingerprint, for the second look."""

OWNED: Final = "owner, were all the tenant's"
"""Kind: what is owned, as on the target, where everything becomes the tenant's."""
HOLDERS: Final = "grant, whatever it allows"
"""Kind: who holds any privilege on what; schema public excepted, from which PostgreSQL 15 took CREATE."""

PARTS: Final = 256
TABLE_PARTS: Final = 4096  # the second look reads the tables of a part once more: there should be few in one
LISTED: Final = 200
"""Names that the second look takes from a part, at most."""
NAMED: Final = 1600
"""Names of one kind that it takes, at most, but for those of one part."""
READ_AGAIN: Final = 100
"""The same for tables, which it reads once more."""

_MAJOR: Final = "major"
_DEFINITION: Final = " definition"
_SHOWN: Final = 160
_DIGESTS: Final = 2**256


class Suspect(NamedTuple):
    """A kind that is not the same on both sides.

    Attributes:
        label: how people call it.
        source_kind, target_kind: what a second look takes on each side.
        parts: those that differ and are looked at again.
        more: how many differ besides.
    """

    label: str
    source_kind: str
    target_kind: str
    parts: tuple[int, ...]
    more: int


class Fold:
    """Things as they come, in whatever order, becoming parts."""

    def __init__(self, parts: int = PARTS) -> None:
        self._parts = parts
        self._sums: dict[int, tuple[int, int]] = {}

    def add(self, name: str, value: str) -> None:
        """One more thing."""
        part = part_of(name, self._parts)
        count, total = self._sums.get(part, (0, 0))
        one = int.from_bytes(hashlib.sha256(_hashed(name) + _hashed(value)).digest(), "big")
        self._sums[part] = (count + 1, (total + one) % _DIGESTS)

    def parts(self) -> dict[int, Part]:
        """What came so far."""
        return {part: Part(count, total.to_bytes(32, "big")) for part, (count, total) in self._sums.items()}


class Shortlist:
    """The first things of some parts, from things as they come."""

    def __init__(self, wanted: Iterable[int], parts: int = PARTS) -> None:
        self.found: dict[int, list[Named]] = {part: [] for part in wanted}
        self._parts = parts

    def add(self, name: str, value: str = "") -> None:
        """One more thing; forgotten again if it is not among the first."""
        found = self.found.get(part_of(name, self._parts))
        if found is not None:
            insort(found, Named(_hashed(name), name, _short(value), _hashed(value)))
            del found[LISTED:]


def part_of(name: str, parts: int = PARTS) -> int:
    """Where a name falls, where we sort it ourselves."""
    return int.from_bytes(_hashed(name)[-4:], "big") % parts


def told(source: Fingerprint, target: Fingerprint) -> list[str]:
    """What is not the same and needs no second look, each in a sentence that names it."""
    return [
        *_database(source, target),
        *_large_objects(source.large_objects, target.large_objects),
        *_extensions(source, target),
    ]


def suspects(source: Fingerprint, target: Fingerprint) -> list[Suspect]:
    """What else is not the same; with `told` empty and this empty, the copy is true.

    Content first. Between two major versions of PostgreSQL the texts that it writes from parse trees are left
    out (they may be spelt otherwise), privileges are compared by who holds any (new versions have new ones),
    and an extension may be newer on the target.
    """
    same_major = source.database.get(_MAJOR) == target.database.get(_MAJOR)
    found = [
        _suspect("table", (TABLES, TABLES), source.tables, target.tables),
        _suspect("sequence", (SEQUENCES, SEQUENCES), source.sequences, target.sequences),
    ]
    for kind in sorted({*source.objects, *target.objects} - {OWNED, HOLDERS}):
        if not same_major and kind.endswith(_DEFINITION):
            continue
        here = there = kind
        if kind == "owner":
            here = OWNED  # everything becomes the tenant's, also what somebody else owned on the pool
        elif kind == "grant" and not same_major:
            here = there = HOLDERS
        sides = source.objects.get(here, {}), target.objects.get(there, {})
        found.append(_suspect(kind, (here, there), *sides))
    return [suspect for suspect in found if suspect.parts]


def named(
    suspect: Suspect, source: Mapping[int, Sequence[Named]], target: Mapping[int, Sequence[Named]]
) -> list[str]:
    """What differs, each in a sentence that names it, from what `Verifier.some` found on both sides.

    Never empty: a second look that does not find what the first one saw is no proof that nothing is there.
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
            "names: something changes a database that nobody should write to"
        )
    if suspect.more:
        unnamed.append(f"{suspect.label}: more differ, in {suspect.more} parts of all names")
    return [*(sentence for _, sentence in sorted(found)), *dict.fromkeys(unnamed)]


def counted(suspect: Suspect) -> str:
    """The sentence for a kind that is not looked at again, since enough is named."""
    return f"{suspect.label}: {len(suspect.parts) + suspect.more} parts of all names differ"


def digest(fingerprint: Fingerprint) -> str:
    """SHA-256, hexadecimal, over rows and checksums of all tables; equal for equal contents."""
    whole = hashlib.sha256(repr(fingerprint.large_objects).encode())
    for number, part in sorted(fingerprint.tables.items()):
        whole.update(f"{number} {part.size} ".encode() + part.digest)
    return whole.hexdigest()


def summary(fingerprint: Fingerprint) -> Verified:
    """What `migration.restored` tells of a fingerprint that both sides share."""
    return Verified(
        tables=_count(fingerprint.tables),
        rows=fingerprint.rows,
        sequences=_count(fingerprint.sequences),
        indexes=_count(fingerprint.objects.get("index", {})),
        constraints=_count(fingerprint.objects.get("constraint", {})),
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
    """What differs between the two, as much of it as can be looked at again."""
    unlike = sorted(part for part in {*source, *target} if source.get(part) != target.get(part))
    room = READ_AGAIN if TABLES in kinds else NAMED
    parts: list[int] = []
    for part in unlike:
        room -= max(
            min(database_state[part].size, LISTED)
            for database_state in (source, target)
            if part in database_state
        )
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
    here, there = (
        f"{database_state[0]} {database_state[1]}" if database_state else None
        for database_state in (source, target)
    )
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
    ends = [database_state[-1].key for database_state in (source, target) if len(database_state) >= LISTED]
    here, there = (
        {one.key: one for one in database_state if not ends or one.key <= min(ends)}
        for database_state in (source, target)
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
