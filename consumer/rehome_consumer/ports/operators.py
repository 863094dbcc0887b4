"""What operators' tools need of the world beyond `ports`: looks at everything, and a few small repairs.

Steps and the engine never see these. Looks change nothing; what does change something says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.model import Conf, Instance, OwnershipTag, Server, Service


@dataclass(frozen=True, slots=True)
class MigrationView:
    """One migration and the step it is at (or was last).

    Attributes:
        step, step_state, tries, error, next_try_at: of that step; None when none was begun.
        started_at, tried_at: when that step was started first, and last.
        progress_done, progress_total: how far it is, in one unit, where it tells.
        behind: of an upgrade that waits (state `waiting`), the migration for whose end it does.
    """

    id: UUID
    instance_id: UUID
    attempt: int
    state: str
    past_pivot: bool
    to_plan: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    step: str | None = None
    step_state: str | None = None
    tries: int | None = None
    error: str | None = None
    next_try_at: datetime | None = None
    started_at: datetime | None = None
    tried_at: datetime | None = None
    progress_done: int | None = None
    progress_total: int | None = None
    behind: UUID | None = None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.ended_at is not None


def waiting_view(*, behind: UUID, behind_state: str, behind_over: bool, **columns: Any) -> MigrationView:
    """An upgrade that waits for the end of another migration, which is in this state.

    Args:
        behind: the other migration.
        behind_state: its state.
        behind_over: whether it is over by now.
        columns: id, instance_id, to_plan, created_at, updated_at, next_try_at.
    """
    why = (
        f"migration {behind} is over ({behind_state}): this upgrade goes on at its next try"
        if behind_over
        else f"migration {behind} holds the instance ({behind_state}): this upgrade waits for its end"
    )
    return MigrationView(
        **columns, attempt=1, state="waiting", past_pivot=False, reason=None, ended_at=None, step="accept",
        step_state="waiting", tries=0, error=why, behind=behind,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the claim on an instance: a session of the state database."""

    instance_id: UUID
    pid: int
    address: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Unsent:
    """Events of a migration that wait to be sent; `first` is the type of the first of them."""

    migration_id: UUID
    instance_id: UUID
    count: int
    since: datetime
    first: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A completed migration whose source was not retired; `until` is the end of its retention."""

    id: UUID
    instance_id: UUID
    attempt: int
    ended_at: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """How a tenant's database and role are on one server.

    Attributes:
        connection_limit: None when the database is not there.
        can_login: None when the role is not there.
        closed: whether no ordinary role may connect to the database, our short-lived ones excepted.
        sessions: of the database (ours excepted) and of the role anywhere.
        mark: ours, if the database carries one.
    """

    database: str
    role: str
    connection_limit: int | None
    can_login: bool | None
    closed: bool = False
    bytes: int | None = None
    sessions: int = 0
    tag: OwnershipTag | None = None

    @property
    def exists(self) -> bool:
        """Whether the database is there."""
        return self.connection_limit is not None

    @property
    def open(self) -> bool:
        """Whether the tenant could write to it."""
        return self.exists and not self.closed and bool(self.can_login)

    @property
    def fenced(self) -> bool:
        """Whether it is there, and closed by every door of the fence."""
        return self.exists and self.closed and not self.can_login


@dataclass(frozen=True, slots=True)
class TaggedDatabase:
    """A database that is ours by its comment (`mark`) or by its name (`maker`: the migration that made it)."""

    name: str
    tag: OwnershipTag | None = None
    maker: UUID | None = None


@dataclass(frozen=True, slots=True)
class OurSessions:
    """Sessions that work for a migration, by the name that they carry."""

    migration_id: UUID
    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot with a name of ours; `kept_bytes` of log are held back for it."""

    name: str
    active: bool
    kept_bytes: int | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is ours on one server. `short_lived` are migrations of which a short-lived role is there."""

    databases: tuple[TaggedDatabase, ...] = ()
    sessions: tuple[OurSessions, ...] = ()
    short_lived: tuple[UUID, ...] = ()
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry of the backup place.

    Attributes:
        kind: `backup` (sealed), `filestore` (its archive), or `half` (of either).
        migration_id, attempt: whose; None when the name does not tell.
    """

    name: str
    kind: Literal["backup", "filestore", "half"]
    modified: datetime
    migration_id: UUID | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class ConfBackup:
    """A file of rehome's beside an odoo.conf: a backup (`tag` names the attempt), or a temporary file (no tag)."""

    name: str
    tag: str | None
    modified: datetime


