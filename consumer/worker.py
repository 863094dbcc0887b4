"""The consumer as a process: one reader per step and worker, the relay, health, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from consumer import saga
from consumer.errors import RehomeError
from consumer.topology import queue_of

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from consumer.delivery.relay import Relay
    from consumer.delivery.run import Engine
    from consumer.ports_engine import Broker, Delivery, Journal
    from consumer.saga import Step

log = logging.getLogger(__name__)

REOPEN_AFTER: Final = 2.0  # seconds before a reader that lost its queue tries again
REOPEN_TIMES: Final = 30
KEEP_SENT: Final = timedelta(days=2)
PURGE_EVERY: Final = 600.0


class Worker:
    """Reads every queue of the saga until told to stop."""

    def __init__(
        self, *, engine: Engine, broker: Broker, relay: Relay, journal: Journal, workers: int, grace: float
    ) -> None:
        """Take the parts; `workers` deliveries per step at a time, `grace` seconds to end what runs."""
        self._engine = engine
        self._broker = broker
        self._relay = relay
        self._journal = journal
        self._workers = workers
        self._grace = grace
        self._stopping = asyncio.Event()
        self._handling: set[asyncio.Task[None]] = set()

    @property
    def in_hand(self) -> int:
        """Deliveries being handled now."""
        return len(self._handling)

    def stop(self) -> None:
        """Take no more deliveries; end what runs, within the grace time."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            RehomeError: a queue could not be read for a minute; the process should be started anew.
        """
        readers = [
            asyncio.create_task(self._read(step), name=f"{step.name}#{number}")
            for step in saga.MIGRATION
            for number in range(self._workers)
        ]
        background = [
            asyncio.create_task(self._relay.run(), name="relay"),
            asyncio.create_task(self._purge(), name="purge"),
        ]
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            done, _ = await asyncio.wait(
                (*readers, *background, stopping), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopping}:
                task.result()
        finally:
            await _cancel(stopping, *readers)
            await self._drain()
            await _cancel(*background)

    async def _read(self, step: Step) -> None:
        """Deliveries of one step, one after the other."""
        failures = 0
        while True:
            try:
                async for delivery in self._broker.consume(queue_of(step.name)):
                    failures = 0
                    await self._handled(step, delivery)
            except RehomeError as error:
                failures += 1
                log.warning("reader.lost step=%s times=%d error=%s", step.name, failures, error)
                if failures > REOPEN_TIMES:
                    raise
            await asyncio.sleep(REOPEN_AFTER)

    async def _handled(self, step: Step, delivery: Delivery) -> None:
        """Handle in a task of its own, so that stopping to read does not cut it off."""
        task = asyncio.create_task(self._handle(step, delivery), name=f"handle {step.name}")
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        await asyncio.shield(task)

    async def _handle(self, step: Step, delivery: Delivery) -> None:
        try:
            await self._engine.handle(step, delivery)
        except RehomeError as error:
            # Neither retry queue nor dead letters took it: unacknowledged, so it comes again.
            log.warning("delivery.given_back step=%s error=%s", step.name, error)
            await delivery.nack()
            await asyncio.sleep(1.0)

    async def _drain(self) -> None:
        """Wait for what runs; after the grace time cancel it: unacknowledged, it comes again elsewhere."""
        running = set(self._handling)
        if not running:
            return
        log.info("worker.draining running=%d grace=%g", len(running), self._grace)
        _, late = await asyncio.wait(running, timeout=self._grace)
        for task in late:
            log.warning("worker.cut_off task=%s", task.get_name().replace(" ", "."))
        await _cancel(*late)

    async def _purge(self) -> None:
        """Forget sent events after two days."""
        while True:
            try:
                await self._journal.purge(KEEP_SENT)
            except RehomeError as error:
                log.warning("purge.failed error=%s", error)
            await asyncio.sleep(PURGE_EVERY)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, RehomeError):
            await task


async def until_signalled(worker: Worker, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, and stop the worker at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        await work
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
