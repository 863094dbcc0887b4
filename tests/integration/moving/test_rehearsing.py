"""Untidy databases on real servers: what cannot be moved, and what would change, is told by the rehearsal."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.client_programs import PROGRAMS
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.engine.outcome import describe_error, gravest
from rehome_consumer.errors import Incompatible, Refused
from rehome_consumer.model import Policy
from rehome_consumer.steps.support import rehearsal
from rehome_consumer.steps.support.comparing import differences
from tests.contract.servers import ProgressRecorder
from tests.support.rehearsing import Rehearsing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.real_servers import RealStage
    from tests.support.postgres_versions import Pair


async def test_a_database_is_rehearsed_and_nothing_is_left(rehearsing: Rehearsing) -> None:
    result = await rehearsing.run()
    assert result
    assert result.mode == "full"
    assert result.database_bytes > 1_000_000
    assert await rehearsing.left_over() == []


async def test_definitions_alone_are_rehearsed(stage: RealStage, rehearsing: Rehearsing) -> None:
    alone = Rehearsing(stage, rehearsing.tenant, Policy(rehearse="definitions"))
    await alone.begin()
    result = await alone.run()
    assert result
    assert result.mode == "definitions"
    assert await alone.left_over() == []


def wrap(directory: Path, versions: Pair, before: str) -> None:
    """Make client programs that run a line of shell before each run of the real ones."""
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f'#!/bin/sh\n{before}\nexec {versions.clients}/{name} "$@"\n')
        program.chmod(0o755)


async def test_the_programs_of_a_rehearsal_give_way_and_those_of_a_move_do_not(
    stage: RealStage, rehearsing: Rehearsing, versions: Pair, tmp_path: Path
) -> None:
    noted = tmp_path / "noted"
    wrap(tmp_path, versions, f'[ "$1" = --version ] || echo "${{0##*/}} $(nice)" >> {noted}')
    stage.copier = PgCopier(BackupPlace(stage.backup_root), tmp_path, jobs=2)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    nicer = Rehearsing(stage, rehearsing.tenant, Policy(rehearsal_nice=7))
    await nicer.begin()
    assert await nicer.run()
    assert set(noted.read_text().splitlines()) == {f"{name} {own + 7}" for name in PROGRAMS}
    noted.unlink()
    tenant = rehearsing.tenant
    await stage.copier.dump(stage.pool, tenant.database, tenant.role, "moved-1", ProgressRecorder())
    assert noted.read_text() == f"pg_dump {own}\n"
    await stage.copier.discard("moved-1")


@pytest.mark.parametrize(("restoring", "expected"), [(None, 3), (1, 1)])
async def test_a_rehearsals_restore_has_jobs_of_its_own(
    stage: RealStage,
    rehearsing: Rehearsing,
    versions: Pair,
    tmp_path: Path,
    restoring: int | None,
    expected: int,
) -> None:
    noted = tmp_path / "noted"
    wrap(tmp_path, versions, f'for a; do case "$a" in --jobs=*) echo "${{0##*/}} $a" >> {noted};; esac; done')
    stage.copier = PgCopier(BackupPlace(stage.backup_root), tmp_path, jobs=3)
    paced = Rehearsing(stage, rehearsing.tenant, Policy(rehearsal_jobs=2, rehearsal_restore_jobs=restoring))
    await paced.begin()
    assert await paced.run()
    found = set(noted.read_text().splitlines())
    assert "pg_dump --jobs=2" in found
    assert {f"pg_restore --jobs={expected}", f"vacuumdb --jobs={expected}"} <= found
    if expected == 1:
        assert not any(line.endswith("--jobs=3") for line in found)


# Who does it, what, and what the operator is told.
UNTIDY: dict[str, tuple[str, str, str]] = {
    "a materialized view over a function that names a table without its schema": (
        "tenant",
        (
            "CREATE FUNCTION partners() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM res_partner'; "
            "CREATE MATERIALIZED VIEW summary AS SELECT public.partners() AS partners"
        ),
        r'relation "res_partner" does not exist',
    ),
    "an index over a function that calls another without its schema": (
        "tenant",
        (
            "CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; "
            "CREATE FUNCTION wrapped(text) RETURNS text LANGUAGE plpgsql IMMUTABLE "
            "AS 'BEGIN RETURN plain($1); END'; CREATE INDEX wrapped_idx ON res_partner (wrapped(name))"
        ),
        r"function plain\(text\) does not exist",
    ),
    "an index over an SQL function that calls unaccent without its schema": (
        "tenant",
        (
            "CREATE FUNCTION f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT unaccent($1)'; "
            "CREATE INDEX f_unaccent_idx ON res_partner (f_unaccent(name))"
        ),
        r"function unaccent\(text\) does not exist.* IN: function f_unaccent",
    ),
    "an index whose predicate calls a function without its schema": (
        "tenant",
        (
            "CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; "
            "CREATE FUNCTION wanted(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT plain($1) > $$a$$'; "
            "CREATE INDEX wanted_idx ON res_partner (id) WHERE wanted(name)"
        ),
        r"function plain\(text\) does not exist",
    ),
    "a generated column over a function that calls another without its schema": (
        "tenant",
        (
            "CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'; "
            "CREATE FUNCTION wrapped(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT plain($1)'; "
            "CREATE TABLE kept (name text, plain_name text GENERATED ALWAYS AS (wrapped(name)) STORED); "
            "INSERT INTO kept VALUES ('Anna')"
        ),
        r"function plain\(text\) does not exist",
    ),
    "a materialized view of another kind of name: a type without its schema": (
        "tenant",
        (
            "CREATE TYPE colour AS ENUM ('red'); "
            "CREATE FUNCTION painted() RETURNS text LANGUAGE plpgsql AS "
            "'DECLARE found colour; BEGIN RETURN found; END'; "
            "CREATE MATERIALIZED VIEW paint AS SELECT public.painted() AS colour"
        ),
        r'type "colour" does not exist',
    ),
    "duplicates below a unique index": (
        "superuser",
        (
            "CREATE TABLE twice (a integer); INSERT INTO twice VALUES (4141), (4141); "
            "CREATE INDEX twice_a ON twice (a); "
            "ALTER TABLE twice OWNER TO {role}; "
            "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'twice_a'::regclass"
        ),
        r"could not create unique index.*twice_a.*Key \(a\)=\(\.\.\.\) is duplicated",
    ),
    "an excluded overlap that is there": (
        "superuser",
        (
            "CREATE TABLE booked (a int4range, EXCLUDE USING gist (a WITH &&)); "
            "SET session_replication_role = replica; INSERT INTO booked VALUES ('[1,3)'); "
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'booked_a_excl'::regclass; "
            "INSERT INTO booked VALUES ('[2,4)'); "
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'booked_a_excl'::regclass; "
            "ALTER TABLE booked OWNER TO {role}"
        ),
        r"could not create exclusion constraint.*booked_a_excl",
    ),
    "a row without the one that it refers to": (
        "superuser",
        (
            "CREATE TABLE parent (id integer PRIMARY KEY); CREATE TABLE child (id integer REFERENCES parent); "
            "SET session_replication_role = replica; INSERT INTO child VALUES (4141); "
            "ALTER TABLE parent OWNER TO {role}; ALTER TABLE child OWNER TO {role}"
        ),
        r"violates foreign key constraint.*child_id_fkey",
    ),
    "an extension in a version that the dedicated server does not offer": (
        "superuser",
        "UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'pg_trgm'",
        r"does not offer extension pg_trgm in version 9\.9|extension pg_trgm: 9\.9 on the source, 1\.\d on the target",
    ),
    "a check that reads a table with such a check": (
        "tenant",
        (
            "CREATE TABLE a_child (id integer); CREATE TABLE z_parent (id integer); INSERT INTO z_parent VALUES (1); "
            "CREATE FUNCTION has_parent(integer) RETURNS boolean LANGUAGE sql "
            "AS 'SELECT EXISTS (SELECT FROM public.z_parent WHERE id = $1)'; "
            "CREATE FUNCTION positive(integer) RETURNS boolean LANGUAGE sql AS 'SELECT $1 > 0'; "
            "ALTER TABLE z_parent ADD CHECK (public.positive(id)); "
            "ALTER TABLE a_child ADD CHECK (public.has_parent(id)); INSERT INTO a_child VALUES (1)"
        ),
        r"violates check constraint",
    ),
}


@pytest.mark.parametrize("name", UNTIDY)
async def test_what_cannot_be_moved_is_told_in_the_servers_words(rehearsing: Rehearsing, name: str) -> None:
    who, statements, expected = UNTIDY[name]
    statements = statements.replace("{database}", rehearsing.tenant.database).replace(
        "{role}", rehearsing.tenant.role
    )
    refusal = await rehearsing.refusal(who, statements)
    if refusal is not None:
        major, words = refusal
        assert major >= 17  # which does not let such a thing come to be
        theirs, _, _ = expected.partition(".* IN:")  # what follows is rehome's
        assert re.search(theirs, words)
        return
    with pytest.raises((Refused, ExceptionGroup)) as raised:
        await rehearsing.run()
    error = gravest(raised.value)
    assert isinstance(error, Refused)
    assert re.search(expected, describe_error(error))
    assert "4141" not in describe_error(error)  # a value of the tenant's
    assert await rehearsing.left_over() == []


async def test_a_function_of_an_extension_that_was_made_immutable_stays_so(
    rehearsing: Rehearsing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unaccent` in an index, as Odoo's administrators make it."""
    await rehearsing.as_superuser(
        "ALTER FUNCTION unaccent(text) IMMUTABLE; CREATE INDEX plain_name ON res_partner (unaccent(name)); "
        "ALTER FUNCTION similarity(text, text) STABLE PARALLEL UNSAFE"  # without one
    )
    kept: list[str] = []

    async def looking(*arguments: Any) -> list[str]:
        async with rehearsing.stage.dedicated_cluster.connect(await rehearsing.move.scratch_name()) as copy:
            kept.extend(row[0] for row in await copy.fetch(VOLATILITY))
        return await differences(*arguments)

    monkeypatch.setattr(rehearsal, "differences", looking)  # for a look before it is removed
    assert await rehearsing.run()
    assert kept == ["similarity s u", "unaccent i s"]


