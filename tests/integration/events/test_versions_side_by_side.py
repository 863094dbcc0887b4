"""A type in two versions on a real broker: whoever knows one, the other or both handles each event once."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from aio_pika.abc import AbstractChannel

from rehome_events.client import Subscriber
from rehome_events.data import EventData
from rehome_events.envelope import CloudEvent, to_message
from rehome_events.migration import MigrationCompleted
from rehome_events.testing import Story
from rehome_events.versions import in_every_version
from sandbox.rabbitmq.node import BrokerNode
from sandbox.system.net import wait_until
from tests.support.second_versions import MigrationCompletedV2, completed_in_second, next_release

LIMIT = 20.0
KIND = MigrationCompleted.TYPE
RELEASED_BEFORE = f"""
import asyncio, os
from rehome_events.client import Subscriber

async def handle(event):
    print(event.data.VERSION, event.id, flush=True)

async def follow():
    chosen = {{"team": "crm", "name": os.environ["NAME"], "types": ["{KIND}"]}}
    async with Subscriber(os.environ["URL"], handle, **chosen) as subscriber:
        print("ready", flush=True)
        await subscriber.run()

asyncio.run(follow())
"""
Versions = list[tuple[int, UUID]]


def completed() -> CloudEvent[Any]:
    """As the present release publishes it, in the first version only."""
    return Story().events[-1]


def completed_next() -> CloudEvent[Any]:
    """As the next release publishes it."""
    event = completed()
    data = completed_in_second(event.data)
    return event.model_copy(update={"data": data, "dataschema": f"urn:rehome:events:{KIND}:v2"})


async def publish(channel: AbstractChannel, *events: CloudEvent[Any]) -> None:
    exchange = await channel.get_exchange("migration", ensure=False)
    for event in events:
        await exchange.publish(to_message(event), event.type)


@pytest.fixture
async def name(operator: AbstractChannel) -> AsyncIterator[str]:
    """Name of a subscription, which is removed from the broker at the end."""
    made = f"t{uuid4().hex[:12]}"
    yield made
    for suffix in ("", ".retry", ".dead"):
        await operator.queue_delete(f"sub_crm.{made}{suffix}")
    await operator.exchange_delete(f"sub_crm.{made}")


class Handler:
    """Records what it gets, but fails once at each of `fails_at`."""

    def __init__(self, *fails_at: tuple[int, UUID]) -> None:
        self.got: Versions = []
        self.fails_at = set(fails_at)

    async def __call__(self, event: CloudEvent[Any]) -> None:
        this = (event.data.VERSION, event.id)
        if this in self.fails_at:
            self.fails_at.remove(this)
            raise ValueError("CRM is down")
        self.got.append(this)

    async def has_got(self, *expected: tuple[int, UUID]) -> None:
        """Wait for the last of them, and compare."""

        async def there() -> bool:
            return expected[-1] in self.got

        await wait_until(there, what=f"{expected[-1]}, got {self.got}", limit=LIMIT)
        assert self.got == list(expected)


@asynccontextmanager
async def following(
    broker: BrokerNode, name: str, handler: Handler, *types: str | type[EventData]
) -> AsyncIterator[None]:
    """A subscriber of this process at work, with the package of the next release."""
    chosen: dict[str, Any] = {"team": "crm", "name": name, "types": types, "retry_delay": 0.2}
    async with Subscriber(broker.url("crm"), handler, **chosen) as subscriber:
        task = asyncio.create_task(subscriber.run())
        yield
        subscriber.stop()
        await asyncio.wait_for(task, LIMIT)


async def test_a_subscriber_with_the_package_of_before_gets_each_event_once_in_the_version_it_knows(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    environment = {**os.environ, "URL": contract_broker.url("crm"), "NAME": name}
    old = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RELEASED_BEFORE, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert old.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            assert await old.stdout.readline() == b"ready\n"
            published_before = completed()
            with next_release():
                both = in_every_version(completed_next())
                await publish(operator, published_before, *both, *reversed(both))
                await publish(operator, last := in_every_version(completed_next())[-1])
            lines = [(await old.stdout.readline()).decode().split() for _ in range(3)]
    finally:
        old.kill()
        await old.wait()
    assert lines == [["1", str(event.id)] for event in (published_before, both[0], last)]


async def test_a_handler_of_before_gets_the_same_with_the_next_package(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    handler, first, last = Handler(), completed_next(), completed()
    with next_release():
        async with following(contract_broker, name, handler, KIND):
            await publish(operator, *in_every_version(first), last)
            await handler.has_got((1, first.id), (1, last.id))


async def test_a_handler_of_the_second_version_gets_that(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    handler, first, last = Handler(), completed_next(), completed_next()
    with next_release():
        async with following(contract_broker, name, handler, MigrationCompletedV2):
            await publish(operator, *reversed(in_every_version(first)), *in_every_version(last))
            await handler.has_got((2, first.id), (2, last.id))


async def test_a_handler_of_both_versions_gets_each_event_once_also_those_published_before_the_change(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    handler, published_before, published_after, last = Handler(), completed(), completed_next(), completed()
    with next_release():
        async with following(contract_broker, name, handler, MigrationCompleted, MigrationCompletedV2):
            await publish(operator, published_before, *in_every_version(published_after), last)
            await handler.has_got((1, published_before.id), (2, published_after.id), (1, last.id))


async def test_a_version_that_failed_is_not_handled_again_once_the_other_was(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    event, last = completed_next(), completed()
    handler = Handler((2, event.id), (1, last.id))
    with next_release():
        async with following(contract_broker, name, handler, MigrationCompleted, MigrationCompletedV2):
            await publish(operator, *in_every_version(event), last)
            await handler.has_got((1, event.id), (1, last.id))


async def test_a_handler_of_the_second_version_follows_on_when_the_first_is_retired(
    name: str, contract_broker: BrokerNode, operator: AbstractChannel
) -> None:
    handler, event = Handler(), completed_next()
    with next_release(beside=False):
        assert in_every_version(event) == (event,)
        async with following(contract_broker, name, handler, MigrationCompletedV2):
            await publish(operator, event)
            await handler.has_got((2, event.id))
