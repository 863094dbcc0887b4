"""A consumer, run as `python -m tests.support.failing_rollback`, whose restore fails, and whose rollback does too."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any, Never

from consumer import bootstrap, logs
from consumer.commands import health
from consumer.errors import Refused
from consumer.settings import read_settings
from consumer.worker import until_signalled
from sandbox.faults import Failing, failing

if TYPE_CHECKING:
    from consumer.ports import Ports


def wrap(ports: Ports) -> Ports:
    async def refused(*_: Any) -> Never:
        raise Refused("the scratch database could not be dropped: it was made to fail")

    databases: Any = Failing(ports.databases, "drop", refused)
    return dataclasses.replace(failing("restore")(ports), databases=databases)


async def run() -> None:
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with bootstrap.consumer(settings, wrap=wrap) as consumer, health.served(settings, consumer):
        await until_signalled(consumer.worker, consumer.worker.run())


if __name__ == "__main__":
    asyncio.run(run())
