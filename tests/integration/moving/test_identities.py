"""Tables without a key in a warm move on real servers: what they are lent, and that they get their own back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.postgres import identities
from rehome_consumer.adapters.postgres.kinds import Administrator
from rehome_consumer.adapters.postgres.replication_parts import sync_role
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.context import current_migration, inner_probe
from rehome_consumer.errors import FellBehind, TableInUse
from rehome_consumer.facts import COMPARED, STRATEGY, WARM_GIVEN_UP
from rehome_consumer.steps import prepare, provision
from rehome_consumer.steps.support import rehearsal, warm
from tests.support.postgres_versions import has_icu
from tests.support.rehearsing import Rehearsing
from tests.support.warm_stage import WARM, fenced

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rehome_consumer.sql import AdministratorSql
    from sandbox.postgres.server import Cluster

LIMIT = timedelta(seconds=20)
IDENTITIES = (
    "SELECT n.nspname || '.' || c.relname AS name, c.relreplident::text AS identity FROM pg_class AS c "
    "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 "
    "AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1"
)
HOSTILE = 'a"b; DROP TABLE res_partner; -- {table} %I $1'
KEYLESS = """
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE DOMAIN small AS numeric CHECK (VALUE < 1000);
CREATE TYPE pair AS (left_one integer, right_one text[]);
CREATE TABLE bag (a integer, b text, c numeric(8, 2), d timestamptz, e jsonb, f mood[], g small, h pair, i int4range,
    j bytea);
INSERT INTO bag SELECT n % 7, NULLIF('b' || n % 3, 'b0'), n % 5, 'epoch', '{"x": [1, null]}', '{good}', 1,
    ROW(1, '{x,NULL}')::pair, '[1,5)', '\\x00ff' FROM generate_series(1, 300) AS n;
INSERT INTO bag DEFAULT VALUES; INSERT INTO bag DEFAULT VALUES; INSERT INTO bag DEFAULT VALUES;
CREATE TABLE res_groups_rel (gid integer NOT NULL, uid integer NOT NULL, UNIQUE (gid, uid));
CREATE INDEX ON res_groups_rel (uid);
INSERT INTO res_groups_rel SELECT n % 10, n FROM generate_series(1, 200) AS n;
CREATE TABLE late_key (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
INSERT INTO late_key SELECT n, 'v' FROM generate_series(1, 20) AS n;
CREATE TABLE nothing_told (id integer PRIMARY KEY, v text);
INSERT INTO nothing_told SELECT n, 'v' FROM generate_series(1, 20) AS n;
ALTER TABLE nothing_told REPLICA IDENTITY NOTHING;
CREATE TABLE parted (k integer, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted SELECT n, 'v' FROM generate_series(0, 19) AS n;
CREATE TABLE heavy (v text);
ALTER TABLE heavy ALTER v SET STORAGE EXTERNAL;
INSERT INTO heavy SELECT repeat(n::text, 20000) FROM generate_series(1, 5) AS n;
"""
QUOTED = '"a""b; DROP TABLE res_partner; -- {table} %I $1"'
HOSTILE_TABLE = f"CREATE TABLE {QUOTED} (v text); INSERT INTO {QUOTED} VALUES ('x')"  # noqa: S608
CHANGES = """
UPDATE bag SET b = 'changed', f = '{bad,good}' WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 3);
UPDATE bag SET a = NULL WHERE a = 5;
DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a IS NULL AND b IS NULL AND d IS NULL);
DELETE FROM bag WHERE a = 1 AND c > 2;
INSERT INTO bag SELECT * FROM bag WHERE a = 2 LIMIT 10;
DELETE FROM res_groups_rel WHERE uid % 3 = 0; UPDATE res_groups_rel SET gid = gid + 100 WHERE uid > 150;
DELETE FROM late_key WHERE id = 3; UPDATE late_key SET id = 300 WHERE id = 4;
UPDATE nothing_told SET v = 'w' WHERE id < 5; DELETE FROM nothing_told WHERE id = 7;
UPDATE parted SET k = 15 WHERE k = 2; DELETE FROM parted WHERE k = 19;
UPDATE heavy SET v = v || 'y' WHERE v LIKE '1%'; DELETE FROM heavy WHERE v LIKE '3%';
"""
HOSTILE_CHANGE = f"UPDATE {QUOTED} SET v = 'y'"  # noqa: S608


async def identities_of(cluster: Cluster, database: str) -> dict[str, str]:
    async with cluster.connect(database) as connection:
        return {row["name"]: row["identity"] for row in await connection.fetch(IDENTITIES)}


async def on_source(warmed: Rehearsing) -> dict[str, str]:
    return await identities_of(warmed.stage.pool_cluster, warmed.tenant.database)


@asynccontextmanager
async def locked(warmed: Rehearsing, statement: str) -> AsyncIterator[None]:
    """Somebody's long transaction, such as a dump."""
    async with (
        warmed.stage.pool_cluster.connect(warmed.tenant.database) as connection,
        connection.transaction(),
    ):
        await connection.execute(statement)
        yield


