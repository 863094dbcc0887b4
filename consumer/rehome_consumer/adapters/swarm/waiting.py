"""Waits that have a limit, report in the log that they continue, and look again when something happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from rehome_consumer.errors import TimedOut

log = logging.getLogger(__name__)

LOG_EVERY_SECONDS: Final = 15.0


class Wait:
    """One wait for a service, which starts when this object is made.

    Args:
        service: its name.
        aim: what is waited for: `stop`, `serve`.
        log_every: seconds between two lines in the log, `wait.goes_on`.
    """

    def __init__(self, service: str, aim: str, *, log_every: float = LOG_EVERY_SECONDS) -> None:
        self._service = service
        self._aim = aim
        self._log_every = log_every
        self._started = time.monotonic()
        self._logged = self._started

    def check(self, why: str, *, limit: float) -> None:
        """Return as long as the wait may continue.

        Args:
            why: what is still missing, for error and log.
            limit: seconds in all.

        Raises:
            TimedOut: the limit is over.
        """
        now = time.monotonic()
        waited = now - self._started
        if waited > limit:
            raise TimedOut(f"waited {waited:.1f} s for service {self._service} to {self._aim}; {why}")
        if now - self._logged >= self._log_every:
            self._logged = now
            log.warning(
                "wait.goes_on service=%s for=%s seconds=%.0f limit=%.0f why=%s",
                self._service, self._aim, waited, limit, why,
            )  # fmt: skip


class Watch:
    """A bell that rings when something happened to a service's containers."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something happened."""
        self._rung.set()

    async def pause(self, seconds: float) -> None:
        """Wait for the bell, but not longer than so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()
