"""Comparing two databases in two looks: by their fingerprints, then, where those differ, by names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.fingerprint import counted, named, suspects, told

if TYPE_CHECKING:
    from rehome_consumer.model import Fingerprint, Server, Spared
    from rehome_consumer.ports.steps import Verifier

ENOUGH: Final = 100
"""Differences after which no more are looked for by name."""


class Side(NamedTuple):
    """One of the two databases, the tenant's role there, and its fingerprint."""

    server: Server
    database: str
    role: str
    fingerprint: Fingerprint


async def differences(
    verifier: Verifier, source: Side, target: Side, spared: Spared | None = None
) -> list[str]:
    """What is not the same, each in a sentence that names it; empty when the copy is true.

    Args:
        verifier: looks again at what differs.
        source: the side that counts.
        target: its copy.
        spared: what both fingerprints were made without.
    """
    found = told(source.fingerprint, target.fingerprint)
    for suspect in suspects(source.fingerprint, target.fingerprint):
        if len(found) >= ENOUGH:
            found.append(counted(suspect))
            continue
        async with asyncio.TaskGroup() as together:
            here, there = (
                together.create_task(
                    verifier.some(side.server, side.database, side.role, kind, suspect.parts, spared)
                )
                for side, kind in ((source, suspect.source_kind), (target, suspect.target_kind))
            )
        found += named(suspect, here.result(), there.result())
    return found
