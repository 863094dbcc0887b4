"""Which role is fenced: the tenant writes odoo.conf, so its db_user proves nothing."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox.postgres.databases import drop_database
from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack
from tests.chaos.moving import hold


@asynccontextmanager
async def another_role(attack: Attack, attributes: str = "", *grants: str) -> AsyncIterator[str]:
    """Another role on the pool, for the length of the block."""
    name = f"other_{secrets.token_hex(4)}"
    async with attack.pool.connect() as pool:
        await pool.execute(f"CREATE ROLE {name} LOGIN {attributes} PASSWORD 'known'")
        for granted in grants:
            await pool.execute(f"GRANT {granted} TO {name}")
    try:
        yield name
    finally:
        await attack.place.stop_consumers()
        async with attack.pool.connect() as pool:
            await pool.execute(f"DROP OWNED BY {name}")
            await pool.execute(f"DROP ROLE {name}")


async def refused(attack: Attack, name: str) -> None:
    """The move is refused before anything is stopped, and the refusal names the role."""
    assert await attack.ends() == ROLLED_BACK, f"it was moved: {attack.types()}"
    assert attack.refusal().startswith("prepare: ")
    assert name in attack.refusal()
    assert "migration.stopped" not in attack.types()
    await attack.holds()


@pytest.mark.parametrize(
    ("attributes", "grants"),
    [
        pytest.param("", ("pg_monitor",), id="monitoring", marks=pytest.mark.representative("15-15")),
        pytest.param("", (), id="ordinary"),
        pytest.param("CREATEROLE CREATEDB", (), id="the pool's manager"),
        pytest.param("SUPERUSER", (), id="a superuser"),
    ],
)
async def test_a_db_user_that_is_another_role_of_the_pool_is_refused(
    attributes: str, grants: tuple[str, ...], attack: Attack
) -> None:
    await attack.make()
    async with another_role(attack, attributes, *grants) as name:
        await attack.remember()
        attack.write_conf(user=name, password="known")
        await attack.begin()
        await refused(attack, name)


async def test_a_db_user_that_is_the_neighbour_is_refused(attack: Attack) -> None:
    await attack.make()
    attack.write_conf(user=attack.neighbour.role, password=attack.neighbour.password)
    await attack.begin()
    await refused(attack, attack.neighbour.role)


async def test_a_db_user_that_is_the_administrator_is_refused(attack: Attack) -> None:
    await attack.make()
    attack.write_conf(user="postgres", password=attack.pool.password)
    await attack.begin()
    await refused(attack, "postgres")


@pytest.mark.parametrize(
    "more",
    [
        "ALTER ROLE {role} CREATEROLE",
        "ALTER ROLE {role} REPLICATION",
        "ALTER ROLE {role} BYPASSRLS",
        pytest.param("GRANT pg_read_server_files TO {role}", marks=pytest.mark.representative("15-15")),
        "GRANT {neighbour} TO {role}",
        "GRANT {role} TO {neighbour}",
    ],
)
async def test_a_tenants_role_that_has_more_rights_or_is_shared_is_refused(more: str, attack: Attack) -> None:
    await attack.make()
    async with attack.pool.connect() as pool:
        await pool.execute(more.format(role=attack.tenant.role, neighbour=attack.neighbour.role))
    await attack.remember()
    await attack.begin()
    await refused(attack, attack.tenant.role)


@pytest.mark.representative("15-15")
async def test_one_login_of_two_customers_is_refused_and_the_other_customer_keeps_working(
    attack: Attack,
) -> None:
    await attack.make()
    second = f"{attack.tenant.database}_second"
    async with attack.pool.connect() as pool:
        await pool.execute(f"CREATE DATABASE {second}")
        await pool.execute(f"GRANT ALL ON DATABASE {second} TO {attack.tenant.role}")
        await pool.execute(f"ALTER DATABASE {attack.tenant.database} OWNER TO postgres")
    try:
        await attack.remember()
        async with attack.pool.connect(
            second, user=attack.tenant.role, password=attack.tenant.password
        ) as other_customer:
            await attack.begin()
            await refused(attack, attack.tenant.role)
            assert await other_customer.fetchval("SELECT 1") == 1
    finally:
        await attack.place.stop_consumers()
        await drop_database(attack.pool, second)


@pytest.mark.representative("15-15")
async def test_a_role_of_that_name_with_memberships_on_the_dedicated_server_gets_nothing(
    attack: Attack,
) -> None:
    await attack.begin(order=hold("provision.claimed"))
    assert await attack.there()
    dedicated = await attack.dedicated()
    assert dedicated is not None
    async with dedicated.connect() as connection:
        await connection.execute(f"ALTER ROLE {attack.tenant.role} CREATEROLE")  # there since the rehearsal
        await connection.execute(
            f"GRANT pg_read_server_files, pg_execute_server_program TO {attack.tenant.role}"
        )
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    await attack.holds()
