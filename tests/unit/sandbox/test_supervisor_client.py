"""The process manager's answers are read up to a limit of size and of time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from rehome_consumer.errors import TimedOut, Transient
from sandbox.supervisor.client import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 1024 * 1024


async def trickling() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0.01)
        yield b" "


def answering(body: AsyncIterator[bytes]) -> httpx.AsyncClient:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    return httpx.AsyncClient(base_url="http://manager", transport=transport, timeout=0.5)


async def test_an_answer_without_end_is_cut_off() -> None:
    async with answering(endless()) as http:
        with pytest.raises(
            Transient, match=r"GET /services/odoo-acme: the answer has more than 8388608 bytes"
        ):
            await Services(http).by_name("odoo-acme")


async def test_an_answer_that_trickles_is_given_up() -> None:
    async with answering(trickling()) as http:
        with pytest.raises(TimedOut, match=r"GET /services: no answer in time"):
            await Services(http).by_label("a", "b")
