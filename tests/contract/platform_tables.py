"""The platform's tables as the contract suite fills and reads them: the fake's, and PostgreSQL's."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

from rehome_consumer.adapters.platform.instances import PostgresPlatform
from tests.fakes.platform import FakePlatform

if TYPE_CHECKING:
    import asyncpg

    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports import steps
    from sandbox.platform.tables import Platform as PlatformDatabases

    Rows = dict[UUID, dict[str, Any]]


class Tables(Protocol):
    """What the suite needs besides the port itself."""

    @property
    def platform(self) -> steps.Platform: ...

    @property
    def without_billing(self) -> steps.Platform: ...

    async def add_server(self, **columns: Any) -> UUID: ...

    async def add_instance(self, **columns: Any) -> UUID: ...

    async def add_plan(self, plan: str, since: str, **columns: Any) -> None: ...

    async def rows(self) -> Rows:
        """Every row of `instances` and `db_servers`, with all columns."""
        ...


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


class FakeTables:
    def __init__(self) -> None:
        self.platform = FakePlatform()
        self.without_billing = FakePlatform()
        self.without_billing.plans = None

    async def add_server(self, **columns: Any) -> UUID:
        return self.platform.add_server(**{"name": unique("server"), **columns})

    async def add_instance(self, **columns: Any) -> UUID:
        return self.platform.add_instance(**{"database_name": "acme", **columns})

    async def add_plan(self, plan: str, since: str, **columns: Any) -> None:
        row = {"plan_name": plan, "effective_date": datetime.fromisoformat(since), **columns}
        assert self.platform.plans is not None
        self.platform.plans.append(row)

    async def rows(self) -> Rows:
        return copy.deepcopy(self.platform.instances | self.platform.servers)


class PostgresTables:
    def __init__(
        self, databases: PlatformDatabases, instances: asyncpg.Pool[Any], billing: asyncpg.Pool[Any]
    ) -> None:
        self.databases = databases
        self.platform = PostgresPlatform(instances, billing)
        self.without_billing = PostgresPlatform(instances)

    async def add_server(self, **columns: Any) -> UUID:
        name = columns.pop("name", None) or unique("server")
        return await self.databases.add_server(
            name, self.databases.cluster, **{"host": name, "port": 5432, **columns}
        )

    async def add_instance(self, **columns: Any) -> UUID:
        return await self.databases.add_instance(columns.pop("database_name", "acme"), **columns)

    async def add_plan(self, plan: str, since: str, **columns: Any) -> None:
        row = {"plan_name": plan, "effective_date": datetime.fromisoformat(since), **columns}
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        async with self.databases.cluster.connect(self.databases.billing_database) as connection:
            await connection.execute(
                f"INSERT INTO plan_entitlements ({', '.join(row)}) VALUES ({places})",  # noqa: S608, test's names
                *row.values(),
            )

    async def rows(self) -> Rows:
        async with self.databases.cluster.connect(self.databases.instance_database) as connection:
            rows = [
                *await connection.fetch("SELECT * FROM instances"),
                *await connection.fetch("SELECT * FROM db_servers"),
            ]
        return {row["id"]: dict(row) for row in rows}


async def instance_of(tables: Tables, identity: UUID) -> Instance:
    instance = await tables.platform.instance(identity)
    assert instance
    return instance


async def server_of(tables: Tables, identity: UUID) -> Server:
    server = await tables.platform.server(identity)
    assert server
    return server


async def a_move(tables: Tables, **pool: Any) -> tuple[UUID, UUID, UUID]:
    """An instance on a pool, and a dedicated server made for it: ids of instance, pool, server."""
    source = await tables.add_server(**{"current_instances": 3, **pool})
    instance = await tables.add_instance(
        db_server_id=source,
        db_host=(await server_of(tables, source)).host,
        db_user="odoo_acme",
        db_type="shared",
        cpu_limit=2.0,
        memory_limit="4G",
        storage_limit="20G",
    )
    target = await a_dedicated_server(tables, instance)
    return instance, source, target


async def a_dedicated_server(tables: Tables, instance: UUID | None, **columns: Any) -> UUID:
    return await tables.add_server(
        **{
            "server_type": "dedicated",
            "dedicated_to_customer_id": uuid4(),
            "dedicated_to_instance_id": instance,
            "max_instances": 1,
            **columns,
        }
    )
