"""Guarantees of engine and relay, each broken on purpose. Calling one patches this process for good."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid5

from rehome_consumer.engine import decide as decisions
from rehome_consumer.engine import engine, outcome, settle, tries
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.guard import guarded
from rehome_consumer.engine.headers import FAILED
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.engine.outcome import Ack, Defer, GiveUp, Outcome, Retry
from rehome_consumer.engine.republish import Republisher
from rehome_consumer.engine.tries import Tries
from rehome_consumer.engine.whether_ready import WhetherReady
from rehome_consumer.errors import RehomeError
from rehome_consumer.move import Move
from rehome_consumer.ports.engine import MigrationRow
from rehome_consumer.process import logs
from rehome_consumer.process.readiness import Readiness
from rehome_events.envelope import event_id
from tests.fakes.claims import FakeClaim, FakeClaims
from tests.fakes.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID


def replace(owner: Any, name: str, by: Any) -> Any:
    """Replace an attribute; returns what it was."""
    before = getattr(owner, name)
    setattr(owner, name, by)
    return before


async def nothing(*_arguments: Any, **_named: Any) -> None:
    """Do nothing."""


def the_claim_is_skipped() -> None:
    async def free(_claims: FakeClaims, _instance_id: UUID) -> bool:
        return True

    replace(FakeClaims, "_free", free)


def the_claim_is_not_checked_before_side_effects() -> None:
    replace(tries, "guarded", lambda ports, _check, *rest: guarded(ports, nothing, *rest))


def a_lost_claim_does_not_end_the_step() -> None:
    """Nor is it noticed before the next side effect."""

    class Blind:
        async def check(self) -> None:
            """It is held, whatever the server says."""

        async def lost(self) -> None:
            await asyncio.Event().wait()

    async def run_step(step: Any, event: Any, ports: Any, row: Any, _claim: Any) -> Any:
        return await original(step, event, ports, row, Blind())

    the_claim_is_not_checked_before_side_effects()
    original = replace(tries, "run_step", run_step)


def a_claim_outlives_its_connection() -> None:
    """The server gives it to others, and its holder is not told, whoever asks."""

    def cut(claims: FakeClaims, claim: FakeClaim) -> None:
        if claims.held.get(claim.instance_id) is claim:
            del claims.held[claim.instance_id]
        claims._released.set()
        claims._released = asyncio.Event()

    replace(FakeClaims, "cut", cut)


def a_confirm_is_recorded_for_an_event_that_was_not_published() -> None:
    """The batch of the next transaction takes more than the broker has confirmed."""

    async def publish(relay: Relay, rows: Any) -> None:
        relay._confirmed.extend(rows)
        await original(relay, rows)

    original = replace(Relay, "publish", publish)


def a_lost_claim_counts_as_a_failure() -> None:
    _a_run_fails_for_good(Defer)


def a_transient_error_is_final() -> None:
    _a_run_fails_for_good(Retry)


def _a_run_fails_for_good(instead_of: type[Any]) -> None:
    def after_run(error: Any, row: Any, *rest: Any, **named: Any) -> Any:
        found = original(error, row, *rest, **named)
        return GiveUp(FAILED, found.why, row) if isinstance(found, instead_of) else found

    original = replace(tries, "after_run", after_run)


def a_delivery_is_acknowledged_before_the_commit() -> None:
    async def handle(engine: Engine, step: Any, delivery: Any) -> None:
        await delivery.ack()
        await original(engine, step, delivery)

    original = replace(Engine, "handle", handle)


def a_delivery_that_cannot_be_handled_is_dropped() -> None:
    async def handle(engine: Engine, step: Any, delivery: Any) -> None:
        try:
            await original(engine, step, delivery)
        except RehomeError:
            await delivery.ack()

    original = replace(Engine, "handle", handle)


def a_retry_is_acknowledged_before_its_copy_is_confirmed() -> None:
    _acknowledged_first("retry")
    _acknowledged_first("defer")


def a_dead_letter_is_acknowledged_before_it_is_confirmed() -> None:
    _acknowledged_first("dead_letter")


def _acknowledged_first(name: str) -> None:
    async def method(republisher: Republisher, inbound: Any, outcome: Any) -> None:
        await inbound.delivery.ack()
        await original(republisher, inbound, outcome)

    original = replace(Republisher, name, method)


def the_journal_is_not_looked_into() -> None:
    _runs_all_the_same(lambda _found: True)


def an_event_that_comes_too_early_is_handled() -> None:
    _runs_all_the_same(lambda found: isinstance(found, Defer) or _is(found, "gave_up_waiting"))


def what_an_upgrade_opens_is_taken_for_new() -> None:
    """Whatever became of it since the look under the claim."""
    replace(MigrationRow, "only_opened_since", lambda _row, _known: True)


def a_stale_event_is_handled() -> None:
    _runs_all_the_same(lambda found: _is(found, "stale"))


def a_step_that_is_done_runs_again() -> None:
    _runs_all_the_same(lambda found: _is(found, "done"))


def a_step_that_failed_runs_again() -> None:
    _runs_all_the_same(lambda found: _is(found, "failed"))


def _is(found: Outcome, why: str) -> bool:
    return why in (getattr(found, "found", None), getattr(found, "reason", None))


def _runs_all_the_same(if_it: Callable[[Outcome], bool]) -> None:
    def decide(inbound: Any, event: Any, rows: Any) -> Outcome:
        found: Outcome = original(inbound, event, rows)
        return decisions.run(inbound, event, rows) if rows and if_it(found) else found

    original = replace(engine, "decide", decide)


def a_failure_is_not_committed() -> None:
    def after_run(*arguments: Any, **named: Any) -> Any:
        found = original(*arguments, **named)
        return GiveUp(FAILED, found.error) if isinstance(found, GiveUp) else found

    original = replace(tries, "after_run", after_run)
    replace(Tries, "_commit_failure", nothing)


def a_failure_writes_no_dead_letter() -> None:
    replace(Republisher, "dead_letter", nothing)


def a_dead_letter_that_a_crash_held_back_is_forgotten() -> None:
    def decide(inbound: Any, event: Any, rows: Any) -> Outcome:
        found: Outcome = original(inbound, event, rows)
        return Ack(rows.migration.id, "failed") if _is(found, FAILED) else found

    original = replace(engine, "decide", decide)


def a_repeated_event_gets_a_new_id() -> None:
    def outbox_event(runs: Tries, this: Any, data: Any) -> Any:
        number = this.row.runs
        replace(
            tries,
            "event_id",
            lambda *of: event_id(*of) if number == 1 else uuid5(event_id(*of), str(number)),
        )
        return original(runs, this, data)

    original = replace(Tries, "_outbox_event", outbox_event)


def an_event_is_marked_sent_before_its_confirm() -> None:
    async def send(relay: Relay, migration_id: UUID) -> None:
        async with relay._journal.sending(migration_id) as sending:
            sending.confirmed.extend(row.seq for row in sending.rows)
        for row in sending.rows:
            await relay._broker.publish(row.exchange, row.routing_key, row.message, mandatory=False)

    async def publish(relay: Relay, rows: Any) -> None:
        await relay._journal.sent(rows)
        for row in rows:
            await relay._broker.publish(row.exchange, row.routing_key, row.message, mandatory=False)

    replace(Relay, "send", send)
    replace(Relay, "publish", publish)


def the_outbox_is_not_swept() -> None:
    async def sweep(_relay: Relay) -> int:
        return 0

    replace(Relay, "sweep", sweep)


def a_secret_is_in_an_error() -> None:
    def describe_error(error: BaseException) -> str:
        return f"{original(error)} for login {PASSWORD}"

    original = replace(outcome, "describe_error", describe_error)


def a_secret_is_logged() -> None:
    async def tenant(move: Move) -> Any:
        credentials = await original(move)
        logging.getLogger("rehome_consumer.steps").debug(
            "tenant.read password is %s", credentials.password.reveal()
        )
        return credentials

    original = replace(Move, "tenant", tenant)


def a_consumer_does_not_look_whether_it_is_ready() -> None:
    """Before it takes anything, nor before it blames a customer's database."""

    async def causes(_readiness: Readiness, _needs: Any, *, max_age: float | None = None) -> tuple[()]:
        del max_age
        return ()

    replace(Readiness, "causes", causes)
    replace(Readiness, "is_ready_for", lambda _readiness, _step: True)


