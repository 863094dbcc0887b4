"""Keeps what is logged in steps in the journal, too, so that a migration's page has its log.

It is a help and no more: a step neither waits for it nor fails with it. What cannot be written is tried again while
there is room for it; what a consumer logged in its last second before it was killed is in its own log alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson

from rehome_consumer.context import log_fields
from rehome_consumer.errors import RehomeError
from rehome_consumer.ports.log_lines import LogLine
from rehome_consumer.process import logs

if TYPE_CHECKING:
    from rehome_consumer.ports.log_lines import LogStore

log = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two writes."""
MOST: Final = 5000
"""Lines that wait to be written; of more the oldest are dropped."""
BATCH: Final = 500
PURGE_EVERY: Final = 600.0
"""Seconds between two looks for lines that are too old."""
LENGTH: Final = 8000
"""Characters of a line; of a longer one its event is kept, and a note."""
LAST: Final = 3.0
"""Seconds that writing may take at the end of the process."""


class LogLines(logging.Handler):
    """A handler of the standard library's, and a task that writes what it has collected."""

    def __init__(self, store: LogStore) -> None:
        """Take the place where they are kept."""
        super().__init__()
        self.setFormatter(logs.formatter("json"))
        self._store = store
        self._waiting: deque[LogLine] = deque(maxlen=MOST)
        self._unwritable = False

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line if it was logged in a step."""
        migration = log_fields.get().get("migration")
        if migration is None:
            return
        try:
            text = self.format(record)
            if len(text) > LENGTH:
                event = record.getMessage().partition(" ")[0][:200]
                text = orjson.dumps(
                    {"event": event, "level": record.levelname.lower(), "cut": len(text)}
                ).decode()
            at = datetime.fromtimestamp(record.created, UTC)
            self._waiting.append(LogLine(UUID(str(migration)), at, text))
        except Exception:  # noqa: BLE001 - as every handler: logging never fails what is logged
            self.handleError(record)

    async def run(self) -> None:
        """Write what has come together, each second, for ever; and remove what is too old."""
        clock = asyncio.get_running_loop().time
        purge_at = clock()
        while True:
            await asyncio.sleep(EVERY)
            await self.write()
            if clock() >= purge_at:
                purge_at = clock() + PURGE_EVERY
                try:
                    await self._store.purge()
                except RehomeError as error:
                    log.warning("log_lines.not_purged error=%s", error)

    async def write(self) -> None:
        """Write what waits; what cannot be written waits on."""
        while self._waiting:
            lines = list(islice(self._waiting, BATCH))
            try:
                await self._store.keep(lines)
            except RehomeError as error:
                if not self._unwritable:
                    log.warning("log_lines.not_kept error=%s", error)
                self._unwritable = True
                return
            self._unwritable = False
            written = set(map(id, lines))
            while (
                self._waiting and id(self._waiting[0]) in written
            ):  # others may have pushed them out meanwhile
                self._waiting.popleft()

    async def end(self) -> None:
        """Write the last ones, as far as that is quickly done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self.write()
