"""What operators' tools need beyond the ports of steps and engine: reads of everything, and a few small repairs.

Steps and the engine never use these. Methods only read, unless they say that they change something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from rehome_consumer.ports.engine import Migration
from rehome_consumer.ports.steps import OdooConf, Platform

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.facts import RecordedFacts
    from rehome_consumer.model import Instance, OwnershipTag, Pause, RehearsalMark, Server

ROLLBACK_ASKED_FOR: Final = "rollback asked for"
REPLAYED: Final = "dead letter replayed"
DISCARDED: Final = "dead letter discarded"
REPAIRED: Final = "repaired by the doctor"
RETIRED: Final = "source retired"
LET_GO: Final = "let go outside of the window"
PRIORITIZED: Final = "priority changed"
DRAINED: Final = "asked for by a drain"
STARTED: Final = "asked for at the console"
ACTS: Final = frozenset(
    {ROLLBACK_ASKED_FOR, REPLAYED, DISCARDED, REPAIRED, RETIRED, LET_GO, PRIORITIZED, DRAINED, STARTED}
)
"""What lines of a history say that an operator has done. Their details are `signed`."""


def signed(by: str, why: str = "", what: str = "") -> str:
    """The detail of an act: `by NAME: WHY; WHAT`, each part as far as it is known.

    The name comes first: no text of others can stand where it is read.
    """
    who = f"by {by}" if by else ""
    return "; ".join(part for part in (": ".join(part for part in (who, why) if part), what) if part)


@dataclass(frozen=True, slots=True)
class MigrationView(Migration):
    """One migration and the step it is at (or was last).

    Attributes:
        step, step_state, tries, error, next_try_at: of that step; None when none was started.
        started_at, tried_at: when that step was started first, and last.
        progress_done, progress_total: its progress, in one unit, where it reports any.
        behind: of an upgrade that waits (state `waiting`), the migration for whose end it waits.
        priority: of one that is not over; 0 to 9, higher goes first.
        place_in_line, length_of_line: where it waits for slots, from 1, among those who wait for any of them.
    """

    to_plan: str
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
    priority: int | None = None
    place_in_line: int | None = None
    length_of_line: int | None = None


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
class ClaimHolder:
    """The holder of the claim on an instance: a session of the state database; `since` is for this step."""

    instance_id: UUID
    pid: int
    address: str
    since: datetime


@dataclass(frozen=True, slots=True)
class UnsentEvents:
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
        closed: whether no ordinary role may connect to the database, except rehome's short-lived roles.
        sessions: of the database (except rehome's own) and of the role anywhere.
        tag: the ownership tag, if the database has one.
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
        """Whether it exists and every part of the fence is in place."""
        return self.exists and self.closed and not self.can_login


@dataclass(frozen=True, slots=True)
class TaggedDatabase:
    """A database of rehome's, known by its ownership tag or by its name (`maker`: the migration that made it)."""

    name: str
    tag: OwnershipTag | None = None
    maker: UUID | None = None


@dataclass(frozen=True, slots=True)
class MigrationSessions:
    """Sessions that work for a migration, known by their application name or role."""

    migration_id: UUID
    count: int
    since: datetime