async def test_tables_without_a_key_are_followed_and_have_their_own_identities_afterwards(
    warmed: Rehearsing,
) -> None:
    await warmed.as_tenant(KEYLESS)
    await warmed.as_tenant(HOSTILE_TABLE)
    before = await on_source(warmed)
    assert await warmed.run()
    chosen = await warmed.move.recorded(STRATEGY)
    assert chosen.name == "warm", chosen.why
    assert "public.bag" in chosen.why
    during = await on_source(warmed)
    lent = {name for name in before if during[name] != before[name]}
    assert {f"public.{name}" for name in ("bag", "parted_low", "nothing_told", HOSTILE)} <= lent
    assert {during[name] for name in lent} == {"f"}
    assert "public.parted" not in lent  # nothing is written to it: it has its partitions for that
    assert await identities_of(warmed.stage.dedicated_cluster, await warmed.move.scratch_name()) == before
    await warmed.as_tenant(CHANGES)
    await warmed.as_tenant(HOSTILE_CHANGE)
    await warm.require_close(warmed.move)
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert await warmed.move.facts.recall(WARM_GIVEN_UP) is None
    compared = await warmed.move.recorded(COMPARED)
    assert (compared.how, compared.definitions) == ("changed", "unchanged"), compared
    assert await on_source(warmed) == before
    assert await identities_of(warmed.stage.dedicated_cluster, await warmed.move.scratch_name()) == before
    left = [one for one in await warmed.left_over() if "__rehome_" not in one]
    assert left == [warmed.move.rehearsal_id]


async def test_what_is_given_up_has_its_own_identities_again_and_no_change_of_the_customer_is_refused(
    warmed: Rehearsing,
) -> None:
    before = await on_source(warmed)
    assert await warmed.run()
    assert await on_source(warmed) != before
    stop = asyncio.Event()

    async def customer() -> int:
        done = 0
        while not stop.is_set():
            await warmed.as_tenant("UPDATE import_log SET line = line || '!'")
            done += 1
        return done

    writing = asyncio.create_task(customer())
    await asyncio.sleep(0.2)
    await warm.give_up(warmed.move, "a test")
    stop.set()
    assert await writing > 0
    assert await on_source(warmed) == before
    assert await warmed.left_over() == []


async def test_a_rollback_puts_them_back(warmed: Rehearsing) -> None:
    before = await on_source(warmed)
    assert await warmed.run()
    assert await prepare.undo(warmed.move) == ()
    assert await on_source(warmed) == before
    assert await warmed.left_over() == []


MOMENTS = (
    "identities_remembered",
    "identity_lent",
    "identities_lent",
    "published",
    "slot_made",
    "unpublished",
    "identity_put_back",
    "identities_put_back",
)


class Killed(BaseException):
    """The consumer ended here."""