async def test_a_function_of_an_extension_that_was_changed_otherwise_is_refused(
    rehearsing: Rehearsing,
) -> None:
    await rehearsing.as_superuser("ALTER FUNCTION unaccent(text) SET search_path = public")
    with pytest.raises(
        Incompatible, match=r"function public\.unaccent\(.*text\) of extension unaccent.*config="
    ):
        await rehearsing.stage.databases.require_genuine_extensions(
            rehearsing.stage.pool,
            rehearsing.tenant.database,
            rehearsing.tenant.role,
            rehearsing.stage.dedicated,
        )


VOLATILITY = (
    "SELECT proname || ' ' || provolatile::text || ' ' || proparallel::text FROM pg_proc "
    "WHERE oid IN ('unaccent(text)'::regprocedure, 'similarity(text, text)'::regprocedure) ORDER BY 1"
)


CALLED_WHILE_ROWS_ARE_LOADED = {
    "a check": "CREATE TABLE a_child (id integer CHECK (has_parent(id)))",
    "a check of a domain": (
        "CREATE DOMAIN known AS integer CHECK (has_parent(VALUE)); CREATE TABLE a_child (id known)"
    ),
    "a check of a partition": (
        "CREATE TABLE a_all (id integer) PARTITION BY RANGE (id); "
        "CREATE TABLE a_child PARTITION OF a_all (CHECK (has_parent(id))) FOR VALUES FROM (0) TO (9)"
    ),
    "a generated column": (
        "CREATE FUNCTION found(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS "
        "'BEGIN IF public.has_parent($1) THEN RETURN 1; END IF; RAISE EXCEPTION $$no parent$$; END'; "
        "CREATE TABLE a_child (id integer, n integer GENERATED ALWAYS AS (found(id)) STORED)"
    ),
}


