"""What was observed at one moment. Values only; what could not be read is None, and a `Trouble` says why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rehome_consumer.facts import RecordedFacts
from rehome_consumer.move import attempt_tag, backup_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.model import Conf, Instance, Server, Service
    from rehome_consumer.ports.operators import (
        BackupEntry,
        ClaimHolder,
        ConfBackup,
        DatabaseState,
        DeadLetterRecord,
        Inventory,
        MigrationView,
        QueueStatus,
        TaggedDatabase,
        UnsentEvents,
    )
    from rehome_consumer.ports.readiness import Cause


@dataclass(frozen=True, slots=True)
class Trouble:
    """A read that failed: of what, and why."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """One instance and its last migration that moved (or moves) something.

    Attributes:
        facts: of the migration's current attempt; secrets are None.
        home: the server that the record names.
        source, target: the migration's servers; without a migration, `source` is the home.
        source_state, target_state: the tenant's database and role there.
        on_target: the migration's own databases on the target, by their ownership tags.
        same_login: other instances on the source whose record names the role of this one there.
        files: rehome's files beside odoo.conf.
        stored: the migration's entries of the backup place.
        troubles: what could not be read.
    """

    id: UUID
    migration: MigrationView | None = None
    facts: RecordedFacts = field(default_factory=RecordedFacts)
    instance: Instance | None = None
    home: Server | None = None
    source: Server | None = None
    target: Server | None = None
    source_state: DatabaseState | None = None
    target_state: DatabaseState | None = None
    on_target: tuple[TaggedDatabase, ...] = ()
    same_login: tuple[Instance, ...] = ()
    conf: Conf | None = None
    files: tuple[ConfBackup, ...] = ()
    service: Service | None = None
    holder: ClaimHolder | None = None
    stored: tuple[BackupEntry, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def where(self) -> str:
        """Its name in findings."""
        return f"instance {self.instance.database if self.instance else '?'} {self.id}"

    @property
    def moving(self) -> bool:
        """Whether a migration of it is under way or waits."""
        return self.migration is not None and not self.migration.ended


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """One PostgreSQL server; `inventory` is None when it could not be read, and `trouble` says why."""

    server: Server
    inventory: Inventory | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one moment.

    Attributes:
        migrations: every migration that anything observed belongs to, by id.
        steps: of open migrations, the rows of all their steps.
        holders: who holds the claims, by instance.
        dead_letters: those in the queue; None when they were not read.
        recorded_dead_letters: those that the journal knows of, used when the queue was not read.
        queues: the broker's queues; None when it could not be asked.
        not_ready: what a consumer on the machine `host` lacks, with the settings of who looks.
    """

    now: datetime
    instances: tuple[InstanceSnapshot, ...] = ()
    servers: tuple[ServerSnapshot, ...] = ()
    migrations: Mapping[UUID, MigrationView] = field(default_factory=dict)
    steps: Mapping[UUID, list[dict[str, Any]]] = field(default_factory=dict)
    holders: Mapping[UUID, ClaimHolder] = field(default_factory=dict)
    unsent: tuple[UnsentEvents, ...] = ()
    dead_letters: tuple[DeadLetterRecord, ...] | None = None
    recorded_dead_letters: tuple[DeadLetterRecord, ...] = ()
    queues: Mapping[str, QueueStatus] | None = None
    stored: tuple[BackupEntry, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    not_ready: tuple[Cause, ...] = ()
    host: str = ""


def tag(migration: MigrationView) -> str:
    """The short name of a migration's current attempt in file names."""
    return attempt_tag(migration.id, migration.attempt)


def backup_name(migration: MigrationView) -> str:
    """The name of the current attempt's backup."""
    return backup_id(migration.id, migration.attempt)
