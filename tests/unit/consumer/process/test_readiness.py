"""The looks at what a consumer needs, and the gate before its queues."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from rehome_consumer import saga
from rehome_consumer.errors import NotReady, Unreachable
from rehome_consumer.ports.readiness import EVERYTHING, Part
from rehome_consumer.process import readiness as module
from rehome_consumer.process.readiness import NOT_YET, Readiness
from rehome_consumer.rabbitmq.topology import queue_of
from tests.fakes.inspection import FakeQueueInspector
from tests.unit.consumer.process.test_worker import LIMIT, Bench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.process.readiness import Check
    from tests.fakes.broker import FakeBroker

PREPARE, BACK_UP = saga.MIGRATION[1], saga.MIGRATION[3]


class Surroundings:
    """Parts that are there or not."""

    def __init__(self, *missing: Part) -> None:
        self.missing = set(missing)
        self.looks = 0

    def readiness(self, node: FakeBroker | None = None, **more: float) -> Readiness:
        queues = FakeQueueInspector(node) if node else None
        return Readiness({part: self._check(part) for part in sorted(EVERYTHING)}, queues=queues, **more)  # type: ignore[arg-type]

    def _check(self, part: Part) -> Check:
        async def check() -> None:
            self.looks += part == "journal"
            if part in self.missing:
                raise NotReady(f"there is no {part}")

        return check


async def test_before_the_first_look_nothing_is_ready_and_afterwards_what_is_there() -> None:
    around = Surroundings("client_programs")
    readiness = around.readiness()
    assert {cause.message for cause in readiness.missing} == {NOT_YET}
    assert not readiness.is_ready_for(PREPARE)
    await readiness.look()
    assert [str(cause) for cause in readiness.missing] == ["client_programs: there is no client_programs"]
    assert [step.name for step in saga.MIGRATION if not readiness.is_ready_for(step)] == [
        *("accept", "prepare", "stop", "back_up", "restore", "complete")
    ]


async def test_what_was_ready_once_stays_so() -> None:
    around = Surroundings("client_programs")
    readiness, seen = around.readiness(), []
    looks: tuple[set[Part], ...] = ({"client_programs"}, set(), {"broker"})
    for missing in looks:
        seen.append(readiness.was_ready)
        around.missing = missing
        await readiness.look()
    assert [*seen, readiness.was_ready] == [False, False, True, True]
    assert Readiness({}).was_ready


async def test_a_missing_database_service_holds_up_no_customer_who_is_down() -> None:
    readiness = Surroundings("database_service", "broker").readiness()
    await readiness.look()
    assert [step.name for step in saga.MIGRATION if not readiness.is_ready_for(step)] == [
        *("accept", "prepare", "stop")
    ]


async def test_without_checks_everything_is_ready() -> None:
    assert all(Readiness({}).is_ready_for(step) for step in saga.MIGRATION)


async def test_a_check_has_a_limit_and_a_defect_in_it_is_a_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def breaks() -> None:
        raise KeyError("x")

    readiness = Readiness({"runtime": hangs, "journal": breaks})
    await asyncio.wait_for(readiness.look(), LIMIT)
    assert {cause.part: cause.message for cause in readiness.missing} == {
        "runtime": "no answer within 0.05 s",
        "journal": "a defect in its check: KeyError: 'x'",
    }


async def test_what_is_missing_is_logged_once_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    around = Surroundings("runtime")
    readiness = around.readiness()
    for _ in range(3):
        await readiness.look()
    around.missing = {"backup_place"}
    await readiness.look()
    around.missing.clear()
    await readiness.look()
    assert [record.getMessage() for record in caplog.records] == [
        "consumer.not_ready cause=runtime error=there is no runtime",
        "consumer.not_ready cause=backup_place error=there is no backup_place",
        "consumer.restored cause=runtime",
        "consumer.restored cause=backup_place",
        "consumer.ready",
    ]


async def test_callers_share_a_look_that_began_after_they_asked_and_no_older_one() -> None:
    around = Surroundings()
    readiness = around.readiness()
    await asyncio.gather(*(readiness.causes(EVERYTHING, max_age=0) for _ in range(20)))
    assert around.looks <= 2
    before = around.looks
    await readiness.causes(EVERYTHING, max_age=60)
    await readiness.causes(EVERYTHING)
    assert around.looks == before
    await readiness.causes(EVERYTHING, max_age=0)
    assert around.looks == before + 1


async def test_it_looks_again_soon_while_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.01)
    around = Surroundings("runtime")
    readiness = around.readiness(every=1000.0)
    watching = asyncio.create_task(readiness.watch())
    try:
        async with asyncio.timeout(LIMIT):
            while around.looks < 3:  # noqa: ASYNC110 - the loop under test is what passes the time
                await asyncio.sleep(0.01)
            around.missing.clear()
            while readiness.missing:
                await readiness.until_changed()
            # and once all is there, as soon as a step that failed has found that it is not
            await asyncio.sleep(0)
            around.missing.add("journal")
            await readiness.causes(EVERYTHING, max_age=0)
            around.missing.clear()
            while readiness.missing:
                await readiness.until_changed()
    finally:
        watching.cancel()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("rehome_consumer.process.worker.REOPEN_AFTER", 0.0)
    monkeypatch.setattr("rehome_consumer.process.worker.LAST_RESORT", 0.01)
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 0.01)
    made = Bench()
    yield made
    if made.running is not None and not made.running.done():
        made.worker.stop()
        await asyncio.wait_for(made.running, LIMIT)


def waiting(bench: Bench, step: str) -> int:
    return len(bench.node.queues[queue_of(step)].ready)


async def test_no_queue_is_read_before_everything_is_there(bench: Bench) -> None:
    around = Surroundings("client_programs")
    bench.worker = bench.new_worker(readiness=around.readiness())
    for name in ("prepare", "roll_back"):
        bench.put(name, name.encode())
    bench.start()
    # what needs no client program is handled all the same
    await bench.until(lambda: bench.engine.handled == [("roll_back", b"roll_back")])
    assert waiting(bench, "prepare") == 1
    assert bench.node.queues[queue_of("prepare")].readers == 0
    around.missing.clear()
    await bench.until(lambda: ("prepare", b"prepare") in bench.engine.handled)


async def test_a_queue_is_left_when_something_gets_lost_and_the_rest_waits_in_it(bench: Bench) -> None:
    around = Surroundings()
    readiness = around.readiness(every=1000.0)
    bench.worker = bench.new_worker(readiness=readiness)
    bench.start()
    queue = bench.node.queues[queue_of("prepare")]
    await bench.until(lambda: queue.readers == 1)
    around.missing.add("runtime")
    await readiness.look()
    await bench.until(lambda: queue.readers == 0)
    bench.put("prepare")
    assert waiting(bench, "prepare") == 1
    around.missing.clear()
    await readiness.look()
    await bench.until(lambda: bool(bench.engine.handled))
    assert [stored.redelivered for stored in queue.ready] == []


async def test_a_consumer_that_is_not_ready_stops_at_once(bench: Bench) -> None:
    bench.worker = bench.new_worker(readiness=Surroundings("journal").readiness())
    running = bench.start()
    await asyncio.sleep(0.02)
    bench.worker.stop()
    await asyncio.wait_for(running, LIMIT)


async def overdue(node: FakeBroker, *missing: Part) -> Readiness:
    """A readiness that has missed these parts for longer than anyone waits."""
    readiness = Surroundings(*missing).readiness(node, patience=0.0)
    await readiness.look()
    return readiness


async def test_a_customer_who_is_down_is_rolled_back_by_a_consumer_that_is_not_ready_if_no_other_reads(
    bench: Bench,
) -> None:
    bench.put("back_up", b"down")
    bench.put("prepare", b"up")
    readiness = await overdue(bench.node, "client_programs")
    assert await readiness.is_last_resort(BACK_UP)
    # the customer of `prepare` is up, and waits
    assert not await readiness.is_last_resort(PREPARE)
    bench.worker = bench.new_worker(readiness=readiness)
    bench.start()
    await bench.until(lambda: bench.engine.handled == [("back_up", b"down")])
    assert waiting(bench, "prepare") == 1


async def test_it_leaves_the_delivery_to_a_consumer_that_is_ready(bench: Bench) -> None:
    bench.put("back_up")
    readiness = await overdue(bench.node, "client_programs")
    bench.node.queues[queue_of("back_up")].readers = 1
    assert not await readiness.is_last_resort(BACK_UP)


async def test_it_takes_nothing_as_long_as_it_could_not_roll_back_or_there_is_hope(bench: Bench) -> None:
    bench.put("back_up")
    assert not await (await overdue(bench.node, "client_programs", "runtime")).is_last_resort(BACK_UP)
    patient = Surroundings("client_programs").readiness(bench.node, patience=1000.0)
    await patient.look()
    assert not await patient.is_last_resort(BACK_UP)


async def test_a_broker_that_cannot_be_asked_is_no_reason_to_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("back_up")
    readiness = await overdue(bench.node, "client_programs")

    async def no_answer(*_: object) -> None:
        raise Unreachable("no broker")

    monkeypatch.setattr(FakeQueueInspector, "queues", no_answer)
    assert not await readiness.is_last_resort(BACK_UP)
