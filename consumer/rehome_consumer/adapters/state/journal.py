"""The journal in PostgreSQL: schema `rehome`. Every method is one transaction, and what every step needs one statement.

Two guards keep a consumer that lost its claim from writing: a fencing token, taken at every start of a step
and compared under a row lock by everything that writes, and the unique index that allows one open migration per
instance.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rehome_consumer.adapters.common.postgres_errors import translated
from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.adapters.state.facts import PostgresFacts
from rehome_consumer.adapters.state.views import clean
from rehome_consumer.errors import ClaimLost, Conflict, NotReady, Refused, RehomeError
from rehome_consumer.model import NORMAL
from rehome_consumer.ports.engine import (
    ENDED,
    RESERVED,
    AnotherOpen,
    Message,
    MigrationRow,
    OutboxEvent,
    OutboxRow,
    Sending,
    StepRow,
)
from rehome_consumer.ports.operators import ROLLBACK_ASKED_FOR
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from uuid import UUID

    import asyncpg

    from rehome_consumer.adapters.common.postgres_session import KeptConnections
    from rehome_consumer.adapters.state.encryption import SecretCipher
    from rehome_events.envelope import CloudEvent

SQL = load("journal")
SCHEMA = load("schema")
WHAT = "state database"
BACKUPS = "backups"
"""The backup place, in table `places`."""
SECRETS_TRIED = 5
SENDING_LIMIT = 300.0  # seconds; includes waiting for the broker's confirms, each with a limit of its own


class PostgresJournal:
    """Journal port on the state database."""

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        cipher: SecretCipher,
        *,
        kept: KeptConnections | None = None,
        limit: float = 30.0,
    ) -> None:
        """Pool of the state database; the cipher encrypts what may not be read there.

        `kept` are those of its connections that stay with the journal, if any; `limit` is how long (seconds) a
        transaction may take before its connection is cut.
        """
        self._pool = pool
        self._kept = kept or pool
        self._cipher = cipher
        self._limit = limit

    async def make_schema(self) -> None:
        """Create or upgrade the tables of schema rehome. Several consumers may start at once; one does it.

        Raises:
            Conflict: the tables are of a newer version than this code knows.
        """
        async with self._transaction() as db:
            await db.execute(SQL["lock_schema"])
            await db.execute(SQL["make_schema"])
            found = await db.fetchval(SQL["version"]) or 0
            if found > len(SCHEMA):
                raise Conflict(
                    f"schema rehome is of version {found}, this code knows {len(SCHEMA)}: deploy newer code"
                )
            for version, statements in enumerate(SCHEMA.values(), start=1):
                if version > found:
                    await db.execute(statements)
                    await db.execute(SQL["set_version"], version)

    @asynccontextmanager
    async def listening(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """Call `wake` whenever something is put into the outbox, by any consumer or tool.

        A lost connection is not reported: the relay looks every few seconds in any case.
        """
        with translated(WHAT):
            connection = await self._pool.acquire(timeout=self._limit)

        def woken(*_: object) -> None:
            wake()

        try:
            with translated(WHAT):
                await connection.add_listener("rehome_outbox", woken)
            yield
        finally:
            with suppress(RehomeError), translated(WHAT):
                await connection.remove_listener("rehome_outbox", woken)
            await self._pool.release(connection, timeout=5)

    async def require_key(self) -> None:
        """See `Journal.require_key`. One that cannot be opened may have been altered; if none can, it is the key."""
        async with self._session() as db:
            rows = await db.fetch(SQL["some_secrets"], SECRETS_TRIED)
        wrong = None
        for row in rows:
            try:
                self._cipher.unlock(row["secret"], f"{row['migration_id']}/{row['attempt']}/{row['name']}")
            except Refused:
                wrong = row["migration_id"]
            else:
                return
        if wrong is not None:
            raise NotReady(
                f"REHOME_SECRET_KEY (or the file of REHOME_SECRET_KEY_FILE) is not the key with which the secrets of "
                f"open migrations, such as {wrong}, were stored: give this consumer the same key as the others"
            )

    async def place_mark(self, found: UUID | None = None) -> UUID | None:
        """See `Journal.place_mark`."""
        async with self._transaction() as db:
            if found is not None:
                await db.execute(SQL["put_place"], BACKUPS, found)
            mark: UUID | None = await db.fetchval(SQL["place"], BACKUPS)
        return mark

    async def open(
        self, migration_id: UUID, instance_id: UUID, event: CloudEvent[Any], body: bytes
    ) -> MigrationRow:
        """See `Journal.open`."""
        replay = event.id if event.replayof is not None else None
        upgrade = (migration_id, instance_id, body, event.id, event.data.to_plan, replay)
        priority = NORMAL if event.data.priority is None else event.data.priority
        values = (*upgrade, f"by {event.type} {event.id}", priority)
        async with self._session() as db:
            row = await db.fetchrow(SQL["open"], *values)
        if row is None:
            async with self._transaction() as db:
                if replay is not None:
                    await self._reopen(db, migration_id, instance_id, replay)
                row = await db.fetchrow(SQL["open"], *values)  # if the other one has ended since
                row = row or await db.fetchrow(SQL["migration"], migration_id)
                if row is None:
                    raise _another_open(instance_id, await db.fetchval(SQL["open_of_instance"], instance_id))
                await db.execute(SQL["forget_waiting_of"], migration_id, instance_id)
        return MigrationRow(**row)

    async def put_off(self, migration_id: UUID, event: CloudEvent[Any], delay: timedelta) -> None:
        """See `Journal.put_off`."""
        upgrade, replay = event.data, event.replayof is not None
        async with self._session() as db:
            values = (migration_id, upgrade.instance_id, event.id, upgrade.to_plan, delay.total_seconds())
            await db.execute(SQL["put_off"], *values, replay)

    async def migration(self, migration_id: UUID) -> MigrationRow | None:
        """See `Journal.migration`."""
        async with self._session() as db:
            row = await db.fetchrow(SQL["migration"], migration_id)
        return MigrationRow(**row) if row else None

    async def step(self, migration_id: UUID, attempt: int, step: str) -> StepRow | None:
        """See `Journal.step`."""
        async with self._session() as db:
            row = await db.fetchrow(SQL["step"], migration_id, attempt, step)
        return _step(row) if row else None

    async def begin(
        self, migration: MigrationRow, step: str, *, replay: UUID | None, sent: Sequence[OutboxRow] = ()
    ) -> StepRow:
        """See `Journal.begin`."""
        key = (migration.id, migration.token, migration.attempt, step)
        async with self._session() as db:
            row = await db.fetchrow(SQL["begin"], *key, replay, *_confirmed(sent))
        if row is None:
            raise _taken_over(migration.id, step)
        return _step(row)

    async def finish(
        self, row: StepRow, *, state: str, event: OutboxEvent | None, reason: str | None, past_pivot: bool
    ) -> tuple[OutboxRow, ...]:
        """See `Journal.finish`."""
        migration = (row.migration_id, row.token, state, reason, state in ENDED, past_pivot)
        out = event or OutboxEvent("", "", {})
        reserved = RESERVED if len(out.bodies) == 1 else None
        put = (out.exchange, out.type, reserved, list(out.bodies), list(out.bodies.values()))
        async with self._session() as db:
            found = await db.fetchrow(SQL["finish"], *migration, row.attempt, row.step, *put)
        if found is None:
            raise _taken_over(row.migration_id, row.step)
        if found["earlier"] or reserved is None:
            return ()
        return tuple(
            OutboxRow(
                seq, row.migration_id, out.exchange, out.type, Message.of_event(out.bodies[key]), revision
            )
            for key, seq, revision in zip(found["ids"], found["seqs"], found["revisions"], strict=True)
        )

    async def sent(self, rows: Sequence[OutboxRow]) -> None:
        """See `Journal.sent`."""
        async with self._session() as db:
            await db.execute(SQL["sent"], *_confirmed(rows))

    async def wait(self, row: StepRow, error: str, delay: timedelta) -> None:
        """See `Journal.wait`."""
        async with self._held(row) as db:
            key = (row.migration_id, row.attempt, row.step)
            await db.execute(SQL["wait"], *key, error, delay.total_seconds())
            await db.execute(SQL["history_line"], row.migration_id, row.attempt, f"{row.step} waits", error)

    async def interrupted(self, row: StepRow, why: str, delay: timedelta) -> None:
        """See `Journal.interrupted`."""
        async with self._transaction() as db:
            run = (row.migration_id, row.attempt, row.step, row.token, why)
            await db.execute(SQL["interruption_line"], *run)
            await db.execute(SQL["interrupted"], *run, delay.total_seconds())

    async def fail(self, row: StepRow, *, state: str, error: str, event: OutboxEvent | None) -> None:
        """See `Journal.fail`."""
        async with self._held(row) as db:
            await db.execute(SQL["fail_step"], row.migration_id, row.attempt, row.step, error)
            await db.execute(SQL["finish_migration"], row.migration_id, state, error, False, False)
            await self._put(db, row.migration_id, event)
            await db.execute(SQL["history_line"], row.migration_id, row.attempt, f"{row.step} failed", error)

    async def dead_letter_sent(self, row: StepRow) -> None:
        """See `Journal.dead_letter_sent`."""
        async with self._session() as db:
            await db.execute(SQL["dead_letter_sent"], row.migration_id, row.attempt, row.step)

    async def dead_lettered(
        self, migration_id: UUID, attempt: int | None, step: str, message_id: str, reason: str
    ) -> None:
        """See `Journal.dead_lettered`."""
        async with self._session() as db:
            await db.execute(SQL["dead_lettered"], migration_id, attempt, step, clean(message_id), reason)

    async def not_dead_lettered(self, migration_id: UUID, attempt: int | None, step: str) -> None:
        """See `Journal.not_dead_lettered`."""
        async with self._session() as db:
            await db.execute(SQL["not_dead_lettered"], migration_id, attempt, step)

    async def ask_roll_back(
        self, migration: MigrationRow, event: OutboxEvent, why: str, *, state: str = "failing"
    ) -> None:
        """An operator orders a rollback: state `failing` and `migration.failed` in the outbox, together.

        Call it with the instance's claim held. A run that is still active can write no more. The counts of a
        rollback that failed before are reset. Where no step was started yet, `state` and event are `rejected`.

        Raises:
            Refused: it is over, or past the point of no return.
        """
        async with self._transaction() as db:
            now = MigrationRow(**await db.fetchrow(SQL["migration"], migration.id))
            await _take_token(db, now.id, now.token, "the operator's rollback")
            if now.ended or now.past_pivot:
                where = "past the point of no return" if now.past_pivot else now.state
                raise Refused(f"migration {migration.id} is {where}: it cannot be rolled back")
            await db.execute(SQL["reset_step"], migration.id, now.attempt, "roll_back", uuid4())
            await db.execute(SQL["finish_migration"], migration.id, state, why, state in ENDED, False)
            await self._put(db, migration.id, event)
            await db.execute(SQL["history_line"], migration.id, now.attempt, ROLLBACK_ASKED_FOR, why)

    def facts(self, row: StepRow) -> PostgresFacts:
        """See `Journal.facts`."""
        return PostgresFacts(self._pool, self._cipher, row)

    @asynccontextmanager
    async def sending(self, migration_id: UUID) -> AsyncIterator[Sending]:
        """See `Journal.sending`."""
        async with self._transaction(SENDING_LIMIT) as db:
            locked = await db.fetchval(SQL["try_sending"], str(migration_id))
            rows = await db.fetch(SQL["unsent_of"], migration_id) if locked else []
            sending = Sending(tuple(_outgoing(row) for row in rows))
            yield sending
            confirmed = [row for row in sending.rows if row.seq in sending.confirmed]
            if confirmed:
                await db.execute(SQL["sent"], *_confirmed(confirmed))

    async def unsent(self) -> list[UUID]:
        """See `Journal.unsent`."""
        async with self._session() as db:
            return [row["migration_id"] for row in await db.fetch(SQL["unsent"])]

    async def oldest_unsent(self) -> float:
        """Age in seconds of the oldest unsent event; 0 when there is none."""
        async with self._session() as db:
            return float(await db.fetchval(SQL["oldest_unsent"]) or 0)

    async def purge(self, keep: timedelta) -> None:
        """See `Journal.purge`."""
        async with self._session() as db:
            await db.execute(SQL["purge"], keep.total_seconds())

    async def _reopen(self, db: Any, migration_id: UUID, instance_id: UUID, replay: UUID) -> None:
        """Open the next attempt of a migration that was rolled back; nothing for any other."""
        if await db.fetchval(SQL["may_reopen"], migration_id, replay) is None:
            return
        other = await db.fetchval(SQL["open_of_instance"], instance_id)
        if other is not None:
            raise _another_open(instance_id, other)
        attempt = await db.fetchval(SQL["reopen"], migration_id, replay)
        await db.execute(SQL["history_line"], migration_id, attempt, "opened again", f"by replay {replay}")

    async def _put(self, db: Any, migration_id: UUID, event: OutboxEvent | None) -> None:
        """Put the event into the outbox, and wake the relays when the transaction commits."""
        if event is None:
            return
        for key, body in event.bodies.items():
            await db.execute(SQL["put"], migration_id, key, event.exchange, event.type, body)
        await db.execute(SQL["notify"], str(migration_id))

    def _session(self, limit: float | None = None) -> AbstractAsyncContextManager[Any]:
        """A connection for one statement, which is a transaction of its own."""
        return session(self._kept, WHAT, limit or self._limit)

    @asynccontextmanager
    async def _transaction(self, limit: float | None = None) -> AsyncIterator[Any]:
        """A connection in a transaction, for several statements."""
        async with self._session(limit) as db, db.transaction():
            yield db

    @asynccontextmanager
    async def _held(self, row: StepRow) -> AsyncIterator[Any]:
        """A transaction that locks the migration's row, if this run is still the newest.

        Raises:
            ClaimLost: a later run has taken over.
        """
        async with self._transaction() as db:
            await _take_token(db, row.migration_id, row.token, row.step)
            yield db


async def _take_token(db: Any, migration_id: UUID, last: int, step: str) -> int:
    """Lock the migration's row and take its next token.

    Raises:
        ClaimLost: its token is no longer `last`.
    """
    token = await db.fetchval(SQL["take_token"], migration_id, last)
    if token is None:
        raise _taken_over(migration_id, step)
    return int(token)


def _step(row: Any) -> StepRow:
    return StepRow(**{**row, "replays": tuple(row["replays"])})


def _confirmed(rows: Sequence[OutboxRow]) -> tuple[list[int], list[int]]:
    """As the statements take them."""
    return [row.seq for row in rows], [row.revision for row in rows]


def _taken_over(migration_id: UUID, step: str) -> ClaimLost:
    return ClaimLost(f"another consumer took over migration {migration_id} during {step}")


def _another_open(instance_id: UUID, other: UUID | None) -> AnotherOpen:
    return AnotherOpen(f"migration {other} holds instance {instance_id}; this upgrade waits for its end")


def _outgoing(row: Any) -> OutboxRow:
    return OutboxRow(
        seq=row["seq"],
        migration_id=row["migration_id"],
        exchange=row["exchange"],
        routing_key=row["routing_key"],
        message=Message.of_event(bytes(row["body"])),
        revision=row["revision"],
    )
