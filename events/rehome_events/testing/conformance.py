"""Check that a publisher, with or without this package, meets the contract: for its team's CI."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID

import aio_pika
import orjson
from aio_pika import DeliveryMode, ExchangeType
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from rehome_events.catalog import lookup
from rehome_events.client.connection import Address, limited
from rehome_events.data import masked
from rehome_events.envelope import CloudEvent, from_message
from rehome_events.errors import Undecodable
from rehome_events.testing.checks import unknown_fields

Publish = Callable[[], Awaitable[object]]
"""Publishes one event by the code under test."""


def deviations(message: AbstractIncomingMessage) -> list[str]:
    """Where a message deviates from the wire format; empty when it conforms."""
    try:
        event = from_message(message)
    except Undecodable as error:
        return [str(error)]
    return list(_deviations(message, event))


def assert_conforms(message: AbstractIncomingMessage) -> CloudEvent[Any]:
    """Assert that a message conforms to the wire format, and return its event.

    Raises:
        AssertionError: It deviates; every deviation is named.
    """
    found = deviations(message)
    if found:
        raise AssertionError("; ".join(found))
    return from_message(message)


async def check_publisher(
    url: str,
    publish: Publish,
    *,
    type: str = "plan.upgraded",  # noqa: A002 - the attribute's name in CloudEvents
    timeout: float = 10.0,
) -> CloudEvent[Any]:
    """Let a publisher publish one event on a broker for tests, and check what arrives.

    Args:
        url: The broker, as a user who may declare and bind queues.
        publish: Publishes one event of the type.
        type: Type of the event.
        timeout: Limit of each wait, in seconds.

    Returns:
        The event that arrived.

    Raises:
        AssertionError: Nothing arrived, more than one, or it deviates; everything wrong is named.
    """
    entry = lookup(type)
    connection = await Address(url).connect("events.conformance", timeout)
    async with connection:
        channel = await _with_exchange(connection.channel(), entry.exchange)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(entry.exchange, "#")
        await limited(publish(), timeout)
        arrived = await _all(queue, timeout)
    if not arrived:
        raise AssertionError(f"nothing arrived on exchange {entry.exchange!r} within {timeout} s")
    if len(arrived) > 1:
        raise AssertionError(f"{len(arrived)} messages arrived, not one")
    return assert_conforms(arrived[0])


async def check_returned(
    url: str,
    publish: Publish,
    *,
    type: str = "plan.upgraded",  # noqa: A002 - the attribute's name in CloudEvents
    timeout: float = 10.0,
) -> None:
    """Check that a publisher notices when no queue gets its event: the event would be lost silently.

    It needs an exchange that no queue is bound to, as in a vhost that is empty.

    Args:
        url: The broker, as a user who may declare exchanges.
        publish: Publishes one event of the type; it is expected to raise.
        type: Type of the event.
        timeout: Limit of each wait, in seconds.

    Raises:
        AssertionError: The publisher noticed nothing.
    """
    entry = lookup(type)
    connection = await Address(url).connect("events.conformance", timeout)
    async with connection:
        await _with_exchange(connection.channel(), entry.exchange)
        try:
            await limited(publish(), timeout)
        except Exception:  # noqa: BLE001 - whatever it raises, it noticed
            return
    raise AssertionError(f"no queue is bound for {type}, and the publisher did not notice: publish mandatory")


async def _with_exchange(channel: AbstractChannel, name: str) -> AbstractChannel:
    await channel.initialize()
    await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True)
    return channel


async def _all(queue: aio_pika.abc.AbstractQueue, timeout: float) -> list[AbstractIncomingMessage]:
    """Wait for the first message; take those that arrived with it."""
    found: list[AbstractIncomingMessage] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while loop.time() < deadline:
        message = await queue.get(fail=False, no_ack=True)
        if message is not None:
            found.append(message)
        elif found:
            break
        else:
            await asyncio.sleep(0.02)
    return found


def _deviations(message: AbstractIncomingMessage, event: CloudEvent[Any]) -> Iterator[str]:
    if message.routing_key != event.type:
        yield f"routing key {message.routing_key} is not the type {event.type}"
    if (expected := lookup(event.type).exchange) != message.exchange:
        yield f"exchange {message.exchange} is not {expected}"
    if message.delivery_mode != DeliveryMode.PERSISTENT:
        yield "delivery mode is not 2: the message would not outlive a restart of the broker"
    if _uuid(message.message_id) != event.id:
        yield f"message_id {message.message_id} is not the event's id {event.id}"
    if message.type != event.type:
        yield f"property type {message.type} is not the event's type {event.type}"
    if message.expiration is not None:
        yield "the message expires: an upgrade would be lost if it is not read in time"
    if not (message.content_type or "").startswith(("application/cloudevents+json", "application/json")):
        yield f"content type {message.content_type} is not application/cloudevents+json"
    body = orjson.loads(message.body)
    structured = (
        body
        if "specversion" in body
        else {
            "type": event.type,
            "dataschema": event.dataschema,
            "data": body,
        }
    )
    yield from (f"the contract does not know {path}" for path in unknown_fields(structured))
    text = message.body.decode()
    if masked(text) != text:
        yield "the body holds what looks like a password or token"


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
