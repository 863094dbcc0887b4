"""A drain on the real engine and fakes of everything else: paced, told, stopped, gone on with."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.commands.drain_lines import outcome_document, outcome_lines
from rehome_consumer.errors import NotFound, Refused, Unreachable
from rehome_consumer.model import Pause
from rehome_consumer.operators.drain_parts import Order, Pool, Summary
from rehome_consumer.operators.drain_plan import Wanted
from rehome_consumer.operators.draining import Drain
from rehome_consumer.ports.operators import DRAINED
from rehome_consumer.rabbitmq.topology import DEAD
from rehome_events.envelope import decode
from rehome_events.parts import Entitlements
from tests.fakes.inspection import FakeInspector, FakeViews
from tests.support.events import replay_of, upgrade
from tests.support.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent

ROUNDS = 400
"""Looks after which a drain counts as one that never ends."""


class Bench:
    """A pool of customers, a consumer that works between a drain's looks, and what the drain says."""

    def __init__(self, *names: str) -> None:
        self.rig = Rig()
        self.ids: dict[UUID | None, str] = {None: "-"}
        self.views = FakeViews(self.rig.journal, self.rig.claims)
        self.inspector = FakeInspector(self.rig.site.world)
        self.said: list[str] = []
        self.consumer = True
        self.most = 0
        self.rounds = 0
        self.between: dict[int, Callable[[], object]] = {}
        self.stop, self.turn = asyncio.Event(), asyncio.Lock()
        for number, name in enumerate(names):
            self.add(name, rows=number)

    def add(self, name: str, *, rows: int = 0, **columns: Any) -> UUID:
        """A customer; more rows are a larger database."""
        instance = self.rig.site.add_tenant(name, **columns)
        database = self.rig.site.world.database(self.rig.site.pool, name)
        database.tables["public.res_partner"] = [(one, "x") for one in range(rows)]
        self.ids[instance] = name
        return instance

    def drain(self, *, again: bool = False, **order: Any) -> Drain:
        wanted = Wanted("premium-monthly", "premium", Entitlements(db_type="dedicated"))
        given = {"at_once": 2, "busy": 16, "failures": 3, "by": "anna@host", "why": "it is full", **order}
        return Drain(
            Pool(self.rig.site.pool, self.rig.site.platform, self.inspector, self.views, again=again),
            Order(wanted=wanted, **given),
            publish=self.publish,
            say=lambda instance, text: self.said.append(f"{self.ids[instance]} {text}"),
            clock=self.rig.clock,
            sleep=self.sleep,
            stop=self.stop,
        )

    async def run(self, **order: Any) -> Summary:
        drain = self.drain(**order)
        self.rounds = 0
        await drain.run()
        return drain.summary

    async def publish(self, event: CloudEvent[PlanUpgraded]) -> None:
        self.rig.publish(event)

    async def sleep(self, seconds: float) -> None:
        """A consumer handles one delivery, or waits for one to come back."""
        self.rounds += 1
        assert self.rounds < ROUNDS, "\n".join(self.said[-20:])
        self.rig.clock.advance(seconds)
        if act := self.between.pop(self.rounds, None):
            act()
        if self.consumer:
            async with self.turn:
                await self.work()
        rows = self.rig.journal.migrations.values()
        self.most = max(self.most, sum(not row.ended for row in rows))

    async def work(self) -> None:
        if self.rig.is_ready():
            await self.rig.handle_next()
        elif not (await self.rig.relay.sweep() or await self.rig.journal.unsent()):
            self.rig.node.pass_delays()

    def refuse(self, name: str) -> set[UUID]:
        """Let the platform refuse the first step of this one, as long as its id is in what is returned."""
        answers = self.rig.site.platform.instance
        refused = {one for one, known in self.ids.items() if one is not None and known == name}

        async def instance(instance_id: UUID) -> Any:
            if instance_id in refused:
                raise Refused("the platform says no")
            return await answers(instance_id)

        self.rig.site.platform.instance = instance  # type: ignore[method-assign]
        return refused

    def told(self, word: str) -> list[str]:
        """Whom something was said about, in order."""
        return [line.partition(" ")[0] for line in self.said if word in line]

    def homes(self) -> set[str]:
        """Who is on the pool yet."""
        pool = self.rig.site.pool.id
        return {
            str(row["name"])
            for row in self.rig.site.platform.instances.values()
            if row["db_server_id"] == pool
        }


