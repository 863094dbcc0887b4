"""`rehome run`: the consumer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from consumer import bootstrap, logs, standstill, workbench
from consumer.commands import health
from consumer.settings import read_settings
from consumer.worker import until_signalled

if TYPE_CHECKING:
    import argparse

log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "run",
        help="the consumer: handles events until it is stopped",
        description="Read the queues of all steps and handle what comes, until SIGTERM: what runs then has "
        "REHOME_GRACE seconds to end, and otherwise goes to another consumer. Several may run at once, on one "
        "machine or on many. All settings are environment variables (see the README); one that is missing or "
        "wrong is named. Logs go to standard error.",
    )
    parser.set_defaults(work=_run)


async def _run(_args: argparse.Namespace) -> int:
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(settings) as consumer,
        workbench.rounds(settings, consumer.connection) as rounds,
        health.served(settings, consumer, rounds),
        standstill.watched(),
    ):
        log.info("consumer.ready runtime=%s workers=%d", settings.runtime, settings.workers)
        await until_signalled(consumer.worker, consumer.worker.run())
    log.info("consumer.stopped")
    return 0
