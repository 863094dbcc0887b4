"""Consumer, operator's tool, billing and subscribers can do all their work with their roles' permissions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aio_pika
import pytest

from rehome_consumer import saga
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker, AmqpDelivery
from rehome_consumer.adapters.rabbitmq.connection import connected
from rehome_consumer.adapters.rabbitmq.dead_letters import DeadLetters
from rehome_consumer.engine import headers
from rehome_consumer.engine.inbound import read
from rehome_consumer.engine.outbox_relay import nothing
from rehome_consumer.engine.outcome import GiveUp, Retry
from rehome_consumer.engine.republish import Republisher
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq.topology import HANDLER, queue_of, retry_exchange
from rehome_consumer.saga import TIERS, Step
from rehome_events.catalog import CATALOG, lookup
from rehome_events.client.publisher import Publisher
from rehome_events.client.subscriber import Reject, Subscriber
from rehome_events.envelope import CloudEvent, encode, new_event
from rehome_events.migration import MigrationRejected
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.files import GUEST
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import wait_until
from tests.contract.journals import postgres_journal, state_database
from tests.fakes.clock import FakeClock
from tests.support.broker_users import as_booted, rehome
from tests.support.events import AT, upgrade

LIMIT = 60.0
FILES = Path(__file__).parents[2] / "rabbitmq"
REJECTED = MigrationRejected.TYPE


@pytest.fixture(scope="module")
async def node(scratch: Path) -> AsyncIterator[BrokerNode]:
    made = await BrokerNode.create(
        scratch / "roles",
        definitions=FILES / "definitions.json",
        conf=FILES / "rabbitmq.conf",
        users=(
            GUEST,
            as_booted("billing", "billing"),
            as_booted("migrator", "migrator"),
            as_booted("operator", "operator"),
            as_booted("crm", "subscriber", (REJECTED,)),
        ),
    )
    await made.start()
    yield made
    await made.destroy()


@asynccontextmanager
async def broker_as(node: BrokerNode, user: str) -> AsyncIterator[AmqpBroker]:
    async with connected(node.url(user), name=user) as connection:
        yield AmqpBroker(connection)


def publisher_of(step: Step) -> str:
    return {"rehome": "migrator"}.get(by := lookup(step.on.TYPE).published_by, by)


async def test_every_delivery_can_be_published_retried_dead_lettered_and_replayed(node: BrokerNode) -> None:
    """For each handler's queue; the replay is the operator's, and is read again."""
    dead_lettered: dict[str, asyncio.Event] = {step.name: asyncio.Event() for step in saga.MIGRATION}
    replayed: dict[str, asyncio.Event] = {step.name: asyncio.Event() for step in saga.MIGRATION}

    async def handle(step: Step) -> None:
        event = Message(body=step.name.encode(), message_id=str(uuid4()), type=step.on.TYPE)
        async with broker_as(node, publisher_of(step)) as publisher:
            await publisher.publish(lookup(step.on.TYPE).exchange, step.on.TYPE, event, mandatory=True)
        async with broker_as(node, "migrator") as broker:
            republisher = Republisher(broker, FakeClock(), nothing)
            async with aclosing(broker.consume(queue_of(step.name))) as deliveries:
                first = read(step, await anext(deliveries))
                await republisher.retry(first, Retry("1s", 1, "try again"))
                await first.delivery.ack()
                again: AmqpDelivery = await anext(deliveries)
                assert headers.count(again, headers.TRIES) == 1
                await republisher.dead_letter(read(step, again), GiveUp("failed", "for good"))
                await again.ack()
                dead_lettered[step.name].set()
                await replayed[step.name].wait()
                replay = await anext(deliveries)
                assert (replay.message.body, replay.message.message_id) == (event.body, event.message_id)
                await replay.ack()

    async def operate() -> None:
        await asyncio.gather(*(event.wait() for event in dead_lettered.values()))
        async with connected(node.url("operator"), name="operator") as connection:
            broker = AmqpBroker(connection)
            async with DeadLetters(connection).held() as held:
                for dead_letter in held:
                    handler = str(dead_letter.message.headers[headers.HANDLER])
                    await broker.publish(HANDLER, handler, dead_letter.message, mandatory=True)
                    await dead_letter.ack()
                    replayed[handler].set()

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as together:
        together.create_task(operate())
        for step in saga.MIGRATION:
            together.create_task(handle(step))


async def test_the_consumer_may_publish_everything_of_its_own(node: BrokerNode) -> None:
    message = Message(body=b"{}", message_id=str(uuid4()))
    async with broker_as(node, "migrator") as broker:
        for entry in CATALOG.values():
            if entry.published_by == "rehome":
                await broker.publish(entry.exchange, entry.type, message, mandatory=False)
        for tier in TIERS:
            await broker.publish(retry_exchange(tier), "restore", message, mandatory=True)
    await empty(node)


async def test_billing_and_a_subscriber_need_no_more_for_their_kit(node: BrokerNode) -> None:
    """A subscriber declares its queues, receives, retries, dead-letters, and requeues a dead letter."""
    received: list[CloudEvent[Any]] = []

    async def handler(event: CloudEvent[Any]) -> None:
        received.append(event)
        if len(received) == 1:
            raise ValueError("not now")
        if len(received) == 2:
            raise Reject("never")

    async def handled(times: int) -> bool:
        return len(received) == times

    async def is_dead() -> bool:
        return bool((await node.queues())["sub_crm.news.dead"]["messages"])

    async with Publisher(node.url("billing")) as billing:
        await billing.publish(upgrade(uuid4()))
    subscriber = Subscriber(
        node.url("crm"), handler, team="crm", name="news", types=[REJECTED], retry_delay=0.1
    )
    async with subscriber, Publisher(node.url("migrator")) as consumer:
        running = asyncio.create_task(subscriber.run())
        await consumer.publish(rejected())
        await wait_until(lambda: handled(2), what="the event to be tried again", limit=LIMIT)
        await wait_until(is_dead, what="it to be a dead letter", limit=LIMIT)
        assert await subscriber.requeue_dead_letters() == 1
        await wait_until(lambda: handled(3), what="the dead letter to be handled", limit=LIMIT)
        subscriber.stop()
        await asyncio.wait_for(running, LIMIT)
    assert {event.id for event in received} == {received[0].id}
    await empty(node)


async def test_the_operators_command_replays_with_the_operators_permissions(
    node: BrokerNode, pg: Cluster
) -> None:
    event = upgrade(uuid4())
    async with broker_as(node, "billing") as billing:
        await billing.publish("billing", event.type, Message.of_event(encode(event)), mandatory=True)
    async with (
        broker_as(node, "migrator") as broker,
        aclosing(broker.consume(queue_of("accept"))) as arriving,
    ):
        first = await anext(arriving)
        given_up = read(saga.MIGRATION[0], first)
        await Republisher(broker, FakeClock(), nothing).dead_letter(given_up, GiveUp("failed", "for good"))
        await first.ack()
        async with state_database(pg) as dsn, postgres_journal(dsn):
            settings = {"REHOME_AMQP_URL": node.url("operator"), "REHOME_PLATFORM_DSN": dsn}
            done = await rehome("dead", "replay", "--all", "--handler", "accept", "--json", settings=settings)
            assert (done.code, done.err) == (0, "")
            async with asyncio.timeout(LIMIT):
                replay = await anext(arriving)
        assert str(event.id).encode() in replay.message.body
        assert replay.message.message_id != str(event.id)
        await replay.ack()


def rejected() -> CloudEvent[Any]:
    data = MigrationRejected(instance_id=uuid4(), to_plan="premium", reason="terminated", message="Gone.")
    return new_event(data, subject=data.instance_id, id=uuid4(), time=AT)


async def empty(node: BrokerNode) -> None:
    """Leave nothing for the next test."""
    async with await aio_pika.connect(node.url(), timeout=10) as connection:
        channel = await connection.channel()
        for name in await node.queues():
            await (await channel.get_queue(name, ensure=False)).purge()
