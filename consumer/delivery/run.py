"""One delivery, from the queue to the acknowledgement. Every step goes through here.

decode -> claim -> look into the journal -> run the step -> one transaction (result, state, outbox)
-> publish from the outbox -> acknowledge.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from consumer import saga
from consumer.context import current_migration
from consumer.delivery.guard import guarded
from consumer.delivery.letters import dead_letter, later_message, laters, retry_message
from consumer.delivery.relay import nothing
from consumer.delivery.standing import standing
from consumer.delivery.verdict import Fail, Later, Retry, patience, told, verdict
from consumer.errors import ClaimLost, Refused, RehomeError, TimedOut
from consumer.model import NothingToDo
from consumer.topology import DEAD, retry_exchange
from events.billing import PlanUpgraded
from events.envelope import CloudEvent, decode, event_id, new_event
from events.errors import Undecodable
from events.migration import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from consumer.delivery.relay import Relay
    from consumer.ports import Ports
    from consumer.ports_engine import (
        Broker,
        Claim,
        Claims,
        Delivery,
        Journal,
        MigrationRow,
        StepRow,
    )
    from consumer.saga import Step
    from events.envelope import EventData

log = logging.getLogger(__name__)

MIGRATIONS = UUID("b7f5a1c2-6d0e-5b8a-9f43-2c1d7e8a9b04")
"""Namespace of migration ids: UUIDv5 of the id of the `plan.upgraded` that opened it."""
MESSAGE_LENGTH = 1000
DEATHS = 4
"""Runs that may end without a word; one less than the redeliveries the broker grants."""
EARLY_LIMIT = 50
"""Returns of an event that comes too early before it is a dead letter."""


def migration_id_of(event: CloudEvent[Any]) -> UUID | None:
    """The migration that an event belongs to; of a `plan.upgraded`, the one that it opens."""
    if event.type == PlanUpgraded.TYPE:
        return uuid5(MIGRATIONS, str(event.replayof or event.id))
    return event.migrationid


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
        self._broker = broker
        self._relay = relay
        self._ports = ports
        self._longest = longest_retry
        self._probe = probe

    async def handle(self, step: Step, delivery: Delivery) -> None:
        """Deal with one delivery for good: when this returns it is acknowledged or given back.

        Raises:
            RehomeError: neither was possible (no broker, no journal); the delivery is unacknowledged
                and comes again.
        """
        try:
            event = _event_for(step, delivery)
        except Undecodable as error:
            await self._bury(step, delivery, "undecodable", str(error))
            return
        try:
            await self._claimed(step, delivery, event)
        except ClaimLost as error:
            log.warning("claim.lost step=%s instance=%s error=%s", step.name, event.subject, error)
            await self._later(step, delivery, str(error))
        except RehomeError as error:
            log.warning("delivery.put_off step=%s instance=%s error=%s", step.name, event.subject, error)
            await self._later(step, delivery, str(error))
        except Exception as error:
            log.exception("delivery.defect step=%s instance=%s", step.name, event.subject)
            await self._early(step, delivery, told(error))

    async def _claimed(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> None:
        async with self._claims.claim(event.data.instance_id) as claim:
            if claim is None:
                await self._later(step, delivery, "another delivery for this instance is being handled")
                return
            await self._probe(f"{step.name}.claimed")
            migration = await self._migration(step, delivery, event)
            if migration is None:
                await self._bury(step, delivery, "unknown_migration", "no such migration in the journal")
                return
            attempt = migration.attempt if event.attempt is None else event.attempt
            row = await self._journal.step(migration.id, attempt, step.name)
            prior = saga.before(step)
            previous = await self._journal.step(migration.id, attempt, prior.name) if prior else None
            where = standing(step, migration, attempt, row, previous, replayed=event.replayof is not None)
            if where.answer == "early":
                await self._early(step, delivery, where.why)
            elif where.answer != "go":
                await self._over(step, delivery, migration, row, where.answer, where.why)
            else:
                bound = event.model_copy(update={"migrationid": migration.id, "attempt": attempt})
                await self._try(step, delivery, bound, migration, claim)

    async def _migration(self, step: Step, delivery: Delivery, event: CloudEvent[Any]) -> MigrationRow | None:
        migration_id = migration_id_of(event)
        if migration_id is None:
            return None
        if step.on is PlanUpgraded:
            return await self._journal.open(
                migration_id, event.data.instance_id, event, delivery.message.body
            )
        found = await self._journal.migration(migration_id)
        return found if found and found.instance_id == event.data.instance_id else None

    async def _try(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], migration: MigrationRow, claim: Claim
    ) -> None:
        """One try: begin, run, and what follows from its end."""
        row = await self._journal.begin(
            migration.id, event.attempt or 1, step.name, afresh=self._is_afresh(event, delivery)
        )
        await self._probe(f"{step.name}.begun")
        log.info("step.started step=%s migration=%s try=%d", step.name, migration.id, row.tries + 1)
        try:
            _check_deaths(step, row, laters(delivery))
            result = await self._run(step, event, row, claim)
        except Exception as error:  # noqa: BLE001 - whatever a step dies of has a verdict
            await self._unsuccessful(step, delivery, event, row, error)
            return
        await self._probe(f"{step.name}.ran")
        await self._successful(step, event, row, result)
        await self._publish(migration.id)
        await delivery.ack()
        await self._probe(f"{step.name}.acked")

    async def _run(
        self, step: Step, event: CloudEvent[Any], row: StepRow, claim: Claim
    ) -> EventData | NothingToDo:
        """Run the step within its limit, and only while the claim is held."""
        ports = dataclasses.replace(
            guarded(self._ports, claim.check, lambda at: self._probe(f"{step.name}.{at}")),
            notes=self._journal.notes(row),
        )
        current_migration.set(row.migration_id)
        running = asyncio.ensure_future(step.run(event, ports))
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

    async def _successful(
        self, step: Step, event: CloudEvent[Any], row: StepRow, result: EventData | NothingToDo
    ) -> None:
        """Step result, state and outbox row: one transaction."""
        if isinstance(result, NothingToDo):
            told_event, state = None, "nothing_to_do"
            note: str | None = result.reason
        else:
            told_event, state = self._told(result, event, row), saga.STATES[result.TYPE]
            note = getattr(result, "message", None)
        await self._journal.finish(
            row, state=state, event=told_event, note=note, past_return=step.past_return
        )
        await self._probe(f"{step.name}.committed")
        log.info(
            "step.finished step=%s migration=%s state=%s%s",
            step.name,
            row.migration_id,
            state,
            f" note={note!r}" if note else "",
        )

    async def _unsuccessful(
        self, step: Step, delivery: Delivery, event: CloudEvent[Any], row: StepRow, error: BaseException
    ) -> None:
        tries = row.tries + 1
        match verdict(error, tries, step.retries, longest=self._longest):
            case Later(why):
                log.warning("step.interrupted step=%s migration=%s why=%s", step.name, row.migration_id, why)
                await self._later(step, delivery, why)
            case Retry(tier, why):
                log.warning(
                    "step.retry step=%s migration=%s try=%d in=%s error=%s",
                    step.name, row.migration_id, tries, tier, why,
                )  # fmt: skip
                await self._journal.wait(row, why, saga.TIERS[tier])
                message = retry_message(delivery, step.name, tries, why)
                await self._broker.publish(retry_exchange(tier), step.name, message, mandatory=True)
                await self._probe(f"{step.name}.retry_published")
                await delivery.ack()
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
        if answer == "failed" and row is not None and not row.dead:
            await self._bury(step, delivery, "failed", why, row)
            return
        await self._publish(migration.id)
        await delivery.ack()

    async def _early(self, step: Step, delivery: Delivery, why: str) -> None:
        if laters(delivery) >= EARLY_LIMIT:
            await self._bury(step, delivery, "gave_up_waiting", why)
        else:
            await self._later(step, delivery, why)

    async def _later(self, step: Step, delivery: Delivery, why: str) -> None:
        """Send it through a delay queue; not a try."""
        times = laters(delivery) + 1
        message = later_message(delivery, step.name, times, why)
        await self._broker.publish(retry_exchange(patience(times)), step.name, message, mandatory=True)
        await delivery.ack()

    async def _bury(
        self, step: Step, delivery: Delivery, reason: str, error: str, row: StepRow | None = None
    ) -> None:
        """To the dead letters, confirmed; then `migration.failed` if one was committed; then acknowledge."""
        if row is None:
            log.error("delivery.dead step=%s reason=%s error=%s", step.name, reason, error)
        letter = dead_letter(delivery, step.name, reason, error, self._ports.clock.now())
        await self._broker.publish(DEAD, step.name, letter, mandatory=True)
        await self._probe(f"{step.name}.dead_letter_published")
        if row is not None:
            await self._journal.buried(row)
            await self._publish(row.migration_id)
        await delivery.ack()

    async def _publish(self, migration_id: UUID) -> None:
        """Send what is committed. If the broker does not take it now, the relay will: it is not lost."""
        try:
            await self._relay.send(migration_id)
        except RehomeError as error:
            log.warning("publish.left_to_relay migration=%s error=%s", migration_id, error)
            self._relay.wake()

    def _told(self, data: EventData, event: CloudEvent[Any], row: StepRow) -> CloudEvent[Any]:
        return new_event(
            data,
            subject=event.subject,
            id=event_id(row.migration_id, row.attempt, data.TYPE),
            time=self._ports.clock.now(),
            migrationid=row.migration_id,
            attempt=row.attempt,
            causationid=event.id,
            traceparent=event.traceparent,
        )

    @staticmethod
    def _is_afresh(event: CloudEvent[Any], delivery: Delivery) -> bool:
        """A replay starts counting anew, but not each of its own retries."""
        return event.replayof is not None and "mig-attempt" not in delivery.message.headers


def _check_deaths(step: Step, row: StepRow, returns: int) -> None:
    """Stop a step that takes the consumer down with it before the broker does so without a word.

    Raises:
        Refused: too many of its runs ended in neither a result nor an error.
    """
    if row.runs - row.tries - returns > DEATHS:
        raise Refused(
            f"the consumer died in step {step.name} time and again ({row.runs} runs, {row.tries} of them with "
            "an error): look at its log and at the memory it has"
        )


def _event_for(step: Step, delivery: Delivery) -> CloudEvent[Any]:
    """Decode, and refuse what is not for this step.

    Raises:
        Undecodable: naming what is wrong.
    """
    message = delivery.message
    event = decode(message.body, message.content_type, message.headers)
    if event.type != step.on.TYPE:
        raise Undecodable(f"handler {step.name} takes {step.on.TYPE}, not {event.type}")
    if step.on is not PlanUpgraded and (event.migrationid is None or event.attempt is None):
        raise Undecodable(f"{event.type}: migrationid and attempt are missing")
    return event
