"""The end of a delivery: its outcome is carried out, then it is acknowledged; only here."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from rehome_consumer.engine import headers
from rehome_consumer.engine.outcome import EARLY_LIMIT, Ack, Defer, GiveUp, Retry, describe_error
from rehome_consumer.engine.republish import deferral_delay
from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from rehome_consumer.engine.inbound import Inbound
    from rehome_consumer.engine.outbox_relay import Relay
    from rehome_consumer.engine.outcome import Settled
    from rehome_consumer.engine.republish import Republisher
    from rehome_consumer.ports.engine import Journal, OutboxRow

log = logging.getLogger(__name__)


class Settler:
    """Carries outcomes out."""

    def __init__(
        self,
        *,
        journal: Journal,
        republisher: Republisher,
        relay: Relay,
        probe: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take the parts; `probe` is called at every boundary (for crash tests)."""
        self._journal = journal
        self._republisher = republisher
        self._relay = relay
        self._probe = probe

    async def settle(self, inbound: Inbound, outcome: Settled) -> None:
        """Carry an outcome out, then acknowledge. Nothing else in the engine acknowledges."""
        match outcome:
            case Ack():
                await self._conclude(inbound, outcome)
            case Retry():
                await self._republisher.retry(inbound, outcome)
            case Defer():
                await self._defer(inbound, outcome)
            case GiveUp():
                await self._give_up(inbound, outcome)
        await inbound.delivery.ack()
        await self._probe(f"{inbound.step.name}.acked")

    async def _conclude(self, inbound: Inbound, outcome: Ack) -> None:
        """Publish what was committed and may not be published yet."""
        if outcome.found is not None:
            log.info(
                "delivery.%s step=%s migration=%s why=%s",
                outcome.found, inbound.step.name, inbound.migration_id, outcome.why,
            )  # fmt: skip
        if outcome.migration_id is not None:
            await self._publish(outcome.migration_id, outcome.committed)
            await self._probe(f"{inbound.step.name}.sent")

    async def _defer(self, inbound: Inbound, outcome: Defer) -> None:
        """Defer it. An upgrade that waits for another migration is recorded, so that operators see it."""
        if outcome.behind and inbound.opens and inbound.event and inbound.migration_id is not None:
            waiting = self._journal.put_off(inbound.migration_id, inbound.event, deferral_delay(inbound))
            await _recorded(inbound, waiting)
        await self._republisher.defer(inbound, outcome)

    async def _give_up(self, inbound: Inbound, outcome: GiveUp) -> None:
        """Publish the dead letter; then `migration.failed`, if one was committed."""
        if outcome.reason == headers.GAVE_UP:
            await self._record_dead_letter(inbound, headers.GAVE_UP)
        await self._republisher.dead_letter(inbound, outcome)
        if outcome.failed is not None:
            await self._journal.dead_letter_sent(outcome.failed)
            await self._probe(f"{inbound.step.name}.dead_letter_recorded")
            await self._publish(outcome.failed.migration_id)

    @asynccontextmanager
    async def recorded_if_last(self, inbound: Inbound) -> AsyncIterator[None]:
        """Record the broker's last delivery as a dead letter while it is handled: it is one if this consumer dies."""
        if inbound.is_last:
            await self._record_dead_letter(inbound, headers.CRASHED)
        yield
        if inbound.is_last and inbound.migration_id is not None and inbound.early_returns < EARLY_LIMIT:
            with suppress(RehomeError):  # starting the step ends the record, too
                await self._journal.not_dead_lettered(
                    inbound.migration_id, inbound.attempt, inbound.step.name
                )

    async def _record_dead_letter(self, inbound: Inbound, reason: str) -> None:
        """Record it for the reconciler, which looks for stuck migrations and may not read the dead letters."""
        if inbound.migration_id is not None:
            record = self._journal.dead_lettered(
                inbound.migration_id, inbound.attempt, inbound.step.name, inbound.message_id, reason
            )
            await _recorded(inbound, record)

    async def _publish(self, migration_id: UUID, committed: tuple[OutboxRow, ...] = ()) -> None:
        """Publish what is committed. If the broker does not confirm it, the relay tries again: nothing is lost."""
        try:
            if committed:
                await self._relay.publish(committed)
            else:
                await self._relay.send(migration_id)
        except RehomeError as error:
            log.warning("publish.left_to_relay migration=%s error=%s", migration_id, error)
            self._relay.wake(migration_id)


async def _recorded(inbound: Inbound, recording: Awaitable[None]) -> None:
    """Record something for operators. The delivery goes on where that is not possible."""
    try:
        await recording
    except RehomeError as error:
        log.warning("delivery.not_recorded instance=%s error=%s", inbound.instance, describe_error(error))
