"""A consumer as a process: its calls pass boundaries, at which faults are injected; dead, it reaches nothing."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.errors import ClaimLost
from rehome_consumer.process.freeze_watchdog import LONGEST
from rehome_consumer.process.readiness import Readiness
from rehome_consumer.process.worker import Worker
from tests.fakes.inspection import FakeQueueInspector
from tests.fakes.journal import FakeFacts
from tests.simulation import invariants
from tests.simulation.loop import OWNER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
    from uuid import UUID

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import InLine
    from rehome_consumer.ports.engine import Lookup, Message, Sending, StepRow
    from rehome_consumer.ports.readiness import Part
    from tests.fakes.broker import FakeBrokerClient, FakeDelivery
    from tests.fakes.claims import FakeClaim
    from tests.simulation.schedule import Schedule

T = TypeVar("T")

UNFAILING = frozenset({"facts.progress.before", "facts.progress.after"})
"""Calls that never fail, as their port promises."""
IDLE = frozenset(f"journal.{call}.{place}" for call in ("unsent", "purge") for place in ("before", "after"))
"""Boundaries that a consumer passes all the time, whatever happens."""
RELAY_EVERY = 60.0


LOOK_EVERY = 600.0
"""Likewise for looks at the consumer itself while nothing is missing; one precedes each step before the downtime."""


class KilledError(BaseException):
    """The process is dead; no code of the consumer catches this."""


class SlowRelay(Relay):
    """A relay that polls less often, since each query costs real time."""

    async def run(self, every: float = RELAY_EVERY) -> None:
        await super().run(every)


def checks_of(schedule: Schedule) -> dict[Part, Callable[[], Awaitable[None]]]:
    """What a consumer looks at; none where the schedule lets it lack nothing, since each look costs real time."""
    if not schedule.plan.unready:
        return {}
    site = schedule.site

    async def client_programs() -> None:
        await site.copier.client_version()

    async def backup_place() -> None:
        await site.copier.free_bytes()

    async def data_root() -> None:
        await site.odoo_conf.require_root(await site.platform.some_instances(1))

    return {
        "client_programs": client_programs,
        "backup_place": backup_place,
        "data_root": data_root,
        "database_service": site.database_service.require_ready,
        "runtime": site.runtime.require_ready,
    }


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the name of a boundary says.

    Attributes:
        idle: a consumer passes it all the time, whatever happens.
        fails: a call there may fail, if it is one.
        calls: between `.before` and `.after` there is a call of a step's port.
        checked: between a check of the claim and the call after it.
        changed: a database may have been changed.
    """

    idle: bool
    fails: bool
    calls: bool
    checked: bool
    changed: bool


BOUNDARIES: dict[str, Boundary] = {}


def boundary_of(at: str) -> Boundary:
    """Read the name, once."""
    return BOUNDARIES.setdefault(
        at,
        Boundary(
            idle=at in IDLE,
            fails=at not in UNFAILING,
            calls=at.endswith((".before", ".after")) and not at.startswith("publish."),
            checked=at.endswith(".checked"),
            changed=at.endswith(".after") and ".databases." in at,
        ),
    )


