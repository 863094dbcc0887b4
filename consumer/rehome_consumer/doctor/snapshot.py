"""What was seen of the world at one moment. Values only; what could not be seen is None, and a trouble says why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.facts import RecordedFacts
from rehome_consumer.move import attempt_tag, backup_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.model import Conf, Instance, Server, Service
    from rehome_consumer.ports.operators import (
        ConfBackup,
        DatabaseState,
        DeadLetterRecord,
        Holder,
        Inventory,
        MigrationView,
        QueueLook,
        Stored,
        TaggedDatabase,
        Unsent,
    )

GONE: Final = "terminated"
"""Status of an instance that has no service and no directory any more."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A look that failed: at what, and why."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """One instance and its last migration that moved (or moves) something.

    Attributes:
        facts: what the migration's present attempt remembers.
        home: the server that the record names.
        source, target: the migration's servers; without one, `source` is the home.
        source_side, target_side: the tenant's database and role there.
        on_target: the migration's own databases on the target, by their marks.
        files: ours beside odoo.conf.
        stored: the migration's entries of the backup place.
        troubles: what could not be seen.
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
    conf: Conf | None = None
    files: tuple[ConfBackup, ...] = ()
    service: Service | None = None
    holder: Holder | None = None
    stored: tuple[Stored, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @property
    def where(self) -> str:
        """How findings name it."""
        return f"instance {self.instance.database if self.instance else '?'} {self.id}"

    @property
    def moving(self) -> bool:
        """Whether a migration of it is under way or waits."""
        return self.migration is not None and not self.migration.ended


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """One PostgreSQL server; `inventory` is None when it could not be seen."""

    server: Server
    inventory: Inventory | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one moment.

    Attributes:
        migrations: every migration that anything seen belongs to, by id.
        steps: of open migrations, the rows of all their steps.
        holders: who is at work, by instance.
        dead_letters: the dead letters; None when they were not looked at.
        noted: what the journal knows of them, for then.
        queues: the broker's queues; None when it could not be asked.
    """

    now: datetime
    instances: tuple[InstanceSnapshot, ...] = ()
    servers: tuple[ServerSnapshot, ...] = ()
    migrations: Mapping[UUID, MigrationView] = field(default_factory=dict)
    steps: Mapping[UUID, list[dict[str, Any]]] = field(default_factory=dict)
    holders: Mapping[UUID, Holder] = field(default_factory=dict)
    unsent: tuple[Unsent, ...] = ()
    dead_letters: tuple[DeadLetterRecord, ...] | None = None
    noted: tuple[DeadLetterRecord, ...] = ()
    queues: Mapping[str, QueueLook] | None = None
    stored: tuple[Stored, ...] = ()
    troubles: tuple[Trouble, ...] = ()


def tag(migration: MigrationView) -> str:
    """The short name of a migration's present attempt in file names."""
    return attempt_tag(migration.id, migration.attempt)


def backup_name(migration: MigrationView) -> str:
    """The name of the present attempt's backup."""
    return backup_id(migration.id, migration.attempt)
