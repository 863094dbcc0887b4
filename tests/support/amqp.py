"""What a user may try on the broker, each as a function of a channel."""

from collections.abc import Awaitable, Callable
from typing import Any

from aio_pika import ExchangeType, Message
from aio_pika.abc import AbstractChannel

Attempt = Callable[[AbstractChannel], Awaitable[Any]]

LIMIT = 15.0


def publish(exchange: str, key: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        to = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        await to.publish(Message(b"{}", message_id="forged"), key, timeout=LIMIT)

    return attempt


def read(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).get(fail=False, timeout=LIMIT)

    return attempt


def consume(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        async def ignore(_: object) -> None:
            """Take nothing."""

        await (await channel.get_queue(queue, ensure=False)).consume(ignore, timeout=LIMIT)

    return attempt


def empty(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).purge(timeout=LIMIT)

    return attempt


def delete(queue: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await channel.queue_delete(queue, timeout=LIMIT)

    return attempt


def declare(queue: str, **arguments: str) -> Attempt:
    """Declare a queue; `dead_letter_exchange` stands for `x-dead-letter-exchange`."""

    async def attempt(channel: AbstractChannel) -> None:
        await channel.declare_queue(queue, durable=True, arguments=_arguments(arguments), timeout=LIMIT)

    return attempt


def declare_exchange(name: str, **arguments: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        plain: dict[str, Any] = {key.replace("_", "-"): value for key, value in arguments.items()}
        await channel.declare_exchange(
            name, ExchangeType.TOPIC, durable=True, arguments=plain or None, timeout=LIMIT
        )

    return attempt


def bind(queue: str, exchange: str, key: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).bind(exchange, key, timeout=LIMIT)

    return attempt


def unbind(queue: str, exchange: str, key: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_queue(queue, ensure=False)).unbind(exchange, key, timeout=LIMIT)

    return attempt


def bind_exchange(exchange: str, source: str, key: str) -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        await (await channel.get_exchange(exchange, ensure=False)).bind(source, key, timeout=LIMIT)

    return attempt


def _arguments(given: dict[str, str]) -> dict[str, Any] | None:
    return {f"x-{key.replace('_', '-')}": value for key, value in given.items()} or None
