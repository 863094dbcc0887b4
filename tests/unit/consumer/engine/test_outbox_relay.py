"""From the outbox to the broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from rehome_consumer.engine import outbox_relay
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.errors import Refused, Unreachable
from rehome_consumer.ports.engine import RESERVED, encode_for_outbox
from tests.fakes.broker import FakeBroker
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.support.events import body_of, emitted, failed, migration_of, rejected, upgrade

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.ports.engine import OutboxRow

BEFORE, CONFIRMED = "publish.{}.before", "publish.{}.confirmed"
FIRST, SECOND = "migration.failed", "migration.rejected"


class Bench:
    """A journal whose migrations have two events to send each, which nobody has in hand any more, and a node."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.journal = FakeJournal(self.clock)
        self.node = FakeBroker()
        self.node.bind("migration", "events", "#")
        self.errors: dict[str, BaseException] = {}
        self.relay = Relay(self.journal, self.node.client(), probe=self.probe)

    async def probe(self, boundary: str) -> None:
        if boundary in self.errors:
            raise self.errors.pop(boundary)

    async def committed(self) -> UUID:
        event = upgrade(uuid4())
        instance = event.data.instance_id
        row = await self.journal.open(migration_of(event), instance, event, body_of(event))
        for data, state in ((failed(instance), "failing"), (rejected(instance), "rejected")):
            step = await self.journal.begin(self.journal.migrations[row.id], state, replay=None)
            await self.journal.finish(
                step,
                state=state,
                event=encode_for_outbox(emitted(data, row.id)),
                reason=None,
                past_pivot=False,
            )
        self.clock.advance(RESERVED + 1)
        return row.id

    async def just_committed(self) -> tuple[OutboxRow, ...]:
        """One event, in hand of who committed it."""
        event = upgrade(uuid4())
        instance = event.data.instance_id
        row = await self.journal.open(migration_of(event), instance, event, body_of(event))
        step = await self.journal.begin(row, "accept", replay=None)
        put = encode_for_outbox(emitted(rejected(instance), row.id))
        return await self.journal.finish(step, state="rejected", event=put, reason=None, past_pivot=False)

    def unsent(self) -> list[int]:
        """What the journal has as unsent, by `seq`."""
        return [one.row.seq for one in self.journal.outbox if one.sent is None]

    def published(self) -> list[str | None]:
        return [stored.message.type for stored in self.node.queues["events"].ready]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_events_go_out_in_order_and_once(bench: Bench) -> None:
    migration = await bench.committed()
    await bench.relay.send(migration)
    await bench.relay.send(migration)
    assert bench.published() == [FIRST, SECOND]
    assert await bench.journal.unsent() == []


async def test_after_a_failure_the_later_events_wait_for_the_earlier_one(bench: Bench) -> None:
    migration = await bench.committed()
    bench.errors[BEFORE.format(FIRST)] = Unreachable("no broker")
    with pytest.raises(Unreachable):
        await bench.relay.send(migration)
    assert bench.published() == []
    await bench.relay.send(migration)
    assert bench.published() == [FIRST, SECOND]


async def test_what_was_confirmed_before_a_failure_is_not_sent_again(bench: Bench) -> None:
    migration = await bench.committed()
    bench.errors[BEFORE.format(SECOND)] = Unreachable("no broker")
    with pytest.raises(Unreachable):
        await bench.relay.send(migration)
    await bench.relay.send(migration)
    assert bench.published() == [FIRST, SECOND]


async def test_a_crash_after_the_confirm_sends_the_same_message_again(bench: Bench) -> None:
    migration = await bench.committed()
    bench.errors[CONFIRMED.format(FIRST)] = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await bench.relay.send(migration)
    await bench.relay.send(migration)
    assert bench.published() == [FIRST, FIRST, SECOND]
    first, again, _ = (stored.message for stored in bench.node.queues["events"].ready)
    assert first == again


async def test_an_event_that_a_handler_waits_for_must_find_its_queue(bench: Bench) -> None:
    migration = await bench.committed()
    bench.node._bindings = [one for one in bench.node._bindings if one[2] != "migration.h.roll_back"]
    bench.node._bindings = [one for one in bench.node._bindings if one[2] != "events"]
    with pytest.raises(Refused, match=FIRST):
        await bench.relay.send(migration)
    assert await bench.journal.unsent() == [migration]


