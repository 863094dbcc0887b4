"""A wait that has a limit, and says in the log that it goes on."""

from __future__ import annotations

import logging
import time
from typing import Final

from rehome_consumer.errors import TimedOut

log = logging.getLogger(__name__)

SAY_EVERY_SECONDS: Final = 15.0


class Wait:
    """One wait for a service, which began when this was made.

    Args:
        service: its name.
        aim: what it shall do: `stop`, `serve`.
        say_every: seconds between two lines in the log, `wait.goes_on`.
    """

    def __init__(self, service: str, aim: str, *, say_every: float = SAY_EVERY_SECONDS) -> None:
        self._service = service
        self._aim = aim
        self._say_every = say_every
        self._started = time.monotonic()
        self._said = self._started

    def go_on(self, why: str, *, limit: float) -> None:
        """Return as long as the wait may go on.

        Args:
            why: what is still missing, for error and log.
            limit: seconds in all.

        Raises:
            TimedOut: it may not.
        """
        now = time.monotonic()
        waited = now - self._started
        if waited > limit:
            raise TimedOut(f"waited {waited:.1f} s for service {self._service} to {self._aim}; {why}")
        if now - self._said >= self._say_every:
            self._said = now
            log.warning(
                "wait.goes_on service=%s for=%s seconds=%.0f limit=%.0f why=%s",
                self._service, self._aim, waited, limit, why,
            )  # fmt: skip
