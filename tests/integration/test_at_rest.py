"""What the test programmes ask at rest notices what is left: an answer of nothing means something."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.contract.journals import postgres_journal, state_database
from tests.support.at_rest import leftovers, under_way, wrong_counts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.platform.tables import Platform
    from sandbox.postgres.server import Cluster

    Connection = asyncpg.Connection[asyncpg.Record]

MIGRATION = "INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan) VALUES ($1, $1, '', $1, '')"
STEP = "INSERT INTO rehome.steps (migration_id, attempt, step, state) VALUES ($1, 1, $2, $3)"
SLOT = "INSERT INTO rehome.slots (resource, migration_id, attempt) VALUES ('dump:pool', $1, 1)"
EVENT = """
    INSERT INTO rehome.outbox (migration_id, event_id, exchange, routing_key, body)
    VALUES ($1, $1, 'migration', 'migration.stopped', '')
"""


@pytest.fixture
async def dsn(pg: Cluster) -> AsyncIterator[str]:
    """A state database with the journal's tables."""
    async with state_database(pg) as dsn:
        async with postgres_journal(dsn):
            pass
        yield dsn


@pytest.fixture
async def journal(dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def migration(journal: Connection) -> UUID:
    """An open migration whose dump has ended."""
    migration = uuid4()
    await journal.execute(MIGRATION, migration)
    await journal.execute(STEP, migration, "back_up", "done")
    return migration


async def test_nothing_is_left_of_a_migration_that_waits_for_its_next_event(
    journal: Connection, migration: UUID
) -> None:
    assert await under_way(journal) == []
    assert await leftovers(journal) == []


async def test_an_unsent_event_is_under_way_and_left_over(journal: Connection, migration: UUID) -> None:
    await journal.execute(EVENT, migration)
    assert await under_way(journal) == ["unsent migration.stopped"]
    assert await leftovers(journal) == ["unsent event migration.stopped"]


async def test_a_step_that_waits_for_a_retry_is_under_way(journal: Connection, migration: UUID) -> None:
    await journal.execute(STEP, migration, "provision", "waiting")
    assert await under_way(journal) == ["provision is waiting"]


async def test_a_slot_that_a_finished_backup_did_not_release_is_left_over(
    journal: Connection, migration: UUID
) -> None:
    await journal.execute(SLOT, migration)
    assert await leftovers(journal) == ["slot dump:pool after the backup"]


async def test_a_claim_and_an_open_transaction_are_left_over(dsn: str, journal: Connection) -> None:
    claim = await asyncpg.connect(dsn, server_settings={"application_name": "rehome claim"})
    try:
        await claim.execute("BEGIN")
        await claim.execute("SELECT pg_advisory_lock(1)")
        found = await leftovers(journal)
    finally:
        await claim.close()
    assert {text.partition(" open since")[0] for text in found} == {
        "claim held", "transaction of rehome claim", "advisory lock",
    }  # fmt: skip


async def test_a_server_that_counts_other_instances_than_it_has_is_named(
    platform: Platform, pg: Cluster
) -> None:
    server = await platform.add_server("pool", pg, max_instances=9, current_instances=2)
    await platform.add_instance("acme", db_server_id=server)
    async with platform.cluster.connect(platform.instance_database) as connection:
        assert await wrong_counts(connection) == ["pool counts 2 instances, 1 are there"]
        await platform.add_instance("globex", db_server_id=server)
        assert await wrong_counts(connection) == []
