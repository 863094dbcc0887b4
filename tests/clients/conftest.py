"""A broker as `make broker` starts it, and readers of the page for other clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aio_pika
import pytest

from tests.clients.pages import ROOT, Reader
from tests.install.first_minutes import broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from aio_pika.abc import AbstractChannel


@pytest.fixture(scope="session")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """What `make broker` prints, while it runs."""
    with broker(tmp_path_factory.mktemp("broker"), ROOT) as printed:
        yield printed


@pytest.fixture
def reader(tmp_path: Path, variables: Mapping[str, str]) -> Reader:
    """A reader in an empty directory."""
    return Reader(tmp_path, variables)


@pytest.fixture
async def operator(reader: Reader) -> AsyncIterator[AbstractChannel]:
    """A channel that may do everything."""
    async with await aio_pika.connect(reader.variables["EVENTS_AMQP_URL"], timeout=10) as connection:
        yield await connection.channel()
