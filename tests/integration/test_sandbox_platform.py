"""The platform's own databases."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from sandbox.platform.tables import Platform
from sandbox.postgres.server import Cluster


async def test_the_record_names_the_server_of_an_instance(platform: Platform, pg: Cluster) -> None:
    server = await platform.add_server("postgres-pool-1", pg, max_instances=3)
    instance = await platform.add_instance("acme", db_server_id=server, db_host=pg.host, db_port=pg.port)

    row = await platform.fetch_instance(instance)

    assert (row["db_server_id"], row["db_host"], row["db_port"]) == (server, pg.host, pg.port)
    assert (row["status"], row["db_type"]) == ("running", "shared")


async def test_an_unknown_instance_is_named(platform: Platform) -> None:
    with pytest.raises(LookupError, match="no instance 00000000"):
        await platform.fetch_instance(UUID(int=0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"current_instances": 4, "max_instances": 3},
        {"current_instances": -1},
        {"server_type": "dedicated"},
        {"status": "sleeping"},
        {"health_status": "fine"},
        {"dedicated_to_instance_id": uuid4()},
    ],
    ids="-".join,
)
async def test_the_platform_refuses_a_server_that_breaks_its_rules(
    platform: Platform, pg: Cluster, wrong: dict[str, object]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await platform.add_server("wrong", pg, **wrong)  # type: ignore[arg-type]  # any column goes


async def test_the_consumers_role_changes_rows_but_adds_none(platform: Platform) -> None:
    instance = await platform.add_instance("changed")
    connection = await asyncpg.connect(platform.instance_dsn)
    try:
        await connection.execute("UPDATE instances SET status = 'maintenance' WHERE id = $1", instance)
        await connection.execute("CREATE SCHEMA rehome")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM instances")
    finally:
        await connection.close()

    assert (await platform.fetch_instance(instance))["status"] == "maintenance"


async def test_the_plans_are_those_of_the_platform(platform: Platform) -> None:
    connection = await asyncpg.connect(platform.billing_dsn)
    try:
        plans = await connection.fetch("SELECT plan_name, db_type FROM plan_entitlements ORDER BY id")
    finally:
        await connection.close()

    assert [tuple(plan) for plan in plans] == [
        ("basic-monthly", "shared"),
        ("standard-monthly", "shared"),
        ("premium-monthly", "dedicated"),
    ]
