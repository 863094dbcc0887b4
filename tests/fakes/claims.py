"""Claims as a dict: one holder per instance."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rehome_consumer.errors import ClaimLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from rehome_consumer.ports.engine import Found, Lookup
    from tests.fakes.journal import FakeJournal


class FakeClaim:
    """Port `Claim`."""

    def __init__(self, instance_id: UUID, found: Found | None = None) -> None:
        self.instance_id = instance_id
        self.found = found
        self.gone = asyncio.Event()
        self.checks = 0

    async def check(self) -> None:
        self.checks += 1
        if self.gone.is_set():
            raise ClaimLost(f"the claim on instance {self.instance_id} is lost: its connection ended")

    async def lost(self) -> None:
        await self.gone.wait()


class FakeClaims:
    """Port `Claims`; one object for all consumers.

    Attributes:
        held: who holds which instance now.
        patience: seconds to wait for a claim that another holds.
    """

    def __init__(self, patience: float = 0, journal: FakeJournal | None = None) -> None:
        self._journal = journal
        self.held: dict[UUID, FakeClaim] = {}
        self.patience = patience
        self._released = asyncio.Event()

    @asynccontextmanager
    async def claim(self, instance_id: UUID, lookup: Lookup | None = None) -> AsyncIterator[FakeClaim | None]:
        if not await self._free(instance_id):
            yield None
            return
        found = self._journal.look_up(lookup) if self._journal and lookup else None
        claim = self.held[instance_id] = FakeClaim(instance_id, found)
        try:
            yield claim
        finally:
            self.cut(claim)

    def revoke(self, claim: FakeClaim) -> None:
        """An operator asks for it: its holder notices, and releases it."""
        claim.gone.set()

    def cut(self, claim: FakeClaim) -> None:
        """The claim's connection ends: the server gives the claim to others, and its holder notices."""
        if self.held.get(claim.instance_id) is claim:
            del self.held[claim.instance_id]
        claim.gone.set()
        self._released.set()
        self._released = asyncio.Event()

    async def _free(self, instance_id: UUID) -> bool:
        if self.patience and instance_id in self.held:
            try:
                async with asyncio.timeout(self.patience):
                    while instance_id in self.held:
                        await self._released.wait()
            except TimeoutError:
                return False
        return instance_id not in self.held
