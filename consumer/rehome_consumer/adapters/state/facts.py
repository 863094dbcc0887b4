"""What one attempt of one migration remembers, in the journal's table `facts`."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.model import InLine, Pause
from rehome_consumer.model.line import GRACE, NEXT, OFTEN, SELDOM, Turn, Waiter, turn
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    import asyncpg

    from rehome_consumer.adapters.state.encryption import SecretCipher
    from rehome_consumer.facts import Fact
    from rehome_consumer.ports.engine import StepRow

T = TypeVar("T")

GENERATION: Final = 2
"""Consumers of one generation can go on with what others of it have begun; the second one knows warm moves.

Raise it with the schema's version: then none of an earlier one can be started any more, and those that run are seen.
"""
APPLICATION: Final = f"rehome {GENERATION}"
"""How connections to the state database name themselves."""

SQL = load("journal")
WHAT = "state database"
LIMIT = 30.0  # seconds
log = logging.getLogger(__name__)


class PostgresFacts:
    """Port `Facts`, bound to one run of one step: writing with an old token raises ClaimLost."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], cipher: SecretCipher, row: StepRow) -> None:
        """State database, cipher for secrets, and the step's row in the journal."""
        self._pool = pool
        self._cipher = cipher
        self._row = row
        self._key = (row.migration_id, row.attempt)

    async def remember(self, fact: Fact[T], value: T) -> T:
        """See `Facts.remember`."""
        encoded = fact.encode(value)
        plain = None if fact.secret else orjson.dumps(encoded).decode()
        secret = self._cipher.lock(encoded, self._context(fact)) if fact.secret else None
        async with session(self._pool, WHAT, LIMIT) as db:
            row = await db.fetchrow(SQL["remember"], *self._key, fact.name, plain, secret, self._row.token)
            if row is None:
                raise self._taken_over()
        if row["value"] is None and row["secret"] is None:
            found = await self.recall(fact)
            return value if found is None else found
        return self._decoded(fact, row)

    async def recall(self, fact: Fact[T]) -> T | None:
        """See `Facts.recall`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            row = await db.fetchrow(SQL["recall"], *self._key, fact.name)
        return None if row is None else self._decoded(fact, row)

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:
        """See `Facts.acquire_slots`."""
        async with self._held() as db:
            await db.execute(SQL["lock_slots"], sorted(wanted))
            found = await db.fetch(SQL["slots"], list(wanted), *self._key)
            taken = {row["resource"]: row["taken"] for row in found}
            missing = [row["resource"] for row in found if not row["mine"]]
            if not missing:
                return None
            lacks = next((slot for slot in missing if taken[slot] >= wanted[slot]), None)
            mine = Turn(goes=False)
            if lacks is None:
                mine = await self._turn(db, {slot: wanted[slot] for slot in missing}, taken, waits=waits)
            if mine.goes:
                await db.execute(SQL["acquire_slots"], missing, *self._key, mine.gone)
                return None
            if not waits:
                return InLine(0, 0, lacks=lacks, soon=False)
            return await self._get_in_line(db, wanted, lacks, mine)

    async def _turn(self, db: Any, wanted: Mapping[str, int], taken: dict[str, int], *, waits: bool) -> Turn:
        """Whether it is this migration's turn to take slots that are free."""
        rows = await db.fetch(SQL["ahead"], list(wanted), *self._key, GRACE) if waits else []
        ahead = [
            Waiter(
                row["migration_id"], dict(zip(row["resources"], row["places"], strict=True)), row["overdue"]
            )
            for row in rows
        ]
        if others := {slot for one in ahead for slot in one.wanted} - taken.keys():
            found = await db.fetch(SQL["slots"], list(others), *self._key)
            taken |= {row["resource"]: row["taken"] for row in found}
        return turn(wanted, ahead, taken)

    async def _get_in_line(self, db: Any, wanted: Mapping[str, int], lacks: str | None, mine: Turn) -> InLine:
        places = list(wanted.values())
        most = NEXT * min(places)
        row = await db.fetchrow(
            SQL["get_in_line"], *self._key, list(wanted), places, OFTEN, SELDOM, mine.called, mine.gone, most
        )
        return InLine(row["ahead"] + 1, row["number"] + 1, lacks=lacks, soon=row["ahead"] < most)

    async def release_slots(self, resources: Collection[str]) -> None:
        """See `Facts.release_slots`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            run = (self._row.migration_id, self._row.token)
            if await db.fetchval(SQL["release_slots"], *run, list(resources)) is None:
                raise self._taken_over()

    async def paused(self) -> Pause | None:
        """See `Facts.paused`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            row = await db.fetchrow(SQL["paused"])
        return None if row is None else Pause(**row)

    async def earlier_consumers(self) -> int:
        """See `Facts.earlier_consumers`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            return int(await db.fetchval(SQL["earlier_consumers"], GENERATION))

    async def progress(self, done: int, total: int) -> None:
        """See `Facts.progress`."""
        try:
            async with session(self._pool, WHAT, LIMIT) as db:
                await db.execute(SQL["progress"], *self._key, self._row.step, done, total)
        except RehomeError as error:
            log.debug("progress.lost error=%s", error)

    async def started(self) -> frozenset[str]:
        """See `Facts.started`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            return frozenset(row["step"] for row in await db.fetch(SQL["started"], *self._key))

    async def seconds_per_step(self) -> Mapping[str, float]:
        """See `Facts.seconds_per_step`."""
        async with session(self._pool, WHAT, LIMIT) as db:
            rows = await db.fetch(SQL["seconds_per_step"], *self._key)
        return {row["step"]: round(row["seconds"], 3) for row in rows}

    def _decoded(self, fact: Fact[T], row: asyncpg.Record) -> T:
        if fact.secret:
            return fact.decode(self._cipher.unlock(row["secret"], self._context(fact)))
        return fact.decode(orjson.loads(row["value"]))

    def _context(self, fact: Fact[Any]) -> str:
        """What a secret belongs to: copied to another row it cannot be read."""
        return f"{self._row.migration_id}/{self._row.attempt}/{fact.name}"

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Any]:
        """A transaction that writes, if this run is still the newest. Raises ClaimLost otherwise."""
        async with session(self._pool, WHAT, LIMIT) as db, db.transaction():
            if await db.fetchval(SQL["hold"], self._row.migration_id, self._row.token) is None:
                raise self._taken_over()
            yield db

    def _taken_over(self) -> ClaimLost:
        return ClaimLost(f"another consumer took over migration {self._row.migration_id}")


class MemoryFacts:
    """Facts that are stored nowhere: for looking at what would happen, where nothing is done."""

    def __init__(self) -> None:
        """No fact yet."""
        self._values: dict[str, Any] = {}

    async def remember(self, fact: Fact[T], value: T) -> T:
        """See `Facts.remember`."""
        first: T = self._values.setdefault(fact.name, value)
        return first

    async def recall(self, fact: Fact[T]) -> T | None:
        """See `Facts.recall`."""
        return self._values.get(fact.name)

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:  # noqa: ARG002 - the port's signature
        """Always: who only looks takes no slot from others."""
        return None

    async def release_slots(self, resources: Collection[str]) -> None:
        """Nobody waits for them."""

    async def paused(self) -> Pause | None:
        """Who only looks waits for nobody."""
        return None

    async def earlier_consumers(self) -> int:
        """None: what is only looked at is not gone on with."""
        return 0

    async def progress(self, done: int, total: int) -> None:
        """Nobody looks."""

    async def started(self) -> frozenset[str]:
        """No step."""
        return frozenset()

    async def seconds_per_step(self) -> Mapping[str, float]:
        """No step."""
        return {}