class Process:
    """One consumer.

    Attributes:
        claims: those it holds.
        stopped: it got SIGTERM.
    """

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.name = name
        self.alive = True
        self.stopped = False
        self.claims: list[FakeClaim] = []
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._paused = False
        self._client = schedule.node.client()
        broker = SimBroker(self, self._client)
        journal = SimJournal(self)
        relay = SlowRelay(journal, broker, probe=self.probe)
        readiness = Readiness(checks_of(schedule), queues=FakeQueueInspector(schedule.node), every=LOOK_EVERY)
        self.worker = Worker(
            engine=Engine(
                journal=journal,
                claims=SimClaims(self),
                broker=broker,
                relay=relay,
                ports=schedule.site.ports(None),  # type: ignore[arg-type] # the engine binds the facts for each run
                readiness=readiness,
                probe=self.probe,
            ),
            broker=broker,
            relay=relay,
            journal=journal,
            workers=1,
            grace=20.0,
            readiness=readiness,
        )
        context = copy_context()
        context.run(OWNER.set, self)
        self.task = asyncio.get_running_loop().create_task(self._run(), context=context)

    async def _run(self) -> None:
        try:
            await self.worker.run()
        except* KilledError:
            pass
        finally:
            self._end()

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self._end()
            self.resume()
            self.schedule.cancel_tasks_of(self)

    def _end(self) -> None:
        """The process has ended: broker and state database notice that its connections are closed."""
        if self.alive:
            self.alive = False
            self._client.close()
            for claim in list(self.claims):
                self.schedule.claims.cut(claim)
            self.schedule.process_ended(self)

    def lose_broker(self) -> None:
        """Its connection to the broker breaks: its deliveries go to another consumer."""
        self._client.lose_deliveries()

    def stop(self) -> None:
        """SIGTERM."""
        self.stopped = True
        self.worker.stop()

    async def pause(self, seconds: float, at: str) -> None:
        """SIGSTOP, and SIGCONT after so many seconds, in which only others run."""
        self._resumed.clear()
        self._paused = True
        asyncio.get_running_loop().call_later(seconds, self.resume)
        await self._wait_while_paused(at)

    async def _wait_while_paused(self, at: str) -> None:
        """Until SIGCONT. Between a check of the claim and the call after it the watchdog ends a process that was
        paused for long; elsewhere it continues, like a process of a machine that was frozen: that must do no harm.
        """
        since = self.schedule.loop.time()
        await self._resumed.wait()
        if at.endswith(".checked") and self.schedule.loop.time() - since >= LONGEST:
            self.kill()

    async def running(self) -> None:
        """Wait while it is paused."""
        if self._paused:
            await self._resumed.wait()

    def resume(self) -> None:
        """SIGCONT."""
        self._paused = False
        self._resumed.set()

    async def boundary(self, at: str, *, may_fail: bool = True) -> None:
        """A place at which faults are injected. Raises the error of a call that fails there."""
        if not self.alive:
            raise KilledError
        if self._paused:
            await self._wait_while_paused(at)
            if not self.alive:
                raise KilledError
        here = BOUNDARIES.get(at) or boundary_of(at)
        if here.idle:
            return
        schedule = self.schedule
        if schedule.passed(self, at):
            await schedule.inject_fault(self, at)
        if schedule.faults.pending and may_fail and here.fails and self.alive:
            schedule.faults.fail_pending(at)
        random = schedule.random
        if random.random() < schedule.plan.slow and not here.checked:
            await schedule.loop.sleep(random.expovariate(0.5 if random.random() < 0.1 else 50))
        if here.changed:
            schedule.check_writable(at)
        if not self.alive:
            raise KilledError

    async def probe(self, at: str) -> None:
        """Engine and relay call this; between a step's `.before` and `.after` there is a call of a port."""
        here = BOUNDARIES.get(at) or boundary_of(at)
        if here.checked and self.alive:
            self.schedule.require_claim(self, at)
        await self.boundary(at, may_fail=here.calls)


@cache
def around(port: str, method: str) -> tuple[str, str]:
    """Names of the boundaries before and after a call."""
    return f"{port}.{method}.before", f"{port}.{method}.after"


class Through:
    """A port of which every call passes a boundary before and after."""

    def __init__(self, process: Process, name: str, port: Any) -> None:
        self._process = process
        self._name = name
        self._port = port

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._port, method)
        boundary, require_journal = self._process.boundary, self._process.schedule.faults.require_journal
        before, after = around(self._name, method)

        async def passing(*arguments: Any, **named: Any) -> Any:
            await boundary(before)
            require_journal()
            result = await call(*arguments, **named)
            await boundary(after)
            return result

        setattr(self, method, passing)  # cached for the next call
        return passing


