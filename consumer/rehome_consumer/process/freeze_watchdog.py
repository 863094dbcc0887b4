"""A process that was stopped (SIGSTOP, a shell's Ctrl-Z, a debugger) ends at once when it goes on.

Its claims have gone to others meanwhile, and it may stand between the last look at its claim and the act
that the look was for. The kernel tells it that it goes on before anything else of it runs: no look of ours
could be nearer to the act. To end is what it is best at; whatever starts consumers starts another.

A machine that is frozen as a whole tells nobody. There the looks at the claim do what they can, and the
marks and tokens on what they guard (databases, sessions, the journal) do the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

log = logging.getLogger(__name__)

LONGEST: Final = 5.0
"""Seconds of a standstill that is forgiven; a claim is given away after 45 without a sign of life."""
BEAT: Final = 1.0
EXIT_CODE: Final = 75  # EX_TEMPFAIL of sysexits.h: start it again


@asynccontextmanager
async def watched(*, longest: float = LONGEST, end: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """For the length of the block: when the process goes on after `longest` seconds or more, `end` it.

    Args:
        longest: seconds.
        end: called instead of ending the process, in the middle of whatever it does (for tests).
    """
    beating = asyncio.create_task(_beat(last := [time.monotonic()]), name="standstill")

    def goes_on(*_: object) -> None:
        stood = time.monotonic() - last[0]
        if stood >= longest:
            (end or _end)()

    before: Any = signal.signal(signal.SIGCONT, goes_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


async def _beat(last: list[float]) -> None:
    while True:
        last[0] = time.monotonic()
        await asyncio.sleep(BEAT)


def _end() -> None:
    """Without any tidying: that would be acts, too."""
    try:
        log.critical("consumer.stood_still: others have taken over; ending, to be started anew")
    finally:
        os._exit(EXIT_CODE)
