"""Ends a process that was stopped (SIGSTOP, a shell's Ctrl-Z, a debugger) at once when it is continued.

Other consumers have taken its claims meanwhile, and it may have been stopped between the last check of its claim and
the action that the check was for. The kernel delivers SIGCONT before anything else of the process runs: no check of
the claim could be closer to the action. Whatever starts consumers starts another.

When the complete machine is frozen there is no signal. Then the checks of the claim do what they can, and the
ownership tags and tokens on databases, sessions and the journal do the rest.
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
"""Seconds for which a process may be stopped; a claim is lost after 45 without a sign of life."""
BEAT: Final = 1.0
EXIT_CODE: Final = 75  # EX_TEMPFAIL of sysexits.h: start it again


@asynccontextmanager
async def watched(*, longest: float = LONGEST, end: Callable[[], None] | None = None) -> AsyncIterator[None]:
    """For the length of the block: when the process continues after `longest` seconds or more, `end` it.

    Args:
        longest: seconds.
        end: called instead of ending the process, in the middle of whatever it does (for tests).
    """
    beating = asyncio.create_task(_beat(last := [time.monotonic()]), name="freeze-watchdog")

    def continued(*_: object) -> None:
        if time.monotonic() - last[0] >= longest:
            (end or _end)()

    before: Any = signal.signal(signal.SIGCONT, continued)
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
    """End without any cleanup: that would be actions, too."""
    try:
        log.critical(
            "consumer.frozen error=this process was stopped, others have taken over: it ends; start it again"
        )
    finally:
        os._exit(EXIT_CODE)
