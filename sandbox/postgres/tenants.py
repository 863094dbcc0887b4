"""Tenants' databases: each has a role and a database of its own, with Odoo's data or little data of many kinds."""

from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from uuid import uuid4

from sandbox.postgres.databases import create_database, create_role, quoted, script
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.system.processes import run

_DATA = Path(__file__).parents[1] / "data"
ODOO_DUMP = _DATA / "odoo19-demo.dump"

# Odoo makes its databases with this collation (odoo/service/db.py), whatever the server's own is.
_OPTIONS = "LC_COLLATE 'C'"

# Every character that has broken a URL, an ini file, a shell, a connection string or an SQL statement.
_NASTY = """%(x)s%40 $HOME '"`;#=:/?@&\\ é"""


def nasty_password() -> str:
    """A new password with every character that is easily left unquoted."""
    return f"{token_urlsafe(9)}{_NASTY}{token_urlsafe(3)}"


@dataclass(frozen=True)
class Tenant:
    """A customer's database.

    Attributes:
        database: its name, and its role's unless ``role`` says otherwise.
        role: the ordinary role that owns it and everything in it.
        password: the role's.
        uuid: Odoo's ``database.uuid``, unique for each.
    """

    database: str
    role: str = ""
    password: str = field(default_factory=nasty_password, repr=False)
    uuid: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        if not self.role:
            object.__setattr__(self, "role", self.database)

    def dsn(self, cluster: Cluster) -> str:
        """Connection URL as the tenant, with its password."""
        return cluster.dsn(self.database, user=self.role, password=self.password)


async def create_tenant(cluster: Cluster, tenant: Tenant) -> None:
    """Make a tenant's role and its empty database."""
    await create_role(cluster, tenant.role, tenant.password)
    await create_database(cluster, tenant.database, owner=tenant.role, options=_OPTIONS)
    async with cluster.connect(tenant.database) as connection:
        await connection.execute(f"ALTER SCHEMA public OWNER TO {quoted(tenant.role)}")


async def create_tiny_tenant(cluster: Cluster, tenant: Tenant, *, large_object: bool = True) -> None:
    """Make a tenant whose small database has about every kind of object PostgreSQL knows (0.2 s).

    Args:
        cluster: a running server.
        tenant: the tenant.
        large_object: with one large object; a database that has some cannot be replicated.
    """
    await create_tenant(cluster, tenant)
    async with cluster.connect(tenant.database, user=tenant.role, password=tenant.password) as connection:
        await connection.execute(script("tiny_tenant.sql"))
        if large_object:
            await connection.execute(script("tiny_large_object.sql"))
    await set_uuid(cluster, tenant)


async def create_odoo_tenant(cluster: Cluster, tenant: Tenant, *, limit: float = 300.0) -> None:
    """Make a tenant with the demonstration data of Odoo 19: 402 tables, about 40 MB (5-10 s).

    Args:
        cluster: a running server.
        tenant: the tenant.
        limit: seconds for the restore.
    """
    await create_tenant(cluster, tenant)
    await restore(cluster, tenant, ODOO_DUMP, limit=limit)
    await set_uuid(cluster, tenant)


async def restore(cluster: Cluster, tenant: Tenant, dump: Path, *, limit: float = 300.0) -> None:
    """Restore a custom-format dump into a tenant's empty database, as the tenant.

    Args:
        cluster: a running server.
        tenant: the database's owner; it will own every object.
        dump: file made by ``pg_dump --format=custom``.
        limit: seconds.
    """
    command: list[str | Path] = [
        cluster.programs / "pg_restore",
        "--no-owner",
        "--no-privileges",
        "--exit-on-error",
        "--jobs=2",
    ]
    await run([*command, f"--dbname={tenant.database}", dump], limit=limit, env=_client_env(cluster, tenant))
    async with cluster.connect(tenant.database) as connection:
        await connection.execute("VACUUM (ANALYZE)")


async def set_uuid(cluster: Cluster, tenant: Tenant) -> None:
    """Write the tenant's uuid where Odoo keeps it."""
    async with cluster.connect(tenant.database) as connection:
        await connection.execute(
            "UPDATE ir_config_parameter SET value = $1 WHERE key = 'database.uuid'", tenant.uuid
        )


async def inflate(cluster: Cluster, tenant: Tenant, *, scale: float, limit: float = 900.0) -> None:
    """Fill a tenant's Odoo database with generated business data.

    Args:
        cluster: a running server.
        tenant: the database's owner, made by `create_odoo_tenant`.
        scale: 1 makes about 1 GB, in about a minute.
        limit: seconds.
    """
    command: list[str | Path] = [cluster.programs / "psql", "-X", "-q", "-v", f"scale={scale}"]
    superuser = {"PGUSER": SUPERUSER, "PGPASSWORD": cluster.password}
    await run(
        [*command, f"--dbname={tenant.database}", f"--file={_DATA / 'inflate-odoo19.sql'}"],
        limit=limit,
        env=_client_env(cluster, tenant) | superuser,
    )


def _client_env(cluster: Cluster, tenant: Tenant) -> dict[str, str]:
    """Server and login of PostgreSQL's client programs; a password in argv would be visible to all users."""
    return {
        "PGHOST": cluster.host,
        "PGPORT": str(cluster.port),
        "PGUSER": tenant.role,
        "PGPASSWORD": tenant.password,
        "PGCONNECT_TIMEOUT": "10",
    }