def the_tries_of_a_consumer_that_is_not_ready_count() -> None:
    async def after(_asking: WhetherReady, _step: Any, outcome: Any) -> Any:
        return outcome

    replace(WhetherReady, "after", after)


def errors_are_not_masked() -> None:
    for module in (engine, outcome, settle):
        replace(module, "describe_error", str)


def log_lines_are_not_masked() -> None:
    replace(logs, "masked", str)


BROKEN: Final = (
    the_claim_is_skipped,
    the_claim_is_not_checked_before_side_effects,
    a_lost_claim_does_not_end_the_step,
    a_claim_outlives_its_connection,
    a_confirm_is_recorded_for_an_event_that_was_not_published,
    a_lost_claim_counts_as_a_failure,
    a_transient_error_is_final,
    a_delivery_is_acknowledged_before_the_commit,
    a_delivery_that_cannot_be_handled_is_dropped,
    a_retry_is_acknowledged_before_its_copy_is_confirmed,
    a_dead_letter_is_acknowledged_before_it_is_confirmed,
    the_journal_is_not_looked_into,
    an_event_that_comes_too_early_is_handled,
    what_an_upgrade_opens_is_taken_for_new,
    a_stale_event_is_handled,
    a_step_that_is_done_runs_again,
    a_step_that_failed_runs_again,
    a_failure_is_not_committed,
    a_failure_writes_no_dead_letter,
    a_dead_letter_that_a_crash_held_back_is_forgotten,
    a_repeated_event_gets_a_new_id,
    an_event_is_marked_sent_before_its_confirm,
    the_outbox_is_not_swept,
    a_secret_is_in_an_error,
    a_secret_is_logged,
    a_consumer_does_not_look_whether_it_is_ready,
    the_tries_of_a_consumer_that_is_not_ready_count,
    errors_are_not_masked,
    log_lines_are_not_masked,
)
