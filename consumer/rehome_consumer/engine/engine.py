"""One delivery, from the queue to the acknowledgement. Every step goes through here.

decode -> claim -> look into the journal -> run the step -> one transaction (result, state, outbox)
-> publish from the outbox -> acknowledge.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.engine import headers
from rehome_consumer.engine.exclusive_runs import ASKED, RunGate, is_suspect
from rehome_consumer.engine.guard import guarded
from rehome_consumer.engine.inbound import event_for, migration_id_of, replay_of
from rehome_consumer.engine.outbox_relay import nothing
from rehome_consumer.engine.outcome import Defer, Fail, Retry, told, verdict
from rehome_consumer.engine.republish import Republisher, later_in
from rehome_consumer.engine.running import run_step
from rehome_consumer.engine.standing import standing
from rehome_consumer.engine.unknown_version import newer
from rehome_consumer.errors import RehomeError
from rehome_consumer.model import NothingToDo
from rehome_consumer.ports.engine import AnotherOpen, OutboxEvent, encode_for_outbox
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import CloudEvent, event_id, new_event
from rehome_events.errors import Undecodable, UnknownVersion
from rehome_events.migration import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from rehome_consumer.engine.outbox_relay import Relay
    from rehome_consumer.ports.engine import Broker, Claim, Claims, Delivery, Journal, MigrationRow, StepRow
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.saga import Step
    from rehome_events.envelope import EventData

log = logging.getLogger(__name__)

MESSAGE_LENGTH: Final = 1000
SHUT_DOWN: Final = "the consumer was shut down in mid step; another one goes on"
HAND_OVER: Final = 5.0
"""Seconds for sending a delivery on when the consumer is shut down in the middle of a step."""


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
        probe: Callable[[str], Awaitable[None]] = nothing,
    ) -> None:
        """Take the parts.

        Args:
            journal: migrations, steps, outbox.
            claims: one per instance.
            broker: where retries and dead letters go.
            relay: sends what a commit left in the outbox.
            ports: the steps' world; `notes` is bound anew for every run.
            longest_retry: a tier that replaces longer ones.
            probe: called at every boundary (for crash tests).
        """
        self._journal = journal
        self._claims = claims
        self._post = Republisher(broker, ports.clock, probe)
        self._relay = relay
        self._ports = ports
        self._longest = longest_retry
        self._probe = probe
        self._run_gate = RunGate()

    async def handle(self, step: Step, delivery: Delivery) -> None:
        """Deal with one delivery for good: when this returns it is acknowledged.

        Raises:
            RehomeError: neither the journal nor the broker could take what follows from it; it is
                unacknowledged.
        """
        try:
            event = event_for(step, delivery)
        except UnknownVersion as error:
            await newer(step, delivery, self._journal, self._post, str(error))
            return
        except Undecodable as error:
            await self._bury(step, delivery, "undecodable", str(error))
            return
        async with self._if_last(step, delivery, event):
            await self._put_through(step, delivery, event)

    async def _put_through(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> None:
        try:
            await self._claimed(step, delivery, event)
        except AnotherOpen as error:
            await self._behind(step, delivery, event, told(error))
        except RehomeError as error:
            log.warning(
                "delivery.put_off step=%s instance=%s error=%s", step.name, event.subject, told(error)
            )
            await self._post.later(step, delivery, told(error))
        except Exception as error:
            log.exception("delivery.defect step=%s instance=%s", step.name, event.subject)
            await self._early(step, delivery, event, told(error))

    async def _claimed(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> None:
        async with self._claims.claim(event.data.instance_id) as claim:
            if claim is None:
                await self._behind(
                    step, delivery, event, "another delivery for this instance is being handled"
                )
                return
            await self._probe(f"{step.name}.claimed")
            migration = await self._migration(step, delivery, event)
            if migration is None:
                await self._bury(step, delivery, "unknown_migration", "no such migration of this instance")
                return
            attempt = migration.attempt if event.attempt is None else event.attempt
            row = await self._journal.step(migration.id, attempt, step.name)
            prior = saga.before(step)
            previous = await self._journal.step(migration.id, attempt, prior.name) if prior else None
            where = standing(step, migration, attempt, row, previous, replay=replay_of(event))
            if where.answer == "early":
                await self._early(step, delivery, event, where.why)
            elif where.answer != "go":
                await self._over(step, delivery, migration, row, where.answer, where.why)
            else:
                bound = event.model_copy(update={"migrationid": migration.id, "attempt": attempt})
                alone = is_suspect(row) and headers.count(delivery, headers.LATERS) < ASKED
                async with self._run_gate.alone() if alone else self._run_gate.beside() as now:
                    if now:
                        await self._try(step, delivery, bound, migration, claim)
                    else:
                        await self._post.later(step, delivery, "consumers died of it: it waits to run alone")

    @asynccontextmanager
    async def _if_last(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> AsyncIterator[None]:
        """Note the broker's last delivery while it is in hand: if we die of it, nobody could any more."""
        last, migration_id = headers.is_last(delivery), migration_id_of(event)
        if last:
            await self._dead_lettered(step, delivery, event, headers.CRASHED)
        yield
        if last and migration_id is not None and not self._post.gives_up(delivery):
            with suppress(RehomeError):  # beginning the step ends the note, too
                await self._journal.not_dead_lettered(migration_id, event.attempt, step.name)

    async def _early(self, step: Step, delivery: Delivery, event: CloudEvent[Any], why: str) -> None:
        """It comes back later, or is a dead letter by now, which is noted."""
        if self._post.gives_up(delivery):
            await self._dead_lettered(step, delivery, event, headers.GAVE_UP)
        await self._post.early(step, delivery, why)

    async def _dead_lettered(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], reason: str
    ) -> None:
        """For whoever looks for stuck migrations, and may not look into the dead letters."""
        migration_id, dead_letter = migration_id_of(event), delivery.message.message_id or str(event.id)
        if migration_id is not None:
            await _noted(
                event,
                self._journal.dead_lettered(migration_id, event.attempt, step.name, dead_letter, reason),
            )

    async def _behind(self, step: Step, delivery: Delivery, event: CloudEvent[Any], why: str) -> None:
        """It comes back later. An upgrade that waits for another migration is noted, for operators to see."""
        migration_id = migration_id_of(event)
        if step.on is PlanUpgraded and migration_id is not None:
            await _noted(event, self._journal.put_off(migration_id, event, later_in(delivery)))
        await self._post.later(step, delivery, why)

    async def _migration(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> MigrationRow | None:
        """The journal's row; None when there is none, or it is another instance's."""
        migration_id = migration_id_of(event)
        if migration_id is None:
            return None
        if step.on is PlanUpgraded:
            found: MigrationRow | None = await self._journal.open(
                migration_id, event.data.instance_id, event, delivery.message.body
            )
        else:
            found = await self._journal.migration(migration_id)
        return found if found and found.instance_id == event.data.instance_id else None

    async def _try(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], migration: MigrationRow, claim: Claim
    ) -> None:
        """One try: begin, run, and what follows from its end."""
        await claim.check()
        row = await self._journal.begin(migration, step.name, replay=replay_of(event))
        await self._probe(f"{step.name}.started")
        log.info("step.started step=%s migration=%s try=%d", step.name, migration.id, row.tries + 1)
        try:
            ports = dataclasses.replace(self._guarded(step, claim), facts=self._journal.facts(row))
            result = await run_step(step, event, ports, row, claim)
            # Still in the try: a result that makes no valid event is a failure of the step.
            emits = None if isinstance(result, NothingToDo) else self._told(result, event, row)
        except asyncio.CancelledError:
            await self._hand_over(step, delivery, row)
            raise
        except Exception as error:  # noqa: BLE001 - whatever a step dies of has a verdict
            await self._unsuccessful(step, delivery, event, row, error)
            return
        await self._probe(f"{step.name}.ran")
        await self._successful(step, row, result, emits)
        await self._publish(migration.id)
        await self._probe(f"{step.name}.sent")
        await delivery.ack()
        await self._probe(f"{step.name}.acked")

    def _guarded(self, step: Step, claim: Claim) -> Ports:
        return guarded(self._ports, claim.check, lambda at: self._probe(f"{step.name}.{at}"))

    async def _successful(
        self, step: Step, row: StepRow, result: EventData | NothingToDo, emits: OutboxEvent | None
    ) -> None:
        """Step result, state and outbox row: one transaction."""
        reason: str | None
        if isinstance(result, NothingToDo):
            state, reason = "nothing_to_do", result.reason
        else:
            state, reason = saga.STATES[result.TYPE], getattr(result, "message", None)
        await self._journal.finish(row, state=state, event=emits, reason=reason, past_pivot=step.pivot)
        await self._probe(f"{step.name}.committed")
        log.info(
            "step.finished step=%s migration=%s state=%s%s",
            step.name,
            row.migration_id,
            state,
            f" reason={reason!r}" if reason else "",
        )

    async def _unsuccessful(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], row: StepRow, error: Exception
    ) -> None:
        tries = row.tries + 1
        match verdict(error, tries, step.retries, longest=self._longest):
            case Defer(why):
                log.warning("step.interrupted step=%s migration=%s why=%s", step.name, row.migration_id, why)
                await self._journal.interrupted(row, why, later_in(delivery))
                await self._post.later(step, delivery, why)
            case Retry(tier, why):
                log.warning(
                    "step.retry step=%s migration=%s try=%d in=%s error=%s",
                    step.name, row.migration_id, tries, tier, why,
                )  # fmt: skip
                await self._journal.wait(row, why, saga.TIERS[tier])
                await self._probe(f"{step.name}.wait_committed")
                await self._post.retry(step, delivery, tier, tries, why)
            case Fail(why, kind):
                log.error(
                    "step.failed step=%s migration=%s try=%d error=%s", step.name, row.migration_id, tries, why,
                    exc_info=None if isinstance(error, RehomeError) else error,
                )  # fmt: skip
                await self._failed(step, delivery, event, row, why, kind)

    async def _failed(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], row: StepRow, why: str, kind: str
    ) -> None:
        """The verdict is committed first, so that no crash can lose it; then the dead letter, then the event."""
        following = step.if_it_fails
        state = "failing" if following == "roll_back" else "failed"
        failure = MigrationFailed(
            instance_id=event.data.instance_id,
            step=step.name,
            error=kind,
            message=why[:MESSAGE_LENGTH],
            attempts=row.tries + 1,
            next=following,
        )
        # A rollback that fails has been announced as a failure before: same migration, attempt and type.
        announced = None if step is saga.ROLL_BACK else self._told(failure, event, row)
        await self._journal.fail(row, state=state, error=why, event=announced)
        await self._probe(f"{step.name}.verdict_committed")
        await self._bury(step, delivery, "failed", why, row)

    async def _over(
        self,
        step: Step,
        delivery: Delivery,
        migration: MigrationRow,
        row: StepRow | None,
        answer: str,
        why: str,
    ) -> None:
        """Nothing to run: make sure that what was promised is out, then acknowledge."""
        log.info("delivery.%s step=%s migration=%s why=%s", answer, step.name, migration.id, why)
        if answer == "failed" and row is not None and not row.dead_lettered:
            await self._bury(step, delivery, "failed", why, row)
            return
        await self._publish(migration.id)
        await delivery.ack()

    async def _bury(
        self, step: Step, delivery: Delivery, reason: str, error: str, row: StepRow | None = None
    ) -> None:
        """To the dead letters, confirmed; then `migration.failed` if one was committed; then acknowledge."""
        await self._post.bury(step, delivery, reason, error)
        if row is not None:
            await self._journal.dead_letter_sent(row)
            await self._probe(f"{step.name}.buried")
            await self._publish(row.migration_id)
        await delivery.ack()

    async def _hand_over(self, step: Step, delivery: Delivery, row: StepRow) -> None:
        """Shut down in mid step: send the delivery on, so that the broker does not count it as poison."""
        try:
            async with asyncio.timeout(HAND_OVER):
                await self._journal.interrupted(row, SHUT_DOWN, later_in(delivery))
                await self._post.later(step, delivery, SHUT_DOWN)
        except (RehomeError, TimeoutError) as error:
            log.warning("step.cut_off step=%s migration=%s error=%s", step.name, row.migration_id, error)

    async def _publish(self, migration_id: UUID) -> None:
        """Send what is committed. If the broker does not take it now, the relay will: it is not lost."""
        try:
            await self._relay.send(migration_id)
        except RehomeError as error:
            log.warning("publish.left_to_relay migration=%s error=%s", migration_id, error)
            self._relay.wake()

    def _told(self, data: EventData, event: CloudEvent[Any], row: StepRow) -> OutboxEvent:
        """The event that tells `data`, encoded as it will be sent."""
        emits = new_event(
            data,
            subject=event.subject,
            id=event_id(row.migration_id, row.attempt, data.TYPE),
            time=self._ports.clock.now(),
            migrationid=row.migration_id,
            attempt=row.attempt,
            causationid=event.id,
            traceparent=event.traceparent,
        )
        return encode_for_outbox(emits)


async def _noted(event: CloudEvent[Any], noting: Awaitable[None]) -> None:
    """Note something that only operators miss where it cannot be noted: the event goes its way all the same."""
    try:
        await noting
    except RehomeError as error:
        log.warning("delivery.not_noted instance=%s error=%s", event.subject, told(error))
