"""A consumer, run as `python -m tests.support.failing_rollback`, whose restore fails, and whose rollback fails too."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any, Never

from rehome_consumer import bootstrap
from rehome_consumer.errors import Refused
from rehome_consumer.process import health, logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings
from sandbox.demo.faults import Failing, failing, note_step, only_in

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports


def wrap(ports: Ports) -> Ports:
    async def refused(*_: Any) -> Never:
        raise Refused("the scratch database could not be dropped: it was made to fail")

    replacement = only_in("roll_back", ports.databases.drop, refused)
    databases: Any = Failing(ports.databases, "drop", replacement)
    return dataclasses.replace(failing("restore")(ports), databases=databases)


async def run() -> None:
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(settings, wrap=wrap, probe=note_step) as consumer,
        health.served_when_connected(settings, consumer),
    ):
        await until_signalled(consumer.worker, consumer.worker.run())


if __name__ == "__main__":
    asyncio.run(run())
