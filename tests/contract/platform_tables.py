"""The platform's tables as the contract suite fills and reads them: the fake's, and PostgreSQL's."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

import asyncpg

from consumer.adapters.platform import PostgresPlatform
from sandbox.platform_db import Platform as PlatformDatabases
from sandbox.platform_db import create_platform
from sandbox.postgres import Cluster
from sandbox.scratch import remove_scratch_directory, scratch_directory
from tests.fakes.platform import FakePlatform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consumer import ports

    Rows = dict[UUID, dict[str, Any]]


class Tables(Protocol):
    """What the suite needs besides the port itself."""

    @property
    def platform(self) -> ports.Platform: ...

    @property
    def without_billing(self) -> ports.Platform: ...

    async def add_server(self, **columns: Any) -> UUID: ...

    async def add_instance(self, **columns: Any) -> UUID: ...

    async def add_plan(self, plan: str, since: str, **columns: Any) -> None: ...

    async def rows(self) -> Rows:
        """Every row of `instances` and `db_servers`, whole."""
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


@asynccontextmanager
async def postgres_tables() -> AsyncIterator[PostgresTables]:
    """The real tables on a private server, for the length of the block."""
    directory = scratch_directory("rehome-test")
    cluster = await Cluster.create(directory / "platform", password="p%'$; #=")
    try:
        await cluster.start()
        databases = await create_platform(cluster, password="consumer")
        async with (
            asyncpg.create_pool(databases.instance_dsn, min_size=0, max_size=4) as instances,
            asyncpg.create_pool(databases.billing_dsn, min_size=0, max_size=1) as billing,
        ):
            yield PostgresTables(databases, instances, billing)
    finally:
        await cluster.destroy()
        remove_scratch_directory(directory)