async def test_all_are_moved_the_smallest_first_and_never_more_than_so_many_at_once() -> None:
    bench = Bench("c0", "c1", "c2", "c3", "c4")
    summary = await bench.run(at_once=2)
    assert bench.homes() == set()
    assert bench.told("published:") == ["c0", "c1", "c2", "c3", "c4"]
    assert sorted(bench.told("completed in")) == ["c0", "c1", "c2", "c3", "c4"]
    assert (bench.most, summary.well, summary.left, summary.under_way) == (2, True, [], [])
    # who has ordered each of them is in its history, once, for `rehome report`
    assert [(what, detail) for _, what, detail in bench.views.noted] == [
        (DRAINED, "by anna@host: it is full; drain of postgres-pool-1")
    ] * 5
    # and a second run has nothing to do
    bench.said.clear()
    assert (await bench.run()).well
    assert bench.said == []


async def test_what_is_waited_for_is_said_once_and_not_at_each_look() -> None:
    bench = Bench("a", "b", "c")
    bench.consumer = False
    bench.between = {60: lambda: setattr(bench, "consumer", True)}
    assert (await bench.run(at_once=1)).well
    assert len(bench.told("waits for an end: 1 under way (--at-once 1)")) == 1
    assert bench.told("no consumer has taken its upgrade") == ["a"]
    assert len(bench.told("nothing more to publish: waits for 1 under way")) == 1


async def test_nothing_is_published_while_the_pool_is_busy() -> None:
    bench = Bench("a")
    there = bench.rig.site.world.at(bench.rig.site.pool)

    def work(*, running: bool) -> None:
        there.sessions[0].running = running

    work(running=True)
    bench.between = {50: lambda: work(running=False)}
    drain = bench.drain(busy=0)
    await drain.run()
    assert bench.told("fewer active sessions on postgres-pool-1 than 1 (--busy 0)") == ["-"]
    assert bench.said[0].startswith("- waits for fewer active sessions")
    assert drain.summary.well


async def test_a_pause_holds_up_the_publishing() -> None:
    bench = Bench("a")
    bench.rig.journal.pause = Pause(datetime(2026, 1, 1, tzinfo=UTC), "bert@host", "the storage is slow")
    bench.between = {50: lambda: setattr(bench.rig.journal, "pause", None)}
    assert (await bench.run()).well
    assert len(bench.told("paused by bert@host")) == 1
    assert bench.told("published:") == ["a"]
    assert bench.said[0].startswith("- rehome is paused by bert@host since 2026-01-01 00:00 UTC")


async def test_a_drain_that_is_stopped_goes_on_with_the_same_command() -> None:
    bench = Bench("a", "b", "c")
    bench.between = {2: bench.stop.set}
    summary = await bench.run(at_once=1)
    assert bench.told("published:") == ["a"]
    assert [one.instance.name for one in summary.left] == ["b", "c"]
    assert len(summary.under_way) == 1
    text = " ".join(" ".join(outcome_lines(bench.rig.site.pool, summary)).split())
    assert "1 under way, 2 still to be moved, 0 left out" in text
    assert "under way: 1, to the end without this command" in text
    assert "the same command goes on with what is left on postgres-pool-1" in text
    document = outcome_document(bench.rig.site.pool, summary, stopped=True)
    assert ([one["name"] for one in document["left"]], document["stopped"]) == (["b", "c"], True)
    # what it published is noted also where a consumer took it only afterwards
    assert len(bench.views.noted) == 1
    bench.stop.clear()
    assert (await bench.run(at_once=1)).well
    assert bench.told("published:") == ["a", "b", "c"]
    assert bench.told("completed in") == ["a", "b", "c"]
    assert (bench.homes(), bench.most) == (set(), 1)


async def test_one_just_published_is_noted_when_a_consumer_takes_it_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench("a")
    bench.consumer, bench.between = False, {1: bench.stop.set}

    async def second(_: float) -> None:
        if bench.rig.is_ready():
            await bench.rig.handle_next()

    monkeypatch.setattr(asyncio, "sleep", second)
    await bench.run()
    assert [what for _, what, _ in bench.views.noted] == [DRAINED]


async def test_what_no_consumer_has_taken_is_not_opened_twice_when_the_drain_goes_on() -> None:
    bench = Bench("a")
    bench.consumer, bench.between = False, {1: bench.stop.set}
    await bench.run()
    bench.stop.clear()
    bench.consumer = True
    assert (await bench.run()).well
    assert bench.told("published:") == ["a", "a"]
    assert len(bench.rig.journal.migrations) == 1