@pytest.mark.parametrize("moment", MOMENTS)
async def test_whoever_comes_after_a_crash_puts_them_back(warmed: Rehearsing, moment: str) -> None:
    before = await on_source(warmed)

    async def kill(at: str) -> None:
        if at == moment:
            raise Killed

    removing = moment in ("unpublished", "identity_put_back", "identities_put_back")
    if removing:
        assert await warmed.run()
    inner_probe.set(kill)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - the crash, or a group with it
        await (warm.remove(warmed.move) if removing else warmed.run())
    assert "Killed" in repr(raised.value)
    inner_probe.set(None)
    stage, migration = warmed.stage, warmed.move.migration_id
    await stage.databases.end_sessions(stage.pool, migration)
    async with stage.pool_cluster.connect() as connection:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_roles WHERE rolname = $1", sync_role(migration)
        )
    assert found == 1  # by which the doctor finds it
    await stage.replicator.remove(stage.pool, migration)
    assert await on_source(warmed) == before
    await rehearsal.clear(warmed.move)
    assert await warmed.left_over() == []


async def test_a_table_that_is_in_use_makes_it_cold_and_its_users_are_not_kept_waiting(
    warmed: Rehearsing,
) -> None:
    before = await on_source(warmed)
    longest = 0.0
    stop = asyncio.Event()

    async def customer() -> None:
        nonlocal longest
        async with warmed.stage.pool_cluster.connect(warmed.tenant.database) as connection:
            while not stop.is_set():
                began = asyncio.get_running_loop().time()
                await connection.execute("SELECT count(*) FROM import_log")
                longest = max(longest, asyncio.get_running_loop().time() - began)
                await asyncio.sleep(0.005)

    reading = asyncio.create_task(customer())
    async with locked(warmed, "LOCK TABLE import_log IN ACCESS SHARE MODE"):
        assert await warmed.run()
        assert await on_source(warmed) == before
    stop.set()
    await reading
    chosen = await warmed.move.recorded(STRATEGY)
    assert chosen.name == "cold"
    assert "table public.import_log is in use" in chosen.why
    assert longest < 1.0
    assert await warmed.left_over() == []


async def test_a_table_that_is_in_use_when_it_is_rolled_back_is_named_and_found_by_its_role(
    warmed: Rehearsing,
) -> None:
    before = await on_source(warmed)
    assert await warmed.run()
    async with locked(warmed, "LOCK TABLE import_log IN ACCESS SHARE MODE"):
        (left,) = await prepare.undo(warmed.move)
        assert "table public.import_log is in use" in left
        now = await on_source(warmed)
        assert {name for name in now if now[name] != before[name]} == {"public.import_log"}
        with pytest.raises(TableInUse):
            await warm.give_up(warmed.move, "a test")
    await warmed.as_tenant("UPDATE import_log SET line = 'later'")  # nothing is published
    assert await warmed.stage.replicator.remove(warmed.stage.pool, warmed.move.migration_id)
    assert await on_source(warmed) == before
    assert await warmed.left_over() == []


async def test_who_only_looks_for_a_moment_is_waited_for(warmed: Rehearsing) -> None:
    holding: asyncio.Task[None] | None = None

    async def for_a_moment() -> None:
        async with locked(warmed, "LOCK TABLE import_log IN ACCESS SHARE MODE"):
            await asyncio.sleep(2.0)

    async def hold(at: str) -> None:
        nonlocal holding
        if at == "identities_remembered":
            holding = asyncio.create_task(for_a_moment())
            await asyncio.sleep(0.2)

    inner_probe.set(hold)
    assert await warmed.run()
    assert holding is not None
    await holding
    assert (await warmed.move.recorded(STRATEGY)).name == "warm"


OWN_CHANGES: dict[str, tuple[str, dict[str, str | None]]] = {
    "an identity of his own": (
        "ALTER TABLE res_company_users_rel REPLICA IDENTITY NOTHING",
        {"public.res_company_users_rel": "n"},
    ),
    "another name": (
        "ALTER TABLE import_log RENAME TO import_logs",
        {"public.import_log": None, "public.import_logs": "d"},
    ),
    "another table of that name": (
        (
            "ALTER TABLE import_log RENAME TO old_log; CREATE TABLE import_log (id integer); "
            "ALTER TABLE import_log REPLICA IDENTITY FULL"
        ),
        {"public.old_log": "d", "public.import_log": "f"},
    ),
    "it is dropped": ("DROP TABLE import_log CASCADE", {"public.import_log": None}),
    "a key": ("ALTER TABLE import_log ADD COLUMN id serial PRIMARY KEY", {}),
}


