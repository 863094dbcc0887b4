"""Which runs share a consumer: a run that may have killed one before is alone for its first minute.

A consumer that dies interrupts every step it was running, and the journal does not say which of them was the
cause. So each of them is a suspect, and a suspect runs alone: if the consumer dies again, that one was the cause.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import StepRow

SUSPECT: Final = 2
"""Deaths from which on a step runs alone; a single one may be a power cut."""
ASKED: Final = 5
"""Deferrals while it waits to run alone; then it runs beside others, since its instance may be down meanwhile."""
WAIT_SECONDS: Final = 10.0
"""For the others to end; meanwhile no other starts."""
ALONE_SECONDS: Final = 60.0
"""Then others may start beside it: what kills a consumer does so soon, and a long copy must not block the rest."""


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
        """Run beside others, once none runs alone; always True."""
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
        """Let others start, unless another run has closed the gate since."""
        if self._closed_by is who:
            self._closed_by = None
            self._open.set()


def is_suspect(row: StepRow | None) -> bool:
    """Whether consumers died repeatedly while they ran this step of this migration.

    A run that the journal still has as running ended in a death, too.
    """
    return row is not None and row.deaths + (row.state == "running") >= SUSPECT
