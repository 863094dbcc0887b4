"""Port `PlatformRecords`, the same on the fake and on the platform's real tables."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.contract.platform_tables import FakeTables, Tables, a_dedicated_server, a_move, instance_of, unique

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.ports.operators import PlatformRecords
    from tests.contract.platform_tables import PostgresTables


def records_of(tables: Tables) -> PlatformRecords:
    if isinstance(tables, FakeTables):
        return tables.platform
    real: PostgresTables = tables  # type: ignore[assignment] # there are two
    return real.platform


async def listed(records: PlatformRecords, *among: UUID) -> list[str]:
    """Names of those of these servers that are listed; other tests share the real tables."""
    return [one.name for one in await records.tenant_servers() if one.id in among]


async def test_an_instance_its_home_and_its_dedicated_server_are_looked_up(tables: Tables) -> None:
    records = records_of(tables)
    identity, pool, dedicated = await a_move(tables)
    instance = await records.instance(identity)
    assert instance == await instance_of(tables, identity)
    home, server = await records.home(instance), await records.server(pool)
    assert home == server
    assert home
    assert (home.id, home.kind) == (pool, "shared")
    found = await records.dedicated_server(identity)
    assert found
    assert (found.id, found.dedicated_to_instance_id) == (dedicated, identity)


async def test_what_does_not_exist_is_none(tables: Tables) -> None:
    records = records_of(tables)
    assert await records.instance(uuid4()) is None
    assert await records.server(uuid4()) is None
    assert await records.dedicated_server(uuid4()) is None


async def test_all_servers_that_tenants_can_be_on_are_listed_by_name(tables: Tables) -> None:
    records = records_of(tables)
    last, first = unique("z-pool"), unique("a-pool")
    pools = [await tables.add_server(name=name) for name in (last, first)]
    made = await a_dedicated_server(tables, uuid4(), name=(middle := unique("m-dedicated")))
    assert await listed(records, *pools, made) == [first, middle, last]


async def test_servers_being_removed_and_the_platforms_own_are_not_listed(tables: Tables) -> None:
    records = records_of(tables)
    going = await tables.add_server(status="deprovisioning")
    own = await tables.add_server(server_type="platform")
    coming = await tables.add_server(name=(name := unique("coming")), status="provisioning")
    assert await listed(records, going, own, coming) == [name]


async def test_the_instances_on_a_server_are_those_whose_record_says_so(tables: Tables) -> None:
    records = records_of(tables)
    pool, other = await tables.add_server(), await tables.add_server()
    server = await records.server(pool)
    assert server
    there = {"db_host": server.host, "db_port": server.port}
    subscription = uuid4()
    wanted = [
        await tables.add_instance(name="a", db_server_id=pool, subscription_id=subscription),
        await tables.add_instance(name="b", db_server_id=pool, db_host="elsewhere", status="terminated"),
        await tables.add_instance(name="c", db_server_id=None, **there),
        await tables.add_instance(name="d", db_server_id=None, db_host=server.host, db_port=None),
    ]
    await tables.add_instance(name="x", db_server_id=other, **there)
    await tables.add_instance(name="y", db_server_id=None, db_host=server.host, db_port=server.port + 1)
    await tables.add_instance(name="z", db_server_id=None, db_host=None)
    found = await records.residents(server)
    assert [one.instance.id for one in found] == wanted
    assert [one.instance for one in found] == [await instance_of(tables, one) for one in wanted]
    assert found[0].subscription_id == subscription
    assert not any(one.ambiguous for one in found)
    assert [await records.home(one.instance) for one in found] == [server] * 4


async def test_an_instance_whose_address_several_servers_have_is_on_none_of_them_for_sure(
    tables: Tables,
) -> None:
    records = records_of(tables)
    host = unique("host")
    first, second = await tables.add_server(host=host), await tables.add_server(host=host, port=5433)
    sure = await tables.add_instance(name="a", db_server_id=first, db_host=host, db_port=None)
    address = await tables.add_instance(name="b", db_server_id=None, db_host=host, db_port=5432)
    unsure = await tables.add_instance(name="c", db_server_id=None, db_host=host, db_port=None)
    found: dict[str, list[tuple[UUID, bool]]] = {}
    for one in (first, second):
        server = await records.server(one)
        assert server
        found[str(server.port)] = [
            (resident.instance.id, resident.ambiguous) for resident in await records.residents(server)
        ]
    assert found == {"5432": [(sure, False), (address, False), (unsure, True)], "5433": [(unsure, True)]}