@pytest.mark.parametrize("case", OWN_CHANGES)
async def test_what_the_customer_does_meanwhile_is_his(warmed: Rehearsing, case: str) -> None:
    statements, changed = OWN_CHANGES[case]
    before = await on_source(warmed)
    assert await warmed.run()
    await warmed.as_superuser(statements)
    await warm.remove(warmed.move)
    both: dict[str, str | None] = {**before, **changed}
    expected = {name: found for name, found in both.items() if found is not None}
    assert await on_source(warmed) == expected


async def test_a_module_that_brings_a_table_without_a_key_begins_a_new_copy(warmed: Rehearsing) -> None:
    assert await warmed.run()
    await warmed.as_tenant(
        "CREATE TABLE later_rel (a integer, b integer); INSERT INTO later_rel VALUES (1, 1)"
    )
    before = {**await on_source(warmed), "public.import_log": "d", "public.res_company_users_rel": "d"}
    await rehearsal.require_current(warmed.move)
    assert (await on_source(warmed))["public.later_rel"] == "f"
    await warmed.as_tenant("UPDATE later_rel SET b = 2")
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert await on_source(warmed) == before


UNSAFE = {
    "CREATE TABLE unsafe (v json)": "values of type json cannot be compared",
    "CREATE DOMAIN d AS xml; CREATE TYPE c AS (x integer, y d[]); CREATE TABLE unsafe (v c)": "values of type xml",
    "CREATE TABLE unsafe (v point)": "values of type point cannot be compared",
    "CREATE EXTENSION citext; CREATE TABLE unsafe (v citext)": "citext are equal is an extension's own",
    "CREATE COLLATION anyhow (provider = icu, locale = 'und-u-ks-level2', deterministic = false); "
    "CREATE TABLE unsafe (v text COLLATE anyhow)": "different texts are equal",
    "CREATE TABLE unsafe (v integer NOT NULL); CREATE UNIQUE INDEX i ON unsafe (v); "
    "ALTER TABLE unsafe REPLICA IDENTITY USING INDEX i; DROP INDEX i": "an index as its replica identity that is gone",
}


@pytest.mark.parametrize("statements", UNSAFE)
async def test_a_table_that_cannot_be_lent_one_is_named(warmed: Rehearsing, statements: str) -> None:
    if "icu" in statements and not await has_icu(warmed.stage.pool_cluster):
        pytest.skip("this PostgreSQL has no ICU")
    await warmed.as_tenant(statements)
    stage, tenant = warmed.stage, warmed.tenant
    (why,) = await stage.replicator.obstacles(stage.pool, tenant.database, tenant.role, stage.dedicated)
    assert why.startswith("table public.unsafe ")
    assert UNSAFE[statements] in why


async def test_every_type_is_judged_as_the_server_does(warmed: Rehearsing) -> None:
    """DISTINCT looks for the same equality as what applies changes: `lookup_type_cache`, and its error."""
    async with warmed.stage.pool_cluster.connect(warmed.tenant.database) as connection:
        kinds = [
            row[0]
            for row in await connection.fetch(
                "SELECT format_type(oid, NULL) FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typname !~ '^_?pg_' "
                "AND typnamespace = 'pg_catalog'::regnamespace AND format_type(oid, NULL) !~ '\\[\\]$' ORDER BY 1"
            )
        ]
        await connection.execute("CREATE SCHEMA judged")
        expected: dict[str, bool] = {}
        for number, kind in enumerate(f"{one}{array}" for one in kinds for array in ("", "[]")):
            try:
                await connection.execute(f'CREATE TABLE judged."{number}" (v {kind})')
            except asyncpg.PostgresError:
                continue  # no type of a column
            try:
                await connection.fetch(f'SELECT DISTINCT v FROM judged."{number}"')  # noqa: S608
            except asyncpg.UndefinedFunctionError:
                expected[f'judged."{number}"'] = False
            else:
                expected[f'judged."{number}"'] = True
    stage, what = warmed.stage, "a test"
    async with Sessions().administrator(stage.pool, warmed.tenant.database, what=what) as inside:
        found = {row["quoted"]: row["why"] is None for row in await identities.keyless(inside)}
    judged = {name: found[name] for name in expected}
    assert len(judged) > 100
    assert judged == expected
    assert not all(judged.values())