class WatchedFacts(FakeFacts):
    """Port `Facts`, which notices a move that goes on although a pause, the window, a limit or the line holds it up."""

    def __init__(self, schedule: Schedule, row: StepRow) -> None:
        super().__init__(schedule.journal, row)
        self._schedule = schedule

    async def remember(self, fact: Fact[T], value: T) -> T:
        watching = (invariants.unpaused, invariants.in_window, invariants.few_down)
        found = [check(self._schedule, self._row, fact) for check in watching]
        value = await super().remember(fact, value)
        self._schedule.violations += [one for one in found if one]
        return value

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:
        watch, journal, row = self._schedule.line, self._schedule.journal, self._row
        has = {slot for slot, *one in journal.slots if one == [row.migration_id, row.attempt]}
        missing = {slot: places for slot, places in wanted.items() if slot not in has}
        passed = watch.passed_over(row, missing) if waits else []
        place = await super().acquire_slots(wanted, waits=waits)
        if missing and waits:
            found = watch.looked(row, missing, passed, place)
            self._schedule.violations += [found] if found else []
        return place

    async def release_slots(self, resources: Collection[str]) -> None:
        await super().release_slots(resources)
        self._schedule.line.left(self._row)


class SimJournal(Through):
    """Port `Journal` as one process reaches it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process, "journal", process.schedule.journal)

    def facts(self, row: StepRow) -> Any:
        return Through(self._process, "facts", WatchedFacts(self._process.schedule, row))

    @asynccontextmanager
    async def sending(self, migration_id: UUID) -> AsyncIterator[Sending]:
        await self._process.boundary("journal.sending.before")
        self._process.schedule.faults.require_journal()
        async with self._port.sending(migration_id) as sending:
            yield sending
            await self._process.boundary("journal.sending.commit")
            self._process.schedule.faults.require_journal()
        await self._process.boundary("journal.sending.after")


class SimClaim:
    """Port `Claim`: the server knows at once that its connection ended, the process a while later."""

    def __init__(self, process: Process, claim: FakeClaim) -> None:
        self._process = process
        self._claim = claim
        self.found = claim.found

    async def check(self) -> None:
        await self._process.boundary("claim.check", may_fail=False)
        self._process.schedule.faults.require_journal(ClaimLost)
        await self._claim.check()

    async def lost(self) -> None:
        await self._claim.lost()
        await self._process.running()  # a paused process notices nothing
        await self._process.schedule.loop.sleep(self._process.schedule.random.choice((0, 0.01, 5.0)))


class SimClaims:
    """Port `Claims` as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @asynccontextmanager
    async def claim(self, instance_id: UUID, lookup: Lookup | None = None) -> AsyncIterator[SimClaim | None]:
        await self._process.boundary("claims.claim.before")
        self._process.schedule.faults.require_journal()
        async with self._process.schedule.claims.claim(instance_id, lookup) as claim:
            if claim is None:
                yield None
                return
            self._process.claims.append(claim)
            try:
                yield SimClaim(self._process, claim)
            finally:
                self._process.claims.remove(claim)


class SimDelivery:
    """Port `Delivery`: an acknowledgement may be lost with its channel."""

    def __init__(self, process: Process, delivery: FakeDelivery) -> None:
        self._process = process
        self._delivery = delivery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delivery, name)

    async def ack(self) -> None:
        await self._process.boundary("ack.before", may_fail=False)
        if self._process.schedule.faults.loses_ack():
            self._delivery.return_to_queue()
        else:
            await self._delivery.ack()
        await self._process.boundary("ack.after", may_fail=False)


class SimBroker:
    """Port `Broker` as one process reaches it."""

    def __init__(self, process: Process, client: FakeBrokerClient) -> None:
        self._process = process
        self._client = client

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        await self._process.boundary("broker.publish.before")
        await self._client.publish(exchange, routing_key, message, mandatory=mandatory)
        await self._process.boundary("broker.publish.after")

    async def consume(self, queue: str) -> AsyncGenerator[Any, None]:
        async with aclosing(self._client.consume(queue)) as deliveries:
            async for delivery in deliveries:
                await self._process.boundary("broker.delivered", may_fail=False)
                yield SimDelivery(self._process, delivery)
