"""Who runs beside whom in one consumer: a run that may have killed it before is alone for its first minute.

A consumer that dies takes along every step it was running, and nobody can tell which of them was to blame.
So each of them is a suspect, and a suspect gets to run alone: the next death is its own, and no other
migration's.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import StepRow

SUSPECT: Final = 2
"""Deaths from which on a run is to be alone; one may be a power cut."""
ASKED: Final = 5
"""Times that it comes back to be alone; then it runs in company, since its instance may be down meanwhile."""
WAIT_SECONDS: Final = 10.0
"""For the others to end; meanwhile no other begins."""
ALONE_SECONDS: Final = 60.0
"""Then others may begin beside it: a poison kills soon, and a long copy must not hold up everybody."""


class RunGate:
    """The runs of one consumer."""

    def __init__(self) -> None:
        self._running = 0
        self._closed_by: object | None = None
        self._open = asyncio.Event()
        self._empty = asyncio.Event()
        self._open.set()
        self._empty.set()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[bool]:
        """Run beside others, once nobody is alone; always True."""
        while not self._open.is_set():
            await self._open.wait()
        self._entered()
        try:
            yield True
        finally:
            self._left()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Run alone for a minute; False when the others did not end in time, and it must not run now."""
        if not self._open.is_set():
            yield False
            return
        me = object()
        self._closed_by = me
        self._open.clear()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            self._reopen(me)
            yield False
            return
        except asyncio.CancelledError:
            self._reopen(me)
            raise
        opening = asyncio.get_running_loop().call_later(ALONE_SECONDS, self._reopen, me)
        self._entered()
        try:
            yield True
        finally:
            opening.cancel()
            self._left()
            self._reopen(me)

    def _entered(self) -> None:
        self._running += 1
        self._empty.clear()

    def _left(self) -> None:
        self._running -= 1
        if not self._running:
            self._empty.set()

    def _reopen(self, who: object) -> None:
        """Let others begin, unless somebody else has closed the door since."""
        if self._closed_by is who:
            self._closed_by = None
            self._open.set()


def is_suspect(row: StepRow | None) -> bool:
    """Whether consumers died while they ran this step of this migration, time and again.

    A run that the journal still has as running was the last thing that somebody did.
    """
    return row is not None and row.deaths + (row.state == "running") >= SUSPECT