async def test_many_large_values_are_not_written_to_the_wal_with_every_change(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await warmed.as_tenant(KEYLESS)
    monkeypatch.setattr(identities, "LARGE_VALUES_AT_MOST", 64 * 1024)
    stage, tenant = warmed.stage, warmed.tenant
    (why,) = await stage.replicator.obstacles(stage.pool, tenant.database, tenant.role, stage.dedicated)
    assert why.startswith("table public.heavy has no primary key, and many large values")


@pytest.mark.parametrize("full", [False, True])
async def test_computed_columns_are_followed_where_the_server_lets_such_a_table_be_changed(
    warmed: Rehearsing, full: bool
) -> None:
    await warmed.as_tenant(
        "CREATE TABLE computed (a integer, b integer GENERATED ALWAYS AS (a * 2) STORED); "
        "INSERT INTO computed VALUES (1), (1), (2)"
    )
    if full:
        await warmed.as_tenant("ALTER TABLE computed REPLICA IDENTITY FULL")
    assert await warmed.run()
    chosen = await warmed.move.recorded(STRATEGY)
    if await warmed.stage.major() >= 18:
        assert chosen.name == "cold"
        what = "has REPLICA IDENTITY FULL" if full else "has no primary key"
        assert f"table public.computed {what}, and a generated column" in chosen.why
        return
    assert chosen.name == "warm", chosen.why
    await warmed.as_tenant("UPDATE computed SET a = 3 WHERE a = 2; DELETE FROM computed WHERE a = 1")
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))


async def test_an_event_trigger_of_the_administrators_runs_never(warmed: Rehearsing) -> None:
    """What it calls may be the tenant's; it is made after the check that refuses such moves."""
    before = await on_source(warmed)
    assert await warmed.run()
    await warmed.as_tenant("CREATE TABLE ran (who text); GRANT ALL ON ran TO PUBLIC")
    await warmed.as_tenant(
        "CREATE FUNCTION spy() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO public.ran VALUES (current_user); END'"
    )
    await warmed.as_superuser(
        "CREATE EVENT TRIGGER spying ON ddl_command_start EXECUTE FUNCTION public.spy()"
    )
    await warmed.as_superuser("ALTER EVENT TRIGGER spying DISABLE")
    await warm.remove(warmed.move)
    assert {**await on_source(warmed)} == {**before, "public.ran": "d"}
    await warmed.as_superuser("ALTER EVENT TRIGGER spying ENABLE")
    with pytest.raises(FellBehind, match="event trigger spying would run as the administrator"):
        await warmed.stage.replicator.with_slot(await warm.followed(warmed.move), LIMIT, not_run)
    async with warmed.stage.pool_cluster.connect(warmed.tenant.database) as connection:
        assert await connection.fetch("SELECT who FROM ran") == []
    await warmed.as_superuser("DROP EVENT TRIGGER spying")


async def not_run(_snapshot: str) -> Any:
    raise AssertionError("nothing was lent")


async def test_a_table_that_appears_at_the_last_moment_is_not_published_without_an_identity(
    warmed: Rehearsing,
) -> None:
    async def sneak(at: str) -> None:
        if at == "identities_lent":
            inner_probe.set(None)
            await warmed.as_tenant("CREATE TABLE sneaky (v text); INSERT INTO sneaky VALUES ('x')")

    before = await on_source(warmed)
    inner_probe.set(sneak)
    assert await warmed.run()
    chosen = await warmed.move.recorded(STRATEGY)
    assert (chosen.name, "table public.sneaky has no primary key since" in chosen.why) == ("cold", True)
    assert await on_source(warmed) == {**before, "public.sneaky": "d"}
    assert await warmed.left_over() == []


