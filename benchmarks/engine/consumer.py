"""`rehome run`, but its steps do nothing: each emits the first event that it may emit. A process of its own.

It works with an earlier revision of rehome as well, whose packages come first in PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from typing import TYPE_CHECKING, Final
from unittest import mock

from rehome_consumer import bootstrap, saga
from rehome_consumer.process import logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings
from rehome_events.tools.schema import golden

if TYPE_CHECKING:
    from rehome_consumer.move import Move
    from rehome_events.envelope import EventData

READY: Final = "ready"


def idle(step: saga.Step) -> saga.Step:
    """The step without its work."""
    model = step.emits[0]
    example = golden(model.TYPE, model.VERSION, "valid")["full"]["data"]

    async def run(move: Move) -> EventData:
        return model.model_validate({**example, "instance_id": move.data.instance_id})

    return dataclasses.replace(step, run=run)


async def run() -> None:
    """Until SIGTERM."""
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    with mock.patch.object(saga, "MIGRATION", tuple(map(idle, saga.MIGRATION))):
        async with bootstrap.consumer(settings, checked=False) as consumer:
            working = asyncio.create_task(until_signalled(consumer.worker, consumer.worker.run()))
            sys.stdout.write(f"{READY}\n")
            sys.stdout.flush()
            await working


if __name__ == "__main__":
    asyncio.run(run())
