"""Publishing on a real broker: confirmed, routed, limited in time, and refused with the reason."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from rehome_events.client import Publisher, plan_upgraded
from rehome_events.envelope import CONTENT_TYPE, CloudEvent, from_message, new_event
from rehome_events.errors import EventError, NotRouted, PublishTimeout, Refused, Unreachable
from rehome_events.migration import MigrationCompleted, MigrationRejected
from rehome_events.tools.schema import golden
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import free_port, wait_until

INSTANCE = UUID("7d9f2a54-3c1b-4e8a-9a70-5b1d2c3e4f60")


def upgrade(**changes: Any) -> CloudEvent[Any]:
    fields: dict[str, Any] = {
        "instance_id": INSTANCE,
        "customer_id": uuid4(),
        "subscription_id": uuid4(),
        "from_plan": "standard-monthly",
        "to_plan": "premium-monthly",
        "plan_tier": "premium",
    }
    return plan_upgraded(**{**fields, **changes})


def rejection() -> CloudEvent[Any]:
    data = MigrationRejected(
        instance_id=INSTANCE, to_plan="premium", reason="terminated", message="Terminated."
    )
    return new_event(data, subject=INSTANCE, id=uuid4(), time=upgrade().time)


@pytest.fixture
async def taken(operator: AbstractChannel) -> AsyncIterator[AbstractQueue]:
    """A queue that gets every upgrade."""
    queue = await operator.declare_queue(exclusive=True)
    await queue.bind("billing", "plan.upgraded")
    yield queue
    await queue.delete(if_empty=False)


async def test_billing_publishes_an_upgrade_that_arrives_as_it_was(
    contract_broker: BrokerNode, taken: AbstractQueue
) -> None:
    event = upgrade(entitlements={"cpu_limit": "4.0", "db_type": "dedicated"})
    async with Publisher(contract_broker.url("billing")) as publisher:
        await publisher.publish(event)
    message = await taken.get(no_ack=True)
    assert message is not None
    assert from_message(message) == event
    assert (message.message_id, message.type, message.app_id) == (str(event.id), "plan.upgraded", "billing")
    assert message.content_type == CONTENT_TYPE


async def test_many_publishes_at_once_all_arrive(contract_broker: BrokerNode, taken: AbstractQueue) -> None:
    sent = [upgrade() for _ in range(50)]
    async with Publisher(contract_broker.url("billing")) as publisher:
        await asyncio.gather(*(publisher.publish(event) for event in sent))
    got = [await taken.get(no_ack=True) for _ in sent]
    assert [message.message_id for message in got if message] == [str(event.id) for event in sent]


async def test_an_upgrade_that_no_queue_gets_is_reported(
    contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    handler = await operator.get_queue("migration.h.accept")
    await handler.unbind("billing", "plan.upgraded")
    try:
        async with Publisher(contract_broker.url("billing")) as publisher:
            with pytest.raises(NotRouted, match="no queue is bound"):
                await publisher.publish(upgrade())
    finally:
        await handler.bind("billing", "plan.upgraded")


async def test_an_event_that_wakes_no_handler_needs_no_queue(contract_broker: BrokerNode) -> None:
    async with Publisher(contract_broker.url()) as publisher:
        await publisher.publish(rejection())


async def test_billing_may_not_publish_rehomes_events_and_can_go_on_afterwards(
    contract_broker: BrokerNode, taken: AbstractQueue
) -> None:
    async with Publisher(contract_broker.url("billing")) as publisher:
        with pytest.raises(Refused, match="ACCESS_REFUSED"):
            await publisher.publish(rejection())
        await publisher.publish(upgrade())
    assert await taken.get(no_ack=True)


async def test_a_wrong_password_is_refused_without_printing_it(contract_broker: BrokerNode) -> None:
    with pytest.raises(Refused, match=r"log in to amqp://127\.0\.0\.1") as refused:
        async with Publisher(contract_broker.url("billing", password="hunter2")):
            pass
    assert "hunter2" not in str(refused.value)
    assert "billing" in str(refused.value)


async def test_a_missing_vhost_is_named(contract_broker: BrokerNode) -> None:
    url = contract_broker.url(vhost="nowhere")
    for path, vhost in (("nowhere", "nowhere"), ("", "/"), ("%2F", "/")):
        with pytest.raises(Unreachable, match=f"is there a vhost '{vhost}'"):
            async with Publisher(url.replace("nowhere", path)):
                pass


async def test_no_broker_is_reported_with_its_address() -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=f":{port}"):
        async with Publisher(f"amqp://u:hunter2@127.0.0.1:{port}/migration", timeout=2):
            pass


async def test_a_frozen_broker_is_reported_in_time(contract_broker: BrokerNode) -> None:
    async with Publisher(contract_broker.url("billing"), timeout=2, tries=2) as publisher:
        contract_broker.freeze()
        started = time.monotonic()
        try:
            with pytest.raises(PublishTimeout, match="publish it again"):
                await publisher.publish(upgrade())
        finally:
            contract_broker.thaw()
    assert time.monotonic() - started < 60


async def test_a_publish_waits_for_a_restarted_broker_and_keeps_its_id(contract_broker: BrokerNode) -> None:
    before, meanwhile = upgrade(), upgrade()
    async with Publisher(contract_broker.url("billing"), tries=30) as publisher:
        await publisher.publish(before)
        await contract_broker.kill()
        publishing = asyncio.create_task(publisher.publish(meanwhile))
        await contract_broker.start()
        await asyncio.wait_for(publishing, 60)
    async with await aio_pika.connect(contract_broker.url(), timeout=10) as connection:
        handler = await (await connection.channel()).get_queue("migration.h.accept")
        ids: list[str | None] = []

        async def all_taken() -> bool:
            # Just after its start a quorum queue may have messages and give none.
            while message := await handler.get(no_ack=True, fail=False):
                ids.append(message.message_id)
            return str(meanwhile.id) in ids

        await wait_until(all_taken, what="the queue to give its messages", limit=30, pause=0.2)
    assert ids[-2:] == [str(before.id), str(meanwhile.id)]


async def test_an_invalid_event_is_not_sent(contract_broker: BrokerNode) -> None:
    async with Publisher(contract_broker.url()) as publisher:
        example = golden("migration.completed", 1, "valid")["full"]["data"]
        data = MigrationCompleted.model_validate(example)
        event = new_event(data, subject=data.instance_id, id=uuid4(), time=upgrade().time)
        with pytest.raises(EventError, match="migrationid"):
            await publisher.publish(event)


def test_the_builder_names_every_wrong_field() -> None:
    with pytest.raises(EventError) as refused:
        upgrade(to_plan="", customer_id="42", entitlements={"cpu_limit": 0})
    for field in ("to_plan", "customer_id", "entitlements.cpu_limit"):
        assert field in str(refused.value)


@pytest.mark.parametrize("url", ["", "broker:5672", "http://u:hunter2@broker", "amqp://"])
def test_a_malformed_url_is_refused_without_printing_it(url: str) -> None:
    with pytest.raises(EventError, match="must look like") as refused:
        Publisher(url)
    assert "hunter2" not in str(refused.value)


def test_certificates_for_a_url_without_tls_are_refused() -> None:
    with pytest.raises(EventError, match="amqps"):
        Publisher("amqp://broker/", ca_file="ca.pem")
