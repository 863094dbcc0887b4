"""Comparing two databases in two looks: by their fingerprints, then, where those differ, by names."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.fingerprint import counted_difference, direct_differences, named_differences, suspects
from rehome_consumer.model import EVERYTHING, RoleAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rehome_consumer.model import DatabaseFacts, Fingerprint, Scope, Server
    from rehome_consumer.ports.steps import Verifier

ENOUGH: Final = 100
"""Differences after which no more are looked for."""

SHOWN: Final = 10
"""Differences named in an error; the rest is counted."""


class Fingerprinted(NamedTuple):
    """One of the two databases, the tenant's role there, its fingerprint, and of what that was made."""

    server: Server
    database: str
    role: str
    fingerprint: Fingerprint
    scope: Scope = EVERYTHING


def named(found: Sequence[str]) -> str:
    """The first differences, and how many more there are."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{'; '.join(found[:SHOWN])}{more}"


def fact_differences(source: DatabaseFacts, target: DatabaseFacts) -> Iterator[str]:
    """What is not the same about database and role themselves: the source's as they were before the fence."""
    yield from _privilege_differences(source, target)
    if source.comment != target.comment:
        yield f"comment on the database: {source.comment!r} on the source, {target.comment!r} on the target"
    for field in fields(RoleAttributes):
        here, there = getattr(source.role, field.name), getattr(target.role, field.name)
        if here != there:
            name = field.name.replace("_", " ")
            yield f"{name} of the tenant's role: {here!r} on the source, {there!r} on the target"


def _privilege_differences(source: DatabaseFacts, target: DatabaseFacts) -> Iterator[str]:
    before, after = (
        {(grantee, privilege, grantable) for grantee, privilege, grantable in one.acl if grantee != one.owner}
        for one in (source, target)
    )
    for grantee, privilege, _ in sorted(before ^ after):
        where = (
            "missing on the target"
            if (grantee, privilege) in {one[:2] for one in before - after}
            else "only there"
        )
        yield f"privilege {privilege} on the database for {grantee or 'PUBLIC'}: {where}"


async def differences(verifier: Verifier, source: Fingerprinted, target: Fingerprinted) -> list[str]:
    """What is not the same, each in a sentence that names it; empty when the copy is exact.

    Args:
        verifier: reads again what differs.
        source: the original.
        target: its copy.
    """
    found = direct_differences(source.fingerprint, target.fingerprint)
    for suspect in suspects(source.fingerprint, target.fingerprint):
        if len(found) >= ENOUGH:
            found.append(counted_difference(suspect))
            continue
        async with asyncio.TaskGroup() as together:
            here, there = (
                together.create_task(
                    verifier.some(one.server, one.database, one.role, kind, suspect.parts, one.scope)
                )
                for one, kind in ((source, suspect.source_kind), (target, suspect.target_kind))
            )
        found += named_differences(suspect, here.result(), there.result())
    return found
