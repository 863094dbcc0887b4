"""What follows where the consumer itself is not ready: the delivery waits, and nothing is counted against its customer.

A step is not started on a consumer that lacks what it needs. When one fails, whatever its error says, the consumer
looks at itself first: if it lacks something that the step needs, it is to blame, and the delivery comes back, mostly on
another consumer. Only a customer who is down is not left waiting for ever: see `Verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.engine.outcome import Defer, GiveUp, Retry, describe_error
from rehome_consumer.errors import NotReady
from rehome_consumer.ports.readiness import EVERYTHING

if TYPE_CHECKING:
    from rehome_consumer.engine.outcome import Settled
    from rehome_consumer.ports.readiness import Cause, Readiness
    from rehome_consumer.saga import Step

RECENT: Final = 5.0
"""Seconds that a look may be old before a step that precedes the downtime; many upgrades in one burst share it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a step is not run now.

    Attributes:
        why: the causes, in one line.
        roll_back: it has been so for too long while the instance is down, no other consumer has taken the delivery, and
            this one can roll back: the step fails.
    """

    why: str
    roll_back: bool = False


class WhetherReady:
    """Asks the consumer's readiness for the engine."""

    def __init__(self, readiness: Readiness) -> None:
        """Take what knows."""
        self._readiness = readiness

    async def before(self, step: Step, *, again: bool) -> Verdict | None:
        """Why the step must not be started; None when it may.

        Args:
            step: the step.
            again: it was started before in this attempt.
        """
        # Nothing is stopped that could not go on: before the downtime the look must be new.
        causes = await self._readiness.causes(
            step.needs, max_age=RECENT if step.needs == EVERYTHING else None
        )
        if not causes:
            return None
        is_down = step.while_down and (again or step.needs != EVERYTHING)
        overdue = is_down and self._readiness.is_overdue(step.needs)
        can_roll_back = overdue and not await self._readiness.causes(saga.ROLL_BACK.needs)
        return Verdict(_described(causes), roll_back=can_roll_back)

    async def after(self, step: Step, outcome: Retry | Defer | GiveUp) -> Settled:
        """The outcome of a failed run, unless the consumer itself is to blame: then it is no try."""
        if isinstance(outcome, Defer):
            return outcome
        causes = await self._readiness.causes(step.needs, max_age=0)
        if not causes:
            return outcome
        error = outcome.why if isinstance(outcome, Retry) else outcome.error
        return Defer(f"{_described(causes)} (the step ended with: {error})")


def _described(causes: tuple[Cause, ...]) -> str:
    text = "; ".join(map(str, causes))
    return describe_error(NotReady(f"this consumer is not ready: {text}"))
