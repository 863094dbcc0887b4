"""Check that a publisher, with or without this package, meets the contract: for its team's CI."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Callable
from typing import Any, Final

from aio_pika import ExchangeType, Message
from aio_pika.abc import (
    AbstractChannel,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)
from aio_pika.exceptions import PublishError

from rehome_events.catalog import EventType, lookup
from rehome_events.client.connection import TROUBLE, Address, ConnectionLost, connected, limited, refusals
from rehome_events.envelope import CloudEvent
from rehome_events.testing.deviations import assert_conforms

Publish = Callable[[], object]
"""Publishes one event by the code under test: a coroutine function, or a function that blocks."""

_ENDING: Final = 5.0
_PROBE_EXPIRES: Final = 0
"""Seconds: what asks whether a queue is bound is not kept where one is."""


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
        publish: Publishes one event of the type. A function that is no coroutine function runs in a thread.
        type: Type of the event.
        timeout: Limit of each wait, in seconds.

    Returns:
        The event that arrived.

    Raises:
        AssertionError: The publisher failed or did not end in time, nothing arrived, more than one, or it deviates;
            everything wrong is named.
        BrokerError: The broker cannot be reached with this URL, or refused.
    """
    entry = lookup(type)
    async with (
        connected(Address(url), "events.conformance", timeout) as broker,
        broker.channel(on_return_raises=True) as channel,
    ):
        return await _published(channel, entry, publish, timeout)


async def check_returned(
    url: str,
    publish: Publish,
    *,
    type: str = "plan.upgraded",  # noqa: A002 - the attribute's name in CloudEvents
    timeout: float = 10.0,
) -> CloudEvent[Any]:
    """Check that a publisher notices when no queue gets its event: the event would be lost silently.

    The publisher runs four times: with a queue, without, without, and with one again. With a queue it must succeed, and
    what arrives is checked as by `check_publisher`; without one it must raise. The queue is all that differs, so an
    error that has another cause, such as one that every second call or every call but the first raises, is not taken
    for noticing.

    Args:
        url: The broker, as a user who may declare exchanges and queues; no queue may be bound for the type, as in an
            empty vhost.
        publish: Publishes one event of the type. A function that is no coroutine function runs in a thread.
        type: Type of the event.
        timeout: Limit of each wait, in seconds.

    Returns:
        The event that arrived where there was a queue.

    Raises:
        AssertionError: The publisher failed with a queue, before or afterwards, noticed nothing without one, or did not
            end in time; or a queue is bound there.
        BrokerError: The broker cannot be reached with this URL, or refused.
    """
    entry = lookup(type)
    async with (
        connected(Address(url), "events.conformance", timeout) as broker,
        broker.channel(on_return_raises=True) as channel,
    ):
        await _require_no_queue(channel, entry, timeout)
        event = await _published(channel, entry, publish, timeout)
        noticed = [await _noticed(channel, entry, publish, timeout) for _ in range(2)]
        try:
            await _published(channel, entry, publish, timeout)
        except AssertionError as error:
            raise AssertionError(
                f"without a queue for {type} the publisher failed ({'; '.join(noticed)}), but not because there was "
                f"none: {error}"
            ) from error
    return event


