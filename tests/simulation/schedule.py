"""One schedule: a platform, tenants who write, consumers, operators, and the faults of a seed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from consumer import saga
from consumer.delivery import replay
from consumer.delivery.reading import migration_id_of
from consumer.errors import RehomeError, TimedOut, Unreachable
from consumer.ports_engine import Message
from consumer.topology import DEAD, HANDLER, definitions, queue_of
from events.envelope import decode
from events.errors import Undecodable
from events.migration import MigrationFailed
from tests.fakes.broker import FakeBroker
from tests.fakes.claims import FakeClaims
from tests.fakes.journal import FakeJournal
from tests.fakes.site import Site
from tests.simulation.faults import PERMANENT, TRANSIENT, Kind, plan
from tests.simulation.loop import OWNER, VirtualLoop
from tests.simulation.process import Process
from tests.support.events import body_of, migration_of, told, upgrade

if TYPE_CHECKING:
    from events.envelope import CloudEvent
    from tests.fakes.broker import Stored

START: Final = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
CALM: Final = 900.0
"""Seconds until the faults end; what is left has to end by itself, or by operators."""
LOOK: Final = 600.0
LOOKS: Final = 150
ROUNDS: Final = 5
WRITES: Final = 12
PATIENCE: Final = 2.0
TOPOLOGY: Final = definitions()
HANDLERS: Final = frozenset(queue_of(step.name) for step in saga.MIGRATION)
NAMES: Final = ("acme", "brie", "cato")
IDLE: Final = ("journal.unsent.", "journal.purge.")
"""Boundaries that a consumer passes all the time, whatever happens."""


class LoopClock:
    """Port `Clock`: the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time())