@dataclass(frozen=True, slots=True)
class FollowedSlot:
    """A slot that keeps WAL for a copy that follows its source.

    Attributes:
        retained: bytes of WAL that the server keeps for it.
        behind: bytes of WAL that the copy has not confirmed; None: nobody reads it before the stop (the witness).
    """

    migration_id: UUID
    retained: int
    behind: int | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """rehome's own things on one server.

    Attributes:
        short_lived: migrations that have a short-lived role there.
        followed: migrations that have something there by which a copy follows its source.
        slots: by which copies follow databases of this server.
        rehearsals: marks of rehearsals without a migration, under way or not.
    """

    databases: tuple[TaggedDatabase, ...] = ()
    sessions: tuple[MigrationSessions, ...] = ()
    short_lived: tuple[UUID, ...] = ()
    followed: tuple[UUID, ...] = ()
    slots: tuple[FollowedSlot, ...] = ()
    rehearsals: tuple[RehearsalMark, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupEntry:
    """An entry of the backup place.

    Attributes:
        kind: `backup` (sealed), `filestore` (its archive), or `partial` (either one, unfinished).
        migration_id, attempt: that it belongs to; None when the name does not say.
    """

    name: str
    kind: Literal["backup", "filestore", "partial"]
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
class QueueStatus:
    """A queue: messages that are ready (not those delivered and unacknowledged), and its consumers."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """What the reconciler uses of a dead letter."""

    id: str
    handler: str
    reason: str
    migration_id: UUID | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Resident:
    """An instance whose record says that its database is on a server.

    Attributes:
        subscription_id: of its customer, where the platform has one.
        ambiguous: the record names no server, and several are registered at its address.
    """

    instance: Instance
    subscription_id: UUID | None = None
    ambiguous: bool = False


class JournalViews(Protocol):
    """The journal, read for operators."""

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

    async def by_ids(self, ids: Collection[UUID]) -> list[MigrationView]:
        """The migrations with these ids, as far as the journal has them."""
        ...

    async def newest_moves(self, instance_id: UUID | None = None) -> list[MigrationView]:
        """Of each instance (or the one) its last migration that moved something, or may still do so."""
        ...

    async def moves_from(self, server_id: UUID, instances: Collection[UUID]) -> list[MigrationView]:
        """Of each of these instances its last migration as `newest_moves` has it, however long ago.

        And every open one whose instance was on this server when it was accepted.
        """
        ...

    async def steps(self, migration_id: UUID) -> list[dict[str, Any]]:
        """Every step of every attempt, in the order they were started."""
        ...

    async def facts(self, migration_id: UUID, attempt: int) -> RecordedFacts:
        """The facts of an attempt; secrets are None."""
        ...

    async def holders(self, instances: Collection[UUID]) -> dict[UUID, ClaimHolder]:
        """The holders of the claims on these instances, by instance."""
        ...

    async def dead_letters(self) -> list[DeadLetterRecord]:
        """Dead letters of open migrations' current attempts, as far as the engine could record them."""
        ...

    async def discarded(self, message_ids: Collection[str]) -> frozenset[str]:
        """Which of these messages operators have discarded as dead letters."""
        ...

    async def paused(self) -> Pause | None:
        """Who has paused all moves, since when and why; None: they go on."""
        ...

    async def unsent(self) -> list[UnsentEvents]:
        """Events that wait to be sent, by migration."""
        ...

    async def outbox_body(self, event_id: UUID) -> bytes | None:
        """The encoded event with this id from the outbox, or None when it is not there (any more)."""
        ...

    async def add_to_history(self, migration_id: UUID, what: str, detail: str) -> None:
        """Write a line into the migration's history."""
        ...


class Inspector(Protocol):
    """PostgreSQL servers, as their administrator sees them."""

    async def database_state(self, server: Server, database: str, role: str) -> DatabaseState:
        """The state of a tenant's database and role there."""
        ...

    async def inventory(self, server: Server) -> Inventory:
        """Rehome's own things there."""
        ...

    async def database_sizes(self, server: Server, databases: Collection[str]) -> dict[str, int]:
        """Bytes of those of these databases that are there, by name."""
        ...

    async def active_sessions(self, server: Server) -> int:
        """How many clients' statements run there at this moment; rehome's own are not counted."""
        ...


class BackupInventory(Protocol):
    """The backup place."""

    async def entries(self) -> list[BackupEntry]:
        """Everything in it that has one of rehome's names."""
        ...

    async def remove(self, name: str) -> None:
        """Remove one entry completely. Changes the backup place."""
        ...


class ConfBackups(OdooConf, Protocol):
    """odoo.conf, and rehome's files beside it."""

    async def conf_backups(self, instance: Instance) -> tuple[ConfBackup, ...]:
        """Backups and temporary files."""
        ...


class PlatformRecords(Platform, Protocol):
    """The platform's tables, and a list of the servers in them."""

    async def tenant_servers(self) -> list[Server]:
        """Every shared and every dedicated server that is not being taken away."""
        ...

    async def residents(self, server: Server) -> list[Resident]:
        """Every instance, in whatever status, whose record says that its database is on this server, by name."""
        ...


class QueueInspector(Protocol):
    """The broker's queues."""

    async def queues(self, names: Collection[str]) -> Mapping[str, QueueStatus]:
        """The status of each of these; those that do not exist are left out. Needs no permission."""
        ...

    async def missing_exchanges(self, names: Collection[str]) -> list[str]:
        """Those of these that do not exist. Needs no permission."""
        ...
