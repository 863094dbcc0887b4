"""Port `Platform`, held by the fake and by the real tables alike: what it looks up."""

from __future__ import annotations

from uuid import uuid4

import pytest

from rehome_consumer.errors import Incompatible
from rehome_events.parts import Entitlements, Limits
from tests.contract.platform_tables import Tables, a_dedicated_server, a_move, instance_of, server_of, unique


async def test_an_instance_is_read_with_what_a_migration_needs(tables: Tables) -> None:
    identity, _, _ = await a_move(tables)
    instance = await instance_of(tables, identity)
    assert (instance.database_name, instance.database, instance.status) == ("acme", "acme", "running")
    assert instance.limits == Limits(cpu_limit=2.0, memory_limit="4G", storage_limit="20G")
    assert instance.directory == f"odoo_data_acme_{identity.hex[:8]}"


async def test_a_limit_in_an_unknown_form_counts_as_not_set(tables: Tables) -> None:
    identity = await tables.add_instance(cpu_limit=0, memory_limit="2 gigs", storage_limit=None)
    assert (await instance_of(tables, identity)).limits == Limits()


async def test_an_unknown_instance_or_server_is_none(tables: Tables) -> None:
    assert await tables.platform.instance(uuid4()) is None
    assert await tables.platform.server(uuid4()) is None
    assert await tables.platform.dedicated_server(uuid4()) is None


async def test_a_server_is_read_with_its_administrator_who_is_not_shown(tables: Tables) -> None:
    server = await server_of(tables, await tables.add_server(admin_user="root", admin_password="s=;'%"))
    assert (server.admin.user, server.admin.password.reveal()) == ("root", "s=;'%")
    assert "s=;" not in repr(server)


async def test_home_is_the_server_in_db_server_id_whatever_db_type_and_db_host_say(tables: Tables) -> None:
    pool = await tables.add_server()
    elsewhere = await a_dedicated_server(tables, None)
    identity = await tables.add_instance(
        db_server_id=pool, db_type="dedicated", db_host=(await server_of(tables, elsewhere)).host
    )
    home = await tables.platform.home(await instance_of(tables, identity))
    assert home
    assert (home.id, home.kind) == (pool, "shared")


async def test_home_without_db_server_id_is_the_server_at_host_and_port(tables: Tables) -> None:
    host = unique("node")
    await tables.add_server(name=unique("one"), host=host, port=5432)
    second = await tables.add_server(name=unique("two"), host=host, port=5433)
    identity = await tables.add_instance(db_host=host, db_port=5433)
    home = await tables.platform.home(await instance_of(tables, identity))
    assert home
    assert home.id == second


async def test_home_at_an_address_that_no_server_has_is_none(tables: Tables) -> None:
    server = await server_of(tables, await tables.add_server())
    for host, port in [(server.host, 6000), (unique("nowhere"), 5432), (None, 5432)]:
        identity = await tables.add_instance(db_host=host, db_port=port)
        assert await tables.platform.home(await instance_of(tables, identity)) is None


async def test_home_at_an_address_of_several_servers_is_refused_by_name(tables: Tables) -> None:
    host, names = unique("node"), [unique("one"), unique("two")]
    for name, port in zip(names, (5432, 5433), strict=True):
        await tables.add_server(name=name, host=host, port=port)
    identity = await tables.add_instance(db_host=host, db_port=None)
    with pytest.raises(Incompatible) as caught:
        await tables.platform.home(await instance_of(tables, identity))
    assert all(name in str(caught.value) for name in names)


async def test_the_dedicated_server_is_the_active_one_of_that_instance(tables: Tables) -> None:
    instance = await tables.add_instance()
    await a_dedicated_server(tables, uuid4())
    await a_dedicated_server(tables, instance, status="provisioning")
    assert await tables.platform.dedicated_server(instance) is None
    active = await a_dedicated_server(tables, instance)
    found = await tables.platform.dedicated_server(instance)
    assert found
    assert (found.id, found.dedicated_to_instance_id) == (active, instance)


async def test_others_with_the_same_login_on_the_same_server_are_found(tables: Tables) -> None:
    identity, pool, _ = await a_move(tables)
    server, login = await server_of(tables, pool), unique("odoo")
    elsewhere = await tables.add_server()
    named = await tables.add_instance(name="b", db_server_id=pool, db_user=login)
    addressed = await tables.add_instance(
        name="a", db_server_id=None, db_host=server.host, db_port=server.port, db_user=login
    )
    await tables.add_instance(db_server_id=elsewhere, db_host=server.host, db_user=login)
    await tables.add_instance(db_server_id=pool, db_user=unique("other"))
    await tables.add_instance(db_server_id=pool, db_user=login, status="terminated")
    found = await tables.platform.others_with_login(identity, server, login)
    assert [one.id for one in found] == [addressed, named]
    found = await tables.platform.others_with_login(named, server, login)
    assert [one.id for one in found] == [addressed]


async def test_a_plan_grants_what_its_newest_row_in_force_says(tables: Tables) -> None:
    plan = unique("premium")
    for since, cores, kind in [
        ("2001-01-01", 1, "shared"),
        ("2002-01-01", 4.25, "dedicated"),
        ("2999-01-01", 9, "shared"),
    ]:
        await tables.add_plan(
            plan, since, cpu_limit=cores, memory_limit="8G", storage_limit="50G", db_type=kind
        )
    granted = await tables.platform.entitlements(plan)
    assert granted == Entitlements(
        cpu_limit=4.25, memory_limit="8G", storage_limit="50G", db_type="dedicated"
    )


async def test_a_plan_that_is_unknown_or_cannot_be_looked_up_has_no_entitlements(tables: Tables) -> None:
    assert await tables.platform.entitlements(unique("no-such-plan")) is None
    assert await tables.without_billing.entitlements("premium-monthly") is None


async def test_a_plan_that_grants_no_limit_is_refused_by_name(tables: Tables) -> None:
    plan = unique("odd")
    await tables.add_plan(
        plan, "2001-01-01", cpu_limit=1, memory_limit="much", storage_limit="1G", db_type="shared"
    )
    with pytest.raises(Incompatible, match=f"{plan}.*memory_limit"):
        await tables.platform.entitlements(plan)
