"""What cannot be moved is refused, and named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rehome_consumer.errors import ChildFailed, Incompatible
from rehome_consumer.model import RoleAttributes
from sandbox.postgres.server import Cluster
from sandbox.postgres.tenants import nasty_password
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
    ],
)
async def test_what_cannot_be_moved_is_reported_before_anything_is_stopped(
    move: Move, statement: str, named: str
) -> None:
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
