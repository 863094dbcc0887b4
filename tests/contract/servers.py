"""What the suites of `Databases`, `Copier` and `Verifier` need besides the ports themselves: servers and tenants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

import asyncpg

from rehome_consumer.context import current_migration
from rehome_consumer.model import Credentials, OwnershipTag, Secret, Server
from sandbox.postgres.tenants import nasty_password
from tests.fakes.world import LoginRefusedError, SessionEndedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from uuid import UUID

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import Backup
    from rehome_consumer.ports import steps
    from sandbox.postgres.tenants import Tenant
    from tests.fakes.world import FakeDatabase

T = TypeVar("T")

REFUSED = (LoginRefusedError, asyncpg.PostgresError)
ENDED = (SessionEndedError, asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)

PARTNERS = 200
"""Rows of table res_partner in every tenant's database."""


@dataclass(frozen=True)
class Change:
    """A change of a database: the same one, in SQL and in memory."""

    sql: str
    fake: Callable[[FakeDatabase], None]


class Client(Protocol):
    """A connected client, as Odoo is one."""

    async def add_partner(self) -> None:
        """Write a row. Raises one of ENDED when the session was ended."""
        ...

    async def begin(self) -> None:
        """Open a transaction."""
        ...

    async def commit(self) -> None:
        """End it. Raises one of ENDED when the session was ended."""
        ...

    def statement(self) -> Any:
        """An async context manager, in which a statement of it runs."""
        ...


class Stage(Protocol):
    """A pool and a dedicated server, the ports on them, and what else the suites need."""

    databases: steps.Databases
    copier: steps.Copier
    replicator: steps.Replicator
    verifier: steps.Verifier
    pool: Server
    dedicated: Server

    async def major(self) -> int:
        """The version of all servers and client programs: what is installed here."""
        ...

    async def add_tenant(self) -> Tenant:
        """A new customer's database on the pool, with rows, sequences and objects."""
        ...

    async def add_role(
        self, server: Server, name: str, *, superuser: bool = False, password: Secret | None = None
    ) -> None:
        """A role that may log in."""
        ...

    async def add_database(self, server: Server, name: str, owner: str) -> None:
        """An empty database without an ownership tag."""
        ...

    async def pretend_restored(self, server: Server, database: str) -> None:
        """As if a backup had been restored into this scratch database."""
        ...

    async def prepare_transaction(self, tenant: Tenant) -> None:
        """Leave a transaction of the tenant's that waits for COMMIT PREPARED."""
        ...

    def client(self, server: Server, login: Credentials, database: str) -> Any:
        """An async context manager that gives a `Client`. Raises one of REFUSED."""
        ...

    def stubborn_client(self, server: Server, login: Credentials, database: str) -> Any:
        """The same, for a client whose session does not end when it is terminated."""
        ...

    async def copy_of(self, tenant: Tenant) -> str:
        """An exact copy of the tenant's database on the same server, made without any port; its name."""
        ...

    async def change(self, database: str, change: Change) -> None:
        """Change a database on the pool, as its administrator."""
        ...

    async def damage(self, backup: Backup) -> str:
        """Alter one of its files; the file's name."""
        ...

    async def cut_off_restore(self, scratch: str, backup: Backup, role: str) -> None:
        """Restore on the dedicated server, and cancel it before it is done."""
        ...

    def left_over(self, server: Server, database: str, migration_id: UUID) -> Any:
        """The same as `client`, for a session that a lost run of this migration left."""
        ...

    def forged(self, server: Server, login: Credentials, database: str, migration_id: UUID) -> Any:
        """The same as `client`, with the session name of this migration."""
        ...

    async def partners(self, server: Server, database: str) -> int:
        """Rows of res_partner."""
        ...


@dataclass
class ProgressRecorder:
    """Port `Facts` that records the reported progress and remembers nothing."""

    reported: list[tuple[int, int]] = field(default_factory=list)

    async def progress(self, done: int, total: int) -> None:
        self.reported.append((done, total))

    async def remember(self, fact: Fact[T], value: T) -> T:
        return value

    async def recall(self, fact: Fact[T]) -> T | None:
        return None

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> None:
        """They are free."""

    async def release_slots(self, resources: Collection[str]) -> None:
        """There are no slots."""

    async def paused(self) -> None:
        """Nobody has."""

    async def started(self) -> frozenset[str]:
        return frozenset()

    async def earlier_consumers(self) -> int:
        return 0

    async def seconds_per_step(self) -> dict[str, float]:
        return {}


def login_of(tenant: Tenant) -> Credentials:
    return Credentials(tenant.role, Secret(tenant.password))


A_ROW_MORE = Change(
    "INSERT INTO public.import_log (line) VALUES ('later')",
    lambda database: database.tables["public.import_log"].append(("later", "later")),
)
"""Users write."""


def new_tag() -> OwnershipTag:
    """A scratch tag of a new migration, which this task works for from now on."""
    migration = uuid4()
    current_migration.set(migration)
    return OwnershipTag(migration, 1, "scratch")


def verified(tag: OwnershipTag) -> OwnershipTag:
    return replace(tag, state="verified")


def new_login(name: str = 'acme\'s; "new" role') -> Credentials:
    return Credentials(name, Secret(nasty_password()))


async def a_scratch(stage: Stage, tenant: Tenant, login: Credentials, tag: OwnershipTag) -> str:
    """Role and scratch database on the dedicated server, as the step `provision` leaves them."""
    facts = await stage.databases.database_facts(stage.pool, tenant.database, tenant.role)
    name = f"{tenant.database}__rehome"
    await stage.databases.make_role(stage.dedicated, login, facts.role, facts.grantees)
    await stage.databases.make_scratch(stage.dedicated, name, facts, login.user, tag)
    return name


async def a_promoted(stage: Stage, tenant: Tenant, login: Credentials, tag: OwnershipTag) -> str:
    """The tenant's database on the dedicated server under its final name."""
    scratch = await a_scratch(stage, tenant, login, tag)
    await stage.pretend_restored(stage.dedicated, scratch)
    await stage.databases.promote(stage.dedicated, scratch, tenant.database, login.user, verified(tag))
    return tenant.database