async def _noticed(channel: AbstractChannel, entry: EventType, publish: Publish, timeout: float) -> str:
    """Let the publisher publish where no queue is bound; returns how it failed."""
    await _require_no_queue(channel, entry, timeout)
    try:
        await _run(publish, timeout)
    except _HungError as error:
        raise AssertionError(
            f"without a queue for {entry.type} {error}: a returned message must end the call with an error"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever it raises; that it is for want of a queue, the other runs tell
        return _named(error)
    raise AssertionError(
        f"no queue is bound for {entry.type}, and the publisher did not notice: publish mandatory"
    )


class _HungError(Exception):
    """The publisher did not end within the limit."""


async def _run(publish: Publish, timeout: float) -> None:
    """Let the publisher publish, in a thread where it may block.

    Raises:
        _HungError: It did not end in time; one that blocks a thread goes on there.
        Exception: Whatever it raises.
    """
    given = publish() if inspect.iscoroutinefunction(publish) else _in_a_thread(publish)
    if isinstance(given, asyncio.Future):
        given = await _within(given, timeout)
    if inspect.isawaitable(given):
        await _within(asyncio.ensure_future(given), timeout)


async def _within(running: asyncio.Future[Any], timeout: float) -> Any:
    done, _ = await asyncio.wait({running}, timeout=timeout)
    if not done:
        running.cancel()
        await asyncio.wait({running}, timeout=_ENDING)
        raise _HungError(f"the publisher did not end within {timeout:g} s")
    if running.cancelled():  # so aio-pika ends a wait when a connection breaks
        raise ConnectionLost("the publisher was cancelled")
    return running.result()


def _in_a_thread(publish: Publish) -> asyncio.Future[object]:
    """Call it in a thread that does not keep the process alive; what is cancelled goes on there."""
    answer: concurrent.futures.Future[object] = concurrent.futures.Future()

    def call() -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # nobody waits any more
            try:
                answer.set_result(publish())
            except Exception as error:  # noqa: BLE001 - raised to the caller
                answer.set_exception(error)
            except BaseException as error:  # noqa: BLE001 - such as sys.exit()
                answer.set_exception(RuntimeError(f"the publisher ended with {error!r}"))

    threading.Thread(target=call, name="publisher under test", daemon=True).start()
    return asyncio.wrap_future(answer)


async def _published(
    channel: AbstractChannel, entry: EventType, publish: Publish, timeout: float
) -> CloudEvent[Any]:
    """Let the publisher publish into a queue, and check what arrives; the queue is gone afterwards."""
    with refusals(f"declare exchange {entry.exchange!r} and a queue"):
        await _with_exchange(channel, entry.exchange)
        queue = await channel.declare_queue(exclusive=True)
    with refusals(f"bind a queue to exchange {entry.exchange!r}"):
        await queue.bind(entry.exchange, "#")
    try:
        try:
            await _run(publish, timeout)
        except Exception as error:  # of the code under test
            raise AssertionError(
                f"with a queue bound for {entry.type} the publisher failed: {_named(error)}"
            ) from error
        arrived = await _all(queue, timeout)
    finally:
        with contextlib.suppress(*TROUBLE):
            await limited(queue.delete(if_unused=False, if_empty=False), timeout)
    if not arrived:
        raise AssertionError(f"nothing arrived on exchange {entry.exchange!r} within {timeout:g} s")
    if len(arrived) > 1:
        raise AssertionError(f"{len(arrived)} messages arrived, not one")
    return assert_conforms(arrived[0])


async def _require_no_queue(channel: AbstractChannel, entry: EventType, timeout: float) -> None:
    """Publish what expires at once: it comes back where no queue is bound.

    Raises:
        AssertionError: A queue is bound.
    """
    with refusals(f"declare exchange {entry.exchange!r}"):
        exchange = await _with_exchange(channel, entry.exchange)
    probe = Message(b"{}", type="rehome_events.probe", expiration=_PROBE_EXPIRES)
    try:
        with refusals(f"take a message into exchange {entry.exchange!r}"):
            await limited(exchange.publish(probe, entry.type, mandatory=True), timeout)
    except PublishError:
        return
    raise AssertionError(
        f"a queue is bound to exchange {entry.exchange!r} for {entry.type}: this check needs a vhost in which none is, "
        "such as an empty one"
    )


def _named(error: Exception) -> str:
    if isinstance(error, _HungError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _with_exchange(channel: AbstractChannel, name: str) -> AbstractExchange:
    return await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True)


async def _all(queue: AbstractQueue, timeout: float) -> list[AbstractIncomingMessage]:
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
