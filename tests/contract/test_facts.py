"""Port `Facts`, held by the fake, by PostgreSQL and by the one that stores nothing; and the table of facts itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from rehome_consumer import facts
from rehome_consumer.adapters.state.encryption import SecretCipher
from rehome_consumer.adapters.state.facts import APPLICATION, GENERATION, MemoryFacts
from rehome_consumer.adapters.state.journal import SCHEMA, SQL, PostgresJournal
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.errors import ClaimLost
from rehome_consumer.facts import (
    BACKUP_MANIFEST_SHA256,
    PLATFORM_RECORD,
    REPLICAS,
    RESTARTED_AT,
    SERVER_REQUESTED,
    SERVER_RETURN_REQUESTED,
    TENANT_PASSWORD,
    Fact,
    RecordedFacts,
)
from rehome_consumer.model import Compared, ConfChange, Fence, Grant, Secret, Signatures, Strategy
from rehome_events.parts import Limits, Rehearsal, Verified
from tests.contract.journals import KEY, postgres_journal, state_database
from tests.fakes.clock import FakeClock
from tests.fakes.journal import FakeJournal
from tests.support.events import body_of, migration_of, upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.ports.engine import Journal, MigrationRow
    from rehome_consumer.ports.steps import Facts
    from sandbox.postgres.server import Cluster

TABLE = {one.name: one for one in vars(facts).values() if isinstance(one, Fact)}
"""Every fact, by its name."""
HARD = "ein Kuß 🐘 \"'%\\"
WHEN = datetime(2026, 1, 1, 2, 0, 0, 123456, tzinfo=UTC)
FENCE = Fence(
    -1, can_login=True, ended=3, owner="acme", grants=(Grant("", "CONNECT", False, "acme"),), inside=("a",)
)
REHEARSED = Rehearsal(
    mode="full", database_bytes=2**40, dump_seconds=0.25, restore_seconds=3, compare_seconds=0
)
VERIFIED = Verified(
    tables=1, rows=2, sequences=3, indexes=4, constraints=5, extensions=6, digest="0" * 64
)  # fmt: skip
VALUES: dict[str, tuple[Any, Any]] = {
    "source": (uuid4(), uuid4()),
    "target": (uuid4(), uuid4()),
    "limits": (Limits(cpu_limit=4.0, memory_limit="8G"), Limits()),
    "limits_before_resize": (Limits(storage_limit="1G"), Limits()),
    "tasks_before_resize": (("one", "two"), ()),
    "replicas": (0, 2),
    "spec": ({"Env": [HARD], "deep": {"er": [None, 1.5]}}, {}),
    "platform_record": ({"db_host": HARD, "cpu_limit": 2.5, "db_user": None}, {}),
    "fence": (FENCE, Fence(0, can_login=False)),
    "backup_bytes": (2**40, 0),
    "conf_changes": ((ConfChange("options", "db_host", None, HARD),), ()),
    "may_follow": (True, False),
    "lent_left": ("table public.import_log is in use", HARD),
    "strategy": (Strategy("warm", "it can be"), Strategy("cold", "REHOME_STRATEGY is cold")),
    "compared": (Compared("changed", tables=3, by_key=2, rows=7), Compared("everything", HARD)),
    "signatures": (Signatures("a" * 64, "b" * 64), Signatures("", HARD)),
    "rehearsal": (REHEARSED, REHEARSED.model_copy(update={"mode": "definitions"})),
    "not_before": (WHEN, WHEN + timedelta(days=1)),
    "verified": (VERIFIED, VERIFIED.model_copy(update={"rows": 0})),
}
"""Of facts that are no text, flag, secret or moment: two values."""


def values_of(fact: Fact[Any]) -> tuple[Any, Any]:
    if fact.name in VALUES:
        return VALUES[fact.name]
    if fact.name.endswith(("_at", "_until", "_since")):
        return WHEN, WHEN.astimezone(timezone(timedelta(hours=2))) + timedelta(days=1)
    if fact.secret:
        return Secret(HARD), Secret("another")
    return (True, False) if fact.encode is bool else (HARD, "another")


@pytest.fixture(scope="module")
async def real_journal(pg: Cluster) -> AsyncIterator[Journal]:
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        yield journal


@pytest.fixture(params=["fake", "postgresql"])
def journal(request: pytest.FixtureRequest, real_journal: Journal) -> Journal:
    return FakeJournal(FakeClock()) if request.param == "fake" else real_journal


async def opened(journal: Journal) -> MigrationRow:
    event = upgrade(uuid4())
    return await journal.open(migration_of(event), event.data.instance_id, event, body_of(event))


async def run_of(journal: Journal, migration: MigrationRow, step: str = "prepare") -> Facts:
    row = await journal.migration(migration.id)
    assert row
    return journal.facts(await journal.begin(row, step, replay=None))


@pytest.fixture(params=["fake", "postgresql", "memory"])
async def bound(request: pytest.FixtureRequest, real_journal: Journal) -> Facts:
    """The facts of one run of a step."""
    if request.param == "memory":
        return MemoryFacts()
    journal = FakeJournal(FakeClock()) if request.param == "fake" else real_journal
    return await run_of(journal, await opened(journal))


@pytest.mark.parametrize("fact", TABLE.values(), ids=TABLE)
async def test_a_fact_keeps_its_first_value_and_its_type(bound: Facts, fact: Fact[Any]) -> None:
    first, second = values_of(fact)
    assert await bound.recall(fact) is None
    for value in (first, second):
        stored = await bound.remember(fact, value)
        assert (stored, type(stored)) == (first, type(first))
    stored = await bound.recall(fact)
    assert (stored, type(stored)) == (first, type(first))


async def test_later_steps_of_the_attempt_recall_it(journal: Journal) -> None:
    migration = await opened(journal)
    await (await run_of(journal, migration, "prepare")).remember(REPLICAS, 2)
    assert await (await run_of(journal, migration, "stop")).recall(REPLICAS) == 2


async def test_nothing_is_paused_unless_operators_said_so(bound: Facts) -> None:
    assert await bound.paused() is None


async def test_no_consumer_is_of_an_earlier_release_unless_one_is(bound: Facts) -> None:
    assert await bound.earlier_consumers() == 0


@pytest.mark.parametrize(
    ("name", "earlier"),
    [("rehome", 1), ("rehome 1", 1), (APPLICATION, 0), ("rehome 99", 0), ("rehome claim", 0), ("psql", 0)],
)
async def test_consumers_of_an_earlier_release_are_known_by_their_connections(
    pg: Cluster, name: str, earlier: int
) -> None:
    async with state_database(pg) as dsn, postgres_journal(dsn) as journal:
        facts_ = await run_of(journal, await opened(journal))
        async with asyncpg.create_pool(
            dsn, min_size=1, max_size=1, server_settings={"application_name": name}
        ):
            assert await facts_.earlier_consumers() == earlier


def test_a_new_generation_comes_with_a_new_schema_so_that_none_of_an_earlier_one_can_start() -> None:
    assert (GENERATION, len(SCHEMA)) == (2, 10), "raise both together, or the schema alone"


async def test_an_old_token_writes_no_fact(journal: Journal) -> None:
    migration = await opened(journal)
    old, new = await run_of(journal, migration), await run_of(journal, migration)
    with pytest.raises(ClaimLost):
        await old.remember(REPLICAS, 0)
    with pytest.raises(ClaimLost):
        await old.remember(TENANT_PASSWORD, Secret("x"))
    assert await new.recall(REPLICAS) is None


def test_names_are_unique_and_every_constant_is_called_as_its_fact() -> None:
    constants = {name: one.name for name, one in vars(facts).items() if isinstance(one, Fact)}
    assert constants == {name: name.lower() for name in constants}


@pytest.mark.parametrize("fact", TABLE.values(), ids=TABLE)
async def test_operators_read_what_steps_wrote_but_no_secret(
    real_journal: PostgresJournal, fact: Fact[Any]
) -> None:
    migration = await opened(real_journal)
    value = values_of(fact)[0]
    await (await run_of(real_journal, migration)).remember(fact, value)
    recorded = await PostgresJournalViews(real_journal._pool).facts(migration.id, 1)
    assert fact in recorded
    assert recorded.get(fact) == (None if fact.secret else value)
    assert fact not in RecordedFacts()


OLD = {
    "record": {"db_host": "pool"},
    "up_again_at": WHEN.isoformat(),
    "provisioning": True,
    "provisioned_now": True,
    "giving_back": True,
    "letting_in": True,
    "nothing_written": True,
    "before_resize": {"cpu_limit": 2.0},
    "backup_manifest": "f" * 64,
    "conf_changed": ["db_host"],
    # those that keep their names
    "source": str(UUID(int=1)),
    "target": str(UUID(int=2)),
    "limits": {"cpu_limit": 2.0},
    "plan_tier": "premium",
    "tasks_before_resize": ["one"],
    "tenant_user": "acme",
    "new_user": "acme",
    "replicas": 2,
    "fence": {"connection_limit": -1, "can_login": True, "ended": 3},
    "stopped_at": WHEN.isoformat(),
    "backup_bytes": 7,
    "verified": VERIFIED.model_dump(mode="json"),
    "healthy_at": WHEN.isoformat(),
    "connections_checked": True,
    "source_retained_until": WHEN.isoformat(),
    "source_retired_at": WHEN.isoformat(),
}
"""Facts by the names, and in the form, of the tables' version 3."""