@dataclass(frozen=True, slots=True)
class QueueLook:
    """A queue: messages that are ready (not those in somebody's hand), and readers."""

    ready: int
    readers: int


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter, as far as the reconciler cares."""

    id: str
    handler: str
    reason: str
    migration_id: UUID | None
    since: datetime | None


class Views(Protocol):
    """The journal, as operators see it."""

    async def migrations(
        self, wanted: UUID | None = None, limit: int = 50, *, ended: bool = True
    ) -> list[MigrationView]:
        """Newest first; `wanted` is an instance's or a migration's id, `ended` whether those over count."""
        ...

    async def waiting(self, wanted: UUID | None = None) -> list[MigrationView]:
        """Upgrades that wait for the end of another migration of their instance; `wanted` as `migrations` takes it.

        Each in state `waiting` at its first step, under the id that its migration will have.
        """
        ...

    async def those(self, ids: Collection[UUID]) -> list[MigrationView]:
        """The migrations with these ids, as far as the journal has them."""
        ...

    async def newest_moves(self, instance_id: UUID | None = None) -> list[MigrationView]:
        """Of each instance (or the one) its last migration that moved something, or may still do so."""
        ...

    async def steps(self, migration_id: UUID) -> list[dict[str, Any]]:
        """Every step of every attempt, in the order they were begun."""
        ...

    async def facts(self, migration_id: UUID, attempt: int) -> dict[str, Any]:
        """What an attempt noted; secrets are None."""
        ...

    async def holders(self, instances: Collection[UUID]) -> dict[UUID, Holder]:
        """Who is at work on which of these instances."""
        ...

    async def dead_letters(self) -> list[DeadLetterRecord]:
        """Dead letters of open migrations' present attempts, as far as the engine could note them."""
        ...

    async def unsent(self) -> list[Unsent]:
        """Events that wait to be sent, by migration."""
        ...

    async def told(self, event_id: UUID) -> bytes | None:
        """An event that was put into the outbox, or None when it is not there (any more)."""
        ...

    async def add_to_history(self, migration_id: UUID, what: str, detail: str) -> None:
        """Write a line into the migration's history."""
        ...


class Inspector(Protocol):
    """PostgreSQL servers, as their administrator sees them."""

    async def database_state(self, server: Server, database: str, role: str) -> DatabaseState:
        """How a tenant's database and role are there."""
        ...

    async def inventory(self, server: Server) -> Inventory:
        """What is ours there."""
        ...

    async def drop_slot(self, server: Server, name: str) -> None:
        """Drop a replication slot that nobody uses. Changes the server."""
        ...


class BackupInventory(Protocol):
    """The backup place."""

    async def entries(self) -> list[Stored]:
        """Everything in it that has a name of ours."""
        ...

    async def remove(self, name: str) -> None:
        """Remove one entry, whole. Changes the place."""
        ...


class ConfBackups(Protocol):
    """rehome's files beside odoo.conf, and the file itself."""

    async def read(self, instance: Instance) -> Conf:
        """As `OdooConf.read`."""
        ...

    async def conf_backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        """Backups and temporary files."""
        ...

    async def remove_backup(self, instance: Instance, attempt_tag: str) -> None:
        """As `OdooConf.remove_backup`. Changes the directory."""
        ...


class Records(Protocol):
    """The platform's tables."""

    async def instance(self, instance_id: UUID) -> Instance | None:
        """As `Platform.instance`."""
        ...

    async def home(self, instance: Instance) -> Server | None:
        """As `Platform.home`."""
        ...

    async def server(self, server_id: UUID) -> Server | None:
        """As `Platform.server`."""
        ...

    async def dedicated_server(self, instance_id: UUID) -> Server | None:
        """As `Platform.dedicated_server`."""
        ...

    async def servers(self) -> list[Server]:
        """Every shared and every dedicated server."""
        ...


class Finder(Protocol):
    """Whatever runs the instances."""

    async def find(self, instance: Instance) -> Service:
        """As `Runtime.find`."""
        ...


class QueueLooks(Protocol):
    """The broker's queues, from outside."""

    async def queues(self, names: Collection[str]) -> Mapping[str, QueueLook]:
        """How each of these is; those that are not there are left out. Needs no permission."""
        ...


class Alone(Protocol):
    """Turns among tools."""

    def alone(self, what: str) -> AbstractAsyncContextManager[None]:
        """While the block lasts no other tool does `what`. Raises TimedOut when another one does."""
        ...
