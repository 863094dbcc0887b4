"""`rehome run`: the consumer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.operators.tools import periodic_diagnosis
from rehome_consumer.process import freeze_watchdog, health, logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "run",
        help="the consumer: handles events until it is stopped",
        description="Read the queues of all steps and handle the deliveries until SIGTERM. Steps that run then have "
        "REHOME_GRACE seconds to end; after that another consumer takes them over. Several consumers may run at once, "
        "on one machine or on many. All settings are environment variables (see the README); a missing or wrong one "
        "is named. Logs go to standard error.",
    )
    parser.set_defaults(work=_run)


async def _run(_args: argparse.Namespace) -> int:
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(settings) as consumer,
        periodic_diagnosis(settings, consumer.connection) as diagnosis,
        health.served(settings, consumer, diagnosis),
        freeze_watchdog.watched(),
    ):
        log.info("consumer.ready runtime=%s workers=%d", settings.runtime, settings.workers)
        await until_signalled(consumer.worker, consumer.worker.run())
    log.info("consumer.stopped")
    return 0
