"""One run of a step: its limit, its claim, its ports."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer import saga
from rehome_consumer.engine.guard import UNGUARDED, guarded
from rehome_consumer.engine.running import DEATHS, run_step
from rehome_consumer.errors import ClaimLost, Refused, TimedOut
from rehome_consumer.model import NothingToDo
from rehome_consumer.ports.engine import StepRow
from tests.fakes.claims import FakeClaim
from tests.fakes.clock import FakeClock
from tests.fakes.site import Site
from tests.support.events import upgrade

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.saga import Step

INSTANCE = uuid4()
ROW = StepRow(uuid4(), 1, "any", "running", 1, 0, 0, 1)


def a_step(run: Any, **fields: Any) -> Step:
    return replace(saga.MIGRATION[0], run=run, **fields)


async def run(step: Step, claim: FakeClaim | None = None, row: StepRow = ROW) -> Any:
    event = upgrade(INSTANCE).model_copy(update={"migrationid": row.migration_id, "attempt": row.attempt})
    facts: Any = None
    ports = Site(FakeClock()).ports(facts)
    return await run_step(step, event, ports, row, claim or FakeClaim(INSTANCE))


async def test_what_the_step_returns_is_returned() -> None:
    async def work(_move: object) -> NothingToDo:
        return NothingToDo("why")

    assert await run(a_step(work)) == NothingToDo("why")


async def test_what_the_step_raises_is_raised() -> None:
    async def work(_move: object) -> None:
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        await run(a_step(work))


async def test_a_step_that_exceeds_its_limit_is_stopped() -> None:
    ended = []

    async def work(_move: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(TimedOut, match=r"step accept did not end within 0:00:00\.01"):
        await run(a_step(work, limit=timedelta(milliseconds=10)))
    assert ended


async def test_a_step_has_ended_before_its_lost_claim_is_reported() -> None:
    claim, ended = FakeClaim(INSTANCE), []

    async def work(_move: object) -> None:
        claim.gone.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as a subprocess that is waited for
            ended.append(True)
            raise

    with pytest.raises(ClaimLost, match=str(INSTANCE)):
        await run(a_step(work), claim)
    assert ended


async def test_a_step_is_stopped_with_its_consumer() -> None:
    ended, started = [], asyncio.Event()

    async def work(_move: object) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    running = asyncio.create_task(run(a_step(work)))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended


async def test_a_step_that_killed_its_consumer_too_often_is_not_run() -> None:
    async def work(_move: object) -> None:
        raise AssertionError

    with pytest.raises(Refused, match="died in step accept again and again"):
        await run(a_step(work), row=replace(ROW, runs=9, deaths=DEATHS))


@pytest.fixture
def ports() -> Ports:
    facts: Any = "the facts"
    return Site(FakeClock()).ports(facts)


async def test_every_call_of_a_port_is_preceded_by_a_check_and_probed(ports: Ports) -> None:
    boundaries: list[str] = []

    async def check() -> None:
        boundaries.append("check")

    async def probe(at: str) -> None:
        boundaries.append(at)

    assert await guarded(ports, check, probe).platform.instance(INSTANCE) is None
    assert boundaries == [
        "platform.instance.before",
        "check",
        "platform.instance.checked",
        "platform.instance.after",
    ]


async def test_without_a_claim_no_port_is_reached(ports: Ports) -> None:
    async def check() -> None:
        raise ClaimLost("lost")

    async def probe(_at: str) -> None:
        pass

    site = guarded(ports, check, probe)
    with pytest.raises(ClaimLost):
        await site.copier.discard("any")
    with pytest.raises(ClaimLost):
        await site.runtime.stop(Any)  # type: ignore[arg-type] # not reached


def test_values_time_and_facts_are_not_guarded(ports: Ports) -> None:
    async def never() -> None:
        raise AssertionError

    async def probe(_at: str) -> None:
        raise AssertionError

    same = guarded(ports, never, probe)
    assert {"policy", "clock", "facts"} == UNGUARDED
    assert (same.policy, same.clock, same.facts) == (ports.policy, ports.clock, ports.facts)
