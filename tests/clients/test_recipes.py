"""The recipes of docs/other-clients.md for kombu and FastStream, run as they stand."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import aio_pika
import pytest

from rehome_events.testing import Story
from tests.install.first_minutes import terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
    from pamqp.commands import Queue

    from tests.clients.pages import Reader

KOMBU_PUBLISHER = """
import os
from events_kombu import example, publish_upgrade
publish_upgrade(os.environ["EVENTS_AMQP_URL"], *example())
"""
KOMBU_SUBSCRIBER = """
import os, signal, sys
from events_kombu import follow
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
calls = []
def inform_customer(event):
    calls.append(event)
    if len(calls) == 1 or event["data"]["customer_id"] is None:
        print("failed", flush=True)
        raise ConnectionError("the CRM does not answer")
    print(event["data"]["customer_id"], flush=True)
print("following", flush=True)
follow(os.environ["CRM_AMQP_URL"], inform_customer)
"""


@pytest.fixture(autouse=True)
async def queues_removed(operator: AbstractChannel) -> AsyncIterator[None]:
    """Each test begins without the recipes' queues: another retry delay would be refused."""
    yield
    for name in ("sub_crm.kombu", "sub_crm.faststream"):
        for suffix in ("", ".retry", ".dead"):
            await operator.queue_delete(name + suffix)
        await operator.exchange_delete(name)


def saved(reader: Reader, title: str, *, retry_delay: int | None = None) -> None:
    """The recipe; with another delay than the page's, where a test waits for a retry."""
    reader.save(title)
    if retry_delay is not None:
        (file,) = reader.directory.glob("events_*.py")
        text = file.read_text()
        assert '"x-message-ttl": 30_000' in text
        file.write_text(text.replace('"x-message-ttl": 30_000', f'"x-message-ttl": {retry_delay}'))


async def publish_completed(channel: AbstractChannel, **changes: object) -> str:
    """The last event of a migration, as rehome publishes it; returns its customer."""
    event = json.loads(Story("completed").bodies()[-1])
    event["data"] |= changes
    message = aio_pika.Message(
        json.dumps(event).encode(),
        content_type="application/cloudevents+json; charset=utf-8",
        message_id=event["id"],
        type=event["type"],
    )
    exchange = await channel.get_exchange("migration", ensure=False)
    await exchange.publish(message, event["type"])
    return str(event["data"]["customer_id"])


def test_kombus_publisher_conforms_and_notices_that_no_queue_gets_its_event(reader: Reader) -> None:
    saved(reader, "kombu")
    (reader.directory / "publish.py").write_text(KOMBU_PUBLISHER)
    conforms = reader.shell(
        "EVENTS_AMQP_URL=$EMPTY_AMQP_URL python -m rehome_events conform -- python publish.py"
    )
    assert conforms.startswith("conforms: plan.upgraded ")
    assert reader.shell("EVENTS_AMQP_URL=$BILLING_AMQP_URL python publish.py") == ""


async def test_kombus_subscriber_gets_an_event_and_gets_it_again_when_it_failed(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "kombu", retry_delay=200)
    (reader.directory / "follow.py").write_text(KOMBU_SUBSCRIBER)
    with terminal([sys.executable, "follow.py"], reader.directory, reader.environment()) as running:
        running.wait_for("^following$")
        await until(operator, "sub_crm.kombu", lambda found: found.consumer_count)
        customer = await publish_completed(operator)
        running.wait_for("^failed$")
        running.wait_for(f"^{customer}$")


async def dead_letter_of(operator: AbstractChannel, client: str) -> AbstractIncomingMessage:
    """The only one, once nothing waits any more."""
    dead = await operator.get_queue(f"sub_crm.{client}.dead")
    letter = await dead.get(fail=True, no_ack=True, timeout=10)
    assert letter is not None
    for suffix in ("", ".retry", ".dead"):
        left = await operator.declare_queue(f"sub_crm.{client}{suffix}", passive=True)
        assert left.declaration_result.message_count == 0
    assert json.loads(letter.body)["id"] == letter.message_id
    assert letter.content_type == "application/cloudevents+json; charset=utf-8"
    assert letter.type == "migration.completed"
    assert letter.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert letter.headers["sub-reason"]
    return letter


