"""The consumer as a process: reading, holding, draining."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer import saga
from rehome_consumer.errors import RehomeError, Unreachable
from rehome_consumer.ports.engine import Message
from rehome_consumer.process import worker
from rehome_consumer.process.worker import Worker
from rehome_consumer.rabbitmq.topology import HANDLER, queue_of
from tests.fakes.broker import FakeBroker, FakeDelivery
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from rehome_consumer.process.readiness import Readiness
    from rehome_consumer.saga import Step

LIMIT = 20.0


class StubEngine:
    """Handles deliveries as a test says."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, bytes]] = []
        self.work: Callable[[], Awaitable[None]] | None = None
        self.cancelled = 0

    async def handle(self, step: Step, delivery: FakeDelivery) -> None:
        try:
            if self.work is not None:
                await self.work()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.handled.append((step.name, delivery.message.body))
        await delivery.ack()


class StubRelay:
    flushed = False

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None:
        self.flushed = True


class Bench:
    def __init__(self) -> None:
        self.node = FakeBroker()
        self.broker = self.node.client()
        self.engine = StubEngine()
        self.relay = StubRelay()
        self.running: asyncio.Task[None] | None = None
        self.worker = self.new_worker()

    def new_worker(self, grace: float = LIMIT, readiness: Readiness | None = None) -> Worker:
        parts: dict[str, Any] = {"engine": self.engine, "broker": self.broker, "relay": self.relay}
        return Worker(**parts, journal=FakeJournal(FakeClock()), workers=1, grace=grace, readiness=readiness)

    def put(self, step: str = "stop", body: bytes = b"{}") -> None:
        self.node.route(HANDLER, step, Message(body=body))

    def start(self) -> asyncio.Task[None]:
        self.running = asyncio.create_task(self.worker.run())
        return self.running

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():  # noqa: ASYNC110 - gives way, without a pause
                await asyncio.sleep(0)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(worker, "REOPEN_AFTER", 0.0)
    monkeypatch.setattr(worker, "SHORTEST_PAUSE", 0.0)
    made = Bench()
    yield made
    if made.running is not None and not made.running.done():
        made.worker.stop()
        await asyncio.wait_for(made.running, LIMIT)


async def test_every_step_s_queue_is_read(bench: Bench) -> None:
    for step in saga.MIGRATION:
        bench.put(step.name, step.name.encode())
    bench.start()
    await bench.until(lambda: len(bench.engine.handled) == len(saga.MIGRATION))
    assert sorted(bench.engine.handled) == sorted((step.name, step.name.encode()) for step in saga.MIGRATION)
    assert bench.node.waiting() == {}


async def test_an_idle_worker_stops_at_once(bench: Bench) -> None:
    running = bench.start()
    await bench.until(lambda: bool(bench.node.queues[queue_of("stop")].filled))
    bench.worker.stop()
    await asyncio.wait_for(running, LIMIT)
    assert bench.relay.flushed  # or the last events would be published again


async def test_what_is_being_handled_at_the_stop_is_finished_and_nothing_more_is_taken(bench: Bench) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await go.wait()

    bench.engine.work = work
    bench.put(body=b"1")
    bench.put(body=b"2")
    running = bench.start()
    await asyncio.wait_for(started.wait(), LIMIT)
    assert bench.worker.in_hand == 1
    bench.worker.stop()
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait_for(running, LIMIT)
    assert bench.engine.handled == [("stop", b"1")]
    assert bench.node.waiting() == {queue_of("stop"): 1}
    assert bench.worker.in_hand == 0


async def test_what_does_not_end_within_the_grace_is_cut_off_and_delivered_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    bench.engine.work = work
    bench.worker = bench.new_worker(grace=0.0)  # none: even idle readers have not ended by then
    bench.put()
    running = bench.start()
    await asyncio.wait_for(started.wait(), LIMIT)
    bench.worker.stop()
    await asyncio.wait_for(running, LIMIT)
    assert bench.engine.cancelled == 1
    lines = [record.getMessage() for record in caplog.records if "cut_off" in record.msg]
    assert lines == ["worker.cut_off task=stop#0"]
    assert bench.node.queues[queue_of("stop")].ready[0].redelivered == 1


async def test_a_delivery_that_cannot_be_settled_is_held_and_handled_again(bench: Bench) -> None:
    failures = [Unreachable("no broker")] * 20

    async def work() -> None:
        if failures:
            raise failures.pop()

    bench.engine.work = work
    bench.put()
    bench.start()
    await bench.until(lambda: bool(bench.engine.handled))
    assert bench.node.waiting() == {}  # neither a dead letter nor given back


async def test_a_delivery_that_is_held_at_the_stop_is_delivered_again_elsewhere(bench: Bench) -> None:
    tried = asyncio.Event()

    async def work() -> None:
        tried.set()
        raise Unreachable("no broker")

    bench.engine.work = work
    bench.put()
    running = bench.start()
    await asyncio.wait_for(tried.wait(), LIMIT)
    bench.worker.stop()
    await asyncio.wait_for(running, LIMIT)
    assert bench.node.waiting() == {queue_of("stop"): 1}


async def test_a_reader_that_lost_its_queue_opens_it_again(bench: Bench) -> None:
    consume, failures = bench.broker.consume, [Unreachable("closed")] * 5

    async def failing(queue: str) -> Any:
        if failures and queue == queue_of("stop"):
            raise failures.pop()
        async for delivery in consume(queue):
            yield delivery

    bench.broker.consume = failing  # type: ignore[method-assign]
    bench.put()
    bench.start()
    await bench.until(lambda: bool(bench.engine.handled))


async def test_a_queue_that_stays_out_of_reach_ends_the_worker(bench: Bench) -> None:
    async def failing(_queue: str) -> Any:
        if bench:
            raise Unreachable("closed")
        yield

    bench.broker.consume = failing  # type: ignore[method-assign,assignment]
    running = bench.start()
    with pytest.raises(RehomeError, match="closed"):
        await asyncio.wait_for(running, LIMIT)


async def test_a_defect_ends_the_worker_instead_of_hiding(bench: Bench) -> None:
    async def work() -> None:
        raise KeyError("a defect")

    bench.engine.work = work
    bench.put()
    running = bench.start()
    with pytest.raises(KeyError):
        await asyncio.wait_for(running, LIMIT)
    assert bench.node.waiting() == {queue_of("stop"): 1}
