"""One run of a step: within its limit, and only while the claim is held."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.context import claim_check, current_migration
from rehome_consumer.errors import ClaimLost, Refused, TimedOut
from rehome_consumer.move import Move

if TYPE_CHECKING:
    from rehome_consumer.model import NothingToDo
    from rehome_consumer.ports.engine import Claim, StepRow
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.saga import Step
    from rehome_events.envelope import CloudEvent, EventData

DEATHS: Final = 4
"""Runs that may end without result or error; one less than the redeliveries that the broker grants."""


async def run_step(
    step: Step, event: CloudEvent[Any], ports: Ports, row: StepRow, claim: Claim
) -> EventData | NothingToDo:
    """Run it in a task of its own, racing the claim; when this returns or raises, that task has ended.

    Raises:
        Refused: too many of its runs ended in neither a result nor an error; the broker would soon stop
            redelivering it.
        TimedOut: it did not end within the step's limit.
        ClaimLost: the claim was lost first.
    """
    if row.deaths >= DEATHS:
        raise Refused(
            f"the consumer died in step {step.name} again and again ({row.deaths} of {row.runs} runs ended without "
            "result or error): look at its log and at the memory it has"
        )
    move = Move(event, ports)
    outside = current_migration.set(row.migration_id)
    unclaimed = claim_check.set(claim.check)
    running = asyncio.ensure_future(step.run(move))
    claim_check.reset(unclaimed)
    current_migration.reset(outside)
    losing = asyncio.ensure_future(claim.lost())
    try:
        async with asyncio.timeout(step.limit.total_seconds()):
            await asyncio.wait((running, losing), return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise TimedOut(f"step {step.name} did not end within {step.limit}") from None
    finally:
        losing.cancel()
        if not running.done():
            running.cancel()
        await asyncio.gather(losing, running, return_exceptions=True)
    if running.cancelled():
        raise ClaimLost(f"the claim on instance {event.subject} was lost during step {step.name}")
    return running.result()
