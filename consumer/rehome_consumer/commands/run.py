"""`rehome run`: the consumer."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.bootstrap import NotConnected
from rehome_consumer.commands.signals import at_signals
from rehome_consumer.operators.tools import periodic_diagnosis
from rehome_consumer.ports.readiness import Cause
from rehome_consumer.process import freeze_watchdog, health, logs
from rehome_consumer.process.health import Status
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.bootstrap import Consumer
    from rehome_consumer.settings import Settings

log = logging.getLogger(__name__)

SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0
"""Seconds between attempts to connect."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "run",
        help="the consumer: handles events until it is stopped",
        description="Read the queues of all steps and handle the deliveries until SIGTERM. Steps that run then have "
        "REHOME_GRACE seconds to end; after that another consumer takes them over. Several consumers may run at once, "
        "on one machine or on many. Nothing is taken from a queue before everything that a move needs was looked at: "
        "until then /readyz on REHOME_HTTP_PORT, the log (consumer.not_ready) and rehome doctor say what is missing. "
        "All settings are environment variables (see the README); a missing or wrong one is named, and ends it. "
        "Logs go to standard error.",
    )
    parser.set_defaults(work=_run)


async def _run(_args: argparse.Namespace) -> int:
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    status = Status()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(health.served(settings, status))
        task = asyncio.current_task()
        with at_signals(task.cancel if task else lambda: None) as signalled:
            try:
                consumer = await _connected(settings, status, stack)
            except asyncio.CancelledError:
                if not signalled:
                    raise
                log.info("consumer.stopped")
                return 0
        await stack.enter_async_context(freeze_watchdog.watched())
        log.info("consumer.started runtime=%s workers=%d", settings.runtime, settings.workers)
        await until_signalled(consumer.worker, consumer.worker.run())
    log.info("consumer.stopped")
    return 0


async def _connected(settings: Settings, status: Status, stack: AsyncExitStack) -> Consumer:
    """Connect to everything, however long it takes for what must be there to come up.

    Raises:
        RehomeError: something that waiting does not change.
    """
    pause = SHORTEST_PAUSE
    while True:
        try:
            return await _connect_once(settings, status, stack)
        except NotConnected as error:
            cause = Cause(error.part, str(error))
        if status.starting is None or status.starting.part != cause.part:
            log.error("consumer.not_ready cause=%s error=%s", cause.part, cause.message)
        status.starting = cause
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _connect_once(settings: Settings, status: Status, stack: AsyncExitStack) -> Consumer:
    async with AsyncExitStack() as opened:
        consumer = await opened.enter_async_context(bootstrap.consumer(settings))
        diagnosis = periodic_diagnosis(settings, consumer.connection, consumer.readiness)
        status.diagnosis = await opened.enter_async_context(diagnosis)
        stack.push_async_exit(opened.pop_all())
    status.consumer = consumer
    return consumer
