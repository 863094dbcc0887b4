"""Where the suites of `Databases`, `Copier` and `Verifier` play: servers in memory, and two real ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import asyncpg

from consumer.adapters.copy import PgCopier
from consumer.adapters.databases import PostgresDatabases
from consumer.adapters.postgres.marks import label_of, put_label
from consumer.adapters.postgres.sessions import application_name
from consumer.adapters.verification import PostgresVerifier
from consumer.context import current_migration
from consumer.model import Credentials, Mark, Secret, Server
from sandbox.databases import create_database, create_role, quoted
from sandbox.net import wait_until
from sandbox.postgres import SUPERUSER, Cluster
from sandbox.tenants import Tenant, create_tiny_tenant, nasty_password
from tests.fakes.copier import FakeCopier
from tests.fakes.databases import FakeDatabases
from tests.fakes.verifier import FakeVerifier
from tests.fakes.world import (
    ADMIN,
    FakeDatabase,
    FakeRole,
    FakeSession,
    LoginRefusedError,
    SessionEndedError,
    World,
    copied,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Literal
    from uuid import UUID

    from consumer import ports
    from consumer.model import Backup

REFUSED = (LoginRefusedError, asyncpg.PostgresError)
ENDED = (SessionEndedError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)

PARTNERS = 200
"""Rows of table res_partner in every tenant's database."""


class Client(Protocol):
    """Somebody connected, as an Odoo would be."""

    async def add_partner(self) -> None:
        """Write a row. Raises one of ENDED when the session was ended."""
        ...


class Stage(Protocol):
    """What the suites need besides the ports themselves."""

    databases: ports.Databases
    copier: ports.Copier
    verifier: ports.Verifier
    pool: Server
    dedicated: Server

    async def add_tenant(self) -> Tenant:
        """A new customer's database on the pool, with rows, sequences and objects."""
        ...

    async def add_role(self, server: Server, name: str, *, superuser: bool = False) -> None:
        """A role that may log in."""
        ...

    async def add_database(self, server: Server, name: str, owner: str) -> None:
        """An empty database without a mark."""
        ...

    async def pretend_restored(self, server: Server, database: str) -> None:
        """As if a backup had been restored into this scratch database."""
        ...

    async def prepare_transaction(self, tenant: Tenant) -> None:
        """Leave a transaction of the tenant's waiting for COMMIT PREPARED."""
        ...

    def client(self, server: Server, login: Credentials, database: str) -> Any:
        """An async context manager: a `Client` for its length. Raises one of REFUSED."""
        ...

    def stubborn_client(self, server: Server, login: Credentials, database: str) -> Any:
        """The same, for one that does not end when asked to."""
        ...

    async def copy_of(self, tenant: Tenant) -> str:
        """A true copy of the tenant's database beside it, made without any port; its name."""
        ...

    async def change(self, database: str, change: Change) -> None:
        """Change a database on the pool, as its administrator."""
        ...

    async def damage(self, backup: Backup) -> str:
        """Alter one of its files; the file's name."""
        ...

    async def cut_off_restore(self, scratch: str, backup: Backup, role: str) -> None:
        """Restore on the dedicated server, and cancel that half-way."""
        ...

    def left_over(self, server: Server, database: str, migration_id: UUID) -> Any:
        """The same as `client`, for a session that a lost run of this migration left."""
        ...

    async def partners(self, server: Server, database: str) -> int:
        """Rows of res_partner."""
        ...


@dataclass
class Told:
    """Notes that hear the progress and remember nothing."""

    heard: list[tuple[int, int]] = field(default_factory=list)

    async def progress(self, done: int, total: int) -> None:
        self.heard.append((done, total))

    async def remember(self, name: str, value: Any) -> Any:
        return value

    async def recall(self, name: str) -> Any:
        return None

    async def remember_secret(self, name: str, value: Secret) -> Secret:
        return value

    async def recall_secret(self, name: str) -> Secret | None:
        return None

    async def take_turn(self, resource: str, places: int) -> bool:
        return True

    async def give_turn(self, resource: str) -> None:
        """Nothing to give."""

    async def begun(self) -> frozenset[str]:
        return frozenset()

    async def seconds_per_step(self) -> dict[str, float]:
        return {}


