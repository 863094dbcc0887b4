"""The sandbox's billing and its independent subscriber, on a real broker."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from rehome_events.billing import PlanUpgraded
from rehome_events.client.publisher import Publisher
from rehome_events.envelope import CloudEvent, event_id, from_message, new_event, to_message
from rehome_events.errors import Refused
from rehome_events.migration import MigrationRejected
from rehome_events.parts import Entitlements
from sandbox.platform.billing import Billing
from sandbox.platform.subscriber import Subscriber
from sandbox.platform.tables import Platform
from sandbox.rabbitmq.node import BrokerNode

LIMIT = 20


def rejected(instance_id: UUID, attempt: int = 1) -> CloudEvent[MigrationRejected]:
    data = MigrationRejected(
        instance_id=instance_id, to_plan="premium-monthly", reason="terminated", message="It was terminated."
    )
    migration = uuid.uuid4()
    return new_event(
        data,
        subject=instance_id,
        id=event_id(migration, attempt, data.TYPE),
        time=datetime.now(UTC),
        migrationid=migration,
        attempt=attempt,
    )


class BillingQueue:
    """A second queue for billing's events, besides the consumer's."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue) -> None:
        self.channel = channel
        self.queue = queue

    async def next(self) -> CloudEvent[Any]:
        return from_message(await self.queue.get(timeout=LIMIT, no_ack=True))


@pytest.fixture
async def published(broker: BrokerNode) -> AsyncIterator[BillingQueue]:
    connection = await aio_pika.connect(broker.url())
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("billing", "plan.upgraded")
        yield BillingQueue(channel, queue)
        await (await channel.get_queue("migration.h.accept")).purge()


@pytest.fixture
def billing(broker: BrokerNode, platform: Platform) -> Billing:
    return Billing(
        broker.url(),
        platform.cluster.dsn(platform.instance_database),
        platform.cluster.dsn(platform.billing_database),
    )


async def test_an_upgrade_is_published_with_what_the_plan_grants(
    billing: Billing, published: BillingQueue, platform: Platform
) -> None:
    instance_id = await platform.add_instance("shop", plan_tier="standard")
    event = await billing.upgrade(instance_id, "premium-monthly")
    assert await published.next() == event
    row = await platform.fetch_instance(instance_id)
    assert event.data == PlanUpgraded(
        instance_id=instance_id,
        customer_id=row["customer_id"],
        subscription_id=row["subscription_id"],
        from_plan="standard-monthly",
        to_plan="premium-monthly",
        plan_tier="premium",
        entitlements=Entitlements(cpu_limit=4.0, memory_limit="8G", storage_limit="50G", db_type="dedicated"),
    )
    assert row["db_type"] == "shared"


async def test_an_upgrade_can_leave_the_entitlements_to_the_billing_database(
    billing: Billing, published: BillingQueue, platform: Platform
) -> None:
    event = await billing.upgrade(
        await platform.add_instance("shop"), "premium-monthly", with_entitlements=False
    )
    assert (await published.next()).data.entitlements is None
    assert event.data.entitlements is None


async def test_billing_may_have_written_the_new_plan_into_the_record_before(
    billing: Billing, published: BillingQueue, platform: Platform
) -> None:
    instance_id = await platform.add_instance("shop")
    await billing.upgrade(instance_id, "premium-monthly", write_ahead=True)
    row = await platform.fetch_instance(instance_id)
    assert (row["db_type"], row["cpu_limit"], row["memory_limit"]) == ("dedicated", 4, "8G")


async def test_the_same_event_can_be_published_again(
    billing: Billing, published: BillingQueue, platform: Platform
) -> None:
    event = await billing.upgrade(await platform.add_instance("shop"), "premium-monthly")
    await billing.publish(event)
    assert [await published.next(), await published.next()] == [event, event]


@pytest.mark.parametrize("plan", ["no-such-plan", "premium-monthly"])
async def test_an_unknown_plan_or_instance_is_named(billing: Billing, platform: Platform, plan: str) -> None:
    known = plan == "premium-monthly"
    instance_id = uuid.uuid4() if known else await platform.add_instance("shop")
    with pytest.raises(LookupError, match=str(instance_id) if known else plan):
        await billing.upgrade(instance_id, plan)


async def test_a_subscriber_receives_every_event_and_every_repeat(broker: BrokerNode) -> None:
    one, other = rejected(uuid.uuid4()), rejected(uuid.uuid4())
    received: list[CloudEvent[Any]] = []
    async with (
        Subscriber(broker.url(), on_event=received.append) as subscriber,
        Publisher(broker.url()) as publisher,
    ):
        for event in (one, one, other):
            await publisher.publish(event)
        await subscriber.wait_for("migration.rejected", instance_id=other.data.instance_id, limit=LIMIT)
    assert subscriber.deliveries == received == [one, one, other]
    assert subscriber.events == [one, other]
    assert subscriber.types(one.data.instance_id) == ["migration.rejected"]


async def test_a_subscriber_misses_nothing_while_its_connection_is_lost(broker: BrokerNode) -> None:
    first, second = rejected(uuid.uuid4()), rejected(uuid.uuid4())
    async with Subscriber(broker.url()) as subscriber:
        async with Publisher(broker.url()) as publisher:
            await publisher.publish(first)
            await subscriber.wait_for("migration.rejected", instance_id=first.data.instance_id, limit=LIMIT)
        await broker.rabbitmqctl("close_all_connections", "--global", "on purpose")
        async with Publisher(broker.url()) as publisher:
            await publisher.publish(second)
        await subscriber.wait_for("migration.rejected", instance_id=second.data.instance_id, limit=LIMIT)
    assert subscriber.events == [first, second]


async def test_a_subscriber_records_messages_that_are_not_events_separately(broker: BrokerNode) -> None:
    event = rejected(uuid.uuid4())
    async with Subscriber(broker.url()) as subscriber, await aio_pika.connect(broker.url()) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("migration")
        await exchange.publish(aio_pika.Message(b"{"), "migration.rejected", mandatory=False)
        await exchange.publish(to_message(event), "migration.rejected", mandatory=False)
        await subscriber.wait_for("migration.rejected", instance_id=event.data.instance_id, limit=LIMIT)
    assert len(subscriber.undecodable) == 1
    assert subscriber.undecodable[0].startswith("not JSON")


async def test_the_error_for_an_event_that_never_comes_names_those_that_came(broker: BrokerNode) -> None:
    event = rejected(uuid.uuid4())
    async with Subscriber(broker.url()) as subscriber, Publisher(broker.url()) as publisher:
        await publisher.publish(event)
        await subscriber.wait_for("migration.rejected", instance_id=event.data.instance_id, limit=LIMIT)
        with pytest.raises(
            TimeoutError, match=r"for migration\.completed of .*; received: migration\.rejected"
        ):
            await subscriber.wait_for("migration.completed", instance_id=event.data.instance_id, limit=0.05)


async def test_a_subscriber_deletes_its_queue(broker: BrokerNode) -> None:
    async with Subscriber(broker.url()) as subscriber:
        assert subscriber.queue in await broker.queues()
    assert subscriber.queue not in await broker.queues()


async def test_a_subscriber_that_may_not_read_is_refused_at_once(broker: BrokerNode) -> None:
    with pytest.raises(Refused):
        async with Subscriber(broker.url("guest", password="wrong")):
            pass