async def test_an_event_that_only_others_read_needs_no_queue(bench: Bench) -> None:
    migration = await bench.committed()
    bench.node._bindings = [one for one in bench.node._bindings if one[2] != "events"]
    await bench.relay.send(migration)
    assert await bench.journal.unsent() == []


async def test_a_sweep_sends_everything_and_counts_what_it_could_not(bench: Bench) -> None:
    failed_one, fine = await bench.committed(), await bench.committed()
    bench.errors[BEFORE.format(FIRST)] = Unreachable("no broker")
    assert await bench.relay.sweep() == 1
    assert await bench.journal.unsent() == [failed_one]
    assert fine not in await bench.journal.unsent()
    assert await bench.relay.sweep() == 0


async def until(bench: Bench, count: int) -> None:
    async with asyncio.timeout(20):
        while len(bench.published()) < count:  # noqa: ASYNC110 - gives way, without a pause
            await asyncio.sleep(0)


async def test_the_relay_sends_when_woken(bench: Bench) -> None:
    running = asyncio.create_task(bench.relay.run(every=3600))
    await asyncio.sleep(0)
    await bench.committed()
    bench.relay.wake()
    await until(bench, 2)
    running.cancel()


async def test_the_relay_sweeps_without_being_woken_too(bench: Bench) -> None:
    running = asyncio.create_task(bench.relay.run(every=0.001))
    await bench.committed()
    await until(bench, 2)
    running.cancel()


async def test_the_relay_outlives_a_journal_that_does_not_answer(bench: Bench) -> None:
    looking, failures = bench.journal.unsent, [Unreachable("no answer")]

    async def unsent() -> list[UUID]:
        if failures:
            raise failures.pop()
        return await looking()

    bench.journal.unsent = unsent  # type: ignore[method-assign]
    running = asyncio.create_task(bench.relay.run(every=0.001))
    await bench.committed()
    await until(bench, 2)
    assert not running.done()
    running.cancel()


async def test_what_a_consumer_has_in_hand_is_published_by_it_alone(bench: Bench) -> None:
    rows = await bench.just_committed()
    assert await bench.relay.sweep() == 0
    assert bench.published() == []
    await bench.relay.publish(rows)
    assert bench.published() == [SECOND]


async def test_what_a_consumer_had_in_hand_when_it_died_is_published_by_another_after_a_while(
    bench: Bench,
) -> None:
    await bench.just_committed()
    bench.clock.advance(RESERVED + 1)
    assert await bench.relay.sweep() == 0
    assert bench.published() == [SECOND]


async def test_what_could_not_be_published_is_tried_again_at_once(bench: Bench) -> None:
    (row,) = rows = await bench.just_committed()
    bench.errors[BEFORE.format(SECOND)] = Unreachable("no broker")
    with pytest.raises(Unreachable):
        await bench.relay.publish(rows)
    running = asyncio.create_task(bench.relay.run(every=3600))
    bench.relay.wake(row.migration_id)
    await until(bench, 1)
    running.cancel()


async def test_a_confirm_is_recorded_soon_though_no_transaction_takes_it_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_relay, "RECORD_WITHIN", 0.001)
    running = asyncio.create_task(bench.relay.run(every=3600))
    await bench.relay.publish(await bench.just_committed())
    assert bench.unsent()
    async with asyncio.timeout(20):
        while bench.unsent():  # noqa: ASYNC110 - gives way
            await asyncio.sleep(0.001)
    running.cancel()


async def test_a_confirm_that_could_not_be_recorded_is_recorded_later(bench: Bench) -> None:
    await bench.relay.publish(await bench.just_committed())
    taken = bench.relay.take_confirmed()
    assert bench.relay.take_confirmed() == []
    bench.relay.give_back(taken)
    await bench.relay.flush()
    assert bench.unsent() == []


async def test_confirms_that_are_lost_with_their_consumer_lead_to_copies_with_the_same_id(
    bench: Bench,
) -> None:
    await bench.relay.publish(await bench.just_committed())
    bench.clock.advance(RESERVED + 1)
    await Relay(bench.journal, bench.node.client()).sweep()
    assert bench.published() == [SECOND, SECOND]
    first, again = (stored.message for stored in bench.node.queues["events"].ready)
    assert first == again
    assert bench.unsent() == []
