"""Where a delivery goes that is not done: a delay queue or the dead letters, each awaited to its confirm.

Dying between the confirm and the acknowledgement gives a duplicate, never a loss.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.outcome import patience
from rehome_consumer.rabbitmq.topology import DEAD, retry_exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from rehome_consumer.ports.engine import Broker, Delivery
    from rehome_consumer.ports.steps import Clock
    from rehome_consumer.saga import Step

log = logging.getLogger(__name__)

EARLY_LIMIT: Final = 50
"""Returns of a delivery that comes too early, or meets a defect of ours, before it is a dead letter."""


def later_in(delivery: Delivery) -> timedelta:
    """How long `Post.later` puts this delivery off."""
    return saga.TIERS[patience(headers.count(delivery, headers.DEFERRALS) + 1)]


class Republisher:
    """Sends deliveries on. All raise RehomeError when the broker does not take the copy."""

    def __init__(self, broker: Broker, clock: Clock, probe: Callable[[str], Awaitable[None]]) -> None:
        """Take the broker, the time for dead letters, and what is called at each boundary."""
        self._broker = broker
        self._clock = clock
        self._probe = probe

    async def retry(self, step: Step, delivery: Delivery, tier: str, tries: int, why: str) -> None:
        """Through a delay queue, after try number `tries`."""
        message = headers.retry_message(delivery, step.name, tries, why)
        await self._broker.publish(retry_exchange(tier), step.name, message, mandatory=True)
        await self._probe(f"{step.name}.retry_published")
        await delivery.ack()

    async def later(self, step: Step, delivery: Delivery, why: str) -> None:
        """Through a delay queue; not a try."""
        times = headers.count(delivery, headers.DEFERRALS) + 1
        message = headers.deferral_message(delivery, step.name, headers.DEFERRALS, times, why)
        await self._broker.publish(retry_exchange(patience(times)), step.name, message, mandatory=True)
        await self._probe(f"{step.name}.deferral_published")
        await delivery.ack()

    def gives_up(self, delivery: Delivery) -> bool:
        """Whether `early` makes a dead letter of this delivery, its patience being over."""
        return headers.count(delivery, headers.EARLY_RETURNS) >= EARLY_LIMIT

    async def early(self, step: Step, delivery: Delivery, why: str) -> None:
        """As `later`, but only so many times."""
        times = headers.count(delivery, headers.EARLY_RETURNS) + 1
        if self.gives_up(delivery):
            await self.bury(step, delivery, headers.GAVE_UP, why)
            await delivery.ack()
            return
        message = headers.deferral_message(delivery, step.name, headers.EARLY_RETURNS, times, why)
        await self._broker.publish(retry_exchange(patience(times)), step.name, message, mandatory=True)
        await self._probe(f"{step.name}.early_return_published")
        await delivery.ack()

    async def bury(self, step: Step, delivery: Delivery, reason: str, error: str) -> None:
        """To the dead letters. The caller acknowledges."""
        log.error("delivery.dead step=%s reason=%s error=%s", step.name, reason, error)
        dead_letter = headers.dead_letter(delivery, step.name, reason, error, self._clock.now())
        await self._broker.publish(DEAD, step.name, dead_letter, mandatory=True)
        await self._probe(f"{step.name}.dead_letter_published")
