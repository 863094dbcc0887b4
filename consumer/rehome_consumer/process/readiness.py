"""Looks at what the consumer needs, before it takes anything from a queue and every minute afterwards.

While a part is missing the queues of all steps that need it are not read: their deliveries wait for this consumer or go
to another one. The exception is a customer who is down: when the part has been missing for `patience` and no other
consumer reads the step's queue, this one takes the delivery, so that the step fails and the move is rolled back.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.errors import RehomeError
from rehome_consumer.ports.readiness import Cause
from rehome_consumer.rabbitmq.topology import queue_of
from rehome_events.data import masked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from rehome_consumer.ports.operators import QueueInspector
    from rehome_consumer.ports.readiness import Part
    from rehome_consumer.saga import Step

    Check = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 20.0
"""For one check."""
EVERY: Final = 60.0
"""Seconds between looks while everything is there."""
SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0
"""Seconds between looks while something is missing."""
PATIENCE: Final = 900.0

NOT_YET: Final = "it was not looked at yet"


class Readiness:
    """Port `Readiness`, and the gate before the queues. Without checks it is always ready."""

    def __init__(
        self,
        checks: Mapping[Part, Check],
        *,
        queues: QueueInspector | None = None,
        patience: float = PATIENCE,
        every: float = EVERY,
        level: int = logging.ERROR,
    ) -> None:
        """Take the checks; nothing is looked at yet.

        Args:
            checks: each returns, or raises a RehomeError that says what is wrong and what to do.
            queues: tells whether another consumer reads a queue; None: it is not known, as if one did.
            patience: seconds for which a customer who is down waits for a consumer that is ready.
            every: seconds between looks while everything is there.
            level: of the log lines that say what is missing.
        """
        self._checks = checks
        self._queues = queues
        self._patience = patience
        self._every = every
        self._level = level
        self._missing: dict[Part, Cause] = {part: Cause(part, NOT_YET) for part in checks}
        self._since: dict[Part, float] = {}
        self._looking = asyncio.Lock()
        self._looked_at: float | None = None
        self._changed = asyncio.Event()
        self._was_ready = not checks

    @property
    def was_ready(self) -> bool:
        """Whether everything was there at one look, at the least."""
        return self._was_ready

    @property
    def missing(self) -> tuple[Cause, ...]:
        """Everything that is missing, as it was seen last."""
        return tuple(self._missing.values())

    async def causes(self, needs: Collection[Part], *, max_age: float | None = None) -> tuple[Cause, ...]:
        """See `ports.readiness.Readiness.causes`."""
        if max_age is not None:
            await self.look(max_age=max_age)
        return tuple(cause for part, cause in self._missing.items() if part in needs)

    def is_overdue(self, needs: Collection[Part]) -> bool:
        """See `ports.readiness.Readiness.is_overdue`."""
        now = asyncio.get_running_loop().time()
        return any(now - since >= self._patience for part, since in self._since.items() if part in needs)

    def is_ready_for(self, step: Step) -> bool:
        """Whether the step's queue may be read, as it was seen last."""
        return not self._missing.keys() & step.needs

    async def is_last_resort(self, step: Step) -> bool:
        """Whether its queue must be read all the same, for a rollback: nobody else does, and a customer is down."""
        if not (step.while_down and self._queues and self.is_overdue(step.needs)):
            return False
        if not self.is_ready_for(saga.ROLL_BACK):
            return False
        name = queue_of(step.name)
        try:
            status = (await self._queues.queues([name])).get(name)
        except RehomeError:
            return False
        return status is not None and status.ready > 0 and status.consumers == 0

    async def until_changed(self) -> None:
        """Return when something else is missing than now."""
        await self._changed.wait()

    async def until_not_ready_for(self, step: Step) -> None:
        """Return when something that the step needs is missing."""
        while self.is_ready_for(step):
            await self._changed.wait()

    async def look(self, *, max_age: float = 0.0) -> None:
        """Make all checks, at the same time, unless that was done at most `max_age` seconds ago."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._looking:  # several callers share one look, if it began after they asked
            if self._looked_at is not None and self._looked_at >= asked - max_age:
                return
            began = clock()
            found = await asyncio.gather(*(self._check(part, check) for part, check in self._checks.items()))
            self._take(tuple(cause for cause in found if cause is not None), began)

    async def watch(self) -> None:
        """Look again and again, for ever."""
        pause = SHORTEST_PAUSE
        while self._checks:
            await self.look()
            if self._missing:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                pause = SHORTEST_PAUSE
                with suppress(TimeoutError):  # a step that failed may have had a look meanwhile
                    async with asyncio.timeout(self._every):
                        await self.until_changed()
        await asyncio.Event().wait()

    async def _check(self, part: Part, check: Check) -> Cause | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check()
        except RehomeError as error:
            return Cause(part, masked(str(error)))
        except TimeoutError:
            return Cause(part, f"no answer within {CHECK_SECONDS:g} s")
        except Exception as error:
            log.exception("consumer.defect cause=%s", part)
            return Cause(part, masked(f"a defect in its check: {type(error).__name__}: {error}"))
        return None

    def _take(self, found: tuple[Cause, ...], began: float) -> None:
        """Remember what is missing now, log what has changed, and wake who waits for that."""
        before, self._missing = self._missing, {cause.part: cause for cause in found}
        first, self._looked_at = self._looked_at is None, began
        self._was_ready |= not found
        for part in list(self._since):
            if part not in self._missing:
                del self._since[part]
        for part, cause in self._missing.items():
            self._since.setdefault(part, began)
            if first or part not in before:
                log.log(self._level, "consumer.not_ready cause=%s error=%s", part, cause.message)
        if not first:
            for part in before.keys() - self._missing.keys():
                log.info("consumer.restored cause=%s", part)
        if before.keys() != self._missing.keys() or first:
            if self._checks and not self._missing:
                log.log(min(self._level, logging.INFO), "consumer.ready")
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
