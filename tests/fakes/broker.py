"""RabbitMQ in memory: the topology, confirms, delays by dead-lettering, delivery limits."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from typing import TYPE_CHECKING, Any

from rehome_consumer.errors import Refused, RehomeError, Unreachable
from rehome_consumer.rabbitmq.topology import definitions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from rehome_consumer.ports.engine import Message


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A message in a queue; `redelivered` is how often it was given back."""

    message: Message
    exchange: str
    routing_key: str
    redelivered: int = 0


class FakeQueue:
    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.ready: deque[Stored] = deque()
        self.unacknowledged: list[FakeDelivery] = []
        self.filled = asyncio.Event()
        self.readers = 0


class FakeDelivery:
    """Port `Delivery`."""

    def __init__(self, broker: FakeBroker, queue: FakeQueue, stored: Stored) -> None:
        self._broker = broker
        self.queue = queue
        self.stored = stored
        self.settled = asyncio.Event()
        self.acknowledged = False

    @property
    def message(self) -> Message:
        message, times = self.stored.message, self.stored.redelivered
        if not times:
            return message
        return dataclasses.replace(message, headers={**message.headers, "x-delivery-count": times})

    @property
    def exchange(self) -> str:
        return self.stored.exchange

    @property
    def routing_key(self) -> str:
        return self.stored.routing_key

    async def ack(self) -> None:
        if not self.settled.is_set():  # otherwise its channel was closed, and the message is elsewhere
            self.acknowledged = True
            self.queue.unacknowledged.remove(self)
            self.settled.set()

    def return_to_queue(self) -> None:
        """Its channel was closed: deliver it again, or make it a dead letter when that happened too often."""
        if self.settled.is_set():
            return
        self.queue.unacknowledged.remove(self)
        self.settled.set()
        again = dataclasses.replace(self.stored, redelivered=self.stored.redelivered + 1)
        if again.redelivered > self.queue.arguments.get("x-delivery-limit", again.redelivered):
            self._broker.dead_letter(self.queue, again, "delivery_limit")
        else:
            self.queue.ready.appendleft(again)
            self.queue.filled.set()


