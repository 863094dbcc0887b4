"""The documents' instructions for other teams work as written; their first ten minutes: tests/install."""

import asyncio
import os
import re
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

from rehome_events.client import Publisher, Subscriber
from rehome_events.envelope import CloudEvent, encode
from rehome_events.errors import NotRouted
from rehome_events.testing import Story, assert_conforms
from rehome_events.testing.stories import Outcome
from sandbox.postgres.server import Cluster
from sandbox.rabbitmq.node import BrokerNode

DOCS = Path(__file__).parents[3] / "docs"
LIMIT = 20.0


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def publishing() -> dict[str, Any]:
    """Everything that the Python examples of the page define."""
    return defined_in("publishing.md")


@pytest.fixture(scope="module")
def subscribing() -> dict[str, Any]:
    return defined_in("subscribing.md")


def defined_in(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        if "from follow import" in block:
            continue  # a program beside another one
        exec(compile(block, page, "exec"), names)  # noqa: S102 - the examples are the project's own
    return names


@pytest.fixture
async def upgrades(operator: AbstractChannel) -> AsyncIterator[AbstractQueue]:
    """A queue that gets every upgrade."""
    queue = await operator.declare_queue(exclusive=True)
    await queue.bind("billing", "plan.upgraded")
    yield queue
    await queue.delete(if_empty=False)


@pytest.mark.parametrize("example", ["publish_upgrade", "publish_by_hand"])
async def test_the_examples_publish_what_conforms(
    example: str, publishing: dict[str, Any], upgrades: AbstractQueue, contract_broker: BrokerNode
) -> None:
    await publishing[example](contract_broker.url("billing"))
    message = await upgrades.get(no_ack=True)
    assert message is not None
    assert_conforms(message)


@pytest.mark.parametrize("example", ["publish_upgrade", "publish_by_hand"])
async def test_the_conformance_check_passes_for_the_examples(
    example: str, publishing: dict[str, Any], empty_vhost: str, contract_broker: BrokerNode
) -> None:
    await publishing["check_billing"](contract_broker.url(), empty_vhost, publishing[example])


@pytest.fixture
async def billing_database(pg: Cluster) -> AsyncIterator[asyncpg.Connection]:
    """A database with the outbox of the page."""
    async with pg.connect() as connection:
        for statements in blocks("publishing.md", "sql"):
            await connection.execute(statements)
        yield connection
        await connection.execute("DROP TABLE event_outbox")


UPGRADE = {
    "instance_id": str(uuid4()),
    "customer_id": str(uuid4()),
    "subscription_id": str(uuid4()),
    "from_plan": "standard",
    "to_plan": "premium",
    "plan_tier": "premium",
}


async def test_the_outbox_publishes_each_booked_upgrade_once(
    publishing: dict[str, Any],
    billing_database: asyncpg.Connection,
    upgrades: AbstractQueue,
    contract_broker: BrokerNode,
) -> None:
    for _ in range(2):
        await publishing["book_upgrade"](billing_database, UPGRADE)
    async with Publisher(contract_broker.url("billing")) as publisher:
        assert await publishing["publish_unsent"](billing_database, publisher) == 2
        assert await publishing["publish_unsent"](billing_database, publisher) == 0
    ids = {str(row["id"]) for row in await billing_database.fetch("SELECT id FROM event_outbox")}
    arrived = [await upgrades.get(no_ack=True) for _ in ids]
    assert {message.message_id for message in arrived if message} == ids


async def test_an_upgrade_that_could_not_be_published_stays_in_the_outbox(
    publishing: dict[str, Any],
    billing_database: asyncpg.Connection,
    operator: AbstractChannel,
    contract_broker: BrokerNode,
) -> None:
    await publishing["book_upgrade"](billing_database, UPGRADE)
    handler = await operator.get_queue("migration.h.accept")
    async with Publisher(contract_broker.url("billing")) as publisher:
        await handler.unbind("billing", "plan.upgraded")
        with pytest.raises(NotRouted):
            await publishing["publish_unsent"](billing_database, publisher)
        await handler.bind("billing", "plan.upgraded")
        assert await publishing["publish_unsent"](billing_database, publisher) == 1


@pytest.mark.parametrize("outcome", ["completed", "resized", "rejected"])
async def test_an_upgrade_without_an_answer_is_found(
    outcome: Outcome,
    publishing: dict[str, Any],
    billing_database: asyncpg.Connection,
    operator: AbstractChannel,
    contract_broker: BrokerNode,
    pg: Cluster,
) -> None:
    story, url = Story(outcome), contract_broker.url("crm")
    for upgrade in (story.upgrade, Story().upgrade):
        await billing_database.execute(
            "INSERT INTO event_outbox VALUES ($1, $2, now(), now())", upgrade.id, encode(upgrade)
        )
    async with pg.connect() as its_own, asyncio.timeout(LIMIT):
        following = asyncio.create_task(publishing["note_answers"](url, its_own, "crm"))
        await has_consumer(operator, "sub_crm.answers")
        async with Publisher(contract_broker.url()) as publisher:
            for event in story.events:
                await publisher.publish(event)
        found: list[str] = []
        while len(found) != 1:
            found = await publishing["unanswered"](billing_database, "0 s")
            await asyncio.sleep(0.05)
        following.cancel()
        await asyncio.wait({following})
    assert found == [str(upgrade.id)]
    assert await publishing["unanswered"](billing_database) == []
    for suffix in ("", ".retry", ".dead"):
        await operator.queue_delete("sub_crm.answers" + suffix)
    await operator.exchange_delete("sub_crm.answers")


async def has_consumer(channel: AbstractChannel, queue: str) -> None:
    """Wait until a queue is there and has a consumer."""
    while True:
        try:
            found = await channel.declare_queue(queue, passive=True)
            if found.declaration_result.consumer_count:
                return
        except ChannelNotFoundEntity:
            await channel.reopen()
        await asyncio.sleep(0.05)


@pytest.fixture
async def published_before(
    contract_broker: BrokerNode, operator: AbstractChannel
) -> AsyncIterator[list[Story]]:
    """Two migrations whose ends wait in the queue of the example."""
    stories = [Story("completed"), Story("rolled_back")]

    async def unused(_: CloudEvent[Any]) -> None:
        """Handle nothing: the example does."""

    chosen = ["migration.completed", "migration.rolled_back"]
    async with Subscriber(
        contract_broker.url("crm"), unused, team="crm", name="upgrades", types=chosen
    ) as made:
        async with Publisher(contract_broker.url()) as publisher:
            for story in stories:
                await publisher.publish(story.events[-1])
        yield stories
        for suffix in ("", ".retry", ".dead"):
            await operator.queue_delete(made.queue + suffix)
        await operator.exchange_delete(made.queue)


async def test_the_example_of_a_subscriber_prints_how_upgrades_ended_and_stops_on_sigterm(
    published_before: list[Story], contract_broker: BrokerNode
) -> None:
    program = blocks("subscribing.md", "python")[0]
    environment = {**os.environ, "CRM_AMQP_URL": contract_broker.url("crm")}
    example = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert example.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await example.stdout.readline() == b"following on sub_crm.upgrades\n"
            lines = [(await example.stdout.readline()).decode() for _ in published_before]
            example.send_signal(signal.SIGTERM)
            assert await example.wait() == 0
    finally:
        if example.returncode is None:
            example.kill()
            await example.wait()
    assert "moved, 42 s of downtime" in lines[0]
    assert f"{published_before[1].instance_id}: still on the shared pool" in lines[1]


async def test_the_examples_effect_happens_once_however_often_an_event_comes(
    subscribing: dict[str, Any],
) -> None:
    database = sqlite3.connect(":memory:")
    handler = subscribing["Upgrades"](database)
    for event in Story("completed").disturbed("every event twice"):
        if event.type == "migration.completed":
            await handler(event)
    assert database.execute("SELECT count FROM upgrades").fetchall() == [(1,)]
    database.close()


async def test_the_examples_memory_outlives_the_subscriber(subscribing: dict[str, Any]) -> None:
    database = sqlite3.connect(":memory:")
    event = uuid4()
    await subscribing["DedupInDatabase"](database).add(event)
    assert await subscribing["DedupInDatabase"](database).has(event)
    assert not await subscribing["DedupInDatabase"](database).has(uuid4())
    database.close()
