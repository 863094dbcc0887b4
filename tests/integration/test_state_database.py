"""Journal and claims when PostgreSQL is slow, frozen, cut off or restarted."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.state.claims import PostgresClaims
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.journal import SCHEMA, SQL, PostgresJournal
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.errors import ClaimLost, Conflict, NotFound, Refused, TimedOut, Unreachable
from rehome_consumer.facts import NEW_PASSWORD, TENANT_PASSWORD
from rehome_consumer.model import Secret
from rehome_consumer.ports.engine import encode_for_outbox
from sandbox.postgres.server import Cluster
from sandbox.system.net import wait_until
from tests.contract.journals import KEY, postgres_journal, state_database
from tests.support.events import body_of, emitted, failed, migration_of, rejected, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from uuid import UUID

    from rehome_consumer.ports.engine import MigrationRow
    from rehome_events.envelope import CloudEvent

LIMIT = 10.0
OLD_PUT = "INSERT INTO rehome.outbox (migration_id, event_id, body, exchange, routing_key) VALUES ($1, $2, $3, $4, $5)"
OLD_CLAIM = "SELECT pg_try_advisory_lock(hashtextextended('rehome.instance:' || $1::text, 0))"
"""As the last release puts an event into the outbox, and claims an instance."""
LOOK_AFTER_A_LOCK = """
    SELECT found.token FROM (SELECT pg_advisory_lock(1) IS NOT NULL AS held OFFSET 0) AS taken
    CROSS JOIN LATERAL rehome.look_up(taken.held, $1, 1, 'stop', NULL) AS found
"""
OLD_SLOT_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('rehome.slots:' || $1::text, 0))"
OLD_SLOT_COUNT = (
    "SELECT count(*) FROM rehome.slots t JOIN rehome.migrations m ON m.id = t.migration_id AND m.attempt = t.attempt "
    "WHERE t.resource = $1 AND t.migration_id <> $2 AND m.ended_at IS NULL AND m.state <> 'failed'"
)
OLD_SLOT = (
    "INSERT INTO rehome.slots (resource, migration_id, attempt) VALUES ($1, $2, $3) "
    "ON CONFLICT (resource, migration_id) DO UPDATE SET attempt = excluded.attempt"
)
OLD_OPEN = (
    "INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan, replays) "
    "VALUES ($1, $2, $3, $4, $5, '{}')"
)
"""As a release before the line takes a slot, which has no line, and opens a migration."""


@pytest.fixture(scope="module")
async def server(scratch: Path) -> AsyncIterator[Cluster]:
    """A server of this module's own, to break."""
    cluster = await Cluster.create(scratch / "state", password="p%'$; #=")
    await cluster.start()
    yield cluster
    await cluster.destroy()


@pytest.fixture
async def dsn(server: Cluster) -> AsyncIterator[str]:
    async with state_database(server) as made:
        yield made


@contextmanager
def frozen(backend: int) -> Iterator[None]:
    """A server process that answers nothing for the length of the block."""
    os.kill(backend, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(backend, signal.SIGCONT)


async def opened(journal: PostgresJournal) -> MigrationRow:
    event = upgrade(uuid4())
    return await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))


async def end_backends(server: Cluster, dsn: str) -> None:
    async with server.connect() as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            dsn.rpartition("/")[2],
        )


