"""Injects the faults of a schedule's plan into consumers, broker, servers and messages, until `end`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, get_args

from rehome_consumer import saga
from rehome_consumer.adapters.postgres.replication_parts import witness_of
from rehome_consumer.errors import RehomeError, TimedOut, Unreachable
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import HANDLER, queue_of
from rehome_events.envelope import encode
from rehome_events.testing.stories import Story
from tests.fakes.site import ORDERS
from tests.simulation.fault_plan import PERMANENT, TRANSIENT, Kind, Lacked, Unfollowed
from tests.simulation.no_secrets import DSN
from tests.simulation.published import read_event
from tests.support.events import AT

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.model import Followed, Server
    from tests.fakes.broker import Stored
    from tests.simulation.process import Process
    from tests.simulation.schedule import Schedule

HANDLERS: Final = frozenset(queue_of(step.name) for step in saga.MIGRATION)
LOSABLE: Final = frozenset(step.on.TYPE for step in saga.MIGRATION[1:])
"""Types of messages that may be lost: a `plan.upgraded` that no consumer has read could not be detected."""
ENGINE: Final = frozenset({"journal", "facts", "claims", "broker", "world"})
"""Beginnings of boundaries that are the engine's, not a step's."""
AGAIN: Final = 0.45
"""How often a failure is followed by another fault ..."""
SOON: Final = 10
"""... within so many boundaries, in which the engine handles the failure ..."""
UNDEFINED: Final = 0.3
"""Of copies that are spoilt: how many lose a definition instead of rows."""

NEXT: Final[tuple[Kind, ...]] = ("kill", "kill", "cut", "no_broker", "no_journal", "lost_ack")
"""... and of which kinds."""
AT_A_CALL: Final = 0.55
"""How often a consumer that is paused is paused just before a call of a port ..."""
AT_A_COMMIT: Final = 0.25
"""... and how often just before it commits the result."""
COMMITS: Final = frozenset({"journal.finish.before", "journal.fail.before", "journal.wait.before"})
QUOTING: Final = 0.5
"""How often an error quotes a URL with its password, as foreign libraries do."""
COPIES: Final = 4
"""Most copies of one message: each that comes back from a delay queue could be copied again."""
HEARTBEAT: Final = 30.0
"""Seconds after which the broker closes the connection of a silent consumer, and delivers to another."""


class FaultInjection:
    """Injects what the plan says.

    Attributes:
        ended: no more faults.
        pending: failures of the next calls.
        pausing: the process that will be paused at its next call of a port, or commit.
        injected: the faults so far, as (kind, name of the boundary).
        lost: migrations of which the broker lost a message.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._random = schedule.random
        self.ended = False
        self.injected: list[tuple[str, str]] = []
        self.pending: list[Kind] = []
        self.pausing: Process | None = None
        self._at_a_commit = False
        self.lost: set[UUID | None] = set()
        self._next: Counter[Kind] = Counter()
        self._copies: Counter[str | None] = Counter()
        self._no_journal_until = 0.0
        self._arriving = 0
        self._restore = schedule.site.copier.restore
        object.__setattr__(schedule.site.copier, "restore", self._restore_perhaps_truncated)
        self._client = schedule.site.world.client
        self._reach = schedule.site.replicator.reach
        object.__setattr__(schedule.site.replicator, "reach", self._reach_perhaps_losing)
        schedule.node.arrivals = self._arrivals

    @property
    def delivering(self) -> bool:
        """Whether copies of messages are still on their way."""
        return self._arriving > 0

    async def inject(self, process: Process, kind: Kind, at: str) -> None:
        """A fault of the process at this boundary, or of its environment at this moment."""
        self._schedule.log("fault", f"{kind} {process.name}")
        self.injected.append((kind, at))
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
                self._inject_around(kind)

    async def _pause_somewhere(self, process: Process, at: str) -> None:
        where = self._random.random()
        if where < AT_A_CALL + AT_A_COMMIT:
            self.pausing, self._at_a_commit = process, where >= AT_A_CALL
        else:
            await self._pause(process, at)

    async def pause_pending(self, process: Process, at: str) -> None:
        """Pause the process between its decision to act or commit and doing it, if the plan said so."""
        is_call = at.endswith(".before") and at.partition(".")[0] not in ENGINE
        if at in COMMITS if self._at_a_commit else is_call:
            self.pausing = None
            self._schedule.log("fault", f"{process.name} is paused at {at}")
            await self._pause(process, at)

    def fail_pending(self, at: str) -> None:
        """The call at this boundary fails, if one is to fail. Raises its error."""
        of_step = at.partition(".")[0] not in ENGINE
        for index, kind in enumerate(self.pending):
            if kind != "fail" and not of_step:
                continue
            del self.pending[index]
            self._schedule.log("fault", f"{kind} at {at}")
            self.injected.append((kind, at))
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
        """Whether the acknowledgement that is being sent is lost."""
        if self._next["lost_ack"] and not self.ended:
            self._next["lost_ack"] -= 1
            return True
        return False

    def cut(self, process: Process) -> None:
        """The connections of its claims end."""
        for claim in list(process.claims):
            self._schedule.log("fault", f"the claim of {process.name} is cut")
            self._schedule.claims.cut(claim)

    def end(self) -> None:
        """From now on everything is reachable, and every process runs."""
        self._schedule.log("fault", "no more faults")
        self.ended = True
        self.pending.clear()
        self.pausing = None
        self._next.clear()
        self._broker_is_back()
        self._reach_targets(True)
        for part in get_args(Lacked):
            self._have(part, True)
        self._no_journal_until = 0.0
        for process in self._schedule.processes:
            process.resume()

    async def lack_later(self, when: float, seconds: float, part: Lacked) -> None:
        """Then, and for so long, every consumer lacks this part."""
        await self._schedule.loop.sleep(when)
        self._schedule.log("fault", f"unready: {part}")
        self.injected.append(("unready", part))
        self._have(part, False)
        await self._schedule.loop.sleep(seconds)
        self._have(part, True)

    def _have(self, part: Lacked, there: bool) -> None:
        site = self._schedule.site
        match part:
            case "client_programs":
                site.world.client = self._client if there else None
            case "backup_place":
                site.world.free = 10**12 if there else None
            case "database_service":
                site.database_service.reachable = there
            case "runtime":
                site.runtime.reachable = there
            case "data_root":
                site.odoo_conf.mounted = there

    def _follow_up(self) -> None:
        """While a failure is handled, another fault often happens."""
        if self._random.random() < AGAIN:
            soon = self._schedule.boundaries + self._random.randint(1, SOON)
            self._schedule.plan.at_boundary.setdefault(soon, self._random.choice(NEXT))

    async def _pause(self, process: Process, at: str) -> None:
        seconds = self._random.choice((1, 10, 120, 120))
        if seconds > HEARTBEAT:
            self._schedule.loop.call_later(HEARTBEAT, process.lose_broker)
        if self._random.random() < 0.7:
            self._schedule.loop.call_later(self._random.random() * seconds, self.cut, process)
        await process.pause(seconds, at)

    def _inject_around(self, kind: Kind) -> None:
        """Faults not of the consumer but of what it works with."""
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
                self._scale_up()
            case "garbage":
                self._send_garbage()
            case "ahead":
                self._publish_too_early()

    def _send_garbage(self) -> None:
        queue = self._random.choice(sorted(HANDLERS)).rpartition(".")[2]
        self._schedule.node.route(HANDLER, queue, Message(body=b"{" * self._random.randrange(5)))

    def _publish_too_early(self) -> None:
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
            self._schedule.log("operator", f"publishes {event.type} too early")
            self._schedule.node.route(HANDLER, step.name, Message.of_event(encode(event)))

    def _later(self, end: Any, *arguments: Any) -> None:
        self._schedule.loop.call_later(self._outage(), end, *arguments)

    def _outage(self) -> int:
        return self._random.choice((2, 30, 200))

    def _scale_up(self) -> None:
        """Start instances that are stopped."""
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

    async def _restore_perhaps_truncated(self, *arguments: Any, **named: Any) -> None:
        await self._restore(*arguments, **named)
        server, database = arguments[:2]
        self._perhaps_truncate(server, database)

    async def _reach_perhaps_losing(self, followed: Followed, *limits: Any) -> Any:
        took = await self._reach(followed, *limits)
        if self._schedule.site.world.database(followed.source, followed.database).closed:
            self._perhaps_spoil(followed)
        return took

    def _perhaps_spoil(self, followed: Followed) -> None:
        """The copy loses rows, or an index; or, where users have written since it began, a row arrives otherwise."""
        world = self._schedule.site.world
        witness = world.at(followed.source).slots.get(witness_of(followed.migration_id))
        now = world.database(followed.source, followed.database).tables
        copy = world.at(followed.target).databases.get(followed.copy)
        if self._next["truncate"] and copy is not None and self._random.random() < UNDEFINED:
            self._next["truncate"] -= 1
            self._schedule.log("fault", f"{followed.copy} loses its indexes")
            copy.objects["index"] = {}
        elif (
            witness is None
            or witness.since is None
            or copy is None
            or now[ORDERS] == witness.since.tables[ORDERS]
        ):
            self._perhaps_truncate(followed.target, followed.copy)
        elif self._next["truncate"]:
            self._next["truncate"] -= 1
            self._schedule.log("fault", f"an order arrives otherwise in {followed.copy}")
            copy.tables[ORDERS][-1:] = [(-1,)]

    async def unfollow_later(self, what: Unfollowed, at: float) -> None:
        """Something goes wrong with copies that follow."""
        await self._schedule.loop.sleep(at)
        self._schedule.log("fault", f"copies: {what}")
        if what == "in_use":
            await self._use_for_a_while()
        else:
            self._unfollow(what)

    def _unfollow(self, what: Unfollowed) -> None:
        site = self._schedule.site
        pool = site.world.at(site.pool)
        for there in site.world.servers.values():
            if what == "cannot_reach":
                there.cannot_reach.add(site.pool.host)
            for database in there.databases.values():
                if what == "broken" and database.follows:
                    database.follows.broken = True
        for slot in pool.slots.values():
            if what == "slow":
                slot.behind = 2 * site.policy.sync_limit
            if what == "kept":
                slot.kept = 2 * site.policy.sync_keep
        if what == "cannot_stream":
            pool.cannot_stream.append("wal_level is replica")
        if what == "slot_gone":
            pool.slots.clear()

    async def _use_for_a_while(self) -> None:
        """A long transaction of the customers', such as a dump."""
        site = self._schedule.site
        databases = [one for one in site.world.at(site.pool).databases.values() if ORDERS in one.tables]
        for database in databases:
            database.in_use.add(ORDERS)
        await self._schedule.loop.sleep(self._random.uniform(1.0, 60.0))
        for database in databases:
            database.in_use.clear()
        self._schedule.log("fault", "copies: no table is in use any more")

    def _perhaps_truncate(self, server: Server, database: str) -> None:
        if self._next["truncate"]:
            self._next["truncate"] -= 1
            copy = self._schedule.site.world.at(server).databases.get(database)
            if copy is not None and copy.tables:
                self._schedule.log("fault", f"{database} is truncated")
                copy.tables["public.res_partner"] = []

    def _arrivals(self, queue: str, stored: Stored) -> tuple[float, ...]:
        """Messages for the handlers' queues arrive late, twice, and out of order; or are lost, if the plan said so."""
        if self._next["lose"] and not self.ended and queue != "events" and stored.message.type in LOSABLE:
            self._next["lose"] -= 1
            self._schedule.log("fault", f"the broker loses {stored.message.type} in {queue}")
            self.lost.add(read_event(stored.message).migration)
            return ()
        if queue not in HANDLERS or self.ended:
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
