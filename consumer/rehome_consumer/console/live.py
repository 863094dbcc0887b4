"""Tells browsers that something has changed: one look at the journal a second for all of them, none without them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rehome_consumer.errors import RehomeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

log = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two looks."""
SILENCE: Final = 15.0
"""Seconds after which something is sent, so that nothing in between thinks that the connection is dead."""
LIFETIME: Final = 900.0
"""Seconds after which a browser connects again: by then its session may have ended."""
MOST: Final = 100
"""Browsers at a time."""

CHANGED: Final = "event: changed\ndata: \n\n"
WELL: Final = "event: well\ndata: \n\n"
TROUBLE: Final = "event: trouble\ndata: \n\n"
STILL: Final = ": still here\n\n"


class Live:
    """The looks, shared by all who listen."""

    def __init__(self, look: Callable[[], Awaitable[str]], forget: Callable[[], None]) -> None:
        """Take the look, and what drops answers that were kept.

        Args:
            look: returns a text that differs whenever something has changed.
            forget: called before anybody is told, so that whoever then asks does not get an answer from before.
        """
        self._look = look
        self._forget = forget
        self._listening: set[asyncio.Queue[str]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def is_full(self) -> bool:
        """Whether nobody more can listen."""
        return len(self._listening) >= MOST

    async def changes(self) -> AsyncGenerator[str, None]:
        """What is sent to one browser, as text/event-stream; ends by itself, and when the console ends."""
        clock = asyncio.get_running_loop().time
        end = clock() + LIFETIME
        mailbox: asyncio.Queue[str] = asyncio.Queue()
        self._listening.add(mailbox)
        if self._looking is None:
            self._looking = asyncio.create_task(self._watch(), name="live")
        try:
            yield "retry: 3000\n\n"
            yield CHANGED  # since its page was made, perhaps; whatever comes later, a look finds
            while not self._ended and clock() < end:
                try:
                    said = await asyncio.wait_for(mailbox.get(), SILENCE)
                except TimeoutError:
                    said = STILL
                yield said
        finally:
            self._listening.discard(mailbox)
            if not self._listening and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def end(self) -> None:
        """Let all of them end."""
        self._ended = True
        self._tell(STILL)
        if (looking := self._looking) is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _watch(self) -> None:
        last: str | None = None
        trouble = False
        while True:
            try:
                now: str | None = await self._look()
            except RehomeError as error:
                log.warning("console.journal_unreachable error=%s", error)
                now = None
            if now is None:
                self._tell(TROUBLE)
            elif trouble:
                self._forget()
                self._tell(WELL)
            elif now != last:
                self._forget()
                self._tell(CHANGED)
            last, trouble = now or last, now is None
            await asyncio.sleep(EVERY)

    def _tell(self, text: str) -> None:
        for mailbox in self._listening:
            if not mailbox.empty():  # what a slow one has not read yet is not true any more
                mailbox.get_nowait()
            mailbox.put_nowait(text)
