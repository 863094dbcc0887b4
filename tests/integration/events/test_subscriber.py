"""A subscription on a real broker, with a subscriber's permissions: nothing lost, nothing handled twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import orjson
import pytest
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from rehome_events.client import Publisher, Reject, Subscriber
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, encode, new_event, to_message
from rehome_events.errors import EventError, Refused, Unreachable
from rehome_events.migration import InstanceResized, MigrationRejected
from rehome_events.parts import Limits
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import free_port, wait_until

LIMIT = 20.0
REJECTED, RESIZED = MigrationRejected.TYPE, InstanceResized.TYPE


def rejected(message: str = "Terminated.") -> CloudEvent[Any]:
    data = MigrationRejected(instance_id=uuid4(), to_plan="premium", reason="terminated", message=message)
    return envelope(data)


def resized() -> CloudEvent[Any]:
    limits = Limits(cpu_limit=2.0)
    return envelope(
        InstanceResized(
            instance_id=uuid4(),
            customer_id=uuid4(),
            to_plan="s",
            plan_tier="s",
            limits=limits,
            restarted=False,
        )
    )


def envelope(data: MigrationRejected | InstanceResized) -> CloudEvent[Any]:
    return new_event(data, subject=data.instance_id, id=uuid4(), time=datetime(2025, 11, 3, 2, tzinfo=UTC))


async def publish(channel: AbstractChannel, event: CloudEvent[Any]) -> None:
    exchange = await channel.get_exchange("migration", ensure=False)
    await exchange.publish(to_message(event), event.type)


class Inspector:
    """A handler that records its events, and waits or fails as a test sets it."""

    def __init__(self) -> None:
        self.ids: list[UUID] = []
        self.errors: list[Exception] = []
        self.started = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def __call__(self, event: CloudEvent[Any]) -> None:
        self.ids.append(event.id)
        self.started.set()
        await self.may_go_on.wait()
        if self.errors:
            raise self.errors.pop(0)

    async def has_got(self, *events: CloudEvent[Any]) -> None:
        """Wait until exactly these events came, in this order."""
        expected = [event.id for event in events]

        async def all_there() -> bool:
            return len(self.ids) >= len(expected)

        await wait_until(all_there, what=f"{len(expected)} events, got {len(self.ids)}", limit=LIMIT)
        assert self.ids == expected


@pytest.fixture
def inspector() -> Inspector:
    return Inspector()


class Factory:
    """Makes subscribers that share one subscription, new for each test."""

    def __init__(self, broker: BrokerNode, handler: Inspector) -> None:
        self.name = f"t{uuid4().hex[:12]}"
        self.queue = f"sub_crm.{self.name}"
        self._broker = broker
        self._handler = handler

    def __call__(self, **settings: Any) -> Subscriber:
        chosen = {"types": [REJECTED], "retry_delay": 0.2, "team": "crm", "name": self.name, **settings}
        return Subscriber(self._broker.url("crm"), self._handler, **chosen)

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncIterator[Subscriber]:
        """A subscriber at work, stopped in order at the end."""
        async with self(**settings) as subscriber:
            task = asyncio.create_task(subscriber.run())
            yield subscriber
            subscriber.stop()
            await asyncio.wait_for(task, LIMIT)


@pytest.fixture
async def subscribers(contract_broker: BrokerNode, inspector: Inspector) -> AsyncIterator[Factory]:
    factory = Factory(contract_broker, inspector)
    yield factory
    async with await aio_pika.connect(contract_broker.url(), timeout=10) as connection:
        channel = await connection.channel()
        for suffix in ("", ".retry", ".dead"):
            await channel.queue_delete(factory.queue + suffix)
        await channel.exchange_delete(factory.queue)


async def dead_letter(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    """Wait for a dead letter, and take it."""
    dead = await channel.get_queue(f"{queue}.dead", ensure=False)
    found: list[AbstractIncomingMessage] = []

    async def there() -> bool:
        message = await dead.get(fail=False, no_ack=True)
        found.extend([message] if message else [])
        return bool(found)

    await wait_until(there, what=f"a dead letter of {queue}", limit=LIMIT)
    return found[0]


async def test_a_subscriber_gets_the_types_it_chose(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    wanted, other = rejected(), resized()
    async with subscribers.running():
        await publish(operator, other)
        await publish(operator, wanted)
        await inspector.has_got(wanted)


async def test_events_wait_while_the_subscriber_is_away(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    async with subscribers():
        pass
    first, second = rejected(), rejected()
    await publish(operator, first)
    await publish(operator, second)
    async with subscribers.running():
        await inspector.has_got(first, second)


async def test_a_repeated_event_is_handled_once(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    event, last = rejected(), rejected()
    async with subscribers.running():
        for sent in (event, event, event, last):
            await publish(operator, sent)
        await inspector.has_got(event, last)


async def test_a_failed_event_comes_back_while_others_are_handled(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    inspector.errors = [ValueError("CRM is down")]
    failing, other = rejected(), rejected()
    async with subscribers.running():
        await publish(operator, failing)
        await publish(operator, other)
        await inspector.has_got(failing, other, failing)


async def test_an_event_that_fails_for_good_becomes_a_dead_letter_with_the_reason(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    inspector.errors = [ValueError("CRM is down")] * 3
    event = rejected()
    async with subscribers.running(tries=3):
        await publish(operator, event)
        found = await dead_letter(operator, subscribers.queue)
    assert inspector.ids == [event.id] * 3
    assert found.body == encode(event)
    assert (found.message_id, found.type, found.content_type) == (str(event.id), REJECTED, CONTENT_TYPE)
    reported = {name: found.headers[name] for name in ("sub-attempt", "sub-error", "sub-reason")}
    assert reported == {"sub-attempt": 3, "sub-error": "ValueError", "sub-reason": "CRM is down"}


async def test_an_event_that_the_handler_rejects_is_not_tried_again(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    inspector.errors = [Reject("no such customer")]
    event = rejected()
    async with subscribers.running():
        await publish(operator, event)
        found = await dead_letter(operator, subscribers.queue)
    assert inspector.ids == [event.id]
    assert found.headers["sub-reason"] == "no such customer"


async def test_bytes_that_are_no_event_become_a_dead_letter_and_block_nothing(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    event = rejected()
    exchange = await operator.get_exchange("migration", ensure=False)
    async with subscribers.running():
        await exchange.publish(
            Message(b"\xff\x00{", headers={"x-odd": 1, "odd": bytearray(b"\xff"), "plain": "kept"}), REJECTED
        )
        await publish(operator, event)
        await inspector.has_got(event)
        found = await dead_letter(operator, subscribers.queue)
    assert found.body == b"\xff\x00{"
    assert "not JSON" in str(found.headers["sub-reason"])
    assert found.headers["plain"] == "kept"
    assert found.headers["odd"] == bytearray(b"\xff")
    assert "x-odd" not in found.headers


async def test_unknown_types_and_versions_are_ignored(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    event, later = rejected(), orjson.loads(encode(rejected()))
    exchange = await operator.get_exchange("migration", ensure=False)
    newer = {**later, "dataschema": f"urn:rehome:events:{REJECTED}:v2"}
    async with subscribers.running() as subscriber:
        for body in (newer, {**later, "type": "migration.teleported"}):
            await exchange.publish(Message(orjson.dumps(body), content_type=CONTENT_TYPE), REJECTED)
        await publish(operator, event)
        await inspector.has_got(event)
        assert await subscriber.requeue_dead_letters() == 0


async def test_a_type_that_is_no_longer_chosen_is_ignored(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    async with subscribers(types=[REJECTED, RESIZED]):
        pass
    dropped, wanted = resized(), rejected()
    async with subscribers.running(types=[REJECTED]):
        await publish(operator, dropped)
        await publish(operator, wanted)
        await inspector.has_got(wanted)


async def test_dead_letters_can_be_returned_to_the_queue(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    inspector.errors = [Reject("not yet"), Reject("not yet")]
    first, second, last = rejected(), rejected(), rejected()
    async with subscribers.running():
        for event in (first, second, last):
            await publish(operator, event)
        await inspector.has_got(first, second, last)
    async with subscribers.running() as subscriber:
        assert await subscriber.requeue_dead_letters() == 2
        await inspector.has_got(first, second, last, first, second)


async def test_stopping_lets_the_current_event_finish_and_leaves_the_next(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    first, second = rejected(), rejected()
    inspector.may_go_on.clear()
    async with subscribers() as subscriber:
        task = asyncio.create_task(subscriber.run())
        await publish(operator, first)
        await publish(operator, second)
        await asyncio.wait_for(inspector.started.wait(), LIMIT)
        subscriber.stop()
        inspector.may_go_on.set()
        await asyncio.wait_for(task, LIMIT)
    assert inspector.ids == [first.id]
    async with subscribers.running():
        await inspector.has_got(first, second)


async def test_an_event_whose_handling_was_interrupted_comes_again(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    event = rejected()
    inspector.may_go_on.clear()
    async with subscribers() as subscriber:
        task = asyncio.create_task(subscriber.run())
        await publish(operator, event)
        await asyncio.wait_for(inspector.started.wait(), LIMIT)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    inspector.may_go_on.set()
    async with subscribers.running():
        await inspector.has_got(event, event)


async def test_an_event_handled_while_the_connection_broke_is_not_handled_again(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel, contract_broker: BrokerNode
) -> None:
    event, last = rejected(), rejected()
    inspector.may_go_on.clear()
    async with subscribers.running():
        await publish(operator, event)
        await asyncio.wait_for(inspector.started.wait(), LIMIT)
        await contract_broker.rabbitmqctl("close_all_user_connections", "crm", "the test says so")
        inspector.may_go_on.set()
        await publish(operator, last)
        await inspector.has_got(event, last)


async def test_a_subscriber_survives_a_restart_of_the_broker(
    contract_broker: BrokerNode, subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    before, after = rejected(), rejected()
    async with subscribers.running():
        await publish(operator, before)
        await inspector.has_got(before)
        await contract_broker.stop()
        await contract_broker.start()
        await publish_when_open(contract_broker, after)
        await inspector.has_got(before, after)


async def publish_when_open(broker: BrokerNode, event: CloudEvent[Any]) -> None:
    """Publish by a new connection, opened after the restart."""
    async with Publisher(broker.url()) as publisher:
        await publisher.publish(event)


async def test_a_deleted_queue_is_noticed_and_declared_again(
    subscribers: Factory, inspector: Inspector, operator: AbstractChannel
) -> None:
    event = rejected()
    async with subscribers.running(watch=0.1):
        await operator.queue_delete(subscribers.queue)

        async def bound_again() -> bool:
            await publish(operator, event)
            return bool(inspector.ids)

        await wait_until(bound_again, what="the queue to be declared again", limit=LIMIT, pause=0.1)
        await inspector.has_got(event)


async def test_another_teams_name_is_refused(contract_broker: BrokerNode, inspector: Inspector) -> None:
    other = Subscriber(contract_broker.url("crm"), inspector, team="status", name="page")
    with pytest.raises(Refused, match=r"set up sub_status\.page: ACCESS_REFUSED"):
        async with other:
            pass


async def test_queues_with_other_settings_are_reported(subscribers: Factory) -> None:
    async with subscribers(retry_delay=1):
        pass
    with pytest.raises(Refused, match="x-message-ttl"):
        async with subscribers(retry_delay=2):
            pass


async def test_a_missing_broker_is_reported(inspector: Inspector) -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=f":{port}"):
        async with Subscriber(f"amqp://u:p@127.0.0.1:{port}/", inspector, team="crm", name="x", timeout=2):
            pass


def test_types_that_are_not_for_subscribers_are_refused(inspector: Inspector) -> None:
    with pytest.raises(EventError, match=r"plan\.upgraded"):
        Subscriber("amqp://broker/", inspector, team="crm", name="x", types=["plan.upgraded"])


@pytest.mark.parametrize("name", ["", "Ümlaut", "a.b", "a b", "#"])
def test_a_name_that_would_not_fit_the_permissions_is_refused(name: str, inspector: Inspector) -> None:
    with pytest.raises(EventError, match="lower-case letters"):
        Subscriber("amqp://broker/", inspector, team="crm", name=name)
