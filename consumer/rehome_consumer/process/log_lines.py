"""Keeps what is logged in steps in the journal, too, so that a migration's page has its log.

It is a help and no more: a step neither waits for it nor fails with it. What cannot be written is tried again while
there is room for it; what a consumer logged in its last second before it was killed is in its own log alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson

from rehome_consumer.context import log_fields
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
"""Characters of a line; of a longer one its event is kept, the end of its traceback, and a note."""
TRACEBACK: Final = 2000
"""Characters of that end."""
BEGINS: Final = "step.started"
WAITS: Final = "step.interrupted"
"""What the engine logs when a step begins, and when it has to wait without a try being counted."""
A_LOOK: Final = timedelta(seconds=5)
"""How long a line that a step has begun is held back."""
LAST: Final = 3.0
"""Seconds that writing may take at the end of the process."""


class LogLines(logging.Handler):
    """A handler of the standard library's, and a task that writes what it has collected."""

    def __init__(self, store: LogStore, *, keeps: bool = True) -> None:
        """Take the place where they are kept; where none are to be, what is there is removed."""
        super().__init__()
        self._keeps = keeps
        self.setFormatter(logs.formatter("json"))
        self._store = store
        self._waiting: deque[LogLine] = deque(maxlen=MOST)
        self._begun: dict[UUID, LogLine] = {}
        self._reasons: dict[UUID, str] = {}
        self._unwritable = False
        self._writing: asyncio.Task[list[LogLine]] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line if it was logged in a step."""
        migration = log_fields.get().get("migration")
        if migration is None or not self._keeps:
            return
        try:
            at, text = datetime.fromtimestamp(record.created, UTC), self.format(record)
            line = LogLine(UUID(str(migration)), at, text if len(text) <= LENGTH else _cut(text))
            self._take(line, record.getMessage())
        except Exception:  # noqa: BLE001 - as every handler: logging never fails what is logged
            self.handleError(record)

    def _take(self, line: LogLine, message: str) -> None:
        """Keep it, unless it only says once more that a step waits, and for what: some look each minute for weeks."""
        migration, word = line.migration_id, message.partition(" ")[0]
        if word == BEGINS:
            self._begun[migration] = line
            return
        begun = self._begun.pop(migration, None)
        if word == WAITS:
            why = message.partition(" why=")[2]
            if self._reasons.get(migration) == why:
                return
            self._reasons.pop(migration, None)
            self._reasons[migration] = why
            if len(self._reasons) > MOST:
                del self._reasons[next(iter(self._reasons))]
        self._waiting.extend([begun, line] if begun else [line])

    def _release(self) -> None:
        """A step that has begun a while ago does more than to look whether it must wait."""
        until = datetime.now(UTC) - A_LOOK
        for migration, line in list(self._begun.items()):
            if line.at < until:
                self._waiting.append(self._begun.pop(migration))

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
                except Exception as error:  # noqa: BLE001 - no step depends on it, and no consumer
                    log.warning("log_lines.not_purged error=%r", error)

    async def write(self) -> None:
        """Write what waits; what cannot be written waits on."""
        self._release()
        while self._waiting or self._writing:
            try:
                lines = await self._batch()
            except Exception as error:  # noqa: BLE001 - as above
                if not self._unwritable:
                    log.warning("log_lines.not_kept error=%r", error)
                self._unwritable = True
                return
            self._unwritable = False
            written = set(map(id, lines))
            while (
                self._waiting and id(self._waiting[0]) in written
            ):  # others may have pushed them out meanwhile
                self._waiting.popleft()

    async def _batch(self) -> list[LogLine]:
        """Write the next ones, unless some are being written: whoever was cancelled has not cancelled that.

        Returns:
            those that are written now; none, where what somebody else had begun has failed.
        """
        begun = self._writing is not None
        if self._writing is None:
            self._writing = asyncio.create_task(self._keep(list(islice(self._waiting, BATCH))))
        try:
            lines = await asyncio.shield(self._writing)
        except (
            Exception
        ):  # not a cancellation: how it ended is then for whoever comes next, even if it has by now
            self._writing = None
            if begun:
                return []
            raise
        self._writing = None
        return lines

    async def _keep(self, lines: list[LogLine]) -> list[LogLine]:
        await self._store.keep(lines)
        return lines

    async def end(self) -> None:
        """Write the last ones, as far as that is quickly done."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self.write()


def _cut(text: str) -> str:
    """The fields of a long line that say what it is about, masked as it is, and the end of its traceback."""
    fields = orjson.loads(text)
    kept = {name: fields[name] for name in ("event", "level", "step", "attempt", "try") if name in fields}
    kept = {name: one if isinstance(one, int) else str(one)[:200] for name, one in kept.items()}
    if "exception" in fields:
        kept["exception"] = str(fields["exception"])[-TRACEBACK:]
    return orjson.dumps({**kept, "cut": len(text)}).decode()
