"""The contract suites' servers in memory."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rehome_consumer.adapters.postgres.sessions import application_name
from sandbox.postgres.tenants import Tenant
from tests.contract.servers import PARTNERS, Change, Client, ProgressRecorder
from tests.fakes.copier import FakeCopier
from tests.fakes.databases import FakeDatabases
from tests.fakes.replicator import FakeReplicator
from tests.fakes.verifier import FakeVerifier
from tests.fakes.world import ADMIN, FakeDatabase, FakeRole, FakeSession, SessionEndedError, World, copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from rehome_consumer.model import Backup, Credentials, Secret, Server
    from rehome_consumer.ports import steps


@dataclass
class FakeClient:
    world: World
    server: Server
    session: FakeSession

    async def add_partner(self) -> None:
        self.world.write(self.server, self.session, "public.res_partner", (0, "new"))

    async def begin(self) -> None:
        self.session.at_work = True

    async def commit(self) -> None:
        self.session.at_work = False
        if self.session not in self.world.at(self.server).sessions:
            raise SessionEndedError

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[None]:
        self.session.running = True
        yield
        self.session.running = False


class FakeStage:
    """Servers in memory."""

    def __init__(self) -> None:
        self.world = World()
        self.databases: steps.Databases = FakeDatabases(self.world)
        self.replicator: steps.Replicator = FakeReplicator(self.world)
        self.copier: steps.Copier = FakeCopier(self.world)
        self.verifier: steps.Verifier = FakeVerifier(self.world)
        self.pool = self.world.add_server("pool-1", "shared")
        self.dedicated = self.world.add_server("dedicated-1", "dedicated")

    async def major(self) -> int:
        return self.world.at(self.pool).version // 10000

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
            identities={"public.import_log": "d", "public.res_company_users_rel": "d"},
            extensions={"plpgsql": "1.0", "pg_trgm": "1.6", "unaccent": "1.1"},
            settings=(("", 'search_path="$user", public'), (tenant.role, "TimeZone=Europe/Paris")),
            comment="A tenant's database; 100% theirs",
        )
        return tenant

    async def add_role(
        self, server: Server, name: str, *, superuser: bool = False, password: Secret | None = None
    ) -> None:
        known = password.reveal() if password else "theirs"
        self.world.at(server).roles[name] = FakeRole(name, known, superuser=superuser)

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
            await self.copier.restore(self.dedicated, scratch, backup, role, ProgressRecorder())
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
    async def forged(
        self, server: Server, login: Credentials, database: str, migration_id: UUID
    ) -> AsyncIterator[Client]:
        async with self.client(server, login, database) as client:
            self.world.at(server).sessions[-1].application = application_name(migration_id)
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