class FakeBroker:
    """The node. Consumers connect by `client`.

    Attributes:
        queues: by name.
        refusing: raised by every publish, when set.
        arrivals: for every message that is routed into a queue, the seconds after which copies of it
            arrive; one copy at once by default.
        log: every message that was taken, as (exchange, routing key, message).
    """

    def __init__(self, topology: dict[str, Any] | None = None) -> None:
        topology = topology or definitions()
        self.queues = {one["name"]: FakeQueue(one["name"], one["arguments"]) for one in topology["queues"]}
        self.refusing: RehomeError | None = None
        self.arrivals: Callable[[str, Stored], tuple[float, ...]] = lambda _queue, _stored: (0.0,)
        self.log: list[tuple[str, str, Message]] = []
        self._kinds = {one["name"]: one["type"] for one in topology["exchanges"]}
        self._bindings = [
            (one["source"], one["routing_key"], one["destination"]) for one in topology["bindings"]
        ]
        self._clients: list[FakeBrokerClient] = []

    @property
    def exchanges(self) -> frozenset[str]:
        """Names of all exchanges."""
        return frozenset(self._kinds)

    def remove_exchange(self, name: str) -> None:
        """As an operator would."""
        del self._kinds[name]

    def client(self) -> FakeBrokerClient:
        """A new connection."""
        made = FakeBrokerClient(self)
        self._clients.append(made)
        return made

    def bind(self, exchange: str, queue: str, routing_key: str) -> None:
        """Make a queue of a subscriber, bound to an exchange."""
        self.queues.setdefault(queue, FakeQueue(queue, {}))
        self._bindings.append((exchange, routing_key, queue))

    def route(self, exchange: str, routing_key: str, message: Message) -> bool:
        """Put it into every queue it belongs in; False when there is none."""
        kind = self._kinds[exchange]
        names = {
            queue
            for source, key, queue in self._bindings
            if source == exchange and (kind == "fanout" or key in (routing_key, "#"))
        }
        for name in sorted(names):
            stored = Stored(message, exchange, routing_key)
            for delay in self.arrivals(name, stored):
                if delay:
                    asyncio.get_running_loop().call_later(delay, self._arrive, self.queues[name], stored)
                else:
                    self._arrive(self.queues[name], stored)
        return bool(names)

    def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        """Take a message as from a client."""
        if self.refusing is not None:
            raise self.refusing
        if exchange not in self._kinds:
            raise Refused(f"publish to {exchange}: there is no such exchange; apply the topology")
        sent = message
        if any(key.startswith("x-") for key in message.headers):
            headers = {key: value for key, value in message.headers.items() if not key.startswith("x-")}
            sent = dataclasses.replace(message, headers=headers)
        if not self.route(exchange, routing_key, sent) and mandatory:
            raise Refused(f"publish to {exchange} with key {routing_key}: the broker returned it")
        self.log.append((exchange, routing_key, sent))

    def dead_letter(self, queue: FakeQueue, stored: Stored, reason: str) -> None:
        """Send it where the queue's arguments say, with the header that RabbitMQ adds."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        key = queue.arguments.get("x-dead-letter-routing-key", stored.routing_key)
        death = {"queue": queue.name, "reason": reason, "count": 1}
        headers = {**stored.message.headers, "x-death": [death]}
        self.route(exchange, key, dataclasses.replace(stored.message, headers=headers))

    def get(self, queue: str) -> FakeDelivery | None:
        """The first message of a queue, or None."""
        source = self.queues[queue]
        if not source.ready:
            return None
        delivery = FakeDelivery(self, source, source.ready.popleft())
        source.unacknowledged.append(delivery)
        return delivery

    def pass_delays(self) -> bool:
        """Let the time of every delay queue pass; False when nothing waited."""
        waiting = [
            (queue, stored)
            for queue in self.queues.values()
            if "x-message-ttl" in queue.arguments
            for stored in queue.ready
        ]
        for queue, stored in waiting:
            self._expire(queue, stored)
        return bool(waiting)

    def waiting(self) -> dict[str, int]:
        """Messages per queue that has any, acknowledged ones apart."""
        counts = {name: len(one.ready) + len(one.unacknowledged) for name, one in self.queues.items()}
        return {name: count for name, count in counts.items() if count}

    def drop_connections(self) -> None:
        """As a restart of the node: every consumer's deliveries go back, and clients connect again."""
        for client in self._clients:
            client.lose_deliveries()

    def _arrive(self, queue: FakeQueue, stored: Stored) -> None:
        queue.ready.append(stored)
        queue.filled.set()
        if (ttl := queue.arguments.get("x-message-ttl")) is not None:
            asyncio.get_running_loop().call_later(ttl / 1000, self._expire, queue, stored)

    def _expire(self, queue: FakeQueue, stored: Stored) -> None:
        for index, one in enumerate(queue.ready):
            if one is stored:
                del queue.ready[index]
                self.dead_letter(queue, stored, "expired")
                return


class FakeBrokerClient:
    """Port `Broker`: one consumer's connection."""

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._deliveries: list[FakeDelivery] = []
        self._closed = False

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        if self._closed:
            raise Unreachable("the connection is closed")
        self._broker.publish(exchange, routing_key, message, mandatory=mandatory)

    async def consume(self, queue: str) -> AsyncGenerator[FakeDelivery, None]:
        if queue not in self._broker.queues:
            raise Refused(f"queue {queue} does not exist: apply the topology")
        source = self._broker.queues[queue]
        delivery: FakeDelivery | None = None
        source.readers += 1
        try:
            while True:
                while not source.ready:
                    source.filled.clear()
                    await source.filled.wait()
                if self._closed:
                    raise Unreachable(f"consumer of {queue} was closed")
                delivery = FakeDelivery(self._broker, source, source.ready.popleft())
                source.unacknowledged.append(delivery)
                self._deliveries.append(delivery)
                yield delivery
                await delivery.settled.wait()
                self._deliveries.remove(delivery)
        finally:
            source.readers -= 1
            if delivery is not None:
                delivery.return_to_queue()

    def lose_deliveries(self) -> None:
        """The connection breaks; another one is made at once."""
        for delivery in self._deliveries:
            delivery.return_to_queue()

    def close(self) -> None:
        """The connection ends for good, as when its process is killed."""
        self._closed = True
        self.lose_deliveries()
