"""What one attempt of one migration must not forget, in the journal's table `facts`."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.errors import ClaimLost, RehomeError
from rehome_consumer.model import Secret
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import asyncpg

    from rehome_consumer.adapters.state.encryption import SecretCipher
    from rehome_consumer.ports.engine import StepRow

SQL = load("journal")
WHAT = "state database"
LIMIT = 30.0  # seconds
log = logging.getLogger(__name__)


class PostgresFacts:
    """Notes port, bound to one run of one step: writing with an old token raises ClaimLost."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], cipher: SecretCipher, row: StepRow) -> None:
        """State database, vault for secrets, and whose notes these are."""
        self._pool = pool
        self._cipher = cipher
        self._row = row
        self._key = (row.migration_id, row.attempt)

    async def remember(self, name: str, value: Any) -> Any:
        """See `Facts.remember`."""
        kept = await self._keep(name, orjson.dumps(value).decode(), None)
        return orjson.loads(kept["value"])

    async def recall(self, name: str) -> Any:
        """See `Facts.recall`."""
        kept = await self._fetch(name)
        return None if kept is None or kept["value"] is None else orjson.loads(kept["value"])

    async def remember_secret(self, name: str, value: Secret) -> Secret:
        """See `Facts.remember_secret`."""
        kept = await self._keep(name, None, self._cipher.lock(value.reveal(), self._context(name)))
        return Secret(self._cipher.unlock(kept["secret"], self._context(name)))

    async def recall_secret(self, name: str) -> Secret | None:
        """See `Facts.recall_secret`."""
        kept = await self._fetch(name)
        if kept is None or kept["secret"] is None:
            return None
        return Secret(self._cipher.unlock(kept["secret"], self._context(name)))

    async def acquire_slot(self, resource: str, places: int) -> bool:
        """See `Facts.acquire_slot`."""
        async with self._held() as db:
            await db.execute(SQL["lock_slots"], resource)
            if await db.fetchval(SQL["slots_of_others"], resource, self._row.migration_id) >= places:
                return False
            await db.execute(SQL["acquire_slot"], resource, *self._key)
            return True

    async def release_slot(self, resource: str) -> None:
        """See `Facts.release_slot`."""
        async with self._held() as db:
            await db.execute(SQL["release_slot"], resource, self._row.migration_id)

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

    def _context(self, name: str) -> str:
        """What a secret belongs to: copied to another row it cannot be read."""
        return f"{self._row.migration_id}/{self._row.attempt}/{name}"

    async def _keep(self, name: str, value: str | None, secret: bytes | None) -> Any:
        async with self._held() as db:
            await db.execute(SQL["remember"], *self._key, name, value, secret)
            return await db.fetchrow(SQL["recall"], *self._key, name)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Any]:
        """A transaction that writes, if this run is still the newest. Raises ClaimLost otherwise."""
        async with session(self._pool, WHAT, LIMIT) as db, db.transaction():
            if await db.fetchval(SQL["hold"], self._row.migration_id, self._row.token) is None:
                raise ClaimLost(f"another consumer took over migration {self._row.migration_id}")
            yield db

    async def _fetch(self, name: str) -> Any:
        async with session(self._pool, WHAT, LIMIT) as db:
            return await db.fetchrow(SQL["recall"], *self._key, name)


class MemoryFacts:
    """Notes that are forgotten: for looking at what would happen, where nothing is done."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._kept: dict[str, Any] = {}

    async def remember(self, name: str, value: Any) -> Any:
        """See `Facts.remember`."""
        return self._kept.setdefault(name, value)

    async def recall(self, name: str) -> Any:
        """See `Facts.recall`."""
        return self._kept.get(name)

    async def remember_secret(self, name: str, value: Secret) -> Secret:
        """See `Facts.remember_secret`."""
        kept: Secret = self._kept.setdefault(f"secret {name}", value)
        return kept

    async def recall_secret(self, name: str) -> Secret | None:
        """See `Facts.recall_secret`."""
        return self._kept.get(f"secret {name}")

    async def acquire_slot(self, resource: str, places: int) -> bool:  # noqa: ARG002 - the port's signature
        """Always: nobody else takes one at notes that only look."""
        return True

    async def release_slot(self, resource: str) -> None:
        """Nobody waits for it."""

    async def progress(self, done: int, total: int) -> None:
        """Nobody looks."""

    async def started(self) -> frozenset[str]:
        """No step."""
        return frozenset()

    async def seconds_per_step(self) -> Mapping[str, float]:
        """No step."""
        return {}
