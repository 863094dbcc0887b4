"""Claims: one advisory lock per instance, all of a consumer's on one session of the state database.

A lock lives as long as its session. A lost connection is the loss of all its claims: the engine races `Claim.lost`
against each step. Before the loss is noticed another consumer may take over; the journal's fencing token keeps the
first one from writing.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.state.claim_session import ClaimSession
from rehome_consumer.errors import ClaimLost, RehomeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    import asyncpg

    from rehome_consumer.adapters.state.claim_session import Answer
    from rehome_consumer.ports.engine import Found, Lookup

    Connect = Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]

SHORTEST_PAUSE: Final = 0.004
LONGEST_PAUSE: Final = 0.1
"""Seconds between looks whether another consumer has released a claim."""

ENDED: Final = "its connection ended"
TAKEN: Final = "an operator took it away"


class PostgresClaim:
    """A held claim."""

    def __init__(self, instance_id: UUID, session: ClaimSession, found: Found | None) -> None:
        """Take the session that holds the lock, and what was looked up with it."""
        self.instance_id = instance_id
        self._session = session
        self._found = found
        self._lost = asyncio.Event()
        self._why = ENDED
        session.at_end(self, self._lost.set)

    @property
    def found(self) -> Found | None:
        """See `Claim.found`."""
        return self._found

    async def check(self) -> None:
        """See `Claim.check`."""
        why = self._why
        if not self._lost.is_set():
            try:
                await self._session.ping()
            except RehomeError as error:
                why = str(error)
                self._lost.set()
        if self._lost.is_set():
            raise ClaimLost(f"the claim on instance {self.instance_id} is lost: {why}")

    async def lost(self) -> None:
        """See `Claim.lost`."""
        await self._lost.wait()

    def revoke(self) -> None:
        """An operator wants it: whoever works under it must stop, and then it is released."""
        self._why = TAKEN
        self._lost.set()

    def release(self) -> asyncio.Future[Answer]:
        """Give it back; done when that is done, or the session has ended, which holds it no more."""
        self._session.forget(self)
        return self._session.release(self.instance_id)


class PostgresClaims:
    """Claims port on the state database."""

    def __init__(
        self,
        connect: Connect,
        *,
        patience: float = 2.0,
        watch_every: float = 5.0,
        answer_within: float = 10.0,
        silent_for: float = 45.0,
    ) -> None:
        """Take a function that opens a new connection; close it with `aclose`.

        Args:
            connect: opens the connection that holds all claims, when the first is asked for, and after a loss.
            patience: seconds to wait for a claim that another holds; the event that a step emits often
                arrives before that step's claim is released.
            watch_every: seconds between checks of whether the connection lives.
            answer_within: seconds such a check may take before all claims count as lost.
            silent_for: seconds without a check after which the server itself ends the claims: a frozen
                consumer's connection stays open (from PostgreSQL 14 on).
        """
        self._connect = connect
        self._patience = patience
        self._watch_every = watch_every
        self._answer_within = answer_within
        self._silent_for = silent_for
        self._session: ClaimSession | None = None
        self._opening = asyncio.Lock()
        self._here: dict[UUID, asyncio.Event] = {}
        self._held: dict[UUID, PostgresClaim] = {}

    @asynccontextmanager
    async def claim(
        self, instance_id: UUID, lookup: Lookup | None = None
    ) -> AsyncIterator[PostgresClaim | None]:
        """See `Claims.claim`."""
        until = asyncio.get_running_loop().time() + self._patience
        if not await self._alone_here(instance_id, until):
            yield None
            return
        released: tuple[asyncio.Future[Answer], ...] = ()
        try:
            claim = await self._claimed(instance_id, lookup, until)
            if claim is None:
                yield None
                return
            self._held[instance_id] = claim
            try:
                yield claim
            finally:
                del self._held[instance_id]
                released = (claim.release(),)
        finally:
            self._here.pop(instance_id).set()  # who waits here asks after the release, in the same round
            if released:
                await asyncio.wait(released)

    async def aclose(self) -> None:
        """End the session, and with it every claim."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _alone_here(self, instance_id: UUID, until: float) -> bool:
        """One delivery of this process at a time: a session gets a lock that it holds already once more."""
        try:
            async with asyncio.timeout_at(until):
                while instance_id in self._here:
                    await self._here[instance_id].wait()
        except TimeoutError:
            return False
        self._here[instance_id] = asyncio.Event()
        return True

    async def _claimed(self, instance_id: UUID, lookup: Lookup | None, until: float) -> PostgresClaim | None:
        """Take the lock; None when another consumer holds it for longer than `patience`."""
        session = await self._open_session()
        clock, pause = asyncio.get_running_loop().time, SHORTEST_PAUSE
        while True:
            answer = await session.claim(instance_id, lookup)
            if answer.held:
                return PostgresClaim(instance_id, session, answer.found)
            if clock() + pause > until:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _open_session(self) -> ClaimSession:
        """The session, opened again after a loss."""
        async with self._opening:
            if self._session is None or self._session.over:
                with translated("state database"):
                    session = ClaimSession(
                        await self._connect(), ask_every=self._watch_every, answer_within=self._answer_within
                    )
                    try:
                        await session.begin(self._silent_for, self._revoked)
                    except BaseException:
                        await session.close()
                        raise
                self._session = session
            return self._session

    def _revoked(self, instance_id: UUID) -> None:
        claim = self._held.get(instance_id)
        if claim is not None:
            claim.revoke()
