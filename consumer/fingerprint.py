"""Comparing two databases by their fingerprints. Pure: no world, no clock."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Final

from events.parts import Verified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.model import Fingerprint

TENANT: Final = "<tenant>"
"""How a fingerprint writes the tenant's role, whatever its name on that server."""

LARGE_OBJECTS: Final = "large objects"
"""Their place among the tables; absent when there are none."""

_MAJOR: Final = "major"
_DEFINITION: Final = " definition"
_SHOWN: Final = 160


def differences(source: Fingerprint, target: Fingerprint) -> list[str]:
    """What is not the same, each in a sentence that names it; empty when the copy is true.

    Content first. Between two major versions of PostgreSQL the texts that it writes from parse trees are left
    out (they may be spelt otherwise), privileges are compared by who holds any (new versions have new ones),
    and an extension may be newer on the target.
    """
    same_major = source.database.get(_MAJOR) == target.database.get(_MAJOR)
    return [
        *_database(source, target),
        *_tables(source.tables, target.tables),
        *_compared("sequence", source.sequences, target.sequences),
        *_objects(source, target, same_major=same_major),
    ]


def digest(fingerprint: Fingerprint) -> str:
    """SHA-256, hexadecimal, over rows and checksums of all tables; equal for equal contents."""
    contents = sorted((name, rows, checksum) for name, (rows, checksum) in fingerprint.tables.items())
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def summary(fingerprint: Fingerprint) -> Verified:
    """What `migration.restored` tells of a fingerprint that both sides share."""
    tables = {name: rows for name, (rows, _) in fingerprint.tables.items() if name != LARGE_OBJECTS}
    return Verified(
        tables=len(tables),
        rows=sum(tables.values()),
        sequences=len(fingerprint.sequences),
        indexes=len(fingerprint.objects.get("index", {})),
        constraints=len(fingerprint.objects.get("constraint", {})),
        extensions=len(fingerprint.objects.get("extension", {})),
        digest=digest(fingerprint),
    )


def _database(source: Fingerprint, target: Fingerprint) -> Iterator[str]:
    for name in sorted({*source.database, *target.database} - {_MAJOR}):
        here, there = source.database.get(name), target.database.get(name)
        if here != there:
            yield f"database {name}: {here} on the source, {there} on the target"


def _tables(source: Mapping[str, tuple[int, str]], target: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    for name in sorted({*source, *target}):
        kind = "" if name == LARGE_OBJECTS else "table "
        if name not in target:
            yield f"{kind}{name}: missing on the target ({source[name][0]} rows on the source)"
        elif name not in source:
            yield f"{kind}{name}: only on the target"
        elif source[name][0] != target[name][0]:
            yield f"{kind}{name}: {source[name][0]} rows on the source, {target[name][0]} on the target"
        elif source[name] != target[name]:
            yield f"{kind}{name}: as many rows ({source[name][0]}), but not the same content"


def _objects(source: Fingerprint, target: Fingerprint, *, same_major: bool) -> Iterator[str]:
    for kind in sorted({*source.objects, *target.objects}):
        here, there = source.objects.get(kind, {}), target.objects.get(kind, {})
        if kind == "owner":
            # Everything becomes the tenant's, also what somebody else owned on the pool.
            here = dict.fromkeys(here, TENANT)
        if not same_major:
            if kind.endswith(_DEFINITION):
                continue
            here, there = _across_majors(kind, here, there)
        yield from _compared(kind, here, there)


def _across_majors(
    kind: str, source: Mapping[str, str], target: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Both sides, without what may rightly differ between two major versions."""
    if kind == "grant":
        # PostgreSQL 15 took CREATE on schema public from PUBLIC.
        names = [
            {name for name in side if not name.startswith("schema public.")} for side in (source, target)
        ]
        return dict.fromkeys(names[0], ""), dict.fromkeys(names[1], "")
    if kind == "extension":
        newer = {
            name: version
            for name, version in target.items()
            if _version(version) > _version(source.get(name, version))
        }
        return {**source, **{name: newer[name] for name in newer}}, target
    return source, target


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _compared(kind: str, source: Mapping[str, str], target: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*source, *target}):
        if name not in target:
            yield f"{kind} {name}: missing on the target"
        elif name not in source:
            yield f"{kind} {name}: only on the target"
        elif source[name] != target[name]:
            yield f"{kind} {name}: {_short(source[name])} on the source, {_short(target[name])} on the target"


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
