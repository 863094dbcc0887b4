"""What a schedule's dice do to consumers, broker, servers and messages, until the calm."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.errors import RehomeError, TimedOut, Unreachable
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import HANDLER, queue_of
from rehome_events.envelope import encode
from rehome_events.testing.stories import Story
from tests.simulation.fault_plan import PERMANENT, TRANSIENT, Kind
from tests.simulation.no_secrets import DSN
from tests.simulation.published import told_by
from tests.support.events import AT

if TYPE_CHECKING:
    from uuid import UUID

    from tests.fakes.broker import Stored
    from tests.simulation.process import Process
    from tests.simulation.schedule import Schedule

HANDLERS: Final = frozenset(queue_of(step.name) for step in saga.MIGRATION)
LOSABLE: Final = frozenset(step.on.TYPE for step in saga.MIGRATION[1:])
"""Of an upgrade that is lost before anybody read it nobody could know."""
OURS: Final = frozenset({"journal", "facts", "claims", "broker", "world"})
"""Beginnings of boundaries that are the engine's, not a step's."""
AGAIN: Final = 0.45
"""How often a failure is followed by another fault ..."""
SOON: Final = 10
"""... within so many boundaries, which are those of its verdict ..."""
NEXT: Final[tuple[Kind, ...]] = ("kill", "kill", "cut", "no_broker", "no_journal", "lost_ack")
"""... and what it is."""
AT_A_DEED: Final = 0.55
"""How often a consumer that stands still does so just before it changes or asks something ..."""
AT_A_COMMIT: Final = 0.25
"""... and how often just before it commits what came of that."""
COMMITS: Final = frozenset({"journal.finish.before", "journal.fail.before", "journal.wait.before"})
QUOTING: Final = 0.5
"""How often an error quotes a URL with its password, as foreign libraries do."""
COPIES: Final = 4
"""Most copies of one message: each that comes back by a delay queue could be doubled again."""
HEARTBEAT: Final = 30.0
"""Seconds after which the broker takes a consumer for dead that says nothing, and delivers to another."""


class Fate:
    """Strikes what the plan says.

    Attributes:
        calm: nothing more goes wrong.
        pending: failures that the next calls will meet.
        pausing: who will stand still at the next call of a port, or commit.
        struck: what struck so far, as (kind, name of the boundary).
        lost: migrations of which the broker lost a message.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._random = schedule.random
        self.calm = False
        self.struck: list[tuple[str, str]] = []
        self.pending: list[Kind] = []
        self.pausing: Process | None = None
        self._at_a_commit = False
        self.lost: set[UUID | None] = set()
        self._next: Counter[Kind] = Counter()
        self._copies: Counter[str | None] = Counter()
        self._no_journal_until = 0.0
        self._arriving = 0
        self._restore = schedule.site.copier.restore
        object.__setattr__(schedule.site.copier, "restore", self._perhaps_truncated)
        schedule.node.arrivals = self._arrivals

    @property
    def delivering(self) -> bool:
        """Whether copies of messages are still on their way."""
        return self._arriving > 0

    async def strike(self, process: Process, kind: Kind, at: str) -> None:
        """The process is struck at a boundary, or somebody else is at that instant."""
        self._schedule.say("fate", f"{kind} {process.name}")
        self.struck.append((kind, at))
        match kind:
            case "kill":
                process.kill()
            case "shutdown":
                process.stop()
            case "pause":
                await self._pause_somewhere(process, at)
            case "cut":
                self.cut(process)
            case "fail" | "refuse" | "defect":
                self.pending.append(kind)
            case _:
                self._strike_neighbour(kind)

    async def _pause_somewhere(self, process: Process, at: str) -> None:
        where = self._random.random()
        if where < AT_A_DEED + AT_A_COMMIT:
            self.pausing, self._at_a_commit = process, where >= AT_A_DEED
        else:
            await self._pause(process, at)

    async def pause_pending(self, process: Process, at: str) -> None:
        """Stand still between the decision to act or commit and doing it, if that was struck."""
        is_deed = at.endswith(".before") and at.partition(".")[0] not in OURS
        if at in COMMITS if self._at_a_commit else is_deed:
            self.pausing = None
            self._schedule.say("fate", f"{process.name} stands still at {at}")
            await self._pause(process, at)

    def fail_pending(self, at: str) -> None:
        """The call at this boundary fails, if one is to fail. Raises its error."""
        of_step = at.partition(".")[0] not in OURS
        for index, kind in enumerate(self.pending):
            if kind != "fail" and not of_step:
                continue
            del self.pending[index]
            self._schedule.say("fate", f"{kind} at {at}")
            self.struck.append((kind, at))
            self._follow_up()
            why = f"no answer from {DSN}" if self._random.random() < QUOTING else "no answer"
            if kind == "defect":
                raise KeyError(why)
            if kind == "refuse":
                raise self._random.choice(PERMANENT)(why)
            raise self._random.choice(TRANSIENT if of_step else (Unreachable, TimedOut))(why)

    def require_journal(self, error: type[RehomeError] = Unreachable) -> None:
        """Raise while the state database does not answer."""
        if self._no_journal_until and self._schedule.loop.time() < self._no_journal_until:
            raise error("state database: no answer")

    def loses_ack(self) -> bool:
        """Whether the acknowledgement that is being made is lost."""
        if self._next["lost_ack"] and not self.calm:
            self._next["lost_ack"] -= 1
            return True
        return False

    def cut(self, process: Process) -> None:
        """The connections of its claims end."""
        for claim in list(process.claims):
            self._schedule.say("fate", f"the claim of {process.name} is cut")
            self._schedule.claims.cut(claim)

    def relent(self) -> None:
        """From now on everything is reachable, and everybody runs."""
        self._schedule.say("fate", "is calm")
        self.calm = True
        self.pending.clear()
        self.pausing = None
        self._next.clear()
        self._broker_is_back()
        self._reach_targets(True)
        self._no_journal_until = 0.0
        for process in self._schedule.processes:
            process.resume()

    def _follow_up(self) -> None:
        """Where a failure is dealt with, something else often goes wrong."""
        if self._random.random() < AGAIN:
            soon = self._schedule.boundaries + self._random.randint(1, SOON)
            self._schedule.plan.strikes.setdefault(soon, self._random.choice(NEXT))

    async def _pause(self, process: Process, at: str) -> None:
        seconds = self._random.choice((1, 10, 120, 120))
        if seconds > HEARTBEAT:
            self._schedule.loop.call_later(HEARTBEAT, process.lose_broker)
        if self._random.random() < 0.7:
            self._schedule.loop.call_later(self._random.random() * seconds, self.cut, process)
        await process.pause(seconds, at)

    def _strike_neighbour(self, kind: Kind) -> None:
        """What befalls not the consumer but what it works with."""
        match kind:
            case "lost_ack" | "truncate" | "lose":
                self._next[kind] += 1
            case "node":
                self._schedule.node.drop_connections()
            case "no_broker":
                self._lose_broker()
            case "no_journal":
                self._no_journal_until = self._schedule.loop.time() + self._outage()
            case "no_target":
                self._reach_targets(False)
                self._later(self._reach_targets, True)
            case "meddle":
                self._meddle()
            case "garbage":
                self._litter()
            case "ahead":
                self._tell_too_early()

    def _litter(self) -> None:
        queue = self._random.choice(sorted(HANDLERS)).rpartition(".")[2]
        self._schedule.node.route(HANDLER, queue, Message(body=b"{" * self._random.randrange(5)))

    def _tell_too_early(self) -> None:
        """The event of a step that is not done, for the one after it."""
        rows = [row for row in self._schedule.journal.migrations.values() if not row.ended]
        if not rows:
            return
        row = self._random.choice(rows)
        started = {key[2] for key in self._schedule.journal.steps if key[:2] == (row.id, row.attempt)}
        later = [step for step in saga.MIGRATION[2:-1] if step.name not in started]
        if later:
            step = self._random.choice(later)
            story = Story(instance_id=row.instance_id, migration_id=row.id, attempt=row.attempt, start=AT)
            event = next(one for one in story.events if one.type == step.on.TYPE)
            self._schedule.say("somebody", f"tells {event.type} too early")
            self._schedule.node.route(HANDLER, step.name, Message.of_event(encode(event)))

    def _later(self, end: Any, *arguments: Any) -> None:
        self._schedule.loop.call_later(self._outage(), end, *arguments)

    def _outage(self) -> int:
        return self._random.choice((2, 30, 200))

    def _meddle(self) -> None:
        schedule = self._schedule
        for tenant, replicas in zip(schedule.tenants, schedule.plan.tenants, strict=True):
            service = schedule.site.instance(tenant).service
            if schedule.site.runtime.services[service].spec["replicas"] == 0 and replicas:
                schedule.site.runtime.change(service, replicas=1)

    def _lose_broker(self) -> None:
        self._schedule.node.refusing = Unreachable("no broker")
        self._later(self._broker_is_back)

    def _broker_is_back(self) -> None:
        self._schedule.node.refusing = None

    def _reach_targets(self, reachable: bool) -> None:
        for (host, _), there in self._schedule.site.world.servers.items():
            if host != self._schedule.site.pool.host:
                there.reachable = reachable

    async def _perhaps_truncated(self, *arguments: Any) -> None:
        await self._restore(*arguments)
        server, database = arguments[:2]
        if self._next["truncate"]:
            self._next["truncate"] -= 1
            copy = self._schedule.site.world.at(server).databases.get(database)
            if copy is not None and copy.tables:
                self._schedule.say("fate", f"{database} is truncated")
                copy.tables["public.res_partner"] = []

    def _arrivals(self, queue: str, stored: Stored) -> tuple[float, ...]:
        """Messages for our queues come late, twice, and overtaken by others; if it was struck so, not at all."""
        if self._next["lose"] and not self.calm and queue != "events" and stored.message.type in LOSABLE:
            self._next["lose"] -= 1
            self._schedule.say("fate", f"the broker loses {stored.message.type} in {queue}")
            self.lost.add(told_by(stored.message).migration)
            return ()
        if queue not in HANDLERS or self.calm:
            return (0.0,)
        plan, random = self._schedule.plan, self._random
        copies = [random.expovariate(0.2) if random.random() < plan.delays else 0.0]
        if random.random() < plan.duplicates and self._copies[stored.message.message_id] < COPIES:
            self._copies[stored.message.message_id] += 1
            copies.append(random.choice((0.0, 1.0, 60.0)))
        for delay in copies:
            if delay:
                self._arriving += 1
                self._schedule.loop.call_later(delay, self._arrived)
        return tuple(copies)

    def _arrived(self) -> None:
        self._arriving -= 1
