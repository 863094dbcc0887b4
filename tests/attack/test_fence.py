"""The fence, attacked from another database and from inside the fenced one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from sandbox.postgres.databases import drop_database
from sandbox.system.net import wait_until
from tests.attack.attack import COMPLETED, ROLLED_BACK, Attack
from tests.chaos.moving import hold

OPEN = """
    CREATE FUNCTION public.open_fence(which text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        attempt text;
    BEGIN
        FOREACH attempt IN ARRAY ARRAY[
            'ALTER DATABASE %1$I CONNECTION LIMIT -1', 'GRANT CONNECT ON DATABASE %1$I TO PUBLIC',
            'ALTER ROLE CURRENT_USER LOGIN', 'ALTER DATABASE %1$I ALLOW_CONNECTIONS true'] LOOP
            BEGIN
                EXECUTE format(attempt, which);
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END $$;
    GRANT EXECUTE ON FUNCTION public.open_fence(text) TO PUBLIC
"""


@asynccontextmanager
async def neighbours_database(attack: Attack) -> AsyncIterator[str]:
    """A database in which every role may create functions, as in schema public before PostgreSQL 15."""
    name = f"next_door_{attack.tenant.database}"
    async with attack.pool.connect() as pool:
        await pool.execute(f"CREATE DATABASE {name}")
    async with attack.pool.connect(name) as inside:
        await inside.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        await attack.remember()
        yield name
    finally:
        await attack.place.stop_consumers()
        await drop_database(attack.pool, name)


async def create_function(attack: Attack, database: str) -> None:
    """Create the function as the tenant."""
    async with attack.pool.connect(
        database, user=attack.tenant.role, password=attack.tenant.password
    ) as connection:
        await connection.execute(OPEN)


async def admitted(attack: Attack) -> list[str]:
    """Which of tenant and neighbour can connect to the fenced database."""
    found = []
    for tenant in (attack.tenant, attack.neighbour):
        try:
            async with attack.pool.connect(
                attack.tenant.database, user=tenant.role, password=tenant.password
            ):
                found.append(tenant.role)
        except asyncpg.PostgresError:
            continue
    return found


@pytest.mark.parametrize("when", ["before", pytest.param("after", marks=pytest.mark.representative("15-15"))])
async def test_a_function_of_the_tenants_role_in_another_database_opens_no_fence(
    when: str, attack: Attack
) -> None:
    await attack.make()
    async with neighbours_database(attack) as database:
        if when == "before":
            await create_function(attack, database)
        await attack.begin(order=hold("stop.claimed" if when == "after" else "back_up.claimed"))
        fenced = await attack.there()
        if fenced and when == "after":  # after `prepare` has checked the role
            await create_function(attack, database)
            attack.place.orders.give(hold("back_up.claimed"))
            fenced = await attack.there()
        if fenced:
            neighbour = attack.neighbour
            async with attack.pool.connect(
                database, user=neighbour.role, password=neighbour.password
            ) as accomplice:
                await accomplice.execute("SELECT public.open_fence($1)", attack.tenant.database)
            assert await admitted(attack) == []
        assert await attack.ends() in (COMPLETED, ROLLED_BACK)
        await attack.holds(but=(database,))  # the function still exists in that database


@pytest.mark.representative("15-15")
async def test_code_of_the_tenant_in_autovacuum_opens_no_fence(attack: Attack) -> None:
    await attack.make("ticking", "opening")
    await attack.begin(order=hold("back_up.claimed"))
    assert await attack.there()
    await behind_the_fence(attack)
    assert await admitted(attack) == []
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    await attack.holds()


@pytest.mark.representative("15-15")
async def test_a_table_that_becomes_something_else_behind_the_fence_gives_the_tenant_nothing(
    attack: Attack,
) -> None:
    await attack.make("ticking", "swapping")
    await attack.begin(order=hold("back_up.claimed"))
    assert await attack.there()
    await behind_the_fence(attack)
    assert await attack.ends() in (COMPLETED, ROLLED_BACK)
    assert "trap sprung" in {one.site for one in attack.reports()}
    await attack.holds(own_data=False)  # the tenant's own code has changed the tenant's own tables


async def behind_the_fence(attack: Attack) -> None:
    """Return when the tenant's code has run in the fenced database, and done what it does there."""

    async def ticking() -> bool:
        reports = await asyncio.to_thread(attack.reports, "the pool")
        return "done behind the fence" in {one.site for one in reports}

    await wait_until(ticking, what="autovacuum to run", limit=60, pause=0.2)
