"""The journal for operators: reads, and the few writes of the commands."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.adapters.state.claim_session import REVOKED
from rehome_consumer.errors import Incompatible, NotFound, TimedOut
from rehome_consumer.facts import RecordedFacts
from rehome_consumer.model import Pause
from rehome_consumer.ports.engine import UNMOVED
from rehome_consumer.ports.operators import (
    LET_GO,
    PRIORITIZED,
    RETIRED,
    ClaimHolder,
    Completed,
    DeadLetterRecord,
    MigrationView,
    UnsentEvents,
    waiting_view,
)
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from uuid import UUID

SQL: Final = {**load("views"), "paused": load("journal")["paused"]}
WHAT: Final = "state database"
LIMIT: Final = 30.0  # seconds for one question
NO_JOURNAL: Final = (
    "the journal is not there: does REHOME_STATE_DSN (or REHOME_PLATFORM_DSN) name the right database? A consumer "
    "(rehome run) makes it when it starts"
)

OLD_JOURNAL: Final = (
    "the journal is of an earlier release, which knows nothing of this: start a newer consumer (rehome run)"
)


class PostgresJournalViews:
    """Port `JournalViews` on the state database, and what only the commands do there."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        """Pool of the state database."""
        self._pool = pool

    async def migrations(
        self, wanted: UUID | None = None, limit: int = 50, *, ended: bool = True
    ) -> list[MigrationView]:
        """See `JournalViews.migrations`."""
        found = [MigrationView(**row) for row in await self._fetch("list", wanted, ended, limit, None)]
        return await self._with_line(found)

    async def in_line(self) -> dict[UUID, dict[str, Any]]:
        """Of each migration that is not over `priority`, `place_in_line` and `length_of_line`, as the view has them.

        None in a journal that an older consumer made, or where nobody has let this login read the new tables yet.
        """
        with suppress(NotFound, Incompatible):
            rows = [dict(row) for row in await self._fetch("in_line")]
            return {row.pop("id"): row for row in rows}
        return {}

    async def prioritize(self, migration_id: UUID, attempt: int, priority: int, detail: str) -> int | None:
        """Give a migration another priority; returns the one before. None: it is over, or at another attempt by now.

        Raises:
            NotFound: no consumer of this release has made the journal's tables yet.
        """
        rows = await self._fetch("prioritize", migration_id, attempt, priority, PRIORITIZED, clean(detail))
        return rows[0]["priority"] if rows else None

    async def _with_line(self, found: list[MigrationView]) -> list[MigrationView]:
        """The same, with what `in_line` has of them."""
        line = await self.in_line() if any(not one.ended for one in found) else {}
        return [replace(one, **line.get(one.id, {})) for one in found]

    async def waiting(self, wanted: UUID | None = None) -> list[MigrationView]:
        """See `JournalViews.waiting`. None in a journal that an older consumer made."""
        try:
            rows = await self._fetch("waiting", wanted)
        except NotFound:
            return []
        return [waiting_view(**row) for row in rows]

    async def paused(self) -> Pause | None:
        """See `JournalViews.paused`. None in a journal that an older consumer made."""
        try:
            rows = await self._fetch("paused")
        except NotFound:
            return None
        return Pause(**rows[0]) if rows else None

    async def pauses(self, limit: int) -> list[dict[str, Any]]:
        """The last orders to pause and to go on, newest first."""
        return [dict(row) for row in await self._fetch("pauses", limit)]

    async def order_pause(self, by: str, why: str, *, paused: bool) -> bool:
        """Pause all moves, or let them go on; False: it is so already, and the earlier order stays.

        Raises:
            NotFound: no consumer of this release has made the journal's tables yet.
        """
        async with session(self._pool, WHAT, LIMIT) as db, db.transaction():
            await db.execute(SQL["lock_pauses"])
            try:
                return await db.fetchval(SQL["order_pause"], paused, clean(by), clean(why)) is not None
            except asyncpg.UndefinedTableError:
                raise NotFound(NO_JOURNAL) from None

    async def let_go(self, migration_id: UUID, attempt: int, detail: str) -> bool:
        """Let a migration go on outside of the maintenance window; False: it is over, or at another attempt by now."""
        return bool(await self._fetch("let_go", migration_id, attempt, LET_GO, clean(detail)))

    async def dead_letters(self) -> list[DeadLetterRecord]:
        """See `JournalViews.dead_letters`. None in a journal that an older consumer made."""
        try:
            return [DeadLetterRecord(**row) for row in await self._fetch("dead_letters")]
        except NotFound:
            return []

    async def by_ids(self, ids: Collection[UUID]) -> list[MigrationView]:
        """See `JournalViews.by_ids`."""
        rows = await self._fetch("list", None, True, len(ids), list(ids)) if ids else []
        return await self._with_line([MigrationView(**row) for row in rows])

    async def newest_moves(self, instance_id: UUID | None = None) -> list[MigrationView]:
        """See `JournalViews.newest_moves`."""
        return await self.by_ids(
            [row["id"] for row in await self._fetch("newest_moves", instance_id, list(UNMOVED))]
        )

    async def moves_from(self, server_id: UUID, instances: Collection[UUID]) -> list[MigrationView]:
        """See `JournalViews.moves_from`. None where no consumer ever ran."""
        with suppress(NotFound):
            rows = await self._fetch("moves_from", server_id, list(instances), list(UNMOVED))
            return await self.by_ids([row["id"] for row in rows])
        return []

    async def steps(self, migration_id: UUID) -> list[dict[str, Any]]:
        """See `JournalViews.steps`."""
        return [dict(row) for row in await self._fetch("steps_of", migration_id)]

    async def history(self, migration_id: UUID) -> list[dict[str, Any]]:
        """What happened, oldest first."""
        return [dict(row) for row in await self._fetch("history", migration_id)]

    async def last_line(self) -> int:
        """The number of the newest line of all histories."""
        return int((await self._fetch("last_line"))[0][0])

    async def lines_after(self, seq: int, wanted: UUID | None = None) -> list[dict[str, Any]]:
        """Lines of histories numbered higher than `seq`; of one instance or migration, if given."""
        return [dict(row) for row in await self._fetch("lines_after", seq, wanted)]

    async def facts(self, migration_id: UUID, attempt: int) -> RecordedFacts:
        """See `JournalViews.facts`."""
        rows = await self._fetch("facts", migration_id, attempt)
        return RecordedFacts(
            {row["name"]: orjson.loads(row["value"]) if row["value"] else None for row in rows}
        )

    async def newer(self, migration_id: UUID) -> tuple[UUID, str] | None:
        """Id and state of the last migration of the same instance that was opened later."""
        rows = await self._fetch("newer", migration_id)
        return (rows[0]["id"], rows[0]["state"]) if rows else None

    async def newer_than(self, instance_id: UUID, moment: datetime) -> tuple[UUID, str] | None:
        """Id and state of the last migration of an instance that was opened after a moment."""
        rows = await self._fetch("last_of_instance", instance_id, moment)
        return (rows[0]["id"], rows[0]["state"]) if rows else None

    async def holders(self, instances: Collection[UUID]) -> dict[UUID, ClaimHolder]:
        """See `JournalViews.holders`."""
        rows = await self._fetch("holders", list(instances))
        return {row["instance_id"]: ClaimHolder(**row) for row in rows}

    async def revoke(self, instance_id: UUID) -> None:
        """Ask whoever holds the claim on an instance to stop its step and release it; a consumer that lives does so."""
        await self._fetch("revoke", REVOKED, str(instance_id))

    async def cut(self, holder: ClaimHolder) -> None:
        """End the session of a claim, and with it all claims of that consumer: it stops their steps at once.

        Raises:
            Incompatible: this login may not end that session, since it is another role's.
        """
        await self._fetch("end_session", holder.pid)

    async def unsent(self) -> list[UnsentEvents]:
        """See `JournalViews.unsent`."""
        return [UnsentEvents(**row) for row in await self._fetch("unsent")]

    async def is_sent(self, migration_id: UUID) -> bool:
        """Whether none of a migration's events waits to be sent."""
        return bool((await self._fetch("is_sent", migration_id))[0][0])

    async def outbox_body(self, event_id: UUID) -> bytes | None:
        """See `JournalViews.outbox_body`."""
        rows = await self._fetch("outbox_body", event_id)
        return bytes(rows[0]["body"]) if rows else None

    async def add_to_history(self, migration_id: UUID, what: str, detail: str) -> None:
        """See `JournalViews.add_to_history`."""
        await self._fetch("history_line", migration_id, what, clean(detail))

    async def discard(
        self,
        *,
        message_id: str,
        handler: str,
        type_: str,
        instance: str | None,
        migration_id: UUID | None,
        reason: str,
        error: str,
        why: str,
        body: bytes,
    ) -> bool:
        """Store a dead letter that is discarded, complete, with the reason `why`; False: it is stored already.

        An upgrade whose event it is waits no more, and the engine's record of the dead letter is deleted.
        """
        texts = [clean(text) for text in (message_id, handler, type_)]
        rest = (migration_id, clean(reason), clean(error), clean(why), body)
        with suppress(NotFound):  # in a journal that an older consumer made
            await self._fetch("forget_waiting", texts[0])
            await self._fetch("forget_dead_letter", *texts[:2])
        return bool(
            await self._fetch("discard", *texts, None if instance is None else clean(instance), *rest)
        )

    async def discarded(self, message_ids: Collection[str]) -> frozenset[str]:
        """See `JournalViews.discarded`."""
        return frozenset(row["message_id"] for row in await self._fetch("discarded", list(message_ids)))

    async def discards(self, limit: int) -> list[dict[str, Any]]:
        """Dead letters that were discarded, newest first."""
        return [dict(row) for row in await self._fetch("discards", limit)]

    async def completed(self, wanted: UUID | None = None) -> list[Completed]:
        """Completed migrations whose source was not retired, the earliest completed first."""
        rows = [dict(row) for row in await self._fetch("completed", wanted)]
        return [
            Completed(**{**row, "until": datetime.fromisoformat(row["until"]) if row["until"] else None})
            for row in rows
        ]

    async def moved(self, limit: int) -> list[dict[str, Any]]:
        """The newest completed moves: `strategy`, `bytes`, `downtime` (seconds). None where no consumer ever ran."""
        with suppress(NotFound):
            return [dict(row) for row in await self._fetch("moved", limit)]
        return []

    async def retired(self, migration_id: UUID, detail: str) -> None:
        """Record that a completed migration's source was removed."""
        async with session(self._pool, WHAT, LIMIT) as db, db.transaction():
            await db.execute(SQL["retired"], migration_id)
            await db.execute(SQL["history_line"], migration_id, RETIRED, clean(detail))

    @asynccontextmanager
    async def alone(self, what: str, within: float = LIMIT) -> AsyncIterator[None]:
        """While the block lasts no other tool does `what`; waits `within` seconds for one that does.

        Raises:
            TimedOut: it did not end.
        """
        with translated(WHAT):
            connection = await self._pool.acquire(timeout=LIMIT)
        try:
            with translated(WHAT):
                try:
                    await connection.execute(SQL["lock_alone"], what, timeout=within)
                except TimeoutError:
                    raise TimedOut(
                        f"another tool is at the {what}; waited {within:g} s for it to end"
                    ) from None
            yield
        finally:
            with translated(WHAT):
                if not connection.is_closed():
                    await connection.execute(SQL["unlock_alone"], what)
                await self._pool.release(connection, timeout=5)

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with session(self._pool, WHAT, LIMIT) as db:
            try:
                return await db.fetch(SQL[query], *arguments)
            except asyncpg.UndefinedTableError:
                raise NotFound(NO_JOURNAL) from None
            except asyncpg.UndefinedColumnError:
                raise NotFound(OLD_JOURNAL) from None


def clean(text: str) -> str:
    """The text without what PostgreSQL's type text refuses: NUL, and what is no character."""
    return text.replace("\x00", " ").encode(errors="replace").decode()
