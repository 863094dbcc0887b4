"""Browsers are told of every change, and what they then ask for is not from before it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from rehome_consumer.console import live
from rehome_consumer.console.live import CHANGED, STILL, WELL, Live
from rehome_consumer.errors import Unreachable
from rehome_consumer.network.http_server import Shared
from tests.support.virtual_time import on_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMIT = 600.0


class Journal:
    """A text that changes; reading it can be held up."""

    def __init__(self) -> None:
        self.text = "first"
        self.answers = True
        self.free = asyncio.Event()
        self.free.set()

    async def look(self) -> str:
        await asyncio.sleep(0)
        if not self.answers:
            raise Unreachable("state database")
        return self.text

    async def read(self) -> str:
        text = self.text
        await self.free.wait()
        return text


@asynccontextmanager
async def watched(journal: Journal) -> AsyncIterator[tuple[Shared[str], AsyncIterator[str]]]:
    """What is shown, and what a browser is sent."""
    shown = Shared(journal.read, fresh=3600)
    told = Live(journal.look, shown.forget)
    async with aclosing(told.changes()) as sent:
        assert await anext(sent) == "retry: 3000\n\n"
        yield shown, sent


async def after(sent: AsyncIterator[str], wanted: str) -> None:
    async with asyncio.timeout(LIMIT):
        while await anext(sent) != wanted:
            pass


@on_virtual_time
async def test_a_page_that_was_made_before_the_look_began_asks_again() -> None:
    async with watched(Journal()) as (_, sent):
        assert await asyncio.wait_for(anext(sent), LIMIT) == CHANGED


@on_virtual_time
async def test_whoever_is_told_of_a_change_gets_no_answer_that_was_kept() -> None:
    journal = Journal()
    async with watched(journal) as (shown, sent):
        await after(sent, CHANGED)
        await after(sent, CHANGED)  # the first look
        assert await shown() == "first"
        journal.text = "second"
        await after(sent, CHANGED)
        assert await shown() == "second"


@on_virtual_time
async def test_whoever_is_told_of_a_change_does_not_share_an_answer_that_began_before_it() -> None:
    journal = Journal()
    async with watched(journal) as (shown, sent):
        await after(sent, CHANGED)
        await after(sent, CHANGED)
        journal.free.clear()
        slow = asyncio.create_task(shown())
        await asyncio.sleep(0.01)  # it has read
        journal.text = "second"
        await after(sent, CHANGED)
        new = asyncio.create_task(shown())
        await asyncio.sleep(0)
        journal.free.set()
        assert (await slow, await new) == ("first", "second")
        assert await shown() == "second"  # the slow one's end took nothing back


@on_virtual_time
async def test_after_an_outage_nothing_from_before_it_is_shown() -> None:
    journal = Journal()
    async with watched(journal) as (shown, sent):
        await after(sent, CHANGED)
        assert await shown() == "first"
        journal.answers = False
        await after(sent, live.TROUBLE)
        journal.text, journal.answers = "second", True
        await after(sent, WELL)
        assert await shown() == "second"


@on_virtual_time
async def test_silence_is_broken_and_a_slow_reader_is_not_cut_off() -> None:
    async with watched(Journal()) as (_, sent):
        await after(sent, STILL)
        await asyncio.sleep(4 * live.SILENCE)  # the reader is slow, and no time runs against it
        await after(sent, STILL)
