"""`rehome run`, but what is slow in a move is faked (see `shared_fakes`).

LOAD_DIRECTORY=DIR LOAD_PLATFORM_DSN=... python -m tests.load.consumer
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.process import health, logs
from rehome_consumer.process.worker import until_signalled
from rehome_consumer.settings import read_settings
from tests.load.shared_fakes import SharedDatabaseService, SharedPort, SharedSites, SharedVerifier

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports

DIRECTORY: Final = "LOAD_DIRECTORY"
PLATFORM_DSN: Final = "LOAD_PLATFORM_DSN"
FAKE: Final = ("databases", "copier", "replicator", "odoo_conf", "runtime")


def with_fakes(ports: Ports) -> Ports:
    """The same ports, but servers, copies, files and services are fakes; the platform's tables stay real."""
    sites = SharedSites(Path(os.environ[DIRECTORY]))
    fakes: dict[str, Any] = {name: SharedPort(sites, name) for name in FAKE}
    fakes["verifier"] = SharedVerifier(sites)
    service: Any = SharedDatabaseService(sites, os.environ[PLATFORM_DSN])
    return dataclasses.replace(ports, **fakes, database_service=service)


async def run() -> None:
    """Until SIGTERM."""
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    async with (
        bootstrap.consumer(settings, wrap=with_fakes, checked=False) as consumer,
        health.served_when_connected(settings, consumer),
    ):
        await until_signalled(consumer.worker, consumer.worker.run())


if __name__ == "__main__":
    sys.exit(asyncio.run(run()))
