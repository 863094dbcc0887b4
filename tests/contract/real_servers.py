"""The contract suites' real servers: two PostgreSQL clusters."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg

from rehome_consumer.adapters.backup.place import BackupPlace
from rehome_consumer.adapters.postgres.copier import PgCopier
from rehome_consumer.adapters.postgres.databases import PostgresDatabases
from rehome_consumer.adapters.postgres.kinds import Administrator
from rehome_consumer.adapters.postgres.ownership_tags import read_comment, write_comment
from rehome_consumer.adapters.postgres.replicator import PostgresReplicator
from rehome_consumer.adapters.postgres.sessions import application_name
from rehome_consumer.adapters.postgres.verification import PostgresVerifier
from rehome_consumer.model import Credentials, Secret, Server
from sandbox.postgres.databases import create_database, create_role, major_version, quoted
from sandbox.postgres.server import SUPERUSER, Cluster
from sandbox.postgres.tenants import Tenant, create_tiny_tenant, nasty_password
from sandbox.system.net import wait_until
from tests.contract.servers import Change, Client, ProgressRecorder
from tests.support.postgres_versions import clients_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Literal
    from uuid import UUID

    from rehome_consumer.model import Backup
    from rehome_consumer.ports import steps


@dataclass
class RealClient:
    connection: asyncpg.Connection[asyncpg.Record]
    again: dict[str, Any]

    async def add_partner(self) -> None:
        await self.connection.execute(
            "INSERT INTO public.res_partner (name, autopost_bills) VALUES ('new', 'ask')", timeout=10
        )

    async def begin(self) -> None:
        await self.connection.execute("BEGIN", timeout=10)

    async def commit(self) -> None:
        await self.connection.execute("COMMIT", timeout=10)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[None]:
        pid = self.connection.get_server_pid()
        look = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
        running = asyncio.create_task(self.connection.execute("SELECT pg_sleep(60)"))
        other = await asyncpg.connect(**self.again)

        async def seen() -> bool:
            return bool(await other.fetchval(look, pid))

        try:
            await wait_until(seen, what="a statement to run", limit=10)
            yield
            await other.execute("SELECT pg_cancel_backend($1)", pid)
            with contextlib.suppress(asyncpg.QueryCanceledError):
                await running
        finally:
            running.cancel()
            await other.close(timeout=10)


@dataclass
class RealStage:
    """A pool and a dedicated server."""

    pool_cluster: Cluster
    dedicated_cluster: Cluster
    backup_root: Path

    def __post_init__(self) -> None:
        self.pool = server_of(self.pool_cluster, "pool-1", "shared")
        self.dedicated = server_of(self.dedicated_cluster, "dedicated-1", "dedicated")
        self.backup_root.mkdir(exist_ok=True)
        self.databases: steps.Databases = PostgresDatabases(session_limit=2.0)
        self.copier: steps.Copier = PgCopier(
            BackupPlace(self.backup_root),
            clients_for(self.pool_cluster.programs, self.dedicated_cluster.programs),
            jobs=2,
        )
        self.replicator: steps.Replicator = PostgresReplicator()
        self.verifier: steps.Verifier = PostgresVerifier(jobs=2)

    def cluster(self, server: Server) -> Cluster:
        return self.pool_cluster if server is self.pool else self.dedicated_cluster

    async def major(self) -> int:
        return int(await major_version(self.pool_cluster))

    async def add_tenant(self) -> Tenant:
        tenant = Tenant(f"tiny_{secrets.token_hex(4)}")
        await create_tiny_tenant(self.pool_cluster, tenant)
        return tenant

    async def add_role(
        self, server: Server, name: str, *, superuser: bool = False, password: Secret | None = None
    ) -> None:
        await create_role(self.cluster(server), name, password.reveal() if password else nasty_password())
        if superuser:
            async with self.cluster(server).connect() as connection:
                await connection.execute(f"ALTER ROLE {quoted(name)} SUPERUSER")

    async def add_database(self, server: Server, name: str, owner: str) -> None:
        await create_database(self.cluster(server), name, owner=owner)

    async def pretend_restored(self, server: Server, database: str) -> None:
        async with self.cluster(server).connect() as connection:
            session = Administrator(connection)
            comment = await read_comment(session, database, server.name)
            assert comment
            await write_comment(session, database, replace(comment, restored=True))

    async def copy_of(self, tenant: Tenant) -> str:
        copy = f"{tenant.database}_copy"
        await create_database(self.pool_cluster, copy, owner=tenant.role, template=tenant.database)
        async with self.pool_cluster.connect() as connection:  # settings do not come from the template
            await connection.execute(f'ALTER DATABASE {quoted(copy)} SET search_path = "$user", public')
            await connection.execute(
                f"ALTER ROLE {quoted(tenant.role)} IN DATABASE {quoted(copy)} SET timezone = 'Europe/Paris'"
            )
        return copy

    async def change(self, database: str, change: Change) -> None:
        async with self.pool_cluster.connect(database) as connection:
            await connection.execute(change.sql)

    async def damage(self, backup: Backup) -> str:
        largest = max((backup.place / "dump").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        return largest.name

    async def cut_off_restore(self, scratch: str, backup: Backup, role: str) -> None:
        async with (
            self.dedicated_cluster.connect() as watching,
            self.dedicated_cluster.connect(scratch) as holding,
            holding.transaction(),
        ):
            await holding.execute("LOCK TABLE pg_catalog.pg_sequence IN SHARE MODE")  # none can be made
            restoring = asyncio.create_task(
                self.copier.restore(self.dedicated, scratch, backup, role, ProgressRecorder())
            )

            async def waits() -> bool:
                return bool(await watching.fetchval(RESTORER_WAITS))

            await wait_until(waits, what="pg_restore to wait for the lock", limit=30)
            restoring.cancel()
            await asyncio.gather(restoring, return_exceptions=True)

    async def prepare_transaction(self, tenant: Tenant) -> None:
        async with self.pool_cluster.connect(
            tenant.database, user=tenant.role, password=tenant.password
        ) as connection:
            await connection.execute("BEGIN; DELETE FROM res_users; PREPARE TRANSACTION 'left open'")

    @asynccontextmanager
    async def client(
        self, server: Server, login: Credentials, database: str, application: str = ""
    ) -> AsyncIterator[Client]:
        where: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": login.user,
            "password": login.password.reveal(),
            "database": database,
            "timeout": 10,
        }
        connection = await asyncpg.connect(**where, server_settings={"application_name": application})
        try:
            yield RealClient(connection, where)
        finally:
            await connection.close(timeout=10)

    @asynccontextmanager
    async def stubborn_client(
        self, server: Server, login: Credentials, database: str
    ) -> AsyncIterator[Client]:
        async with self.client(server, login, database) as client:
            assert isinstance(client, RealClient)
            pid = client.connection.get_server_pid()
            os.kill(pid, signal.SIGSTOP)
            try:
                yield client
            finally:
                os.kill(pid, signal.SIGCONT)

    def left_over(
        self, server: Server, database: str, migration_id: UUID
    ) -> AbstractAsyncContextManager[Client]:
        return self.client(server, server.admin, database, application_name(migration_id))

    def forged(
        self, server: Server, login: Credentials, database: str, migration_id: UUID
    ) -> AbstractAsyncContextManager[Client]:
        return self.client(server, login, database, application_name(migration_id))

    async def partners(self, server: Server, database: str) -> int:
        async with self.cluster(server).connect(database) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM public.res_partner"))

    async def clean(self) -> None:
        """Remove what a test left: its databases and roles, so that the next one finds bare servers."""
        for cluster in (self.pool_cluster, self.dedicated_cluster):
            async with cluster.connect() as connection:
                for row in await connection.fetch("SELECT gid, database FROM pg_prepared_xacts"):
                    async with cluster.connect(row["database"]) as inside:
                        await inside.execute(f"ROLLBACK PREPARED '{row['gid']}'")
                for row in await connection.fetch(_DATABASES):
                    await connection.execute(f"DROP DATABASE {quoted(row['datname'])} WITH (FORCE)")
                for row in await connection.fetch(_ROLES):
                    await connection.execute(f"DROP ROLE {quoted(row['rolname'])}")


RESTORER_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rehome\\_%' AND wait_event_type = 'Lock'"
)
_DATABASES = "SELECT datname FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate"
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> 'postgres'"


def server_of(cluster: Cluster, name: str, kind: Literal["shared", "dedicated"]) -> Server:
    """A cluster's row of `db_servers`."""
    return Server(
        id=uuid4(),
        name=name,
        host=cluster.host,
        port=cluster.port,
        kind=kind,
        status="active",
        admin=Credentials(SUPERUSER, Secret(cluster.password)),
    )
