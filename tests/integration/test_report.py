"""`rehome report` on a real journal: one page and one document, of what the journal has and of nothing else."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.ports.operators import DISCARDED, ROLLBACK_ASKED_FOR, signed
from tests.contract.journals import postgres_journal, state_database
from tests.support.command_line import command
from tests.support.console import HOSTILE, seeds
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.postgres.server import Cluster
    from tests.support.command_line import Answer

VERIFIED = {
    "tables": 402, "rows": 518204, "sequences": 278, "indexes": 1104, "constraints": 2417, "extensions": 3,
    "digest": "9f" * 32,
}  # fmt: skip
REHEARSAL = {
    "mode": "full", "database_bytes": 10**9, "dump_seconds": 6.0, "restore_seconds": 21.0, "compare_seconds": 4.5,
}  # fmt: skip


async def report(dsn: str, *arguments: object, **more: str) -> Answer:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REHOME_")}
    return await command("report", *arguments, environment={**kept, "REHOME_STATE_DSN": dsn, **more})


@asynccontextmanager
async def journal_with(pg: Cluster, state: str, **columns: Any) -> AsyncIterator[tuple[str, UUID, Any]]:
    """A journal with one migration; yields its DSN, the migration and a connection."""
    async with state_database(pg) as dsn:
        async with postgres_journal(dsn), seeds(dsn) as made:
            migration = await made.migration(state, **columns)
        db = await asyncpg.connect(dsn)
        try:
            yield dsn, migration, db
        finally:
            await db.close()


async def remember(db: Any, migration: UUID, **facts: object) -> None:
    for name, value in facts.items():
        text = orjson.dumps(value).decode()
        await db.execute(
            "INSERT INTO rehome.facts VALUES ($1, 1, $2, $3, NULL)"
            " ON CONFLICT (migration_id, attempt, name) DO UPDATE SET value = excluded.value",
            *(migration, name, text),
        )


async def act(dsn: str, migration: UUID, what: str, detail: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        await PostgresJournalViews(pool).add_to_history(migration, what, detail)


def in_one(text: str) -> str:
    return " ".join(text.split())


async def test_a_completed_migration_has_its_costs_acts_and_leftovers_on_one_page(pg: Cluster) -> None:
    shape = {"step": "complete", "began": 90_000, "down": 80_000, "up": 79_958.5, "over": True}
    async with journal_with(pg, "completed", **shape) as (dsn, migration, db):
        kept = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
        await remember(
            db, migration, rehearsal=REHEARSAL, verified=VERIFIED, backup_bytes=7, source=str(uuid4()),
            strategy={"name": "cold", "why": "REHOME_STRATEGY is cold"}, source_retained_until=kept.isoformat(),
            platform_record={"db_host": "pool-1", "db_password": "hunter2"},
        )  # fmt: skip
        await act(dsn, migration, DISCARDED, signed("anna", "it was sent twice", "plan.upgraded of accept"))
        text = await report(dsn, migration, COLUMNS="80")
        found = (await report(dsn, migration, "--json")).json
        of_instance = (await report(dsn, found["migration"]["instance_id"], "--json")).json
    assert text.code == 0
    page = in_one(text.out)
    assert "outcome completed after 13 h" in page or "outcome completed after 12 h" in page
    assert "downtime 41.5 s: " in page
    assert "copied cold: REHOME_STRATEGY is cold" in page
    assert "expected copy 31.5 s by the rehearsal; was " in page
    assert (
        "402 tables, 518204 rows, 278 sequences, 1104 indexes, 2417 constraints, 3 extensions: equal" in page
    )
    assert f"{kept:%Y-%m-%d %H:%M:%S} UTC, then rehome retire {found['migration']['instance_id']}" in page
    assert "dead letter discarded by anna, because: it was sent twice plan.upgraded of accept" in page
    assert "migration.requested" in page
    assert max(map(len, text.out.splitlines())) <= 80
    assert "hunter2" not in text.out
    (attempt,) = found["attempts"]
    assert (attempt["downtime_seconds"], attempt["expected_copy_seconds"]) == (41.5, 31.5)
    assert attempt["copy_seconds"] > 0
    assert attempt["verified"] == VERIFIED
    assert attempt["facts"]["tenant_password"] is None
    assert attempt["facts"]["platform_record"] == {"db_host": "pool-1", "db_password": "***"}
    (acted,) = found["acts"]
    assert (acted["who"], acted["why"], acted["detail"]) == (
        "anna", "it was sent twice", "plan.upgraded of accept",
    )  # fmt: skip
    assert [step["step"] for step in found["steps"]][-1] == "complete"
    assert len(found["left_behind"]) == 2
    assert of_instance["migration"]["id"] == str(migration)


async def test_what_a_rollback_left_and_why_its_tries_failed_is_shown_whatever_tenants_wrote(
    pg: Cluster,
) -> None:
    shape = {
        "step": "restore",
        "step_state": "failed",
        "began": 5000,
        "down": 4000,
        "up": 3900.0,
        "over": True,
    }
    async with journal_with(pg, "rolled_back", tries=3, error=HOSTILE, reason=HOSTILE, **shape) as made:
        dsn, migration, db = made
        data = {"leftovers": [f"database {HOSTILE} on dedicated-1 could not be removed: password=hunter2"]}
        await db.execute(
            "INSERT INTO rehome.outbox (migration_id, event_id, exchange, routing_key, body, sent_at)"
            " VALUES ($1, $2, 'migration', 'migration.rolled_back', $3, now())",
            *(migration, uuid4(), orjson.dumps({"data": data})),
        )
        await act(dsn, migration, ROLLBACK_ASKED_FOR, signed("bert@night", f"by root: {HOSTILE}"))
        text = await report(dsn, migration)
        answer = await report(dsn, migration, "--json")
        await db.execute("DELETE FROM rehome.outbox")
        later = await report(dsn, migration)
        found_later = (await report(dsn, migration, "--json")).json
    found = answer.json
    assert "could not be removed: password=***" in in_one(text.out)
    assert all(line.isprintable() for line in (text.out + answer.out).split("\n"))
    assert r"\u202e" in text.out
    assert "downtime 1 min 40 s" in in_one(text.out)
    assert [(one["step"], one["what"]) for one in found["tries"]] == [
        ("restore", "failed"), *[("restore", "waits")] * 3,
    ]  # fmt: skip
    assert in_one(text.out).count("restore waits") >= 6  # in its own part, and in the history
    assert found["acts"][0]["who"] == "bert@night"
    assert len(found["left_behind"]) == 1
    assert "hunter2" not in text.out + answer.out
    assert found_later["left_behind"] is None
    assert "not known: its events are no longer kept; rehome doctor" in in_one(later.out)


async def test_of_a_running_one_it_says_so_and_of_none_where_it_waits(pg: Cluster) -> None:
    first, second = upgrade(instance := uuid4()), upgrade(instance)
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        await journal.open(migration_of(first), instance, first, body_of(first))
        await journal.put_off(migration_of(second), second, timedelta(seconds=60))
        text = await report(dsn, instance)
        waits = await report(dsn, migration_of(second))
        none = await report(dsn, uuid4())
    assert text.code == 0
    assert "outcome not over: open" in in_one(text.out)
    assert "downtime none: it was not stopped" in in_one(text.out)
    assert "left not known before its end" in in_one(text.out)
    assert (waits.code, f"waits for the end of migration {migration_of(first)}" in waits.err) == (1, True)
    assert (none.code, "there is no migration of instance" in none.err) == (1, True)
