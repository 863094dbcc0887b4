"""Warm moves on real servers: the copy follows its source, and has everything at the end."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.postgres import witness
from rehome_consumer.adapters.postgres.replication_parts import name_of, witness_of
from rehome_consumer.adapters.postgres.sessions import Sessions
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.errors import FellBehind, RehomeError
from rehome_consumer.facts import COMPARED, STRATEGY, WARM_GIVEN_UP
from rehome_consumer.model import EVERYTHING, Compared, Keys, Scope
from rehome_consumer.steps import provision
from rehome_consumer.steps.support import warm
from sandbox.postgres.server import Cluster
from tests.contract.real_servers import RealStage
from tests.support.warm_stage import a_tenant, fenced

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.postgres_versions import Pair
    from tests.support.rehearsing import Rehearsing

LIMIT = timedelta(seconds=20)


async def test_the_copy_follows_and_has_everything_after_the_fence(warmed: Rehearsing) -> None:
    assert await warmed.run()
    chosen = await warmed.move.recorded(STRATEGY)
    assert chosen.name == "warm", chosen.why
    await warmed.as_tenant(
        "INSERT INTO res_partner (name, autopost_bills) SELECT 'later', 'ask' FROM generate_series(1, 500); "
        "DELETE FROM import_log WHERE true; UPDATE res_partner SET name = 'changed' WHERE id = 2; "
        "SELECT nextval('res_partner_id_seq')"
    )
    await warm.require_close(warmed.move)
    await fenced(warmed)
    verified = await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert await warmed.move.facts.recall(WARM_GIVEN_UP) is None
    assert verified
    assert (verified.indexes, verified.constraints) > (10, 10)
    assert (await warmed.move.recorded(COMPARED)).definitions == "unchanged"
    left = [one for one in await warmed.left_over() if "__rehome_" not in one]
    assert left == [warmed.move.rehearsal_id]  # the backup until `complete` makes one of the fenced source


async def test_rows_of_the_copy_are_counted_by_an_index_alone(warmed: Rehearsing) -> None:
    await warmed.as_tenant(
        "INSERT INTO res_partner (name, autopost_bills) SELECT repeat('n', 500), 'ask' FROM generate_series(1, 2000)"
    )
    assert await warmed.run()
    async with warmed.stage.dedicated_cluster.connect(await warmed.move.scratch_name()) as connection:
        lines = await connection.fetch("EXPLAIN SELECT count(*) FROM ONLY res_partner")
    assert any("Index Only Scan" in line[0] for line in lines), lines


def some(cases: Iterable[str]) -> list[Any]:
    """The first of them; the others, each a whole rehearsal, are for `make test-long`."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.long) for case in others)]


OBSTACLES = {
    "CREATE TABLE keyless (v json)": "table public.keyless has no primary key, and values of type json",
    "CREATE UNLOGGED TABLE fleeting (id integer PRIMARY KEY)": "table public.fleeting is UNLOGGED",
    "ALTER TABLE import_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY": "hides rows from its own owner",
    "SELECT lo_from_bytea(0, 'x')": "there are large objects",
    "CREATE RULE also AS ON INSERT TO import_log DO ALSO SELECT 1; "
    "ALTER TABLE import_log ENABLE ALWAYS RULE also": "rule also of public.import_log",
    "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER fires BEFORE INSERT ON import_log FOR EACH ROW EXECUTE FUNCTION fires(); "
    "ALTER TABLE import_log ENABLE REPLICA TRIGGER fires": "trigger fires of public.import_log fires on replicas",
}


@pytest.mark.parametrize("statements", some(OBSTACLES))
async def test_what_is_not_replicated_safely_is_named_and_copied_cold(
    warmed: Rehearsing, statements: str
) -> None:
    await warmed.as_tenant(statements)
    assert await warmed.run()
    chosen = await warmed.move.recorded(STRATEGY)
    assert chosen.name == "cold"
    assert OBSTACLES[statements] in chosen.why
    assert await warmed.left_over() == []


async def test_a_pool_that_is_not_prepared_is_named_with_what_to_do(
    scratch: Path, versions: Pair, warm_target: Cluster, tmp_path: Path
) -> None:
    pool = await Cluster.create(
        scratch / "not_prepared",
        password="x",
        settings={"wal_level": "replica", "max_slot_wal_keep_size": "-1", "max_replication_slots": "1"},
        programs=versions.pool,
    )
    await pool.start()
    try:
        unprepared = await a_tenant(RealStage(pool, warm_target, tmp_path / "backups"))
        assert await unprepared.run()
        chosen = await unprepared.move.recorded(STRATEGY)
        assert chosen.name == "cold"
        assert "wal_level of pool-1 is replica: set it to logical" in chosen.why
        assert "max_slot_wal_keep_size of pool-1 is not set" in chosen.why
        assert "pool-1 has 1 free slot(s), and a copy that follows takes 2" in chosen.why
        assert await unprepared.left_over() == []
    finally:
        await pool.destroy()


