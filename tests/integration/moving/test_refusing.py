"""What cannot be moved is refused, and named."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from rehome_consumer.adapters.postgres.names import quoted
from rehome_consumer.errors import ChildFailed, Incompatible
from rehome_consumer.model import RoleAttributes
from sandbox.postgres.databases import create_role, drop_database
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import nasty_password
from sandbox.system.net import wait_until
from tests.contract.real_servers import server_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.real_servers import RealStage
    from tests.support.moves import Move
    from tests.support.postgres_versions import Pair


async def test_a_dump_that_lost_a_file_is_not_restored_and_leaves_no_role(move: Move) -> None:
    backup = await move.fence_and_back_up()
    await move.provision()
    max((backup.place / "dump").glob("*.dat*"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(ChildFailed, match="pg_restore: error: could not open"):
        await move.restore(backup)
    assert not await move.left_over()
    facts = await move.stage.databases.role_facts(move.stage.dedicated, move.login.user, move.scratch)
    assert not facts.can_login


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (
            (
                "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
                "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch()"
            ),
            "event trigger watching",
        ),
        ("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w", "foreign server far"),
        (
            "CREATE FUNCTION inside(text) RETURNS integer LANGUAGE internal STRICT AS 'textlen'",
            "function in a language that is not trusted public.inside",
        ),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)", "subscription s"),
        (
            "CREATE CAST (integer AS oidvector) WITH INOUT; CREATE CAST (bytea AS text) WITHOUT FUNCTION",
            "cast without a function",
        ),
        (
            (
                "CREATE SCHEMA reports AUTHORIZATION {other}; GRANT USAGE ON SCHEMA reports TO PUBLIC; "
                "CREATE VIEW reports.yearly AS SELECT 1 AS one; ALTER VIEW reports.yearly OWNER TO {other}"
            ),
            r"schema of role {other} reports \(.*view of role {other} reports.yearly \(ALTER .* OWNER TO",
        ),
        (
            (
                "CREATE OPERATOR public.<~> (leftarg = integer, rightarg = integer, function = int4pl); "
                "ALTER OPERATOR public.<~> (integer, integer) OWNER TO {other}"
            ),
            r"operator of role {other} public.<~>\(integer,integer\)",
        ),
        (
            "CREATE FUNCTION secrets() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'",
            r"SECURITY DEFINER function of the administrator postgres public\.secrets\(\)",
        ),
        (
            "CREATE VIEW everyones AS SELECT * FROM pg_stat_activity; GRANT SELECT ON everyones TO PUBLIC",
            "view of the administrator postgres public.everyones",
        ),
        (
            "CREATE MATERIALIZED VIEW once AS SELECT 1 AS one; GRANT SELECT ON once TO PUBLIC",
            "materialized view of the administrator postgres public.once",
        ),
        (
            (
                "CREATE TABLE ruled (id integer); GRANT ALL ON ruled TO PUBLIC; "
                "CREATE RULE none AS ON DELETE TO ruled DO INSTEAD NOTHING"
            ),
            "table with rules of the administrator postgres public.ruled",
        ),
        ("CREATE PUBLICATION changes FOR TABLE res_partner", r"publication changes \(move its readers first"),
        (
            "UPDATE pg_database SET datistemplate = true WHERE datname = current_database()",
            "template database",
        ),
        (
            (
                "INSERT INTO pg_shseclabel SELECT oid, 'pg_authid'::regclass, 'guard', 'x' FROM pg_roles "
                "WHERE rolname = '{tenant}'"
            ),
            "security label on database or role, of provider guard",
        ),
        ("CREATE LANGUAGE mine HANDLER plpgsql_call_handler", "language mine"),
    ],
)
async def test_what_cannot_be_moved_is_reported_before_anything_is_stopped(
    move: Move, statement: str, named: str
) -> None:
    other = f"reporting_{secrets.token_hex(4)}"
    await create_role(move.stage.pool_cluster, other, nasty_password())
    statement, named = (
        text.replace("{other}", other).replace("{tenant}", move.tenant.role) for text in (statement, named)
    )
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        for part in statement.split("; "):
            await connection.execute(part)
        try:
            with pytest.raises(Incompatible, match=named):
                await move.stage.databases.database_facts(
                    move.stage.pool, move.tenant.database, move.tenant.role
                )
        finally:
            if named == "subscription s":
                await connection.execute("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
                await connection.execute("DROP SUBSCRIPTION s")
            if "template" in named:
                await connection.execute("UPDATE pg_database SET datistemplate = datname ~ '^template'")


async def test_a_view_of_an_administrator_that_reads_with_the_readers_rights_is_carried(move: Move) -> None:
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute(
            "CREATE VIEW plain WITH (security_invoker = on) AS SELECT 1 AS one; GRANT SELECT ON plain TO PUBLIC"
        )
    await move.stage.databases.database_facts(move.stage.pool, move.tenant.database, move.tenant.role)


async def test_many_objects_of_another_role_are_counted(move: Move) -> None:
    other = f"reporting_{secrets.token_hex(4)}"
    await create_role(move.stage.pool_cluster, other, nasty_password())
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute(
            f"DO $$ BEGIN FOR i IN 1..30 LOOP EXECUTE format('CREATE SEQUENCE many_%s', i); "
            f"EXECUTE format('ALTER SEQUENCE many_%s OWNER TO {other}', i); "
            f"EXECUTE format('GRANT SELECT ON many_%s TO PUBLIC', i); END LOOP; END $$"
        )
    with pytest.raises(Incompatible, match=r"many_1 .*; and 10 more\. Do that"):
        await move.stage.databases.database_facts(move.stage.pool, move.tenant.database, move.tenant.role)


async def test_a_slot_and_its_reader_are_named_in_check_and_refused(move: Move) -> None:
    """As change capture leaves it: a publication, a slot, a program that reads it; and another program's login."""
    stage, tenant = move.stage, move.tenant
    pool, other = stage.pool_cluster, f"capture_{secrets.token_hex(4)}"
    slot = f"slot_{secrets.token_hex(4)}"
    await create_role(pool, other, nasty_password())
    env = {"PGHOST": pool.host, "PGPORT": str(pool.port), "PGUSER": "postgres", "PGPASSWORD": pool.password}
    async with pool.connect(tenant.database) as connection:
        await connection.execute(
            f"CREATE PUBLICATION changes FOR TABLE res_partner; GRANT SELECT ON res_partner TO {other}"
        )
        await connection.execute("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot)
        reading = await asyncio.create_subprocess_exec(
            *(pool.programs / "pg_recvlogical", f"--dbname={tenant.database}", f"--slot={slot}", "--start"),
            "--file=-",
            env=env,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:

            async def read() -> bool:
                return bool(await connection.fetchval(ACTIVE, slot))

            await wait_until(read, what="the slot to be read", limit=20)
            found = await stage.databases.attached(stage.pool, tenant.database, tenant.role)
            with pytest.raises(
                Incompatible,
                match=rf"slot {slot} \(test_decoding\), read by postgres \(pid \d+, .*publication ch",
            ):
                await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
        finally:
            reading.terminate()
            await reading.wait()

        async def dropped() -> bool:
            try:
                await connection.execute("SELECT pg_drop_replication_slot($1)", slot)
            except asyncpg.ObjectInUseError:
                return False
            return True

        await wait_until(dropped, what="the slot to be left", limit=20)
    assert found == (
        "publication changes",
        f"logical replication slot {slot}, read by role postgres (application pg_recvlogical)",
        (
            f"role {other} may log in and has rights here: on the new server it gets these rights, and neither login "
            "nor password"
        ),
    )


ACTIVE = "SELECT active_pid IS NOT NULL FROM pg_replication_slots WHERE slot_name = $1"


async def test_an_extension_version_that_a_server_of_the_same_version_does_not_have_is_named(
    move: Move, versions: Pair
) -> None:
    if versions.pool != versions.dedicated:
        pytest.skip("a newer server may have newer versions of extensions only: it takes its own")
    async with move.stage.pool_cluster.connect(move.tenant.database) as connection:
        await connection.execute("UPDATE pg_extension SET extversion = '9.9' WHERE extname = 'pg_trgm'")
    backup = await move.fence_and_back_up()
    await move.provision()
    with pytest.raises(Incompatible, match=r"pg_trgm in version 9\.9"):
        await move.restore(backup)


async def test_a_setting_that_the_server_does_not_have_is_named(move: Move) -> None:
    stage = move.stage
    facts = await stage.databases.database_facts(stage.pool, move.tenant.database, move.tenant.role)
    await stage.databases.make_role(stage.dedicated, move.login, RoleAttributes(), ())
    strange = replace(facts, settings=(("", "no_such_setting=1"),))
    with pytest.raises(Incompatible, match="no_such_setting"):
        await stage.databases.make_scratch(stage.dedicated, move.scratch, strange, move.login.user, move.tag)


async def test_a_standby_says_that_it_is_one(scratch: Path, stage: RealStage) -> None:
    assert not (await stage.databases.server_facts(stage.pool)).standby
    cluster = await Cluster.create(scratch / "standby", password=nasty_password())
    try:
        (cluster.data / "standby.signal").touch()
        await cluster.start()
        assert (await stage.databases.server_facts(server_of(cluster, "follows", "dedicated"))).standby
    finally:
        await cluster.destroy()


async def test_a_comment_in_another_encoding_is_refused_and_hinders_nothing_else(move: Move) -> None:
    stage, database, role = move.stage, move.tenant.database, move.tenant.role
    async with stage.pool_cluster.connect() as connection:
        await connection.execute("CREATE DATABASE latin ENCODING latin1 LOCALE 'C' TEMPLATE template0")
    try:
        async with stage.pool_cluster.connect("latin") as connection:
            await connection.execute(f"COMMENT ON DATABASE {quoted(database)} IS 'Société'")
            await connection.execute(f"COMMENT ON ROLE {quoted(role)} IS 'Société'")
        assert await stage.databases.database_size(stage.pool, database) > 0
        assert (await stage.databases.role_facts(stage.pool, role, database)).can_login
        with pytest.raises(Incompatible, match=f"the comment on database {database} on .* is no UTF-8"):
            await stage.databases.database_facts(stage.pool, database, role)
        async with stage.pool_cluster.connect() as connection:
            await connection.execute(f"COMMENT ON DATABASE {quoted(database)} IS NULL")
        with pytest.raises(Incompatible, match=f"the comment on role {role} on .* is no UTF-8"):
            await stage.databases.database_facts(stage.pool, database, role)
    finally:
        await drop_database(stage.pool_cluster, "latin")
