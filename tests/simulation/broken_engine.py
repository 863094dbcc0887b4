"""Guarantees of engine and relay, each broken on purpose. Calling one patches this process for good."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid5

from rehome_consumer.engine import engine
from rehome_consumer.engine import outcome as verdicts
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.guard import guarded
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.engine.outcome import Defer, Fail, Retry
from rehome_consumer.engine.republish import Republisher
from rehome_consumer.engine.standing import GO, Standing
from rehome_consumer.errors import RehomeError
from rehome_consumer.move import Move
from rehome_consumer.process import logs
from rehome_events.envelope import event_id
from tests.fakes.claims import FakeClaims
from tests.fakes.site import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID


def replace(owner: Any, name: str, by: Any) -> Any:
    """Put something else in its place; returns what was there."""
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
    replace(engine, "guarded", lambda ports, _check, probe: guarded(ports, nothing, probe))


def a_lost_claim_does_not_end_the_step() -> None:
    """Nor is it noticed before the next side effect."""

    class Blind:
        async def check(self) -> None:
            """It is held, whatever the server says."""

        async def lost(self) -> None:
            await asyncio.Event().wait()

    async def run_step(step: Any, event: Any, ports: Any, row: Any, _claim: Any) -> Any:
        return await whole(step, event, ports, row, Blind())

    the_claim_is_not_checked_before_side_effects()
    whole = replace(engine, "run_step", run_step)


def a_lost_claim_counts_as_a_failure() -> None:
    _verdict(Defer, lambda found: Fail(found.why, "ClaimLost"))


def a_transient_error_is_final() -> None:
    _verdict(Retry, lambda found: Fail(found.why, "Transient"))


def _verdict(kind: type[Any], instead: Callable[[Any], Any]) -> None:
    def verdict(*arguments: Any, **named: Any) -> Any:
        found = whole(*arguments, **named)
        return instead(found) if isinstance(found, kind) else found

    whole = replace(engine, "verdict", verdict)


def a_delivery_is_acknowledged_before_the_commit() -> None:
    async def handle(engine: Engine, step: Any, delivery: Any) -> None:
        await delivery.ack()
        await whole(engine, step, delivery)

    whole = replace(Engine, "handle", handle)


def a_delivery_that_cannot_be_handled_is_dropped() -> None:
    async def handle(engine: Engine, step: Any, delivery: Any) -> None:
        try:
            await whole(engine, step, delivery)
        except RehomeError:
            await delivery.ack()

    whole = replace(Engine, "handle", handle)


def a_retry_is_acknowledged_before_its_copy_is_confirmed() -> None:
    _acknowledged_first("retry")
    _acknowledged_first("later")


def a_dead_letter_is_acknowledged_before_it_is_confirmed() -> None:
    _acknowledged_first("bury")


def _acknowledged_first(name: str) -> None:
    async def method(post: Republisher, step: Any, delivery: Any, *rest: Any) -> None:
        await delivery.ack()
        await whole(post, step, delivery, *rest)

    whole = replace(Republisher, name, method)


def the_journal_is_not_looked_into() -> None:
    replace(engine, "standing", lambda *_arguments, **_named: GO)


def an_event_that_comes_too_early_is_handled() -> None:
    _goes("early")


def a_stale_event_is_handled() -> None:
    _goes("stale")


def a_step_that_is_done_runs_again() -> None:
    _goes("done")


def a_step_that_failed_runs_again() -> None:
    _goes("failed")


def _goes(answer: str) -> None:
    def standing(*arguments: Any, **named: Any) -> Standing:
        found: Standing = whole(*arguments, **named)
        return GO if found.answer == answer else found

    whole = replace(engine, "standing", standing)


def a_verdict_is_not_committed() -> None:
    async def failed(
        engine: Engine, step: Any, delivery: Any, _event: Any, _row: Any, why: str, _kind: str
    ) -> None:
        await engine._bury(step, delivery, "failed", why)

    replace(Engine, "_failed", failed)


def a_failure_writes_no_dead_letter() -> None:
    replace(Republisher, "bury", nothing)


def a_dead_letter_that_a_crash_held_back_is_forgotten() -> None:
    async def over(engine: Engine, _step: Any, delivery: Any, migration: Any, *_rest: Any) -> None:
        await engine._publish(migration.id)
        await delivery.ack()

    replace(Engine, "_over", over)


def a_repeated_event_gets_a_new_id() -> None:
    def told(engine: Engine, data: Any, event: Any, row: Any) -> Any:
        replace(
            engine,
            "event_id",
            lambda *of: event_id(*of) if row.runs == 1 else uuid5(event_id(*of), str(row.runs)),
        )
        return whole(engine, data, event, row)

    whole = replace(Engine, "_told", told)


def an_event_is_marked_sent_before_its_confirm() -> None:
    async def send(relay: Relay, migration_id: UUID) -> None:
        async with relay._journal.sending(migration_id) as sending:
            sending.confirmed.extend(row.seq for row in sending.rows)
        for row in sending.rows:
            await relay._broker.publish(row.exchange, row.routing_key, row.message, mandatory=False)

    replace(Relay, "send", send)


def the_outbox_is_not_swept() -> None:
    async def sweep(_relay: Relay) -> int:
        return 0

    replace(Relay, "sweep", sweep)


def a_secret_is_told() -> None:
    def told(error: BaseException) -> str:
        return f"{whole(error)} for login {PASSWORD}"

    whole = replace(verdicts, "told", told)


def a_secret_is_logged() -> None:
    async def tenant(move: Move) -> Any:
        credentials = await whole(move)
        logging.getLogger("rehome_consumer.steps").debug(
            "tenant.read password is %s", credentials.password.reveal()
        )
        return credentials

    whole = replace(Move, "tenant", tenant)


def errors_are_told_with_their_secrets() -> None:
    replace(engine, "told", str)
    replace(verdicts, "told", str)


def log_lines_are_not_masked() -> None:
    replace(logs, "masked", str)


BROKEN: Final = (
    the_claim_is_skipped,
    the_claim_is_not_checked_before_side_effects,
    a_lost_claim_does_not_end_the_step,
    a_lost_claim_counts_as_a_failure,
    a_transient_error_is_final,
    a_delivery_is_acknowledged_before_the_commit,
    a_delivery_that_cannot_be_handled_is_dropped,
    a_retry_is_acknowledged_before_its_copy_is_confirmed,
    a_dead_letter_is_acknowledged_before_it_is_confirmed,
    the_journal_is_not_looked_into,
    an_event_that_comes_too_early_is_handled,
    a_stale_event_is_handled,
    a_step_that_is_done_runs_again,
    a_step_that_failed_runs_again,
    a_verdict_is_not_committed,
    a_failure_writes_no_dead_letter,
    a_dead_letter_that_a_crash_held_back_is_forgotten,
    a_repeated_event_gets_a_new_id,
    an_event_is_marked_sent_before_its_confirm,
    the_outbox_is_not_swept,
    a_secret_is_told,
    a_secret_is_logged,
    errors_are_told_with_their_secrets,
    log_lines_are_not_masked,
)