async def test_what_kombu_cannot_handle_is_a_dead_letter_after_five_tries(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "kombu", retry_delay=200)
    (reader.directory / "follow.py").write_text(KOMBU_SUBSCRIBER)
    with terminal([sys.executable, "follow.py"], reader.directory, reader.environment()) as running:
        running.wait_for("^following$")
        await until(operator, "sub_crm.kombu", lambda found: found.consumer_count)
        await publish_completed(operator, customer_id=None)
        running.wait_for("^dead letter: the CRM does not answer$")
        customer = await publish_completed(operator)  # it goes on, and the copy was acknowledged
        running.wait_for(f"^{customer}$")
    assert running.lines.count("failed") == 5
    letter = await dead_letter_of(operator, "kombu")
    assert letter.headers["sub-error"] == "ConnectionError"


async def test_what_faststream_cannot_handle_is_a_dead_letter_after_five_tries(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "FastStream", retry_delay=200)
    file = reader.directory / "events_faststream.py"
    counted = '        print("tried", flush=True)\n        return await call_next(msg)\n'
    file.write_text(file.read_text().replace("        return await call_next(msg)\n", counted))
    with terminal([sys.executable, file.name], reader.directory, reader.environment()) as running:
        running.wait_for("^following on sub_crm.faststream$")
        await publish_completed(operator, customer_id=None)  # the typed handler refuses it
        running.wait_for("^dead letter: ")
        customer = await publish_completed(operator)
        running.wait_for(f"^{customer}: moved, ")
    assert running.lines.count("tried") == 5 + 1
    letter = await dead_letter_of(operator, "faststream")
    assert letter.headers["sub-error"] == "ValidationError"


async def test_what_the_recipe_says_of_kombu_without_the_registration(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "kombu", retry_delay=200)
    file = reader.directory / "events_kombu.py"
    file.write_text(file.read_text().replace('accept=["cloudevents"]', 'accept=["json"]'))
    (reader.directory / "follow.py").write_text(KOMBU_SUBSCRIBER)
    with terminal([sys.executable, "follow.py"], reader.directory, reader.environment()) as running:
        running.wait_for("^following$")
        await until(operator, "sub_crm.kombu", lambda found: found.consumer_count)
        await publish_completed(operator)
        running.wait_for("^dead letter: Refusing to deserialize untrusted content of type cloudevents")
        await until(operator, "sub_crm.kombu.dead", lambda found: found.message_count)


async def test_faststreams_typed_handler_gets_an_event(reader: Reader, operator: AbstractChannel) -> None:
    saved(reader, "FastStream", retry_delay=200)
    program = [sys.executable, "events_faststream.py"]
    with terminal(program, reader.directory, reader.environment()) as running:
        running.wait_for("^following on sub_crm.faststream$")
        customer = await publish_completed(operator)
        running.wait_for(f"^{customer}: moved, 42 s of downtime$")


async def until(channel: AbstractChannel, queue: str, holds: Callable[[Queue.DeclareOk], object]) -> None:
    """Wait until something holds of a queue."""
    async with asyncio.timeout(20):
        while True:
            try:
                found = await channel.declare_queue(queue, passive=True)
                if holds(found.declaration_result):
                    return
            except aio_pika.exceptions.ChannelNotFoundEntity:
                await channel.reopen()
            await asyncio.sleep(0.1)


async def test_what_the_recipe_says_of_faststream_without_decoder(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "FastStream")
    file = reader.directory / "events_faststream.py"
    file.write_text(file.read_text().replace("decoder=decode_event, ", ""))
    with terminal([sys.executable, file.name], reader.directory, reader.environment()) as running:
        running.wait_for("^following on sub_crm.faststream$")
        await publish_completed(operator)
        await until(operator, "sub_crm.faststream.retry", lambda found: found.message_count)
    assert not [line for line in running.lines if "moved" in line]


async def test_faststream_gets_again_what_it_could_not_handle(
    reader: Reader, operator: AbstractChannel
) -> None:
    saved(reader, "FastStream", retry_delay=200)
    file = reader.directory / "events_faststream.py"
    failing = "    global calls\n    calls += 1\n    if calls == 1:\n        raise ConnectionError\n"
    text = file.read_text()
    text = text.replace('    print(f"{event.data', failing + '    print(f"{event.data')
    file.write_text(text.replace("NAME =", "calls = 0\nNAME =", 1))
    with terminal([sys.executable, file.name], reader.directory, reader.environment()) as running:
        running.wait_for("^following on sub_crm.faststream$")
        customer = await publish_completed(operator)
        running.wait_for(f"^{customer}: moved, ")
