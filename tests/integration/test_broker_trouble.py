"""The broker's adapter when the node is frozen, killed, full, out of memory, or refuses."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.connection import connected
from rehome_consumer.errors import Refused, TimedOut, Unreachable
from rehome_consumer.ports.engine import Message
from rehome_consumer.rabbitmq import topology
from rehome_consumer.rabbitmq.comparison import differences
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER, queue_of
from sandbox.rabbitmq.files import GUEST, BrokerUser
from sandbox.rabbitmq.node import BrokerNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aio_pika.abc import AbstractRobustConnection

LIMIT = 60.0
QUEUE = queue_of("stop")
EVENT = "migration.prepared"
FILES = Path(__file__).parents[2] / "rabbitmq"

MIGRATOR = BrokerUser(
    name="migrator",
    password="p%'$; #=",
    configure="^$",
    write=r"^migration(\.retry\.[0-9a-z]+|\.dead)?$",
    read=r"^migration\.h\.[a-z_]+$",
    topics={"migration": (r"^(migration|instance)\.[a-z_]+$", "^$")},
)


@pytest.fixture(scope="module")
async def node(scratch: Path) -> AsyncIterator[BrokerNode]:
    """A node of this module's own, to break."""
    made = await BrokerNode.create(
        scratch / "troubled",
        definitions=FILES / "definitions.json",
        conf=FILES / "rabbitmq.conf",
        users=(GUEST, MIGRATOR),
    )
    await made.start()
    await made.stop()  # normally: a new queue may have no leader when its node is killed in its first seconds
    await made.start()
    yield made
    await made.destroy()


async def purge(node: BrokerNode, *queues: str) -> None:
    async with limited(), connected(node.url(), name="cleaner") as cleaner, cleaner.channel() as channel:
        for name in queues:
            await (await channel.get_queue(name, ensure=False)).purge()


@pytest.fixture
async def connection(node: BrokerNode) -> AsyncIterator[AbstractRobustConnection]:
    async with connected(node.url("migrator"), name="consumer") as made:
        yield made
    await purge(node, QUEUE, DEAD)


@asynccontextmanager
async def limited() -> AsyncIterator[None]:
    async with asyncio.timeout(LIMIT):
        yield


def a_message() -> Message:
    return Message(body=b"{}", message_id=str(uuid4()), type=EVENT)


async def until_published(broker: AmqpBroker, message: Message) -> int:
    """Publish as a relay does, again after every failure; returns the number of failures."""
    for failures in range(100):
        try:
            await broker.publish("migration", EVENT, message, mandatory=True)
        except (Unreachable, TimedOut):
            await asyncio.sleep(0.2)
        else:
            return failures
    raise AssertionError("never published")


async def test_a_frozen_node_is_given_up_within_the_limit(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection, confirm_within=0.5)
    await broker.publish("migration", EVENT, a_message(), mandatory=True)
    node.freeze()
    try:
        async with limited():
            with pytest.raises(TimedOut, match=r"no confirm from the broker within 0\.5 s"):
                await broker.publish("migration", EVENT, a_message(), mandatory=True)
    finally:
        node.thaw()
    async with limited():
        await until_published(broker, a_message())


async def test_a_publish_is_cancelled_only_by_its_own_task(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection)
    await broker.publish("migration", EVENT, a_message(), mandatory=True)
    node.freeze()
    try:
        task = asyncio.create_task(broker.publish("migration", EVENT, a_message(), mandatory=True))
        await asyncio.sleep(0)
        task.cancel()
        async with limited():
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        node.thaw()


async def test_consumer_and_publisher_survive_the_death_of_the_node(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection, confirm_within=2.0)
    await broker.publish("migration", EVENT, first := a_message(), mandatory=True)
    async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
        lost = await anext(deliveries)
        assert lost.message.message_id == first.message_id
        await node.kill()
        with pytest.raises((Unreachable, TimedOut)):
            await broker.publish("migration", EVENT, a_message(), mandatory=True)
        await node.start()
        await until_published(broker, second := a_message())
        await lost.ack()  # of a lost channel: only logged
        got: set[str | None] = set()
        while got < {first.message_id, second.message_id}:
            delivery = await anext(deliveries)
            got.add(delivery.message.message_id)
            await delivery.ack()


async def test_a_publish_in_flight_when_the_node_dies_is_reported_as_unreachable(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection, confirm_within=30.0)
    await broker.publish("migration", EVENT, a_message(), mandatory=True)
    node.freeze()
    publishing = asyncio.create_task(broker.publish("migration", EVENT, a_message(), mandatory=True))
    await asyncio.sleep(0)
    await node.kill()
    async with limited():
        with pytest.raises(Unreachable, match=f"publish of {EVENT}"):
            await publishing
    await node.start()
    async with limited():
        await until_published(broker, a_message())


