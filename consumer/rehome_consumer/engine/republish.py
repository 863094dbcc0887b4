"""Copies of a delivery, published to a delay queue or the dead letters, each one confirmed.

The delivery is acknowledged afterwards: a crash in between makes a duplicate, never a loss.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.outcome import patience
from rehome_consumer.rabbitmq.topology import DEAD, retry_exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from rehome_consumer.engine.inbound import Inbound
    from rehome_consumer.engine.outcome import Defer, GiveUp, Retry
    from rehome_consumer.ports.engine import Broker, Message
    from rehome_consumer.ports.steps import Clock

log = logging.getLogger(__name__)


def deferral_delay(inbound: Inbound) -> timedelta:
    """How long a deferral of this delivery takes."""
    return saga.TIERS[patience(inbound.deferrals + 1)]


class Republisher:
    """Publishes copies. All methods raise RehomeError when the broker does not confirm."""

    def __init__(self, broker: Broker, clock: Clock, probe: Callable[[str], Awaitable[None]]) -> None:
        """Take the broker, the clock for dead letters, and what is called at each boundary."""
        self._broker = broker
        self._clock = clock
        self._probe = probe

    async def retry(self, inbound: Inbound, outcome: Retry) -> None:
        """Through the delay queue of a tier, after a try."""
        message = headers.retry_message(inbound.delivery, inbound.step.name, outcome.tries, outcome.why)
        await self._send(inbound, retry_exchange(outcome.tier), message, "retry_published")

    async def defer(self, inbound: Inbound, outcome: Defer) -> None:
        """Through a delay queue; not a try."""
        if outcome.early:
            counter, times, boundary = (
                headers.EARLY_RETURNS,
                inbound.early_returns + 1,
                "early_return_published",
            )
        else:
            counter, times, boundary = headers.DEFERRALS, inbound.deferrals + 1, "deferral_published"
        message = headers.deferral_message(inbound.delivery, inbound.step.name, counter, times, outcome.why)
        await self._send(inbound, retry_exchange(patience(times, soon=outcome.soon)), message, boundary)

    async def dead_letter(self, inbound: Inbound, outcome: GiveUp) -> None:
        """To the dead letters."""
        log.error(
            "delivery.dead step=%s reason=%s error=%s", inbound.step.name, outcome.reason, outcome.error
        )
        message = headers.dead_letter(
            inbound.delivery, inbound.step.name, outcome.reason, outcome.error, self._clock.now()
        )
        await self._send(inbound, DEAD, message, "dead_letter_published")

    async def _send(self, inbound: Inbound, exchange: str, message: Message, boundary: str) -> None:
        await self._broker.publish(exchange, inbound.step.name, message, mandatory=True)
        await self._probe(f"{inbound.step.name}.{boundary}")
