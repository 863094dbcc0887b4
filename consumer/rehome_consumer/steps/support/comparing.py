"""Comparing two databases in two looks: by their fingerprints, then, where those differ, by names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from rehome_consumer.fingerprint import counted_difference, direct_differences, named_differences, suspects

if TYPE_CHECKING:
    from rehome_consumer.model import Fingerprint, Server, Spared
    from rehome_consumer.ports.steps import Verifier

ENOUGH: Final = 100
"""Differences after which no more are named."""


class Fingerprinted(NamedTuple):
    """One of the two databases, the tenant's role there, and its fingerprint."""

    server: Server
    database: str
    role: str
    fingerprint: Fingerprint


async def differences(
    verifier: Verifier, source: Fingerprinted, target: Fingerprinted, spared: Spared | None = None
) -> list[str]:
    """What is not the same, each in a sentence that names it; empty when the copy is exact.

    Args:
        verifier: reads again what differs.
        source: the original.
        target: its copy.
        spared: what both fingerprints were made without.
    """
    found = direct_differences(source.fingerprint, target.fingerprint)
    for suspect in suspects(source.fingerprint, target.fingerprint):
        if len(found) >= ENOUGH:
            found.append(counted_difference(suspect))
            continue
        async with asyncio.TaskGroup() as together:
            here, there = (
                together.create_task(
                    verifier.some(one.server, one.database, one.role, kind, suspect.parts, spared)
                )
                for one, kind in ((source, suspect.source_kind), (target, suspect.target_kind))
            )
        found += named_differences(suspect, here.result(), there.result())
    return found
