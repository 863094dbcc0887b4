"""One try of a step: started in the journal, run, and its result or error committed before anything is published."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.context import log_fields
from rehome_consumer.engine.exclusive_runs import RunGate
from rehome_consumer.engine.guard import guarded
from rehome_consumer.engine.headers import FAILED
from rehome_consumer.engine.outcome import Ack, Defer, GiveUp, Retry, after_run, gravest
from rehome_consumer.engine.republish import deferral_delay
from rehome_consumer.engine.running import run_step
from rehome_consumer.errors import NotReady, RehomeError
from rehome_consumer.model import NothingToDo
from rehome_consumer.ports.engine import encode_for_outbox
from rehome_events.envelope import event_id, new_event
from rehome_events.migration import MigrationFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from rehome_consumer.engine.inbound import Inbound
    from rehome_consumer.engine.outbox_relay import Relay
    from rehome_consumer.engine.outcome import Run, Settled
    from rehome_consumer.engine.settle import Settler
    from rehome_consumer.engine.whether_ready import Verdict, WhetherReady
    from rehome_consumer.ports.engine import Claim, Journal, OutboxEvent, OutboxRow, StepRow
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.ports.tracing import Span, Tracing
    from rehome_events.envelope import CloudEvent, EventData

log = logging.getLogger(__name__)

MESSAGE_LENGTH: Final = 1000
NOT_ALONE: Final = Defer("consumers died while they ran it: it waits to run alone")
SHUT_DOWN: Final = Defer("the consumer was shut down in mid step; another one goes on")
HAND_OVER: Final = 5.0
"""Seconds for deferring a delivery when the consumer is shut down during its step."""


@dataclass(frozen=True, slots=True)
class Try:
    """A run that the journal has as running; `event` has its migration and attempt."""

    inbound: Inbound
    event: CloudEvent[Any]
    row: StepRow
    span: Span


class Tries:
    """Runs steps, and settles their deliveries."""

    def __init__(
        self,
        *,
        journal: Journal,
        settler: Settler,
        relay: Relay,
        ports: Ports,
        longest_retry: str | None,
        asking: WhetherReady,
        tracing: Tracing,
        probe: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take the parts; see `Engine`. `asking` knows whether this consumer is ready."""
        self._journal = journal
        self._settler = settler
        self._relay = relay
        self._ports = ports
        self._longest = longest_retry
        self._asking = asking
        self._tracing = tracing
        self._probe = probe
        self.gate = RunGate()

    async def run(self, inbound: Inbound, run: Run, claim: Claim) -> None:
        """Run the step once it may, and settle the delivery."""
        entering = self.gate.alone() if run.alone else self.gate.beside()
        async with entering as may_run:
            outcome = await self._try(inbound, run, claim) if may_run else NOT_ALONE
            await self._settler.settle(inbound, outcome)

    async def _try(self, inbound: Inbound, run: Run, claim: Claim) -> Settled:
        """Start it, run it, commit its result or error; returns what follows."""
        step = inbound.step
        unready = await self._asking.before(step, again=run.again)
        if unready is not None and not unready.roll_back:
            log.warning("step.not_ready step=%s instance=%s why=%s", step.name, inbound.instance, unready.why)
            return Defer(unready.why)
        row = await self._begin(inbound, run)
        with self._traced(run, row) as span:
            return await self._carry_out(Try(inbound, run.event, row, span), unready, claim)

    @contextmanager
    def _traced(self, run: Run, row: StepRow) -> Iterator[Span]:
        """A span of this try; what is logged meanwhile says whose it is."""
        ids: dict[str, str | int] = {
            "migration": str(row.migration_id),
            "instance": str(run.event.data.instance_id),
            "step": row.step,
            "attempt": row.attempt,
            "try": row.tries + 1,
        }
        attributes = {
            **{f"rehome.{name}": value for name, value in ids.items()},
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.message.id": str(run.event.id),
        }
        with self._tracing.step(
            f"step {row.step}", parent=run.event.traceparent, trace=row.migration_id, attributes=attributes
        ) as span:
            if span.traceparent is not None:
                _, trace, parent, _ = span.traceparent.split("-")
                ids |= {"trace_id": trace, "span_id": parent}
            outside = log_fields.set(ids)
            try:
                yield span
            finally:
                log_fields.reset(outside)

    async def _carry_out(self, this: Try, unready: Verdict | None, claim: Claim) -> Settled:
        """Run it, and commit its result or error; returns what follows."""
        row, step = this.row, this.inbound.step
        await self._reach(this, "started")
        log.info("step.started step=%s migration=%s try=%d", row.step, row.migration_id, row.tries + 1)
        outcome: Settled = Ack(row.migration_id)
        try:
            if unready is not None:
                raise NotReady(unready.why)  # noqa: TRY301 - it fails as a run of it would
            result = await run_step(step, this.event, self._ports_of(this, claim), row, claim)
            # Still in the try: a result that makes no valid event is a failure of the step.
            emits = None if isinstance(result, NothingToDo) else self._outbox_event(this, result)
        except asyncio.CancelledError:
            await self._hand_over(this)
            raise
        except Exception as error:  # noqa: BLE001 - every error of a step has an outcome
            if unready is not None:
                outcome = GiveUp(FAILED, unready.why, row)
            else:
                found = after_run(error, row, step.retries, longest=self._longest)
                outcome = await self._asking.after(step, found)
            await self._commit_error(this, error, outcome)
        else:
            await self._reach(this, "ran")
            committed = await self._commit_result(this, result, emits)
            outcome = Ack(row.migration_id, committed=committed)
        return outcome

    async def _begin(self, inbound: Inbound, run: Run) -> StepRow:
        """Start the run in the journal; confirms of earlier events are recorded in the same transaction."""
        confirmed = self._relay.take_confirmed()
        try:
            return await self._journal.begin(
                run.migration, inbound.step.name, replay=inbound.replay, sent=confirmed
            )
        except BaseException:
            self._relay.give_back(confirmed)
            raise

    def _ports_of(self, this: Try, claim: Claim) -> Ports:
        """The ports of one run, with its claim and its facts."""
        ports = guarded(self._ports, claim.check, lambda at: self._reach(this, at), self._tracing)
        return dataclasses.replace(ports, facts=self._journal.facts(this.row))

    async def _commit_result(
        self, this: Try, result: EventData | NothingToDo, emits: OutboxEvent | None
    ) -> tuple[OutboxRow, ...]:
        """Commit the step's result, the migration's state and the outbox rows, which it returns, in one transaction."""
        row, past_pivot = this.row, this.inbound.step.pivot
        reason: str | None
        if isinstance(result, NothingToDo):
            state, reason = "nothing_to_do", result.reason
        else:
            state, reason = saga.STATES[result.TYPE], getattr(result, "message", None)
        committed = await self._journal.finish(
            row, state=state, event=emits, reason=reason, past_pivot=past_pivot
        )
        this.span.mark(outcome=state)
        await self._reach(this, "committed")
        because = f" reason={reason!r}" if reason else ""
        log.info("step.finished step=%s migration=%s state=%s%s", row.step, row.migration_id, state, because)
        return committed

    async def _commit_error(self, this: Try, error: Exception, outcome: Settled) -> None:
        """Commit what follows from an error, so that no crash can lose it."""
        row = this.row
        this.span.mark(outcome=type(outcome).__name__.lower())
        match outcome:
            case Defer(why):
                log.warning("step.interrupted step=%s migration=%s why=%s", row.step, row.migration_id, why)
                await self._journal.interrupted(row, why, deferral_delay(this.inbound))
            case Retry(tier, tries, why):
                this.span.failed(why)
                log.warning(
                    "step.retry step=%s migration=%s try=%d in=%s error=%s",
                    row.step, row.migration_id, tries, tier, why,
                )  # fmt: skip
                await self._journal.wait(row, why, saga.TIERS[tier])
                await self._reach(this, "wait_committed")
            case GiveUp(_, why):
                this.span.failed(why)
                log.error(
                    "step.failed step=%s migration=%s try=%d error=%s",
                    row.step, row.migration_id, row.tries + 1, why,
                    exc_info=None if isinstance(error, RehomeError) else error,
                )  # fmt: skip
                await self._commit_failure(this, type(gravest(error)).__name__, why)

    async def _commit_failure(self, this: Try, kind: str, why: str) -> None:
        step = this.inbound.step
        failure = MigrationFailed(
            instance_id=this.event.data.instance_id,
            step=step.name,
            error=kind,
            message=why[:MESSAGE_LENGTH],
            tries=this.row.tries + 1,
            next=step.if_it_fails,
        )
        # A rollback that fails has been announced as a failure before: same migration, attempt and type.
        announced = None if step is saga.ROLL_BACK else self._outbox_event(this, failure)
        state = "failing" if step.if_it_fails == "roll_back" else "failed"
        await self._journal.fail(this.row, state=state, error=why, event=announced)
        await self._reach(this, "failure_committed")

    async def _hand_over(self, this: Try) -> None:
        """Defer a delivery at shutdown, so that the broker does not count a redelivery."""
        row = this.row
        try:
            async with asyncio.timeout(HAND_OVER):
                await self._journal.interrupted(row, SHUT_DOWN.why, deferral_delay(this.inbound))
                await self._settler.settle(this.inbound, SHUT_DOWN)
        except (RehomeError, TimeoutError) as error:
            log.warning("step.cut_off step=%s migration=%s error=%s", row.step, row.migration_id, error)

    def _outbox_event(self, this: Try, data: EventData) -> OutboxEvent:
        """The event with these data, encoded as it will be sent; its id is the same in every run of an attempt."""
        row, cause = this.row, this.event
        emits = new_event(
            data,
            subject=cause.subject,
            id=event_id(row.migration_id, row.attempt, data.TYPE),
            time=self._ports.clock.now(),
            migrationid=row.migration_id,
            attempt=row.attempt,
            causationid=cause.id,
            traceparent=this.span.traceparent,
        )
        return encode_for_outbox(emits)

    async def _reach(self, this: Try, boundary: str) -> None:
        await self._probe(f"{this.row.step}.{boundary}")