LATER = {
    *("begun_at", "not_before", "let_go_at"),
    "conf_changes",
    *(
        "rehearsal",
        "rehearsed_definitions",
        "strategy",
        "may_follow",
        "lent_left",
        "warm_given_up",
        "follows_since",
        "caught_up",
    ),
    *("compared", "signatures"),
}
"""Facts that it did not have."""
GONE = {"conf_keys_changed"}
"""Facts that only it had: they are shown, and nobody asks for them."""


async def test_facts_of_an_older_release_are_read_after_the_upgrade_of_the_tables(pg: Cluster) -> None:
    async with state_database(pg) as dsn, asyncpg.create_pool(dsn, min_size=0, max_size=4) as pool:
        await pool.execute(SQL["make_schema"])
        for version in (1, 2, 3):
            await pool.execute(SCHEMA[f"v{version}"])
            await pool.execute(SQL["set_version"], version)
        event, cipher = upgrade(uuid4()), SecretCipher(KEY)
        migration = migration_of(event)
        await pool.execute(
            "INSERT INTO rehome.migrations (id, instance_id, trigger, trigger_id, to_plan) "
            "VALUES ($1, $2, $3, $4, 'premium')",
            migration, event.data.instance_id, body_of(event), event.id,
        )  # fmt: skip
        add = (
            "INSERT INTO rehome.facts (migration_id, attempt, name, value, secret) VALUES ($1, 1, $2, $3, $4)"
        )
        for name, value in OLD.items():
            await pool.execute(add, migration, name, orjson.dumps(value).decode(), None)
        for name, text in {"tenant_password": "p", "new_password": "q", "spec": '{"Env":["a"]}'}.items():
            await pool.execute(add, migration, name, None, cipher.lock(text, f"{migration}/1/{name}"))
        journal = PostgresJournal(pool, cipher)
        await journal.make_schema()
        row = await journal.migration(migration)
        assert row
        bound = journal.facts(await journal.begin(row, "roll_back", replay=None))
        known = set(TABLE) - LATER
        assert {name for name in known if await bound.recall(TABLE[name]) is None} == set()
        assert await bound.recall(PLATFORM_RECORD) == {"db_host": "pool"}
        assert await bound.recall(RESTARTED_AT) == WHEN
        assert await bound.recall(BACKUP_MANIFEST_SHA256) == "f" * 64
        assert await bound.recall(facts.FENCE) == Fence(-1, can_login=True, ended=3)
        assert await bound.recall(facts.SPEC) == {"Env": ["a"]}
        assert await bound.remember(TENANT_PASSWORD, Secret("later")) == Secret("p")
        recorded = await PostgresJournalViews(pool).facts(migration, 1)
        assert recorded.get(SERVER_REQUESTED)
        assert recorded.get(SERVER_RETURN_REQUESTED)
        assert recorded.values.keys() == known | GONE
