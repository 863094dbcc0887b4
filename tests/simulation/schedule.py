"""One schedule: a platform, tenants that write, consumers, operators, and the faults of a seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from rehome_consumer.context import current_migration
from rehome_consumer.model import Policy, Window
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import DEAD, definitions
from rehome_events.billing import PlanUpgraded
from rehome_events.envelope import decode
from rehome_events.migration import MigrationPrepared, MigrationRequested
from tests.fakes.broker import FakeBroker
from tests.fakes.claims import FakeClaims
from tests.fakes.journal import FakeJournal
from tests.fakes.site import Site
from tests.simulation import customers, invariants
from tests.simulation.fault_injection import FaultInjection
from tests.simulation.fault_plan import Plan, crowd, opens, paused, plan, unfollowed, unready
from tests.simulation.line_watch import LineWatch
from tests.simulation.loop import OWNER, VirtualLoop, known
from tests.simulation.no_secrets import SAMPLE, LogCheck
from tests.simulation.operators import Operators
from tests.simulation.process import Process
from tests.support.events import body_of, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from rehome_events.envelope import CloudEvent

START: Final = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
FAULT_SECONDS: Final = 900.0
"""Seconds until the faults end; what is left has to end by itself, or by operators."""
CHECK_SECONDS: Final = 600.0
CHECKS: Final = 150
OPERATOR_ROUNDS: Final = 8
CLAIM_SECONDS: Final = 2.0
MOST: Final = 150_000
"""Boundaries after which a schedule is given up: those that come to rest have at most about 3,000, but for those in
which some wait, until operators come, for the slot of one whose message was lost: they look every ten seconds."""
NEW_ENOUGH: Final = 170012
"""A version of PostgreSQL for copies that follow."""
TOPOLOGY: Final = definitions()
NAMES: Final = ("acme", "brie", "cato", "dido", "egon")


def window(opens: float) -> Window:
    """A maintenance window that opens so many seconds after the start, and closes at the next start."""
    start = START + timedelta(seconds=opens)
    return Window(start.time(), START.time(), ZoneInfo("UTC"))


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
        passed_names: their names.
        log_check: secrets in log lines.
        injected: faults, as (kind, name of the boundary).
        unmovable_since: tenants whose database no restore takes; the stops that were done before.
    """

    def __init__(
        self, seed: int, *, keep_trace: bool = False, lean: Callable[[Plan, Random], None] | None = None
    ) -> None:
        """Draw it; `lean` changes what was drawn, so that what is rare by chance is frequent."""
        self.random = Random(seed)  # noqa: S311 - reproducible is the point
        self.plan = plan(self.random)
        # Of its own, so that the rest of a seed's schedule is as it was.
        self.plan.unready = unready(Random(f"{seed} unready"))  # noqa: S311
        self.plan.cutover = Random(f"{seed} cutover").choice(("careful", "quick"))  # noqa: S311
        self.plan.strategy = Random(f"{seed} strategy").choice(("auto", "cold"))  # noqa: S311
        self.plan.paused = paused(Random(f"{seed} paused"))  # noqa: S311
        self.plan.opens = opens(Random(f"{seed} opens"))  # noqa: S311
        self.plan.down_at_once = Random(f"{seed} down").choice((None, 1))  # noqa: S311
        crowd(self.plan, Random(f"{seed} crowd"))  # noqa: S311
        if self.plan.strategy == "auto":
            self.plan.unfollowed = unfollowed(Random(f"{seed} unfollowed"))  # noqa: S311
        if lean is not None:
            lean(self.plan, Random(f"{seed} lean"))  # noqa: S311
        self.loop = VirtualLoop(seed)
        self.violations: list[str] = []
        self.trace: list[tuple[float, str, str]] | None = [] if keep_trace else None
        self.boundaries = 0
        self.site: Site
        self.node: FakeBroker
        self.tenants: list[UUID] = []
        self.upgrades: list[CloudEvent[Any]] = []
        self.processes: list[Process] = []
        self.passed_names: set[str] = set()
        self.injected: list[tuple[str, str]] = []
        self.unmovable_since: dict[UUID, frozenset[Any]] = {}
        self._people: list[asyncio.Task[None]] = []
        self._passed_in: Counter[str] = Counter()
        self.log_check = LogCheck()
        self._logs_checked = seed % SAMPLE == 0
        self._build()

    def run(self) -> list[str]:
        """Play it; returns what did not hold."""
        asyncio.set_event_loop(self.loop)
        if self._logs_checked:
            self.log_check.start()
        playing = self._play_on_known_loop()
        try:
            self.loop.run_until_complete(playing)
        except RuntimeError:
            if self.boundaries < MOST:
                raise
            self.violations.append(f"comes to rest: it does not, after {self.boundaries} boundaries")
        finally:
            playing.close()  # one that did not end would go on to take this loop for the running one
            try:
                self._clean_up()
            finally:
                if self._logs_checked:
                    self.log_check.stop()
                asyncio.set_event_loop(None)
                self.loop.close()
        return self.violations

    async def _play_on_known_loop(self) -> None:
        with known(self.loop):
            await self._play()

    async def _play(self) -> None:
        for number in range(self.plan.consumers):
            self._start(f"c{number}")
        for event in self.upgrades:
            self.log("billing", f"plan.upgraded {event.id}")
            self.node.publish("billing", event.type, Message.of_event(body_of(event)), mandatory=True)
        self._people = [
            *(asyncio.create_task(customers.save_orders(self, tenant)) for tenant in self.tenants),
            *(
                asyncio.create_task(customers.upgrade_again(self, *again))
                for again in self.plan.second_upgrade
            ),
            *(asyncio.create_task(customers.install_module(self, *one)) for one in self.plan.installs),
            *(asyncio.create_task(self.operators.roll_back_later(at)) for at in self.plan.rolled_back_at),
            *(asyncio.create_task(self.operators.pause_later(*one)) for one in self.plan.paused),
            *(asyncio.create_task(self.operators.prioritize_later(*one)) for one in self.plan.prioritized),
            *(asyncio.create_task(self.operators.replay_later(at)) for at in self.plan.replayed_at),
            *(asyncio.create_task(self.faults.lack_later(*one)) for one in self.plan.unready),
            *(asyncio.create_task(self.faults.unfollow_later(*one)) for one in self.plan.unfollowed),
            *(asyncio.create_task(self.operators.doctor.run_later(at)) for at in self.plan.doctored_at),
        ]
        await self.loop.sleep(FAULT_SECONDS)
        self.faults.end()
        for task in self._people:
            task.cancel()
        await asyncio.gather(*self._people, return_exceptions=True)
        if not await self._settled():
            self.violations.append(f"comes to rest: it does not: {self.node.waiting()}")
        if self._waits_for_operator():
            self.violations += invariants.at_rest(self)
        for number in range(OPERATOR_ROUNDS):
            if not self._waits_for_operator():
                break
            await self.operators.tend(blindly=bool(number % 2))
            await self._settled()
        self.violations += invariants.at_the_end(self)
        await self.operators.doctor.run()
        self.violations += invariants.after_the_doctor(self)

    def _build(self) -> None:
        clock = LoopClock(self.loop)
        policy = Policy(
            dumps_per_server=1,
            down_at_once=self.plan.down_at_once,
            cutover=self.plan.cutover,
            strategy=self.plan.strategy,
            windows=() if self.plan.opens is None else (window(self.plan.opens),),
        )
        self.site = Site(clock, policy)
        if self.plan.strategy == "auto":
            self.site.world.at(self.site.pool).version = NEW_ENOUGH
            self.site.database_service.server_version = NEW_ENOUGH
            self.site.world.client = NEW_ENOUGH // 10000
        self.site.world.pause = self._world_paused
        self.site.database_service.moods = list(self.plan.moods)  # type: ignore[arg-type] # its words
        self.site.database_service.takes_back = self.plan.takes_back
        self.site.database_service.gives_login = self.plan.gives_login
        self.journal = FakeJournal(clock)
        self.claims = FakeClaims(CLAIM_SECONDS, self.journal)
        self.node = FakeBroker(TOPOLOGY)
        self.node.bind("migration", "events", "#")
        self.faults = FaultInjection(self)
        self.injected = self.faults.injected
        self.operators = Operators(self)
        self.line = LineWatch(self)
        for index, replicas in enumerate(self.plan.tenants):
            tenant = self.site.add_tenant(NAMES[index], replicas=replicas)
            self.tenants.append(tenant)
            if index in self.plan.has_server:
                self.site.add_dedicated(tenant)
            priority = self.plan.priorities[index]
            self.upgrades.append(upgrade(tenant, id=UUID(int=index + 1, version=4), priority=priority))

    def _start(self, name: str) -> None:
        self.log(name, "starts")
        self.processes.append(Process(self, name))

    def process_ended(self, process: Process) -> None:
        """A process has ended: a new one is started after a while."""
        self.log(process.name, "has ended")
        self.processes.remove(process)
        delay = self.random.expovariate(0.5)
        self.loop.call_later(delay, self._start, process.name + "'")

    def cancel_tasks_of(self, process: Process) -> None:
        """The tasks of a dead process run no more."""
        current = asyncio.current_task()
        for task in self.loop.unfinished(process):
            if task is not current:
                task.cancel()

    def passed(self, process: Process, at: str) -> bool:
        """A process is at a boundary; whether there may be a fault for it (see `inject_fault`)."""
        self.boundaries += 1
        if self.boundaries == MOST:
            self.loop.stop()
        self.passed_names.add(at)
        if self.trace is not None:
            self.log(process.name, at)
        if self.faults.ended:
            return False
        if self.plan.at_step and (step := at.partition(".")[0]) in self.plan.at_step:
            if kind := self.plan.at_step[step].get(self._passed_in[step]):
                self.plan.at_boundary[self.boundaries] = kind
            self._passed_in[step] += 1
        return self.boundaries in self.plan.at_boundary or self.faults.pausing is process

    async def inject_fault(self, process: Process, at: str) -> None:
        """The fault that the plan has for this boundary, if any."""
        if self.boundaries in self.plan.at_boundary:
            await self.faults.inject(process, self.plan.at_boundary[self.boundaries], at)
        if self.faults.pausing is process:
            await self.faults.pause_pending(process, at)

    def require_claim(self, process: Process, at: str) -> None:
        """At every moment: a process that calls a port has checked the claim, and holds it."""
        migration = current_migration.get()
        row = self.journal.migrations[migration] if migration else None
        if row is None or self.claims.held.get(row.instance_id) not in process.claims:
            self.violations.append(f"one at work: {process.name} works without a claim at {at}")

    async def _world_paused(self, at: str) -> None:
        self.site.reconcile()
        if at.startswith("databases."):
            self.check_writable(at)
        process = OWNER.get()
        if process is not None:
            await process.boundary(f"world.{at}", may_fail=False)
            self.site.reconcile()

    def check_writable(self, at: str) -> None:
        """At every moment, after every small change of a database: see `invariants.writable`."""
        for tenant in self.tenants:
            if found := invariants.writable(self.site, tenant):
                self.violations.append(f"{found} at {at}")

    def _waits_for_operator(self) -> bool:
        return any(not row.ended for row in self.journal.migrations.values())

    async def _settled(self) -> bool:
        """Wait until nothing happens any more."""
        for _ in range(CHECKS):
            await self.loop.sleep(CHECK_SECONDS)
            if (
                not self._busy()
                and not self.claims.held
                and not self.faults.delivering
                and not await self.journal.unsent()
            ):
                return True
        return False

    def _busy(self) -> bool:
        """Whether a message is on its way; those that wait until an operator ends an earlier migration do not count."""
        open_ = [row for row in self.journal.migrations.values() if not row.ended]
        stuck = [row for row in open_ if row.state == "failed" or row.id in self.faults.lost]
        waiting = {row.instance_id for row in (open_ if stuck else ())}
        for name, queue in self.node.queues.items():
            if name not in {DEAD, "events"}:
                there = (*queue.ready, *(one.stored for one in queue.unacknowledged))
                if any(not self._waits(stored.message, waiting, bool(stuck)) for stored in there):
                    return True
        return False

    def _waits(self, message: Message, waiting: set[UUID], any_stuck: bool) -> bool:
        """Messages that wait for the slot of a stuck migration, and upgrades of the instances of all these."""
        if message.type == PlanUpgraded.TYPE:
            return decode(message.body).data.instance_id in waiting
        return any_stuck and message.type in {MigrationRequested.TYPE, MigrationPrepared.TYPE}

    def on_its_way(self, upgrade_id: UUID) -> bool:
        """Whether a `plan.upgraded` is in some queue."""
        return any(
            stored.message.message_id == str(upgrade_id)
            for queue in self.node.queues.values()
            for stored in queue.ready
        )

    def log(self, who: str, what: str) -> None:
        """Add a line to the trace, if it is kept."""
        if self.trace is not None:
            self.trace.append((self.loop.time(), who, what))

    def _clean_up(self) -> None:
        for task in self.loop.unfinished():
            task.cancel()
        self.faults.ended = True
        for process in list(self.processes):
            process.alive = False
        self.loop.run_until_complete(asyncio.sleep(0))
        for _ in range(20):
            if not (left := self.loop.unfinished()):
                return
            self.loop.run_until_complete(asyncio.wait(left, timeout=1))
