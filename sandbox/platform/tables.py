"""The hosting platform's own databases, `instance` and `billing`, with rows for servers and instances."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sandbox.postgres.databases import create_database, create_role, major_version, quoted, script
from sandbox.postgres.server import Cluster

ROLE = "rehome"


@dataclass(frozen=True)
class Platform:
    """The two databases on one server, and the consumer's role in them.

    The role is an ordinary one: it reads and updates ``instances`` and ``db_servers``, has a schema of its
    own in ``instance``, and reads ``plan_entitlements``. `Cluster.connect` connects as superuser.

    Attributes:
        cluster: the running server that holds them.
        instance_database: name of the database with ``instances`` and ``db_servers``.
        billing_database: name of the database with ``plan_entitlements``.
        password: of the role ``rehome``.
    """

    cluster: Cluster
    instance_database: str
    billing_database: str
    password: str = field(repr=False)

    @property
    def instance_dsn(self) -> str:
        """For the consumer: connection URL of database ``instance``, with its password."""
        return self.cluster.dsn(self.instance_database, user=ROLE, password=self.password)

    @property
    def billing_dsn(self) -> str:
        """For the consumer: connection URL of database ``billing``, with its password."""
        return self.cluster.dsn(self.billing_database, user=ROLE, password=self.password)

    async def add_server(
        self, name: str, server: Cluster, *, server_type: str = "shared", **columns: object
    ) -> UUID:
        """Register a running PostgreSQL server as active and healthy.

        Args:
            name: unique in ``db_servers``.
            server: where it listens, and its superuser's password.
            server_type: ``platform``, ``shared`` or ``dedicated``.
            columns: further columns of ``db_servers``, or other values for these.

        Returns:
            The row's id.
        """
        row: dict[str, object] = {
            "name": name,
            "host": server.host,
            "port": server.port,
            "server_type": server_type,
            "status": "active",
            "health_status": "healthy",
            "postgres_version": await major_version(server),
            "admin_password": server.password,
        }
        return await self._insert("db_servers", {**row, **columns})

    async def add_instance(self, database_name: str, **columns: object) -> UUID:
        """Register a running instance.

        Args:
            database_name: of the instance; its real database too, unless ``db_name`` says otherwise.
            columns: further columns of ``instances`` (``db_server_id``, ``db_host``, ``db_port``,
                ``db_user``, ...), or other values for these.

        Returns:
            The row's id.
        """
        row: dict[str, object] = {
            "customer_id": uuid4(),
            "subscription_id": uuid4(),
            "name": database_name,
            "database_name": database_name,
            "subdomain": database_name,
            "db_name": database_name,
            "odoo_version": "19.0",
            "admin_email": f"admin@{database_name}.example.com",
            "status": "running",
            "plan_tier": "standard",
            "cpu_limit": 2,
            "memory_limit": "4G",
            "storage_limit": "20G",
        }
        return await self._insert("instances", {**row, **columns})

    async def fetch_instance(self, instance: UUID) -> dict[str, Any]:
        """The row of an instance, by column.

        Raises:
            LookupError: there is none.
        """
        async with self.cluster.connect(self.instance_database) as connection:
            row = await connection.fetchrow("SELECT * FROM instances WHERE id = $1", instance)
        if row is None:
            raise LookupError(f"no instance {instance} in database {self.instance_database}")
        return dict(row)

    async def _insert(self, table: str, row: dict[str, object]) -> UUID:
        names = ", ".join(quoted(name) for name in row)
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        async with self.cluster.connect(self.instance_database) as connection:
            identity: UUID = await connection.fetchval(
                f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id",  # noqa: S608, names are quoted
                *row.values(),
            )
        return identity


async def create_platform(
    cluster: Cluster,
    *,
    password: str,
    instance_database: str = "instance",
    billing_database: str = "billing",
) -> Platform:
    """Make the platform's databases on a running server; plans are there, servers and instances are not.

    Args:
        cluster: a running server.
        password: for the consumer's role, which all platforms on one server share: the last one set is valid.
        instance_database: name of the new database for ``instances`` and ``db_servers``.
        billing_database: name of the new database for ``plan_entitlements``.
    """
    await create_role(cluster, ROLE, password)
    await create_database(cluster, instance_database)
    await create_database(cluster, billing_database)
    async with cluster.connect(instance_database) as connection:
        await connection.execute(script("instance.sql"))
        await connection.execute(
            script("platform_grants.sql").format(role=quoted(ROLE), database=quoted(instance_database))
        )
    async with cluster.connect(billing_database) as connection:
        await connection.execute(script("billing.sql"))
        await connection.execute(f"GRANT SELECT ON plan_entitlements TO {quoted(ROLE)}")
    return Platform(cluster, instance_database, billing_database, password)