async def test_two_drains_at_once_move_each_customer_once() -> None:
    bench = Bench("a", "b", "c")
    await asyncio.gather(*(bench.drain(at_once=2).run() for _ in range(2)))
    assert bench.homes() == set()
    assert sorted(row.state for row in bench.rig.journal.migrations.values()) == ["completed"] * 3


async def test_an_upgrade_of_the_customers_own_counts_and_is_not_published_again() -> None:
    bench = Bench("a", "b")
    event = upgrade(next(one for one, name in bench.ids.items() if name == "b" and one))
    bench.rig.publish(event)
    await bench.rig.handle_next()
    assert (await bench.run(at_once=1)).well
    assert bench.told("published:") == ["a"]
    assert bench.told("completed in") == ["b", "a"]
    assert (bench.most, len(bench.views.noted)) == (1, 1)


async def test_who_was_rolled_back_is_told_left_out_and_moved_when_that_is_asked_for() -> None:
    bench = Bench("a", "b")
    bench.rig.site.world.database(bench.rig.site.pool, "a").immovable.append("a large thing")
    summary = await bench.run()
    assert bench.told("rolled back: ") == ["a"]
    assert (summary.well, bench.homes(), summary.left) == (False, {"a"}, [])
    text = "\n".join(outcome_lines(bench.rig.site.pool, summary))
    assert "1 rolled back, 1 completed" in text
    bench.rig.site.world.database(bench.rig.site.pool, "a").immovable.clear()
    summary = await bench.run()
    assert (bench.told("published:"), len(summary.left_out)) == (["a", "b"], 1)
    assert (await bench.run(again=True)).well
    assert (bench.told("published:"), bench.homes()) == (["a", "b", "a"], set())


async def test_one_that_is_replayed_after_its_rollback_is_followed_again() -> None:
    bench = Bench("a", "b")
    first = bench.rig.site.world.database(bench.rig.site.pool, "a")
    first.immovable.append("a large thing")

    def replay() -> None:
        first.immovable.clear()
        (letter,) = bench.rig.node.queues[DEAD].ready
        (row,) = [one for one in bench.rig.journal.migrations.values() if one.ended]
        assert letter.routing_key == "prepare"
        bench.rig.replay(replay_of(decode(row.trigger)), "accept")

    bench.between = {6: replay}
    summary = await bench.run(at_once=1)
    assert bench.told("rolled back: ") == ["a"]
    assert sorted(bench.told("completed in")) == ["a", "b"]
    assert (summary.well, bench.most) == (True, 2)


async def test_too_many_failures_end_the_publishing() -> None:
    bench = Bench("a", "b", "c", "d")
    for name in ("a", "b", "c", "d"):
        bench.rig.site.world.database(bench.rig.site.pool, name).immovable.append("a large thing")
    summary = await bench.run(at_once=1, failures=2, again=True)
    assert bench.told("published:") == ["a", "b"]
    assert (summary.gave_up, summary.well) == (True, False)
    assert [one.instance.name for one in summary.left] == ["c", "d"]
    assert len(bench.told("2 did not complete: nothing more is begun")) == 1


async def test_what_ended_the_publishing_is_not_undone_by_a_replay() -> None:
    bench = Bench("a", "b", "c")
    refused = bench.refuse("a")

    def replay() -> None:
        bench.consumer = bench.rounds > 3  # both are published before the first one fails
        if bench.told("needs an operator: it failed") and refused:
            refused.clear()
            (row,) = [one for one in bench.rig.journal.migrations.values() if one.state == "failed"]
            bench.rig.replay(replay_of(decode(row.trigger)), "accept")

    bench.between = dict.fromkeys(range(1, 150), replay)
    summary = await bench.run(at_once=2, failures=1)
    assert not refused
    assert (bench.told("published:"), sorted(bench.told("completed in"))) == (["a", "b"], ["a", "b"])
    assert (summary.gave_up, [one.instance.name for one in summary.left]) == (True, ["c"])


