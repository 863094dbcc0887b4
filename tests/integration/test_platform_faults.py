"""The errors of the platform's adapter when PostgreSQL refuses, hangs or does not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from rehome_consumer.adapters.platform.instances import PostgresPlatform
from rehome_consumer.errors import Conflict, Incompatible, Refused, TimedOut, Unreachable
from rehome_events.parts import Limits
from sandbox.system.net import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox.platform.tables import Platform
    from sandbox.postgres.server import Cluster


@pytest.fixture
async def pool(platform: Platform) -> AsyncIterator[asyncpg.Pool[Any]]:
    async with asyncpg.create_pool(platform.instance_dsn, min_size=0, max_size=1) as pool:
        yield pool


async def test_a_server_that_is_not_there_is_unreachable(platform: Platform) -> None:
    dsn = platform.instance_dsn.replace(f":{platform.cluster.port}/", f":{free_port()}/")
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        with pytest.raises(Unreachable, match="reading instance") as caught:
            await PostgresPlatform(pool).instance(uuid4())
    assert platform.password not in str(caught.value)


async def test_a_wrong_password_is_unreachable_and_not_shown(pg: Cluster, platform: Platform) -> None:
    dsn = pg.dsn(platform.instance_database, user="rehome", password="s3cret")
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        with pytest.raises(Unreachable, match="password authentication failed") as caught:
            await PostgresPlatform(pool).instance(uuid4())
    assert "s3cret" not in str(caught.value)


async def test_a_connection_that_is_cut_is_unreachable_and_the_next_call_gets_a_new_one(
    platform: Platform, pool: asyncpg.Pool[Any]
) -> None:
    adapter = PostgresPlatform(pool)
    instance = await platform.add_instance("acme")
    async with pool.acquire() as own:
        pid = own.get_server_pid()
    async with platform.cluster.connect(platform.instance_database) as other, other.transaction():
        await other.execute("SELECT FROM instances WHERE id = $1 FOR UPDATE", instance)
        cut = asyncio.create_task(adapter.set_status(instance, "error"))

        async def waiting() -> bool:
            return bool(await other.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))

        await wait_until(waiting, what="the adapter to wait for the row", limit=5)
        await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        with pytest.raises(Unreachable, match="writing the status"):
            await cut
    await adapter.set_status(instance, "error")
    assert (await platform.fetch_instance(instance))["status"] == "error"


async def test_a_server_that_hangs_in_the_middle_is_not_waited_for(
    platform: Platform, pool: asyncpg.Pool[Any]
) -> None:
    """Its ROLLBACK would hang too, so the connection is cut."""
    instance = await platform.add_instance("acme")
    async with pool.acquire() as own:
        pid = own.get_server_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut, match=r"writing the status.*0\.3 s"):
            await PostgresPlatform(pool, limit=0.3).set_status(instance, "error")
    finally:
        os.kill(pid, signal.SIGCONT)
    await PostgresPlatform(pool).set_status(instance, "stopped")
    assert (await platform.fetch_instance(instance))["status"] == "stopped"


async def test_a_row_that_another_transaction_holds_is_a_conflict(
    platform: Platform, pool: asyncpg.Pool[Any]
) -> None:
    instance = await platform.add_instance("acme")
    async with platform.cluster.connect(platform.instance_database) as other, other.transaction():
        await other.execute("UPDATE instances SET name = 'busy' WHERE id = $1", instance)
        with pytest.raises(Conflict, match="lock timeout"):
            await PostgresPlatform(pool, lock_limit=0.1).set_status(instance, "error")
    assert (await platform.fetch_instance(instance))["status"] == "running"


async def test_a_violated_constraint_is_named_and_no_row_is_shown(
    platform: Platform, pool: asyncpg.Pool[Any]
) -> None:
    instance = await platform.add_instance("acme", admin_password="s3cret")
    adapter = PostgresPlatform(pool)
    record = await adapter.record(instance)
    with pytest.raises(Refused, match="instances_db_server_id_fkey"):
        await adapter.restore_record(instance, {**record, "db_server_id": str(UUID(int=1))})
    with pytest.raises(Refused, match="instances_db_type_check") as caught:
        await adapter.restore_record(instance, {**record, "db_type": "odd"})
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(Refused, match=r"value too long for type character varying\(10\)"):
        await adapter.set_limits(instance, Limits(memory_limit="1000000.123M"), plan_tier="premium")


async def test_a_right_that_is_missing_is_named(platform: Platform, pool: asyncpg.Pool[Any]) -> None:
    async with platform.cluster.connect(platform.instance_database) as admin:
        await admin.execute("REVOKE SELECT ON db_servers FROM rehome")
        with pytest.raises(Incompatible, match="permission denied for table db_servers"):
            await PostgresPlatform(pool).server(uuid4())
        await admin.execute("GRANT SELECT ON db_servers TO rehome")


async def test_a_database_without_the_tables_is_refused(pg: Cluster) -> None:
    async with asyncpg.create_pool(pg.dsn("postgres"), min_size=0) as pool:
        with pytest.raises(Incompatible, match='relation "instances" does not exist'):
            await PostgresPlatform(pool).instance(uuid4())


async def test_the_owner_of_an_instance_is_its_customer_and_subscription(
    platform: Platform, pool: asyncpg.Pool[Any]
) -> None:
    row = await platform.fetch_instance(await platform.add_instance("acme"))
    owner = await PostgresPlatform(pool).owner(row["id"])
    assert owner == (row["customer_id"], row["subscription_id"])
    assert await PostgresPlatform(pool).owner(uuid4()) is None