@pytest.mark.parametrize("kind", CALLED_WHILE_ROWS_ARE_LOADED)
async def test_what_reads_another_table_while_rows_are_loaded_finds_its_rows(
    rehearsing: Rehearsing, kind: str
) -> None:
    """However many jobs restore, and whichever table is larger."""
    await rehearsing.as_tenant(
        "CREATE TABLE z_parent (id integer); INSERT INTO z_parent SELECT 1 FROM generate_series(1, 50000); "
        "CREATE FUNCTION has_parent(integer) RETURNS boolean LANGUAGE sql "
        "AS 'SELECT EXISTS (SELECT FROM public.z_parent WHERE id = $1)'"
    )
    await rehearsing.as_tenant(CALLED_WHILE_ROWS_ARE_LOADED[kind])
    await rehearsing.as_tenant("INSERT INTO a_child VALUES (1); CREATE INDEX child_id ON a_child (id)")
    assert await rehearsing.run()
    assert await rehearsing.left_over() == []


async def test_a_database_setting_that_names_something_in_it_is_kept(rehearsing: Rehearsing) -> None:
    await rehearsing.as_superuser(
        "CREATE TEXT SEARCH CONFIGURATION public.fr (COPY = french); "
        f"ALTER DATABASE {rehearsing.tenant.database} SET default_text_search_config = 'public.fr'"
    )
    assert await rehearsing.run()


async def test_definitions_that_changed_are_rehearsed_again(rehearsing: Rehearsing) -> None:
    assert await rehearsing.run()
    await rehearsing.as_tenant("INSERT INTO import_log (line) VALUES ('rows change all the time')")
    await rehearsal.require_current(rehearsing.move)
    _, statements, _ = UNTIDY["duplicates below a unique index"]
    await rehearsing.as_superuser(statements.replace("{role}", rehearsing.tenant.role))
    with pytest.raises((Refused, ExceptionGroup)) as raised:
        await rehearsal.require_current(rehearsing.move)
    assert isinstance(gravest(raised.value), Refused)