async def test_several_consumers_may_start_at_once_on_an_empty_database(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        journals = [PostgresJournal(pool, SecretCipher(KEY)) for _ in range(4)]
        await asyncio.gather(*(journal.make_schema() for journal in journals))
        assert (await opened(journals[0])).state == "open"


async def test_what_the_last_release_left_in_the_outbox_is_sent_after_the_upgrade_of_the_tables(
    dsn: str,
) -> None:
    event = upgrade(uuid4())
    key, instance = migration_of(event), event.data.instance_id
    left, late = (
        encode_for_outbox(emitted(failed(instance), key)),
        encode_for_outbox(emitted(rejected(instance), key)),
    )
    async with asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        await pool.execute(SQL["make_schema"])
        for version in range(1, 6):
            await pool.execute(SCHEMA[f"v{version}"])
            await pool.execute(SQL["set_version"], version)
        await pool.execute(
            "INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan) "
            "VALUES ($1, $2, $3, $4, 'premium')",
            key, instance, body_of(event), event.id,
        )  # fmt: skip
        await pool.execute(OLD_PUT, key, *next(iter(left.bodies.items())), left.exchange, left.type)
        journal = PostgresJournal(pool, SecretCipher(KEY))
        await journal.make_schema()
        # a consumer of the last release still runs, and commits the next event
        await pool.execute(OLD_PUT, key, *next(iter(late.bodies.items())), late.exchange, late.type)
        assert await journal.unsent() == [key]
        async with journal.sending(key) as sending:
            assert [row.routing_key for row in sending.rows] == ["migration.failed", "migration.rejected"]
            sending.confirmed += [row.seq for row in sending.rows]
        assert await journal.unsent() == []


async def test_claims_of_the_last_release_and_of_this_one_exclude_each_other(dsn: str) -> None:
    instance = uuid4()
    async with (
        aclosing(PostgresClaims(Connections(dsn), patience=1)) as claims,
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
    ):
        async with claims.claim(instance) as claim:
            assert claim
            assert not await pool.fetchval(OLD_CLAIM, str(instance))
        async with pool.acquire() as connection:
            assert await connection.fetchval(OLD_CLAIM, str(instance))
            async with claims.claim(instance) as claim:
                assert claim is None


async def test_a_look_sees_what_was_committed_while_its_lock_was_waited_for(dsn: str) -> None:
    """A statement sees what was committed when it began; the look is a function that does not keep to that."""
    async with (
        postgres_journal(dsn) as journal,
        asyncpg.create_pool(dsn, min_size=3, max_size=3) as pool,
        pool.acquire() as holder,
    ):
        row = await opened(journal)
        await holder.execute("SELECT pg_advisory_lock(1)")
        looking = asyncio.create_task(pool.fetchval(LOOK_AFTER_A_LOCK, row.id))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

        async def waiting() -> bool:
            return bool(await pool.fetchval(waits))

        await wait_until(waiting, what="the look to wait for its lock", limit=LIMIT)
        begun = await journal.begin(row, "stop", replay=None)
        await holder.execute("SELECT pg_advisory_unlock(1)")
        assert await looking == begun.token > row.token


async def old_slot(
    pool: asyncpg.Pool[asyncpg.Record], resource: str, migration_id: UUID, places: int
) -> bool:
    """Whether a consumer of a release before the line gets a slot."""
    async with pool.acquire() as db, db.transaction():
        await db.execute(OLD_SLOT_LOCK, resource)
        if await db.fetchval(OLD_SLOT_COUNT, resource, migration_id) >= places:
            return False
        await db.execute(OLD_SLOT, resource, migration_id, 1)
        return True


async def test_a_release_that_knows_no_line_and_this_one_keep_to_the_limits_beside_each_other(
    dsn: str,
) -> None:
    slot = "dump pool"
    async with asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        await pool.execute(SQL["make_schema"])
        for version in range(1, 9):
            await pool.execute(SCHEMA[f"v{version}"])
            await pool.execute(SQL["set_version"], version)
        events = [upgrade(uuid4()) for _ in range(3)]
        before, beside, another = [migration_of(event) for event in events]

        async def old_open(event: CloudEvent[Any]) -> None:
            values = (migration_of(event), event.data.instance_id, body_of(event), event.id, "premium")
            await pool.execute(OLD_OPEN, *values)

        await old_open(events[0])
        assert await old_slot(pool, slot, before, 2)
        assert await old_slot(pool, f"next {slot}", before, 2)
        journal, views = PostgresJournal(pool, SecretCipher(KEY)), PostgresJournalViews(pool)
        assert [one.priority for one in await views.by_ids([before])] == [None]
        with pytest.raises(NotFound, match="earlier release"):
            await views.prioritize(before, 1, 9, "by anna@host")
        await journal.make_schema()
        # consumers of the last release still run
        for event in events[1:]:
            await old_open(event)
        assert [one.priority for one in await views.by_ids([before, beside])] == [4, 4]
        row = await journal.migration(beside)
        assert row is not None
        facts = journal.facts(await journal.begin(row, "stop", replay=None))
        assert await facts.acquire_slots({slot: 1}) is not None
        assert await facts.acquire_slots({slot: 2}) is None
        assert not await old_slot(pool, slot, another, 2)
        # one that waits here is handled by a consumer of the last release, and waits no more
        row = await journal.migration(another)
        assert row is not None
        waiting = journal.facts(await journal.begin(row, "stop", replay=None))
        assert await waiting.acquire_slots({slot: 2}) is not None
        assert [one.place_in_line for one in await views.by_ids([another])] == [1]
        assert await old_slot(pool, slot, another, 3)
        assert [one.place_in_line for one in await views.by_ids([another])] == [None]
        # what the last release has noted goes with the slot
        row = await journal.migration(before)
        assert row is not None
        await journal.facts(await journal.begin(row, "stop", replay=None)).release_slots([slot])
        assert await pool.fetchval("SELECT count(*) FROM rehome.slots WHERE migration_id = $1", before) == 0


async def test_tables_of_a_newer_release_are_refused_and_left_alone(dsn: str) -> None:
    async with postgres_journal(dsn) as journal, asyncpg.create_pool(dsn, min_size=0) as pool:
        await pool.execute("INSERT INTO rehome.schema_version (version) VALUES (99)")
        with pytest.raises(Conflict, match="version 99"):
            await journal.make_schema()


async def test_secrets_are_unreadable_in_the_database_and_bound_to_their_place(dsn: str) -> None:
    async with postgres_journal(dsn) as journal, asyncpg.create_pool(dsn, min_size=0) as pool:
        facts = journal.facts(await journal.begin(await opened(journal), "prepare", replay=None))
        await facts.remember(TENANT_PASSWORD, Secret("s3cret-of-acme"))
        await facts.remember(NEW_PASSWORD, Secret("another"))
        rows = await pool.fetch("SELECT name, secret, value FROM rehome.facts")
        assert b"s3cret-of-acme" not in b"".join(row["secret"] for row in rows)
        assert all(row["value"] is None for row in rows)
        await pool.execute(
            "UPDATE rehome.facts f SET secret = (SELECT secret FROM rehome.facts WHERE name = 'tenant_password') "
            "WHERE name = 'new_password'"
        )
        with pytest.raises(Refused, match="REHOME_SECRET_KEY"):
            await facts.recall(NEW_PASSWORD)


async def test_a_commit_of_one_consumer_wakes_the_relay_of_another(dsn: str) -> None:
    woken = asyncio.Event()
    async with postgres_journal(dsn) as one, postgres_journal(dsn) as other, one.listening(woken.set):
        migration = await opened(other)
        row = await other.begin(migration, "accept", replay=None)
        event = emitted(failed(migration.instance_id), migration.id)
        await other.fail(row, state="failed", error="no", event=encode_for_outbox(event))
        async with asyncio.timeout(LIMIT):
            await woken.wait()


async def test_a_connection_that_is_cut_is_reported_and_replaced(server: Cluster, dsn: str) -> None:
    async with postgres_journal(dsn) as journal:
        migration = await opened(journal)
        with pytest.raises(Unreachable):
            async with journal.sending(migration.id):
                await end_backends(server, dsn)
        assert await journal.migration(migration.id) == migration


async def test_the_journal_works_again_after_a_restart(server: Cluster, dsn: str) -> None:
    async with postgres_journal(dsn) as journal:
        migration = await opened(journal)
        await server.kill()
        with pytest.raises((Unreachable, TimedOut)):
            await journal.migration(migration.id)
        await server.start()
        assert await journal.migration(migration.id) == migration


async def test_a_frozen_server_is_given_up_within_the_limit(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        await PostgresJournal(pool, SecretCipher(KEY)).make_schema()
        journal = PostgresJournal(pool, SecretCipher(KEY), limit=0.5)
        backend = await pool.fetchval("SELECT pg_backend_pid()")
        with frozen(backend):
            async with asyncio.timeout(LIMIT):
                with pytest.raises(TimedOut, match=r"state database: no answer from PostgreSQL in 0\.5 s"):
                    await journal.unsent()


async def test_events_whose_sender_died_may_be_sent_by_another(server: Cluster, dsn: str) -> None:
    async with postgres_journal(dsn) as one:
        migration = await opened(one)
        row = await one.begin(migration, "accept", replay=None)
        event = emitted(failed(migration.instance_id), migration.id)
        await one.fail(row, state="failed", error="no", event=encode_for_outbox(event))
        with pytest.raises(Unreachable):  # noqa: PT012 - it is the end of the block that fails
            async with one.sending(migration.id) as sending:
                sending.confirmed.append(sending.rows[0].seq)
                await end_backends(server, dsn)
        async with postgres_journal(dsn) as other, other.sending(migration.id) as sending:
            assert [row.message.message_id for row in sending.rows] == [str(event.id)]


class Connections:
    """Opens connections and knows their backends."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.backends: list[int] = []

    async def __call__(self) -> asyncpg.Connection[asyncpg.Record]:
        connection = await asyncpg.connect(self._dsn)
        self.backends.append(connection.get_server_pid())
        return connection


async def test_a_claim_whose_connection_hangs_is_lost_within_the_limit(dsn: str) -> None:
    connect = Connections(dsn)
    claims = PostgresClaims(connect, watch_every=0.05, answer_within=1)
    async with aclosing(claims), claims.claim(uuid4()) as claim:
        assert claim
        with frozen(connect.backends[0]):
            async with asyncio.timeout(LIMIT):
                await claim.lost()
            with pytest.raises(ClaimLost):
                await claim.check()


async def test_no_claim_is_given_by_a_server_that_cannot_be_reached() -> None:
    @asynccontextmanager
    async def claimed() -> AsyncIterator[Any]:
        claims = PostgresClaims(lambda: asyncpg.connect("postgresql://postgres@127.0.0.1:1/none"))
        async with claims.claim(uuid4()) as claim:
            yield claim

    with pytest.raises(Unreachable, match="state database"):
        async with claimed():
            pass
