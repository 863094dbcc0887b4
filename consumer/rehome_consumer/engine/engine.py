"""One delivery, from the queue to the acknowledgement. Every step goes through here.

read -> claim, and see what the journal has -> decide -> run the step -> one transaction (result, state, outbox)
-> publish from the outbox -> acknowledge.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.engine.decide import Rows, decide, decide_unread
from rehome_consumer.engine.inbound import read
from rehome_consumer.engine.outbox_relay import nothing
from rehome_consumer.engine.outcome import Defer, Run, after_trouble, describe_error
from rehome_consumer.engine.republish import Republisher
from rehome_consumer.engine.settle import Settler
from rehome_consumer.engine.tries import Tries
from rehome_consumer.engine.whether_ready import WhetherReady
from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.ports.engine import AnotherOpen, Found, Lookup
from rehome_consumer.ports.readiness import AlwaysReady
from rehome_consumer.ports.tracing import NoTracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rehome_consumer.engine.inbound import Inbound
    from rehome_consumer.engine.outbox_relay import Relay
    from rehome_consumer.ports.engine import Broker, Claim, Claims, Delivery, Journal
    from rehome_consumer.ports.readiness import Readiness
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.ports.tracing import Tracing
    from rehome_consumer.saga import Step
    from rehome_events.envelope import CloudEvent

log = logging.getLogger(__name__)

BUSY: Final = Defer("another delivery for this instance is being handled", behind=True)


class Engine:
    """Handles deliveries. Holds no state of its own: everything is in the journal and on the broker."""

    def __init__(
        self,
        *,
        journal: Journal,
        claims: Claims,
        broker: Broker,
        relay: Relay,
        ports: Ports,
        longest_retry: str | None = None,
        readiness: Readiness | None = None,
        tracing: Tracing | None = None,
        probe: Callable[[str], Awaitable[None]] = nothing,
    ) -> None:
        """Take the parts.

        Args:
            journal: migrations, steps, outbox.
            claims: one per instance.
            broker: where retries and dead letters go.
            relay: sends what a commit left in the outbox.
            ports: the ports of steps; `facts` is bound for every run.
            longest_retry: a tier that replaces longer ones.
            readiness: whether this consumer has what its steps need; None: it has.
            tracing: where tries of steps and calls of ports are reported; None: nowhere.
            probe: called at every boundary (for crash tests).
        """
        self._journal = journal
        self._claims = claims
        self._settler = Settler(
            journal=journal, republisher=Republisher(broker, ports.clock, probe), relay=relay, probe=probe
        )
        self._tries = Tries(
            journal=journal,
            settler=self._settler,
            relay=relay,
            ports=ports,
            longest_retry=longest_retry,
            asking=WhetherReady(readiness or AlwaysReady()),
            tracing=tracing or NoTracing(),
            probe=probe,
        )
        self._probe = probe

    async def handle(self, step: Step, delivery: Delivery) -> None:
        """Deal with one delivery for good: when this returns it is acknowledged.

        Raises:
            RehomeError: neither the journal nor the broker could take what follows from it; it is
                unacknowledged.
        """
        inbound = read(step, delivery)
        if inbound.event is None:
            await self._handle_unread(inbound)
        else:
            await self._handle_event(inbound, inbound.event)

    async def _handle_unread(self, inbound: Inbound) -> None:
        row = None
        if inbound.migration_id is not None and inbound.attempt is not None:
            row = await self._journal.step(inbound.migration_id, inbound.attempt, inbound.step.name)
        await self._settler.settle(inbound, decide_unread(inbound, row))

    async def _handle_event(self, inbound: Inbound, event: CloudEvent[Any]) -> None:
        async with self._settler.recorded_if_last(inbound):
            try:
                await self._claim(inbound, event)
            except Exception as error:  # noqa: BLE001 - the delivery comes back after any error
                _log_trouble(inbound, error)
                await self._settler.settle(inbound, after_trouble(error, inbound.early_returns))

    async def _claim(self, inbound: Inbound, event: CloudEvent[Any]) -> None:
        before = saga.before(inbound.step)
        lookup = Lookup(
            inbound.migration_id, inbound.attempt, inbound.step.name, before.name if before else None
        )
        async with self._claims.claim(event.data.instance_id, lookup) as claim:
            if claim is None:
                await self._settler.settle(inbound, BUSY)
            else:
                await self._probe(f"{inbound.step.name}.claimed")
                await self._decide(inbound, event, claim)

    async def _decide(self, inbound: Inbound, event: CloudEvent[Any], claim: Claim) -> None:
        outcome = decide(inbound, event, await self._rows(inbound, event, claim.found or Found()))
        if isinstance(outcome, Run):
            await self._tries.run(inbound, outcome, claim)
        else:
            await self._settler.settle(inbound, outcome)

    async def _rows(self, inbound: Inbound, event: CloudEvent[Any], found: Found) -> Rows | None:
        """What the journal has for it; None when there is no such migration of its instance.

        Raises:
            ClaimLost: others have worked on it between the look under the claim and its opening, which has the row of
                now: with the steps of then it would be handled once more.
        """
        migration, known = found.migration, found.migration
        if inbound.opens and inbound.migration_id is not None:
            body = inbound.delivery.message.body
            migration = await self._journal.open(inbound.migration_id, event.data.instance_id, event, body)
        if migration is None or migration.instance_id != event.data.instance_id:
            return None
        if inbound.opens and not migration.only_opened_since(known):
            raise ClaimLost(f"another consumer worked on migration {migration.id} since the claim was taken")
        attempt = migration.attempt if inbound.attempt is None else inbound.attempt
        # An attempt that was opened just now has no steps; of an earlier one they were found.
        is_new = known is None or (inbound.attempt is None and known.attempt != attempt)
        return Rows(migration, attempt) if is_new else Rows(migration, attempt, found.step, found.previous)


def _log_trouble(inbound: Inbound, error: Exception) -> None:
    step, instance, defect = inbound.step.name, inbound.instance, not isinstance(error, RehomeError)
    if defect:
        log.error("delivery.defect step=%s instance=%s", step, instance, exc_info=error)
    elif not isinstance(error, AnotherOpen):  # which is no trouble: the upgrade waits
        why = describe_error(error)
        log.warning("delivery.deferred step=%s instance=%s error=%s", step, instance, why)
