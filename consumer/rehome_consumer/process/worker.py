"""The consumer as a process: one reader per step and worker, the relay, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from rehome_consumer.errors import Refused, RehomeError
from rehome_consumer.process.readiness import Readiness
from rehome_consumer.rabbitmq.topology import queue_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Any

    from rehome_consumer.engine.engine import Engine
    from rehome_consumer.engine.outbox_relay import Relay
    from rehome_consumer.ports.engine import Broker, Delivery, Journal
    from rehome_consumer.process.log_lines import LogLines
    from rehome_consumer.saga import Step

log = logging.getLogger(__name__)

REOPEN_AFTER: Final = 2.0  # seconds before a reader that lost its queue tries again
REOPEN_TIMES: Final = 30
STEADY: Final = 60.0  # seconds after which a reader's earlier failures are forgotten
SHORTEST_PAUSE: Final = 1.0  # seconds before a delivery that could not be settled is handled again
LONGEST_PAUSE: Final = 30.0
KEEP_SENT: Final = timedelta(days=2)
PURGE_EVERY: Final = 600.0
LAST_RESORT: Final = 5.0
"""Seconds for which a queue is read as a last resort, and between looks whether that is needed."""


class Worker:
    """Reads every queue of the saga until it is stopped."""

    def __init__(
        self,
        *,
        engine: Engine,
        broker: Broker,
        relay: Relay,
        journal: Journal,
        workers: int,
        grace: float,
        readiness: Readiness | None = None,
        log_lines: LogLines | None = None,
    ) -> None:
        """Take the parts; `workers` deliveries per step at a time, `grace` seconds for running steps to end.

        Queues are read while `readiness` says so; without it, always. What is logged in steps is kept by `log_lines`.
        """
        self._engine = engine
        self._broker = broker
        self._relay = relay
        self._journal = journal
        self._workers = workers
        self._grace = grace
        self._readiness = readiness or Readiness({})
        self._log_lines = log_lines
        self._stopping = asyncio.Event()
        self._in_hand: set[asyncio.Task[Any] | None] = set()

    @property
    def in_hand(self) -> int:
        """Deliveries being handled now."""
        return len(self._in_hand)

    def stop(self) -> None:
        """Take no more deliveries; let running steps end within the grace time."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            RehomeError: a queue could not be read for a minute; the process should be restarted.
        """
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        readers = [
            asyncio.create_task(self._read(step, stopped), name=f"{step.name}#{number}")
            for step in saga.MIGRATION
            for number in range(self._workers)
        ]
        background = [
            asyncio.create_task(self._relay.run(), name="relay"),
            asyncio.create_task(self._purge(), name="purge"),
            asyncio.create_task(self._readiness.watch(), name="readiness"),
        ]
        if self._log_lines is not None:
            background.append(asyncio.create_task(self._log_lines.run(), name="log_lines"))
            logging.getLogger().addHandler(self._log_lines)
        try:
            done, _ = await asyncio.wait(
                (*readers, *background, stopped), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done - {stopped}:
                task.result()
        finally:
            self._stopping.set()
            await self._drain(readers)
            await _cancel(stopped, *background)
            with suppress(RehomeError):  # what is not recorded is published again, with the same id
                await self._relay.flush()
            if self._log_lines is not None:
                logging.getLogger().removeHandler(self._log_lines)
                await self._log_lines.end()

    async def _read(self, step: Step, stopped: asyncio.Task[Any]) -> None:
        """Deliveries of one step, one after the other. One that is being handled at the stop is still finished."""
        failures = 0
        clock = asyncio.get_running_loop().time
        while (closed := await self._until_open(step, stopped)) is not None:
            opened = clock()
            try:
                async with aclosing(self._broker.consume(queue_of(step.name))) as deliveries:
                    while (delivery := await _next(deliveries, stopped, closed)) is not None:
                        failures = 0
                        await self._handle(step, delivery, stopped)
            except RehomeError as error:
                failures = failures + 1 if clock() - opened < STEADY else 1
                log.warning("reader.lost step=%s times=%d error=%s", step.name, failures, error)
                if failures > REOPEN_TIMES and not isinstance(error, Refused):
                    raise  # a queue that is not there, or may not be read, is there no sooner after a restart
            finally:
                await _cancel(closed)
            await asyncio.wait((stopped,), timeout=REOPEN_AFTER)

    async def _until_open(self, step: Step, stopped: asyncio.Task[Any]) -> asyncio.Task[None] | None:
        """Wait until the step's queue may be read.

        Returns:
            A task that ends when it may be read no longer; None at the stop.
        """
        while not stopped.done():
            if self._readiness.is_ready_for(step):
                return asyncio.create_task(self._readiness.until_not_ready_for(step))
            if await self._readiness.is_last_resort(step):
                log.error("reader.last_resort step=%s", step.name)
                return asyncio.create_task(asyncio.sleep(LAST_RESORT))
            changing = asyncio.create_task(self._readiness.until_changed())
            try:
                await asyncio.wait(
                    (changing, stopped), timeout=LAST_RESORT, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                await _cancel(changing)
        return None

    async def _handle(self, step: Step, delivery: Delivery, stopped: asyncio.Task[Any]) -> None:
        """Handle it until journal or broker accepts what follows from it.

        It is not returned to the queue: that would count towards the broker's delivery limit, and an outage of
        minutes would make dead letters of good events.
        """
        reader = asyncio.current_task()
        self._in_hand.add(reader)
        pause = SHORTEST_PAUSE
        try:
            while True:
                try:
                    return await self._engine.handle(step, delivery)
                except RehomeError as error:
                    log.warning("delivery.held step=%s again_in=%g error=%s", step.name, pause, error)
                await asyncio.wait((stopped,), timeout=pause)
                if stopped.done():
                    return None  # unacknowledged, it is delivered again elsewhere
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._in_hand.discard(reader)

    async def _drain(self, readers: list[asyncio.Task[None]]) -> None:
        """Wait for running steps; after the grace time cancel them: other consumers handle their deliveries."""
        log.info("worker.draining in_hand=%d grace=%g", self.in_hand, self._grace)
        _, late = await asyncio.wait(readers, timeout=self._grace)
        for task in late & self._in_hand:  # an idle one only closes its channel
            log.warning("worker.cut_off task=%s", task.get_name())
        # Awaits those that have ended, too, for their errors: `run` raises one, and `_read` has logged all.
        await _cancel(*readers)

    async def _purge(self) -> None:
        """Delete sent events after two days."""
        while True:
            try:
                await self._journal.purge(KEEP_SENT)
            except RehomeError as error:
                log.warning("purge.failed error=%s", error)
            await asyncio.sleep(PURGE_EVERY)


async def _next(deliveries: AsyncIterator[Delivery], *ends: asyncio.Task[Any]) -> Delivery | None:
    """The next delivery; None when there will be none, or one of these tasks ends first."""
    if any(end.done() for end in ends):
        return None
    taking = asyncio.ensure_future(anext(deliveries, None))
    try:
        await asyncio.wait((taking, *ends), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not taking.done():
            await _cancel(taking)
    return None if taking.cancelled() else taking.result()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what is not done; drop RehomeErrors."""
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