def login_of(tenant: Tenant) -> Credentials:
    return Credentials(tenant.role, Secret(tenant.password))


def new_mark() -> Mark:
    """A scratch mark of a new migration, which this task works for from now on."""
    migration = uuid4()
    current_migration.set(migration)
    return Mark(migration, 1, "scratch")


def verified(mark: Mark) -> Mark:
    return replace(mark, state="verified")


@dataclass
class FakeClient:
    world: World
    server: Server
    session: FakeSession

    async def add_partner(self) -> None:
        self.world.write(self.server, self.session, "public.res_partner", (0, "new"))


@dataclass(frozen=True)
class Change:
    """A change of a database: the same one, in SQL and in memory."""

    sql: str
    fake: Callable[[FakeDatabase], None]


class FakeStage:
    """Servers in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.databases: ports.Databases = FakeDatabases(self.world)
        self.copier: ports.Copier = FakeCopier(self.world)
        self.verifier: ports.Verifier = FakeVerifier(self.world)
        self.pool = self.world.add_server("pool-1", "shared")
        self.dedicated = self.world.add_server("dedicated-1", "dedicated")

    async def add_tenant(self) -> Tenant:
        tenant = Tenant(f"tiny_{secrets.token_hex(4)}")
        there = self.world.at(self.pool)
        there.roles[tenant.role] = FakeRole(tenant.role, tenant.password)
        there.databases[tenant.database] = FakeDatabase(
            tenant.database,
            tenant.role,
            tables={
                "public.res_partner": [(number, f"Partner {number}") for number in range(1, PARTNERS + 1)],
                "public.sale_order": [(1000, "draft"), (1007, "sale")],
                "public.import_log": [("12:00", "twice"), ("12:00", "twice"), (None, None)],
                "large objects": [(16400, b"\x00\xff\x10\x20")],
            },
            sequences={"public.res_partner_id_seq": "last_value=200 is_called=true"},
            objects={
                "index": {"public.res_partner_parent_id_idx": "btree (parent_id)"},
                "constraint": {"public.res_partner.check_name": "validated=true"},
                "default definition": {"public.res_partner.active": "true"},
                "trigger": {"public.sale_order.count_change": "enabled=O"},
                "owner": {"table public.res_partner": tenant.role, "table public.sale_order": tenant.role},
            },
            extensions={"plpgsql": "1.0", "pg_trgm": "1.6", "unaccent": "1.1"},
            settings=(("", 'search_path="$user", public'), (tenant.role, "TimeZone=Europe/Paris")),
        )
        return tenant

    async def add_role(self, server: Server, name: str, *, superuser: bool = False) -> None:
        self.world.at(server).roles[name] = FakeRole(name, "theirs", superuser=superuser)

    async def add_database(self, server: Server, name: str, owner: str) -> None:
        self.world.at(server).databases[name] = FakeDatabase(name, owner)

    async def pretend_restored(self, server: Server, database: str) -> None:
        found = self.world.database(server, database)
        assert found.label
        found.label = replace(found.label, restored=True)

    async def copy_of(self, tenant: Tenant) -> str:
        copy = copied(self.world.database(self.pool, tenant.database))
        copy.name = f"{tenant.database}_copy"
        self.world.at(self.pool).databases[copy.name] = copy
        return copy.name

    async def change(self, database: str, change: Change) -> None:
        change.fake(self.world.database(self.pool, database))

    async def damage(self, backup: Backup) -> str:
        self.world.backups[backup.id].damaged = "dump/toc.dat"
        return "dump/toc.dat"

    async def cut_off_restore(self, scratch: str, backup: Backup, role: str) -> None:
        steps: list[str] = []

        async def cut(at: str) -> None:
            steps.append(at)
            if steps.count("copier.restore.table") > 1:
                raise asyncio.CancelledError

        undisturbed, self.world.pause = self.world.pause, cut
        with contextlib.suppress(asyncio.CancelledError):
            await self.copier.restore(self.dedicated, scratch, backup, role, Told())
        self.world.pause = undisturbed

    async def prepare_transaction(self, tenant: Tenant) -> None:
        self.world.database(self.pool, tenant.database).prepared.append("left open")

    @asynccontextmanager
    async def client(self, server: Server, login: Credentials, database: str) -> AsyncIterator[Client]:
        session = self.world.log_in(server, login.user, login.password.reveal(), database)
        try:
            yield FakeClient(self.world, server, session)
        finally:
            sessions = self.world.at(server).sessions
            if session in sessions:
                sessions.remove(session)

    @asynccontextmanager
    async def stubborn_client(
        self, server: Server, login: Credentials, database: str
    ) -> AsyncIterator[Client]:
        async with self.client(server, login, database) as client:
            self.world.at(server).sessions[-1].stubborn = True
            yield client

    @asynccontextmanager
    async def left_over(self, server: Server, database: str, migration_id: UUID) -> AsyncIterator[Client]:
        session = self.world.enter(
            self.world.at(server),
            ADMIN,
            self.world.database(server, database),
            application_name(migration_id),
        )
        yield FakeClient(self.world, server, session)

    async def partners(self, server: Server, database: str) -> int:
        return len(self.world.database(server, database).tables["public.res_partner"])


@dataclass
class RealClient:
    connection: asyncpg.Connection[asyncpg.Record]

    async def add_partner(self) -> None:
        await self.connection.execute(
            "INSERT INTO public.res_partner (name, autopost_bills) VALUES ('new', 'ask')", timeout=10
        )


@dataclass
class RealStage:
    """A pool and a dedicated server of our own."""

    pool_cluster: Cluster
    dedicated_cluster: Cluster
    backup_root: Path
    made: list[tuple[Server, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = server_of(self.pool_cluster, "pool-1", "shared")
        self.dedicated = server_of(self.dedicated_cluster, "dedicated-1", "dedicated")
        self.databases: ports.Databases = PostgresDatabases(session_limit=2.0)
        self.copier: ports.Copier = PgCopier(self.backup_root, jobs=2)
        self.verifier: ports.Verifier = PostgresVerifier(jobs=2)

    def cluster(self, server: Server) -> Cluster:
        return self.pool_cluster if server is self.pool else self.dedicated_cluster

    async def add_tenant(self) -> Tenant:
        tenant = Tenant(f"tiny_{secrets.token_hex(4)}")
        await create_tiny_tenant(self.pool_cluster, tenant)
        return tenant

    async def add_role(self, server: Server, name: str, *, superuser: bool = False) -> None:
        await create_role(self.cluster(server), name, nasty_password())
        if superuser:
            async with self.cluster(server).connect() as connection:
                await connection.execute(f"ALTER ROLE {quoted(name)} SUPERUSER")

    async def add_database(self, server: Server, name: str, owner: str) -> None:
        await create_database(self.cluster(server), name, owner=owner)

    async def pretend_restored(self, server: Server, database: str) -> None:
        async with self.cluster(server).connect() as connection:
            label = await label_of(connection, database, server.name)
            assert label
            await put_label(connection, database, replace(label, restored=True))

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
                self.copier.restore(self.dedicated, scratch, backup, role, Told())
            )

            async def waits() -> bool:
                return bool(await watching.fetchval(_RESTORER_WAITS))

            await wait_until(waits, what="pg_restore to wait for our lock", limit=30)
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
        connection = await asyncpg.connect(
            host=server.host,
            port=server.port,
            user=login.user,
            password=login.password.reveal(),
            database=database,
            timeout=10,
            server_settings={"application_name": application},
        )
        try:
            yield RealClient(connection)
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


_RESTORER_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'rehome\\_%' AND wait_event_type = 'Lock'"
)
_DATABASES = "SELECT datname FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate"
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> 'postgres'"


def server_of(cluster: Cluster, name: str, kind: Literal["shared", "dedicated"]) -> Server:
    """What `db_servers` has of a cluster."""
    return Server(
        id=uuid4(),
        name=name,
        host=cluster.host,
        port=cluster.port,
        kind=kind,
        status="active",
        admin=Credentials(SUPERUSER, Secret(cluster.password)),
    )
