"""What a step is given: `Move`, one run of one step of one migration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from rehome_consumer.errors import NotFound, Refused, RehomeError
from rehome_consumer.facts import NEW_PASSWORD, NEW_USER, SOURCE, TARGET, TENANT_PASSWORD, TENANT_USER
from rehome_consumer.model import TERMINATED, Credentials
from rehome_events.envelope import CloudEvent

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Ports

T = TypeVar("T")

Event: TypeAlias = CloudEvent[Any]
"""What wakes a step: any event, with the migration and the attempt filled in by the engine."""

_NAME_LENGTH: Final = 63
"""Bytes of a PostgreSQL identifier; longer ones are cut silently."""
_SCRATCH: Final = "__rehome_"
_TAG_DIGITS: Final = 12
"""Hexadecimal digits of the migration's id in the short name of an attempt."""


class Move:
    """The event that woke the step, the ports, and what the step looks up.

    Instance, servers and logins are looked up at most once per run. Where a step depends on how things are now (the
    fence, the service, connections), it asks the port each time.

    Attributes:
        event: what woke the step; `data` is its data.
        migration_id, attempt: whose run it is.
        ports: everything a step may touch; each port is an attribute of its own, too.
    """

    def __init__(self, event: Event, ports: Ports) -> None:
        """Nothing is looked up yet.

        Raises:
            RehomeError: the event belongs to no migration.
        """
        if event.migrationid is None or event.attempt is None:
            raise RehomeError(f"event {event.id} reached a step without a migration")
        self.event = event
        self.data = event.data
        self.migration_id: UUID = event.migrationid
        self.attempt: int = event.attempt
        self.ports = ports
        self.policy = ports.policy
        self.clock = ports.clock
        self.facts = ports.facts
        self.platform = ports.platform
        self.database_service = ports.database_service
        self.databases = ports.databases
        self.replicator = ports.replicator
        self.copier = ports.copier
        self.verifier = ports.verifier
        self.odoo_conf = ports.odoo_conf
        self.runtime = ports.runtime
        self.filestore = ports.filestore
        self._instance: Instance | None = None
        self._servers: dict[str, Server] = {}
        self._tenant: Credentials | None = None
        self._new_tenant: Credentials | None = None

    @property
    def tag(self) -> str:
        """A short name for this attempt, fit for file names: `3f2b8c4d5e6f-1`."""
        return attempt_tag(self.migration_id, self.attempt)

    @property
    def backup_id(self) -> str:
        """The name of this attempt's backup."""
        return backup_id(self.migration_id, self.attempt)

    @property
    def rehearsal_id(self) -> str:
        """The name of the dump that this attempt's rehearsal makes and removes."""
        return f"{self.backup_id}-rehearsal"

    async def scratch_name(self) -> str:
        """The name of the copy until it is verified."""
        return scratch_name(self.tag, (await self.instance()).database)

    async def instance(self) -> Instance:
        """The instance's row.

        Raises:
            NotFound: it is no longer in the platform's table.
        """
        return self._instance or await self.instance_now()

    async def instance_now(self) -> Instance:
        """As `instance`, but looked up again: after long work, before its status is written."""
        self._instance = await self.platform.instance(self.data.instance_id)
        if self._instance is None:
            raise NotFound(
                f"instance {self.data.instance_id} is no longer in the platform's table `instances`"
            )
        return self._instance

    async def active_instance(self) -> Instance:
        """The instance's row, for a step that brings the move forward.

        Raises:
            NotFound: it is no longer in the platform's table.
            Refused: the customer has left meanwhile: nothing is stopped, copied or started for nobody.
        """
        instance = await self.instance()
        if instance.status == TERMINATED:
            raise Refused(
                f"instance {instance.id} was terminated during the migration: the move is undone, "
                "and the instance is not started"
            )
        return instance

    async def source(self) -> Server:
        """The shared server that the database is moved from. Raises NotFound."""
        return await self._server(SOURCE)

    async def target(self) -> Server:
        """The dedicated server that the database is moved to. Raises NotFound."""
        return await self._server(TARGET)

    async def tenant(self) -> Credentials:
        """The role and password that the tenant uses today; see `tenant_of`."""
        if self._tenant is None:
            self._tenant = await tenant_of(self.ports, await self.instance())
        return self._tenant

    async def new_tenant(self) -> Credentials:
        """The role and password that the tenant gets on the dedicated server; see `new_tenant_of`."""
        if self._new_tenant is None:
            self._new_tenant = await new_tenant_of(self.ports, await self.instance())
        return self._new_tenant

    async def recorded(self, fact: Fact[T]) -> T:
        """A fact that an earlier step has recorded.

        Raises:
            RehomeError: it has not.
        """
        value = await self.facts.recall(fact)
        if value is None:
            raise RehomeError(f"the journal lacks the fact {fact.name}, which an earlier step records")
        return value

    async def _server(self, fact: Fact[UUID]) -> Server:
        if fact.name not in self._servers:
            server_id = await self.facts.recall(fact)
            server = await self.platform.server(server_id) if server_id else None
            if server is None:
                raise NotFound(
                    f"the {fact.name} server {server_id or '(none was recorded)'} is not in the platform's table "
                    "`db_servers`"
                )
            self._servers[fact.name] = server
        return self._servers[fact.name]


async def tenant_of(ports: Ports, instance: Instance) -> Credentials:
    """The role and password in the tenant's odoo.conf, as the first look found them.

    Later steps rewrite odoo.conf, so only the first look counts.
    """
    password = await ports.facts.recall(TENANT_PASSWORD)
    user = await ports.facts.recall(TENANT_USER)
    if password is not None and user is not None:
        return Credentials(user, password)
    conf = await ports.odoo_conf.read(instance)
    password = await ports.facts.remember(TENANT_PASSWORD, conf.credentials.password)
    return Credentials(await ports.facts.remember(TENANT_USER, conf.credentials.user), password)


async def new_tenant_of(ports: Ports, instance: Instance) -> Credentials:
    """The role and password on the dedicated server: database-service's if it gave any, else today's."""
    user = await ports.facts.recall(NEW_USER)
    password = await ports.facts.recall(NEW_PASSWORD)
    today = await tenant_of(ports, instance)
    return Credentials(user or today.user, password or today.password)


def is_scratch_name(name: str, migration_id: UUID) -> bool:
    """Whether `scratch_name` gives such a name to a copy of an attempt of this migration."""
    return f"{_SCRATCH}{migration_id.hex[:_TAG_DIGITS]}-" in name


def attempt_tag(migration_id: UUID, attempt: int) -> str:
    """A short name for an attempt, fit for file and database names: `3f2b8c4d5e6f-1`."""
    return f"{migration_id.hex[:_TAG_DIGITS]}-{attempt}"


def backup_id(migration_id: UUID, attempt: int) -> str:
    """The name of an attempt's backup."""
    return f"{migration_id}-{attempt}"


def scratch_name(tag: str, database: str) -> str:
    """The name of a copy until it is verified; at most 63 bytes, and of no other attempt."""
    tail = f"{_SCRATCH}{tag}"
    return database.encode()[: _NAME_LENGTH - len(tail)].decode(errors="ignore") + tail