async def test_a_column_that_cannot_be_compared_makes_a_move_cold_that_was_warm(warmed: Rehearsing) -> None:
    before = await on_source(warmed)
    assert await warmed.run()
    await warmed.as_tenant("ALTER TABLE import_log ADD COLUMN v json")
    await rehearsal.require_current(warmed.move)
    why = await warmed.move.facts.recall(WARM_GIVEN_UP)
    assert why
    assert "values of type json cannot be compared" in why
    await warmed.as_tenant("UPDATE import_log SET v = '{}'")
    assert await on_source(warmed) == before
    assert await warmed.left_over() == []


async def test_nobody_reads_the_source_when_its_tables_are_locked_for_that(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second reader would wait behind who alters a table, and the first reader for the second one."""
    assert await warmed.run()
    await fenced(warmed)
    readers: list[int] = []
    put_back, opened = identities.put_back, PostgresVerifier._opened

    async def watched(sessions: Any, server: Any, *more: Any) -> None:
        if server == warmed.stage.pool:
            async with warmed.stage.pool_cluster.connect() as connection:
                await asyncio.sleep(1.0)  # longer than it takes them to log in
                readers.append(await connection.fetchval(READERS))
        await put_back(sessions, server, *more)

    @asynccontextmanager
    async def held(verifier: PostgresVerifier, server: Any, *more: Any, **named: Any) -> AsyncIterator[Any]:
        async with opened(verifier, server, *more, **named) as reading:
            yield reading
            await asyncio.sleep(2.0 if server == warmed.stage.pool else 0.0)

    monkeypatch.setattr(identities, "put_back", watched)
    monkeypatch.setattr(PostgresVerifier, "_opened", held)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert readers == [0]


READERS = "SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^rehome_[0-9a-f]{32}_read$'"


async def test_what_is_lent_is_no_change_to_a_witness_though_the_pool_has_older_slots(
    warmed: Rehearsing,
) -> None:
    """A slot begins where the oldest one on its server does, or the oldest transaction, until it is read."""
    async with warmed.stage.pool_cluster.connect() as connection:
        await connection.execute("SELECT pg_create_logical_replication_slot('of_somebody_else', 'pgoutput')")

    async def other_transaction() -> None:
        async with warmed.stage.pool_cluster.connect() as connection, connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            await asyncio.sleep(2.0)

    try:
        working = asyncio.create_task(other_transaction())
        await asyncio.sleep(0.1)
        assert await warmed.run()
        await working
        await warmed.as_tenant("UPDATE import_log SET line = 'later'")
        both = await warm.followed(warmed.move)
        assert await warmed.stage.replicator.written(both) == {"public.import_log": None}
        # But what else is done to such a table is one.
        await warmed.as_tenant("TRUNCATE import_log")
        with pytest.raises(FellBehind, match="made or changed"):
            await warmed.stage.replicator.written(both)
    finally:
        async with warmed.stage.pool_cluster.connect() as connection:
            await connection.execute("SELECT pg_drop_replication_slot('of_somebody_else')")


SWAPS = {
    "a view": "ALTER TABLE import_log RENAME TO hidden; CREATE VIEW import_log AS SELECT * FROM pg_catalog.pg_class",
    "a view of shared catalogs": (
        "ALTER TABLE import_log RENAME TO hidden; CREATE VIEW import_log AS SELECT * FROM pg_catalog.pg_database"
    ),
    "another table": "ALTER TABLE import_log RENAME TO hidden; CREATE TABLE import_log (id integer PRIMARY KEY)",
    "nothing": "ALTER TABLE import_log RENAME TO hidden",
}


@pytest.mark.parametrize("way", ["lent", "put back"])
@pytest.mark.parametrize("swap", SWAPS)
async def test_what_is_put_in_a_tables_place_at_the_last_moment_is_not_altered(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch, swap: str, way: str
) -> None:
    await warmed.as_superuser("DROP RULE keep_log ON import_log")
    before = await on_source(warmed)
    execute, swapped = Administrator.execute, False

    async def swapping(session: Administrator, statement: AdministratorSql) -> None:
        nonlocal swapped
        if not swapped and statement.startswith("LOCK TABLE ONLY public.import_log"):
            swapped = True
            await warmed.as_tenant(SWAPS[swap])
        await execute(session, statement)

    both, stage = await warm.followed(warmed.move), warmed.stage
    if way == "lent":
        monkeypatch.setattr(Administrator, "execute", swapping)
    with pytest.raises((RuntimeError, FellBehind)):
        await stage.replicator.with_slot(both, LIMIT, stopped)
    if way == "lent":
        assert (await on_source(warmed))["public.hidden"] == "f"
    monkeypatch.setattr(Administrator, "execute", swapping)
    await stage.replicator.remove(stage.pool, both.migration_id)
    assert swapped
    after = await on_source(warmed)
    assert after.pop("public.hidden") == "d"
    assert after.pop("public.import_log", "d") == "d"
    assert after == {name: found for name, found in before.items() if name != "public.import_log"}


async def stopped(_snapshot: str) -> None:
    raise RuntimeError("the work ends here")


async def test_hundreds_of_tables_get_their_own_back_in_no_time_behind_the_fence(warmed: Rehearsing) -> None:
    await warmed.as_tenant(
        "DO $$ BEGIN FOR n IN 1..450 LOOP EXECUTE format('CREATE TABLE rel_%s (a integer NOT NULL, "
        "b integer NOT NULL, UNIQUE (a, b))', n); END LOOP; END $$"
    )
    before = await on_source(warmed)
    both, stage = await warm.followed(warmed.move), warmed.stage
    with pytest.raises(RuntimeError):
        await stage.replicator.with_slot(both, LIMIT, stopped)
    assert len(await stage.replicator.lent(both)) == 452
    await fenced(warmed)
    began = asyncio.get_running_loop().time()
    await stage.replicator.remove(stage.pool, both.migration_id)
    assert asyncio.get_running_loop().time() - began < 10.0
    assert await on_source(warmed) == before


async def test_what_an_earlier_migration_has_left_hinders_no_later_one(
    warmed: Rehearsing,
) -> None:
    before = await on_source(warmed)
    both, stage = await warm.followed(warmed.move), warmed.stage
    with pytest.raises(RuntimeError):
        await stage.replicator.with_slot(both, LIMIT, stopped)
    async with locked(warmed, "LOCK TABLE import_log IN ACCESS SHARE MODE"):
        with pytest.raises(TableInUse):
            await stage.replicator.remove(stage.pool, both.migration_id)
    later = Rehearsing(stage, warmed.tenant, WARM)
    await later.begin()
    assert await later.run()
    assert (await later.move.recorded(STRATEGY)).name == "warm"
    # While that copy follows, the customer could not change rows of a table without its identity.
    with pytest.raises(TableInUse, match="a copy of another migration follows it"):
        await stage.replicator.remove(stage.pool, both.migration_id)
    await warmed.as_tenant("UPDATE import_log SET line = line || '!'")
    await warmed.as_tenant("DELETE FROM import_log")
    await rehearsal.clear(later.move)
    assert await on_source(warmed) == {**before, "public.import_log": "f"}
    await stage.replicator.remove(stage.pool, both.migration_id)
    assert await on_source(warmed) == before
    current_migration.set(both.migration_id)


async def test_what_an_earlier_migration_has_lent_is_put_back_by_the_next_one(warmed: Rehearsing) -> None:
    before = await on_source(warmed)
    both, stage = await warm.followed(warmed.move), warmed.stage
    with pytest.raises(RuntimeError):
        await stage.replicator.with_slot(both, LIMIT, stopped)
    assert await on_source(warmed) != before
    await stage.replicator.reclaim(stage.pool, both.database, both.migration_id)  # its own are its own
    assert await on_source(warmed) != before
    await stage.replicator.reclaim(stage.pool, "template1", uuid4())
    assert await on_source(warmed) != before
    await stage.replicator.reclaim(stage.pool, both.database, uuid4())
    assert await on_source(warmed) == before
    async with stage.pool_cluster.connect() as connection:
        reader = sync_role(both.migration_id)
        assert not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", reader)
