"""One consumer's engine on fakes, driven delivery by delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import saga
from rehome_consumer.engine.engine import Engine
from rehome_consumer.engine.outbox_relay import Relay
from rehome_consumer.errors import RehomeError
from rehome_consumer.ports.engine import Message, MigrationRow
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER, queue_of
from rehome_events.catalog import lookup
from rehome_events.envelope import CloudEvent, decode, encode
from tests.fakes.broker import FakeBroker
from tests.fakes.claims import FakeClaims
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.fakes.site import Site
from tests.support.events import migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from rehome_consumer.saga import Step
    from tests.fakes.broker import FakeDelivery

    Action = BaseException | Callable[[], Awaitable[None] | None]

STEPS = 500
"""Deliveries after which a migration counts as one that never ends."""


class CrashError(BaseException):
    """The consumer dies: no handler of errors sees it."""


class Rig:
    """A site, a broker, a journal, claims, and an engine.

    Attributes:
        at: what happens at a boundary of the engine, in turn: an error is raised, a function is called.
        seen: boundaries passed so far.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.site = Site(self.clock)
        self.node = FakeBroker()
        self.node.bind("migration", "events", "#")
        self.journal = FakeJournal(self.clock)
        self.claims = FakeClaims(journal=self.journal)
        self.at: dict[str, list[Action]] = {}
        self.seen: list[str] = []
        self.broker = self.node.client()
        self.relay = Relay(self.journal, self.broker, probe=self.probe)
        self.engine = self.new_engine()

    def new_engine(self, **changes: Any) -> Engine:
        """A consumer; `changes` are arguments of Engine."""
        return Engine(
            **{
                "journal": self.journal,
                "claims": self.claims,
                "broker": self.broker,
                "relay": self.relay,
                "ports": self.site.ports(None),  # type: ignore[arg-type] # the engine binds facts for each run
                "probe": self.probe,
                **changes,
            }
        )

    async def probe(self, boundary: str) -> None:
        """Called by engine and relay at every boundary."""
        self.clock.advance(0.001)
        self.seen.append(boundary)
        actions = self.at.get(boundary)
        if not actions:
            return
        action = actions.pop(0)
        if isinstance(action, BaseException):
            raise action
        waited = action()
        if waited is not None:
            await waited

    def fail(self, boundary: str, error: BaseException, times: int = 1) -> None:
        """Raise `error` the next times that `boundary` is reached."""
        self.at.setdefault(boundary, []).extend([error] * times)

    def publish(self, event: CloudEvent[Any], headers: dict[str, Any] | None = None) -> None:
        """As its publisher would."""
        message = Message.of_event(encode(event))
        if headers:
            message = Message(body=message.body, content_type=message.content_type, headers=headers)
        exchange = lookup(event.type).exchange
        self.node.publish(exchange, event.type, message, mandatory=True)

    def replay(self, event: CloudEvent[Any], step: str) -> None:
        """As an operator would, for one handler."""
        self.node.publish(HANDLER, step, Message.of_event(encode(event)), mandatory=True)

    def upgraded(self, name: str = "acme", **fields: Any) -> CloudEvent[Any]:
        """A new tenant whose upgrade was published; returns the event."""
        event = upgrade(self.site.add_tenant(name), **fields)
        self.publish(event)
        return event

    def next_delivery(self, *steps: str) -> tuple[Step, FakeDelivery] | None:
        """What waits in the first handler queue that is not empty."""
        for step in saga.MIGRATION:
            if not steps or step.name in steps:
                delivery = self.node.get(queue_of(step.name))
                if delivery is not None:
                    return step, delivery
        return None

    async def handle_next(self, *steps: str) -> FakeDelivery:
        """Handle one delivery; it goes back to its queue if the engine gave it up."""
        found = self.next_delivery(*steps)
        assert found, "no delivery waits"
        step, delivery = found
        try:
            await self.engine.handle(step, delivery)
        except* (RehomeError, CrashError):
            pass
        finally:
            delivery.return_to_queue()
        return delivery

    async def run(self, until: str | None = None) -> None:
        """Handle everything, delays included, until nothing is left, or `until` is the next step."""
        for _ in range(STEPS):
            if until and self.node.queues[queue_of(until)].ready:
                await self.relay.flush()  # as half a second later
                return
            if self.is_ready():
                await self.handle_next()
                continue
            unsent = await self.relay.sweep() or await self.journal.unsent()
            if not unsent and not self.node.pass_delays() and not self.is_ready():
                return
        raise AssertionError(f"it never ends: {self.journal.history[-20:]}")

    def is_ready(self) -> bool:
        """Whether a delivery waits in the queue of a step."""
        return any(self.node.queues[queue_of(step.name)].ready for step in saga.MIGRATION)

    def row(self, event: CloudEvent[Any]) -> MigrationRow:
        """The journal's row of the migration that an event belongs to."""
        return self.journal.migrations[migration_of(event)]

    def published(self, *, distinct: bool = True) -> list[str]:
        """Types of the events that subscribers got, in order."""
        events = [stored.message for stored in self.node.queues["events"].ready]
        ids = dict.fromkeys((one.message_id, one.type) for one in events)
        return [str(kind) for _, kind in ids] if distinct else [str(one.type) for one in events]

    def events(self, kind: str) -> list[CloudEvent[Any]]:
        """The published events of a type."""
        return [
            decode(stored.message.body)
            for stored in self.node.queues["events"].ready
            if stored.message.type == kind
        ]

    def dead(self) -> list[tuple[str, str]]:
        """Dead letters as (handler, reason)."""
        return [
            (stored.routing_key, str(stored.message.headers.get("rehome-reason")))
            for stored in self.node.queues[DEAD].ready
        ]

    def every_message(self) -> str:
        """All that was ever published, as text: for a look for secrets."""
        return "\n".join(
            f"{exchange} {key} {message.headers} {message.body.decode(errors='replace')}"
            for exchange, key, message in self.node.log
        )

    def instance(self, event: CloudEvent[Any]) -> UUID:
        """The instance that an event is about."""
        found: UUID = event.data.instance_id
        return found