async def cancel_silently(connection: Any) -> None:
    """Cancel the consumers as a broker does that loses them, without a notification."""
    for channel in list(connection._RobustConnection__channels):
        underlay = await channel.get_underlay_channel()
        for tag in list(underlay.consumers):
            await underlay.basic_cancel(tag)


async def test_a_consumer_that_the_broker_lost_is_reported(connection: AbstractRobustConnection) -> None:
    broker = AmqpBroker(connection, check_every=0.2)
    async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
        await broker.publish("migration", EVENT, a_message(), mandatory=True)
        await (await anext(deliveries)).ack()
        await cancel_silently(connection)
        await broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
        with pytest.raises(Unreachable, match=f"consumer of {QUEUE} was lost"):
            await anext(deliveries)
    async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
        delivery = await anext(deliveries)
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_a_consumer_whose_queue_was_deleted_is_reported(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection, check_every=0.2)
    wanted = next(queue for queue in topology.definitions()["queues"] if queue["name"] == QUEUE)
    async with connected(node.url(), name="admin") as admin, admin.channel() as channel:
        async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
            await broker.publish("migration", EVENT, a_message(), mandatory=True)
            await (await anext(deliveries)).ack()
            await channel.queue_delete(QUEUE)
            with pytest.raises(Refused, match=f"queue {QUEUE} does not exist"):
                await anext(deliveries)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments=wanted["arguments"])
        await queue.bind("migration", EVENT)
        await queue.bind(HANDLER, "stop")
    async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
        await broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
        delivery = await anext(deliveries)
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_an_idle_consumer_is_not_taken_for_lost(connection: AbstractRobustConnection) -> None:
    broker = AmqpBroker(connection, check_every=0.02)
    async with limited(), aclosing(broker.consume(QUEUE)) as deliveries:
        taking = asyncio.ensure_future(anext(deliveries))
        await asyncio.wait((taking,), timeout=0.5)
        await broker.publish("migration", EVENT, sent := a_message(), mandatory=True)
        delivery = await taking
        assert delivery.message.message_id == sent.message_id
        await delivery.ack()


async def test_a_full_queue_is_a_transient_error(node: BrokerNode) -> None:
    full = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    async with connected(node.url(), name="admin") as admin, admin.channel() as channel:
        queue = await channel.declare_queue("full", durable=True, arguments=full)
        await queue.bind(HANDLER, "full")
        broker = AmqpBroker(admin)
        with pytest.raises(Unreachable, match="full"):  # noqa: PT012 - one of them
            for _ in range(50):  # a quorum queue rejects a little late
                await broker.publish(HANDLER, "full", a_message(), mandatory=True)
        await channel.queue_delete("full")


async def test_a_memory_alarm_delays_publishes_until_it_is_over(
    node: BrokerNode, connection: AbstractRobustConnection
) -> None:
    broker = AmqpBroker(connection, confirm_within=0.5)
    await node.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    try:
        async with limited():
            with pytest.raises((TimedOut, Unreachable)):  # noqa: PT012 - once the alarm is raised
                for _ in range(20):
                    await broker.publish("migration", EVENT, a_message(), mandatory=True)
    finally:
        await node.rabbitmqctl("set_vm_memory_high_watermark", "0.4")
    async with limited():
        await until_published(broker, a_message())


async def test_what_the_user_has_no_permission_for_is_refused(connection: AbstractRobustConnection) -> None:
    broker = AmqpBroker(connection)
    with pytest.raises(Refused, match="billing"):
        await broker.publish("billing", "plan.upgraded", a_message(), mandatory=True)
    with pytest.raises(Refused, match=DEAD):
        async with aclosing(broker.consume(DEAD)) as deliveries:
            await anext(deliveries)
    await broker.publish("migration", EVENT, a_message(), mandatory=True)


async def test_a_refused_login_is_reported_without_the_password(node: BrokerNode) -> None:
    async with limited():
        with pytest.raises(Unreachable, match=f"127.0.0.1:{node.port}/migration") as error:
            async with connected(node.url("migrator", password="wrong-secret"), name="consumer"):
                pass
    assert "wrong-secret" not in str(error.value)


async def test_an_unreachable_broker_is_reported_with_its_address() -> None:
    async with limited():
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1/migration"):
            async with connected("amqp://guest:guest@127.0.0.1:1/migration", name="consumer"):
                pass


async def test_the_node_has_the_topology_of_the_saga(node: BrokerNode) -> None:
    there = json.loads(await node.rabbitmqctl("export_definitions", "-", "--format", "json"))
    assert differences(topology.definitions(), there) == []