async def test_an_upgrade_that_waits_behind_another_holds_up_nobody() -> None:
    bench = Bench("a", "b")
    (first,) = bench.refuse("a")
    bench.between = {4: lambda: bench.rig.publish(upgrade(first))}
    summary = await bench.run(at_once=1)
    assert bench.rig.journal.waiting
    assert bench.told("completed in") == ["b"]
    assert not summary.well
    # and one that is discarded while it waits is followed no more

    def discard() -> None:
        bench.rig.journal.waiting.clear()
        for queue in bench.rig.node.queues.values():
            of_first = [one for one in queue.ready if str(first).encode() in one.message.body]
            for one in of_first:
                queue.ready.remove(one)

    bench.add("c")
    bench.between = {3: discard}
    await bench.run(at_once=1)
    assert bench.told("its upgrade waited behind another one, and is gone") == ["a"]
    assert bench.told("completed in") == ["b", "c"]


async def test_one_whose_upgrade_is_discarded_before_a_consumer_takes_it_holds_up_nobody() -> None:
    bench = Bench("a", "b")
    bench.consumer = False

    def discard() -> None:
        for queue in bench.rig.node.queues.values():
            bench.rig.journal.discarded |= {str(one.message.message_id) for one in queue.ready}
            queue.ready.clear()
        bench.consumer = True

    bench.between = {2: discard}
    summary = await bench.run(at_once=1)
    assert bench.told("its upgrade was discarded, and no consumer had taken it") == ["a"]
    assert bench.told("completed in") == ["b"]
    assert not summary.well
    assert "1 discarded, 1 completed" in "\n".join(outcome_lines(bench.rig.site.pool, summary))


async def test_one_that_waits_for_an_operator_holds_up_nobody() -> None:
    bench = Bench("a", "b")
    # a: its first step cannot be done, and nothing is rolled back
    bench.refuse("a")
    summary = await bench.run(at_once=1)
    assert bench.told("needs an operator: it failed") == ["a"]
    assert bench.told("completed in") == ["b"]
    assert (summary.well, [one.state for one in summary.of("failed")]) == (False, ["failed"])
    assert "1 waiting for an operator, 1 completed" in "\n".join(outcome_lines(bench.rig.site.pool, summary))
    # a later run begins with it, and does not count it as one of its own failures
    bench.add("c")
    assert not (await bench.run(at_once=1, failures=1)).gave_up
    assert bench.told("completed in") == ["b", "c"]


async def test_what_waits_long_is_named_with_its_reason() -> None:
    bench = Bench("a")
    pause = Pause(datetime(2026, 1, 1, tzinfo=UTC), "bert@host", "later")
    bench.between = {
        1: lambda: setattr(bench.rig.journal, "pause", pause),
        150: lambda: setattr(bench.rig.journal, "pause", None),
    }
    assert (await bench.run()).well
    assert bench.told("prepare waits: rehome is paused by bert@host") == ["a"]


async def test_a_server_that_does_not_answer_for_a_while_ends_nothing() -> None:
    bench = Bench("a")
    residents = bench.rig.site.platform.residents

    async def away(_: Any) -> Any:
        raise Unreachable("the platform database does not answer")

    bench.rig.site.platform.residents = away  # type: ignore[method-assign, assignment]
    bench.between = {
        100: lambda: setattr(bench.rig.site.platform, "residents", residents),
    }
    assert (await bench.run()).well
    assert bench.told("waits, for 10m at most: the platform database does not answer") == ["-"]
    bench.rig.site.platform.residents = away  # type: ignore[method-assign, assignment]
    with pytest.raises(Unreachable):
        await bench.run()
    assert 120 <= bench.rounds <= 125


async def test_an_upgrade_that_the_broker_may_have_taken_is_one_migration() -> None:
    bench, sends = Bench("a"), []

    async def publish(event: CloudEvent[PlanUpgraded]) -> None:
        sends.append(event.id)
        bench.rig.publish(event)
        if len(sends) == 1:
            raise Unreachable("the connection was lost before the confirm")

    bench.publish = publish  # type: ignore[method-assign]
    assert (await bench.run()).well
    assert len(bench.rig.journal.migrations) == 1
    # and it is the drain's own, also where the consumer was faster than the second publishing
    assert len(bench.views.noted) == 1


async def test_a_journal_that_no_consumer_has_made_yet_holds_no_migration() -> None:
    bench = Bench("a")

    async def none(*_: Any, **__: Any) -> Any:
        raise NotFound("the journal is not there")

    async def nothing(*_: Any) -> Any:
        return []

    for name, answer in {"migrations": none, "by_ids": none, "moves_from": nothing}.items():
        setattr(bench.views, name, answer)
    bench.consumer, bench.between = False, {3: bench.stop.set}
    await bench.run()
    assert bench.told("published:") == ["a"]