async def test_a_change_that_cannot_be_applied_makes_it_cold_and_leaves_nothing(warmed: Rehearsing) -> None:
    assert await warmed.run()
    async with warmed.stage.dedicated_cluster.connect(await warmed.move.scratch_name()) as connection:
        await connection.execute(
            "INSERT INTO public.ir_config_parameter (id, key, value) VALUES (9999, 'taken', 'x')"
        )
    await warmed.as_tenant("INSERT INTO ir_config_parameter (id, key, value) VALUES (9999, 'taken', 'y')")
    await warm.require_close(warmed.move)
    why = await warmed.move.facts.recall(WARM_GIVEN_UP)
    assert why
    assert "a change could not be applied" in why
    assert await warmed.left_over() == []


async def test_rows_that_only_the_copy_has_are_noticed_and_the_copy_is_not_used(warmed: Rehearsing) -> None:
    assert await warmed.run()
    async with warmed.stage.dedicated_cluster.connect(await warmed.move.scratch_name()) as connection:
        await connection.execute(
            "INSERT INTO public.ir_config_parameter (id, key, value) VALUES (9999, 'only here', 'x')"
        )
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move)) is None
    why = await warmed.move.facts.recall(WARM_GIVEN_UP)
    assert why
    assert "ir_config_parameter" in why
    assert await warmed.left_over() == []


async def spoilt(warmed: Rehearsing, statements: str) -> None:
    """The copy has everything by now; then somebody changes it, and the statistics know."""
    both = await warm.followed(warmed.move)
    await warmed.stage.replicator.reach(both, LIMIT, 10**9)
    async with warmed.stage.dedicated_cluster.connect(both.copy) as connection:
        await connection.execute(statements)


def spied(warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """What of the databases is read."""
    scopes: list[Scope] = []
    fingerprint = PostgresVerifier.fingerprint

    async def noted(verifier: PostgresVerifier, server: Any, database: str, role: str, *scope: Scope) -> Any:
        scopes.extend(scope or (EVERYTHING,))
        return await fingerprint(verifier, server, database, role, *scope)

    monkeypatch.setattr(PostgresVerifier, "fingerprint", noted)
    return scopes


WRITE = (
    "UPDATE res_partner SET name = 'changed' WHERE id IN (2, 3); INSERT INTO res_partner (id, name, autopost_bills) "
    "VALUES (5000, 'fleeting', 'ask'), (5001, 'later', 'ask'); DELETE FROM res_partner WHERE id = 5000; "
    "INSERT INTO import_log (line) VALUES ('later')"
)


async def test_of_tables_with_a_key_the_rows_that_were_written_are_compared(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await warmed.run()
    await warmed.as_tenant(WRITE)
    await fenced(warmed)
    scopes = spied(warmed, monkeypatch)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert await warmed.move.recorded(COMPARED) == Compared(
        "changed", tables=2, by_key=1, rows=4, definitions="unchanged"
    )
    assert not any(scope.definitions for scope in scopes)
    assert [scope.contents for scope in scopes] == 2 * [
        {
            "public.import_log": None,
            "public.res_partner": Keys((("id", "int4"),), frozenset({("2",), ("3",), ("5000",), ("5001",)})),
        }
    ]
    left = [one for one in await warmed.left_over() if "__rehome_" not in one]
    assert left == [warmed.move.rehearsal_id]


async def test_definitions_that_were_put_back_are_compared_again(warmed: Rehearsing) -> None:
    assert await warmed.run()
    await warmed.as_tenant("COMMENT ON TABLE import_log IS 'x'; COMMENT ON TABLE import_log IS NULL")
    await warmed.as_tenant("GRANT SELECT ON import_log TO PUBLIC; REVOKE SELECT ON import_log FROM PUBLIC")
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    found = await warmed.move.recorded(COMPARED)
    assert found.definitions == "read"
    assert f"changed or removed in {warmed.tenant.database} on pool-1" in found.definitions_why


@pytest.mark.parametrize(
    ("statements", "difference"),
    [
        ("CREATE INDEX later ON public.import_log (line)", "index public.later"),
        ("DROP INDEX public.res_partner_parent_id_idx", "index public.res_partner_parent_id_idx"),
        pytest.param(
            *("COMMENT ON TABLE public.res_partner IS NULL", "comment table public.res_partner"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("GRANT UPDATE ON public.import_log TO PUBLIC", "grant table public.import_log.PUBLIC"),
            marks=pytest.mark.long,
        ),
    ],
)
async def test_definitions_that_only_the_copy_has_are_found(
    warmed: Rehearsing, statements: str, difference: str
) -> None:
    assert await warmed.run()
    await spoilt(warmed, statements)
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move)) is None
    why = await warmed.move.facts.recall(WARM_GIVEN_UP)
    assert why
    assert difference in why
    assert await warmed.left_over() == []


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param("UPDATE res_partner SET name = 'spoilt' WHERE id = 3", id="a row by its key"),
        pytest.param("UPDATE import_log SET line = 'spoilt' WHERE line = 'later'", id="a table read whole"),
        pytest.param(
            "DELETE FROM res_partner WHERE id = 5001; INSERT INTO res_partner (id, name, autopost_bills) "
            "VALUES (5000, 'fleeting', 'ask')",
            id="another row instead",
        ),
        # Nobody has written to it on the source: the copy's statistics tell.
        pytest.param("UPDATE ir_config_parameter SET value = 'spoilt'", id="a table that was not written"),
    ],
)
async def test_what_the_copy_has_otherwise_is_found(warmed: Rehearsing, statements: str) -> None:
    assert await warmed.run()
    await warmed.as_tenant(WRITE)
    await spoilt(warmed, statements)
    await fenced(warmed)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move)) is None
    why = await warmed.move.facts.recall(WARM_GIVEN_UP)
    assert why
    assert "not the same content" in why
    assert await warmed.left_over() == []


