"""Lost runs and persistent clients do not damage a move, and nothing of it is left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.context import current_migration
from rehome_consumer.errors import RehomeError
from sandbox.postgres.databases import quoted
from sandbox.system.net import wait_until
from tests.contract.real_servers import RESTORER_WAITS
from tests.contract.servers import login_of
from tests.support.moves import LIMIT, Move

if TYPE_CHECKING:
    from sandbox.postgres.server import Cluster


async def test_a_late_restore_cannot_write_into_what_was_promoted(move: Move) -> None:
    """Given an unfinished restore of a lost run, when another run promotes, the lost one fails and adds nothing."""
    move.login = replace(move.login, user=move.tenant.role)
    backup = await move.fence_and_back_up()
    await move.provision()
    stage, cluster = move.stage, move.stage.dedicated_cluster
    async with cluster.connect() as watching, cluster.connect(move.scratch) as holding:
        await holding.execute("BEGIN; LOCK TABLE pg_catalog.pg_sequence IN SHARE MODE")
        late = asyncio.create_task(move.restore(backup))

        async def waits() -> bool:
            return bool(await watching.fetchval(RESTORER_WAITS))

        await wait_until(waits, what="pg_restore to wait for the lock", limit=30)
        await stage.pretend_restored(stage.dedicated, move.scratch)
        await move.promote()  # ends the session that holds the lock, too
        objects = await objects_in(cluster, move.tenant.database)
        with pytest.raises(RehomeError):
            await late
    assert await objects_in(cluster, move.tenant.database) == objects
    assert not await move.left_over()
    await stage.databases.drop(stage.dedicated, move.tenant.database, move.tag.migration_id)


async def objects_in(cluster: Cluster, database: str) -> int:
    async with cluster.connect(database) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class"))


async def test_a_fence_holds_while_clients_connect_all_the_time(move: Move) -> None:
    stage, tenant = move.stage, move.tenant
    connected = asyncio.Event()

    async def connect() -> None:
        while True:
            try:
                async with stage.client(stage.pool, login_of(tenant), tenant.database) as client:
                    connected.set()
                    await client.add_partner()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(0)

    clients = [asyncio.create_task(connect()) for _ in range(4)]
    try:
        await asyncio.wait_for(connected.wait(), 30)
        await stage.databases.fence(stage.pool, tenant.database, tenant.role, LIMIT)
        counted = await stage.partners(stage.pool, tenant.database)
        for _ in range(20):
            assert await stage.databases.connections(stage.pool, tenant.database, tenant.role) == 0
        assert await stage.partners(stage.pool, tenant.database) == counted
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def test_what_a_run_left_unfinished_is_removed(move: Move) -> None:
    making = f"rehome_making_{move.tag.migration_id.hex}"
    cluster = move.stage.dedicated_cluster
    for finish in (
        move.provision,
        lambda: move.stage.databases.drop(move.stage.dedicated, "x", move.tag.migration_id),
    ):
        async with cluster.connect() as connection:
            await connection.execute(f"CREATE DATABASE {quoted(making)}")
        await finish()
        assert not await move.left_over()


async def test_a_run_that_died_during_create_database_is_repeated(move: Move) -> None:
    """Given the tenant's role and a database of it that has no ownership tag yet, the next run makes both again."""
    await move.provision()
    making = f"rehome_making_{move.tag.migration_id.hex}"
    cluster = move.stage.dedicated_cluster
    async with cluster.connect() as connection:
        await connection.execute(f"CREATE DATABASE {quoted(making)} OWNER {quoted(move.login.user)}")
    held = current_migration.set(move.tag.migration_id)
    try:
        await move.provision()
    finally:
        current_migration.reset(held)
    assert not await move.left_over()


async def test_a_source_name_that_a_lost_run_left_does_not_prevent_the_next_restore(move: Move) -> None:
    """Given a run that died while the tenant's role had its source name, the next one restores."""
    backup = await move.fence_and_back_up()
    await move.provision()
    cluster = move.stage.dedicated_cluster
    async with cluster.connect() as connection:
        comment = f"rehome: under this name while migration {move.tag.migration_id} restores"
        await connection.execute(
            f"ALTER ROLE {quoted(move.login.user)} RENAME TO {quoted(move.tenant.role)}; "
            f"COMMENT ON ROLE {quoted(move.tenant.role)} IS '{comment}'"
        )
    await move.provision()
    await move.restore(backup)
    assert await move.differences() == []
    assert not await move.left_over()


async def test_the_role_with_which_a_lost_run_restores_is_dropped_by_the_promotion(
    move: Move,
) -> None:
    await move.provision()
    stage, restorer = move.stage, f"{prefix(move.tag.migration_id)}restore"
    await stage.pretend_restored(stage.dedicated, move.scratch)
    async with stage.dedicated_cluster.connect() as connection:
        for _ in ("first", "again"):
            await connection.execute(
                f"CREATE ROLE {quoted(restorer)} LOGIN; GRANT {quoted(move.login.user)} TO {quoted(restorer)}"
            )
            await move.promote()
            assert not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", restorer)


async def test_no_password_reaches_the_servers_log(move: Move) -> None:
    cluster = move.stage.dedicated_cluster
    async with cluster.connect() as connection:
        await connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        await connection.execute("ALTER SYSTEM SET log_min_duration_statement = 0")
        await connection.execute("SELECT pg_reload_conf()")
        try:
            backup = await move.fence_and_back_up()
            await move.provision()
            await move.restore(backup)
        finally:
            await connection.execute("ALTER SYSTEM RESET ALL")
            await connection.execute("SELECT pg_reload_conf()")
    log = cluster.log.read_text()
    assert f'RENAME TO "{move.tenant.database}__rehome"' in log  # it did log
    assert not any(
        secret in log for secret in (move.login.password.reveal(), "SCRAM-SHA-256$", cluster.password)
    )