class Schedule:
    """Everything of one schedule.

    Attributes:
        violations: what did not hold, in words.
        trace: what happened, as (seconds, who, what), if it is kept.
        boundaries: how many were passed.
    """

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.random = Random(seed)  # noqa: S311 - reproducible is the point
        self.plan = plan(self.random)
        self.loop = VirtualLoop(seed)
        self.violations: list[str] = []
        self.trace: list[tuple[float, str, str]] | None = [] if keep_trace else None
        self.boundaries = 0
        self.site: Site
        self.node: FakeBroker
        self.tenants: list[UUID] = []
        self.upgrades: list[CloudEvent[Any]] = []
        self.processes: list[Process] = []
        self.calm = False
        self._pending: list[Kind] = []
        self._lost_acks = 0
        self._truncations = 0
        self._no_journal_until = 0.0
        self._arriving = 0
        self._letters = 0
        self._errands: list[asyncio.Task[None]] = []

    def run(self) -> list[str]:
        """Play it; returns what did not hold."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._play())
        finally:
            self._clean_up()
            asyncio.set_event_loop(None)
            self.loop.close()
        return self.violations

    async def _play(self) -> None:
        self._build()
        for number in range(self.plan.consumers):
            self._start(f"c{number}")
        for event in self.upgrades:
            self.say("billing", f"plan.upgraded {event.id}")
            self.node.publish("billing", event.type, Message.of_event(body_of(event)), mandatory=True)
        self._errands = [
            *(asyncio.create_task(self._customer(tenant)) for tenant in self.tenants),
            *(asyncio.create_task(self._upgrade_again(*again)) for again in self.plan.second_upgrade),
            *(asyncio.create_task(self._roll_back(at)) for at in self.plan.rolled_back_at),
            *(asyncio.create_task(self._replay_all_later()) for _ in range(self.plan.replays)),
        ]
        await asyncio.sleep(CALM)
        await self._be_calm()
        if not await self._settled():
            self.violations.append(f"it does not come to rest: {self.node.waiting()}")
        from tests.simulation import invariants  # noqa: PLC0415 - they look at schedules

        if self._waits_for_operator():
            self.violations += invariants.at_rest(self)
        for _ in range(ROUNDS):
            if not self._waits_for_operator():
                break
            self._replay_all()
            await self._settled()
        self.violations += invariants.at_the_end(self)

    def _build(self) -> None:
        clock = LoopClock(self.loop)
        self.site = Site(clock)
        self.site.world.pause = self._world_paused
        self.site.database_service.moods = list(self.plan.moods)  # type: ignore[arg-type] # its words
        self.site.database_service.takes_back = self.plan.takes_back
        self.site.database_service.tells_login = self.plan.tells_login
        self.journal = FakeJournal(clock)
        self.claims = FakeClaims(PATIENCE)
        self.node = FakeBroker(TOPOLOGY)
        self.node.bind("migration", "events", "#")
        self.node.arrivals = self._arrivals
        self._restore = self.site.copier.restore
        object.__setattr__(self.site.copier, "restore", self._perhaps_truncated)
        for index, replicas in enumerate(self.plan.tenants):
            tenant = self.site.add_tenant(NAMES[index], replicas=replicas)
            self.tenants.append(tenant)
            self.upgrades.append(upgrade(tenant, id=UUID(int=index + 1, version=4)))

    def _start(self, name: str) -> None:
        self.say(name, "is started")
        self.processes.append(Process(self, name))

    def gone(self, process: Process) -> None:
        """A process has ended: somebody starts a new one after a while."""
        self.say(process.name, "is gone")
        self.processes.remove(process)
        delay = self.random.expovariate(0.5)
        self.loop.call_later(delay, self._start, process.name + "'")

    def cancel_tasks_of(self, process: Process) -> None:
        """What is left of a dead process runs no more."""
        current = asyncio.current_task()
        for task in self.loop.unfinished(process):
            if task is not current:
                task.cancel()

    async def passed(self, process: Process, at: str, *, may_fail: bool) -> None:
        """A process is at a boundary: time may pass, and it may be struck."""
        if at.startswith(IDLE):
            return
        self.boundaries += 1
        if self.trace is not None:
            self.say(process.name, at)
        if not self.calm and self.boundaries in self.plan.strikes:
            await self._strike(process, self.plan.strikes[self.boundaries])
        if self._pending and may_fail and process.alive:
            self._fail_pending(at)
        if self.random.random() < self.plan.sluggish:
            await asyncio.sleep(self.random.expovariate(0.5 if self.random.random() < 0.1 else 50))
        if ".databases." in at:
            self._check_writable(at)

    async def _strike(self, process: Process, kind: Kind) -> None:
        self.say("fate", f"{kind} {process.name}")
        match kind:
            case "kill":
                process.kill()
            case "shutdown":
                process.stop()
            case "pause":
                await self._pause(process)
            case "cut":
                self._cut(process)
            case "fail" | "refuse" | "defect":
                self._pending.append(kind)
            case _:
                self._strike_neighbour(kind)

    async def _pause(self, process: Process) -> None:
        seconds = self.random.choice((1, 10, 120))
        if self.random.random() < 0.7:
            self.loop.call_later(self.random.random() * seconds, self._cut, process)
        await process.pause(seconds)

    def _strike_neighbour(self, kind: Kind) -> None:
        """What befalls not the consumer but what it works with."""
        match kind:
            case "lost_ack":
                self._lost_acks += 1
            case "truncate":
                self._truncations += 1
            case "node":
                self.node.drop_connections()
            case "no_broker":
                self.node.refusing = Unreachable("no broker")
                self.loop.call_later(self._outage(), self._broker_is_back)
            case "no_journal":
                self._no_journal_until = self.loop.time() + self._outage()
            case "no_target":
                self._reach_targets(False)
                self.loop.call_later(self._outage(), self._reach_targets, True)
            case "meddle":
                self._meddle()
            case "garbage":
                queue = self.random.choice(sorted(HANDLERS)).rpartition(".")[2]
                self.node.route(HANDLER, queue, Message(body=b"{" * self.random.randrange(5)))

    def _outage(self) -> int:
        return self.random.choice((2, 30, 200))

    def _meddle(self) -> None:
        for tenant in self.tenants:
            service = self.site.instance(tenant).service
            if self.site.runtime.services[service].spec["replicas"] == 0 and self.plan.tenants[0]:
                self.site.runtime.change(service, replicas=1)

    def _cut(self, process: Process) -> None:
        for claim in list(process.claims):
            self.say("fate", f"the claim of {process.name} is cut")
            self.claims.cut(claim)

    def _fail_pending(self, at: str) -> None:
        of_step = at.partition(".")[0] not in {"journal", "notes", "claims", "broker", "world"}
        for index, kind in enumerate(self._pending):
            if kind != "fail" and not of_step:
                continue
            del self._pending[index]
            self.say("fate", f"{kind} at {at}")
            if kind == "defect":
                raise KeyError("a defect")
            if kind == "refuse":
                raise self.random.choice(PERMANENT)("no")
            raise self.random.choice(TRANSIENT if of_step else (Unreachable, TimedOut))("no answer")

    def require_journal(self, error: type[RehomeError] = Unreachable) -> None:
        """Raise while the state database does not answer."""
        if self.loop.time() < self._no_journal_until:
            raise error("state database: no answer")

    def loses_ack(self) -> bool:
        """Whether the acknowledgement that is being made is lost."""
        if self._lost_acks and not self.calm:
            self._lost_acks -= 1
            return True
        return False

    def _broker_is_back(self) -> None:
        self.node.refusing = None

    def _reach_targets(self, reachable: bool) -> None:
        for (host, _), there in self.site.world.servers.items():
            if host != self.site.pool.host:
                there.reachable = reachable

    async def _perhaps_truncated(self, *arguments: Any) -> None:
        await self._restore(*arguments)
        server, database = arguments[:2]
        if self._truncations:
            self._truncations -= 1
            copy = self.site.world.at(server).databases.get(database)
            if copy is not None and copy.tables:
                self.say("fate", f"{database} is truncated")
                copy.tables["public.res_partner"] = []

    async def _world_paused(self, at: str) -> None:
        self.site.reconcile()
        if at.startswith("databases."):
            self._check_writable(at)
        process = OWNER.get()
        if process is not None:
            await process.boundary(f"world.{at}", may_fail=False)
            self.site.reconcile()

    def _check_writable(self, at: str) -> None:
        for tenant in self.tenants:
            places = self.site.writable(tenant)
            if len(places) > 1:
                self.violations.append(f"{tenant} is writable on {places} at {at}")

    def _arrivals(self, queue: str, _stored: Stored) -> tuple[float, ...]:
        if queue not in HANDLERS or self.calm:
            return (0.0,)
        copies = [self._lateness()]
        if self.random.random() < self.plan.duplicates:
            copies.append(self.random.choice((0.0, 1.0, 60.0)))
        self._arriving += sum(1 for delay in copies if delay)
        for delay in copies:
            if delay:
                self.loop.call_later(delay, self._arrived)
        return tuple(copies)

    def _lateness(self) -> float:
        return self.random.expovariate(0.2) if self.random.random() < self.plan.delays else 0.0

    def _arrived(self) -> None:
        self._arriving -= 1

    async def _customer(self, tenant: UUID) -> None:
        for number in range(WRITES):
            await asyncio.sleep(self.random.expovariate(0.25))
            if self.site.write(tenant, number):
                self.say("customer", f"saved order {number} of {tenant}")

    async def _upgrade_again(self, index: int, at: float) -> None:
        await asyncio.sleep(at)
        event = upgrade(self.tenants[index], id=UUID(int=0x100 + index, version=4))
        self.say("billing", f"plan.upgraded again {event.id}")
        self.upgrades.append(event)
        self.node.route("billing", event.type, Message.of_event(body_of(event)))

    async def _roll_back(self, at: float) -> None:
        """As `rehome roll-back` does."""
        await asyncio.sleep(at)
        row = self.journal.migrations.get(migration_of(self.random.choice(self.upgrades)))
        if row is None:
            return
        failure = told(
            MigrationFailed(
                instance_id=row.instance_id, step="accept", error="Operator", message="x", attempts=1,
                next="roll_back",
            ),
            row.id,
            row.attempt,
        )  # fmt: skip
        for _ in range(30):
            async with self.claims.claim(row.instance_id) as claim:
                if claim is not None:
                    row = self.journal.migrations[row.id]
                    begun = (row.id, row.attempt, "prepare") in self.journal.steps
                    if begun and not row.ended and not row.past_return and row.attempt == failure.attempt:
                        self.say("operator", f"rolls back {row.id}")
                        await self.journal.ask_roll_back(row, failure, "asked for")
                    return

    async def _replay_all_later(self) -> None:
        await asyncio.sleep(self.random.expovariate(0.003))
        self._replay_all()

    def _replay_all(self) -> None:
        """As `rehome dead replay --all`, without its second thoughts; what cannot be read is discarded."""
        letters = self.node.queues[DEAD].ready
        for _ in range(len(letters)):
            stored = letters.popleft()
            try:
                event = decode(stored.message.body, stored.message.content_type, stored.message.headers)
            except Undecodable:
                continue
            row = self.journal.migrations.get(migration_id_of(event) or UUID(int=0))
            handler = stored.routing_key
            if row is not None and row.state == "rolled_back":
                event, handler = decode(row.trigger), "accept"
            self._letters += 1
            message = replay.again(event, UUID(int=0x10000 + self._letters, version=4))
            self.say("operator", f"replays {event.type} for {handler}")
            for _ in range(2 if self.random.random() < 0.2 else 1):
                self.node.route(HANDLER, handler, message)

    def _waits_for_operator(self) -> bool:
        return any(not row.ended for row in self.journal.migrations.values())

    async def _be_calm(self) -> None:
        """No more faults: everything is reachable, everybody runs."""
        self.say("fate", "is calm")
        self.calm = True
        self._pending.clear()
        self._truncations = 0
        self._broker_is_back()
        self._reach_targets(True)
        self._no_journal_until = 0.0
        for process in self.processes:
            process.resume()
        for errand in self._errands:
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)

    async def _settled(self) -> bool:
        """Wait until nothing moves any more."""
        for _ in range(LOOKS):
            await asyncio.sleep(LOOK)
            busy = set(self.node.waiting()) - {DEAD, "events"}
            if not busy and not self._arriving and not await self.journal.unsent():
                return True
        return False

    def say(self, who: str, what: str) -> None:
        """Keep it for whoever reads the trace."""
        if self.trace is not None:
            self.trace.append((self.loop.time(), who, what))

    def _clean_up(self) -> None:
        for task in self.loop.unfinished():
            task.cancel()
        self.calm = True
        for process in list(self.processes):
            process.alive = False
        self.loop.run_until_complete(asyncio.sleep(0))
        for _ in range(20):
            if not (left := self.loop.unfinished()):
                return
            self.loop.run_until_complete(asyncio.wait(left, timeout=1))