async def test_keys_that_change_and_tables_that_are_emptied_are_told_by_a_server(warmed: Rehearsing) -> None:
    assert await warmed.run()
    await warmed.as_tenant(
        "INSERT INTO ir_config_parameter (id, key, value) VALUES (7000, 'later', repeat('x', 20000)); "
        "UPDATE ir_config_parameter SET id = 7001 WHERE id = 7000"
    )
    both, sessions = await warm.followed(warmed.move), Sessions()
    rows = frozenset({("7000",), ("7001",)})
    assert await warmed.stage.replicator.written(both) == {
        "public.ir_config_parameter": Keys((("id", "int4"),), rows)
    }
    await warmed.as_tenant("UPDATE res_partner SET name = name WHERE id = 1; TRUNCATE import_log")
    async with sessions.administrator(both.source, both.database, what="reading") as session:
        told = await witness.told(
            session, witness_of(both.migration_id), name_of(both.migration_id), "reading"
        )
    assert told["public.import_log"] is None
    assert told["public.res_partner"] == Keys((("id", "int4"),), frozenset({("1",)}))
    with pytest.raises(FellBehind, match="made or changed"):  # TRUNCATE gives a table a new file
        await warmed.stage.replicator.written(both)


@pytest.mark.parametrize(
    "statements",
    some(
        [
            "ALTER TABLE import_log SET SCHEMA spare",
            "ALTER SCHEMA spare RENAME TO renamed",
            "ALTER TYPE order_state RENAME TO order_states",
            "ALTER TABLE res_partner RENAME TO res_partners",
        ]
    ),
)
async def test_a_table_that_has_another_name_since_has_everything_compared(
    warmed: Rehearsing, statements: str
) -> None:
    await warmed.as_tenant("CREATE SCHEMA spare")
    assert await warmed.run()
    await warmed.as_tenant(statements)
    with pytest.raises(FellBehind, match="made or changed"):
        await warmed.stage.replicator.written(await warm.followed(warmed.move))


async def test_a_table_of_very_many_columns_is_told(warmed: Rehearsing) -> None:
    columns = ", ".join(f"x_studio_a_rather_long_name_of_a_field_{number} text" for number in range(400))
    await warmed.as_tenant(f"CREATE TABLE wide (id integer PRIMARY KEY, {columns})")
    assert await warmed.run()
    await warmed.as_tenant("INSERT INTO wide (id) VALUES (1)")
    told = await warmed.stage.replicator.written(await warm.followed(warmed.move))
    assert told == {"public.wide": Keys((("id", "int4"),), frozenset({("1",)}))}


async def test_what_a_witness_tells_fills_no_disk(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await warmed.run()
    await warmed.as_tenant(
        "INSERT INTO import_log (line) SELECT repeat('x', 100000) FROM generate_series(1, 200)"
    )
    both = await warm.followed(warmed.move)
    assert await warmed.stage.replicator.written(both) == {"public.import_log": None}
    monkeypatch.setattr(witness, "FILES_AT_MOST", "64kB")
    with pytest.raises(RehomeError, match="temp_file_limit"):
        await warmed.stage.replicator.written(both)


async def test_a_witness_that_is_lost_has_everything_compared(
    warmed: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await warmed.run()
    await warmed.as_tenant(WRITE)
    async with warmed.stage.pool_cluster.connect() as connection:
        await connection.execute(f"SELECT pg_drop_replication_slot('{witness_of(warmed.move.migration_id)}')")
    await fenced(warmed)
    scopes = spied(warmed, monkeypatch)
    assert await warm.finished(warmed.move, await provision.unfenced_facts(warmed.move))
    assert scopes == 2 * [replace(EVERYTHING, definitions=False)]
    found = await warmed.move.recorded(COMPARED)
    assert (found.how, "there is no such slot" in found.why) == ("everything", True)


async def test_no_password_of_the_slots_reader_is_in_facts_or_logs(
    warmed: Rehearsing, caplog: pytest.LogCaptureFixture
) -> None:
    assert await warmed.run()
    async with warmed.stage.dedicated_cluster.connect() as connection:
        connection_string = str(await connection.fetchval("SELECT subconninfo FROM pg_subscription"))
    (password,) = re.findall(r"password='([^']+)'", connection_string)
    logs = (warmed.stage.pool_cluster.log, warmed.stage.dedicated_cluster.log)
    assert not any(password in log.read_text(errors="replace") for log in logs)
    assert password not in caplog.text
