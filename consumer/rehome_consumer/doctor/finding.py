"""A finding: one thing that is not as it should be. What, where, since when, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.model import RehearsalMark, Server
    from rehome_consumer.ports.operators import MigrationView

Severity = Literal["error", "warning", "info"]

Kind = Literal[
    "both_writable", "source_writable", "fence_removed", "source_still_fenced", "instance_down",
    "conf_mismatch", "connections_elsewhere", "stuck", "dead_lettered", "unsent_events", "waiting_for_operator",
    "dead_letter_missing", "queue_missing", "queue_not_consumed", "record_mismatch", "environment_mismatch",
    "record_without_server", "in_maintenance", "target_role_open", "leftover_scratch", "leftover_copy",
    "leftover_sessions", "leftover_role", "partial_backup", "leftover_backup", "unused_server",
    "leftover_conf_backup", "leftover_temp_file", "retirement_due", "stale_dead_letter", "not_ready", "not_checked",
    "shared_login", "leftover_rehearsal", "leftover_sync",
]  # fmt: skip
"""Stable words for what can be found; docs/operating.md explains each and says what to do."""

RepairKind = Literal[
    "send_events", "resend_event", "run_again", "drop_database", "end_sessions",
    "remove_backup", "remove_conf_backup", "unfence", "close_role", "remove_sync",
]  # fmt: skip
"""The kinds of repair; `rehome_consumer.doctor.repair` does them."""


@dataclass(frozen=True, slots=True)
class Action:
    """A repair that is safe.

    Attributes:
        repair_kind: what is done.
        migration: that it is done for; it must be unchanged since the snapshot when the repair starts.
        server: where, if it is on a server.
        thing: the name of what is changed: a database, a role, a file, a step.
    """

    repair_kind: RepairKind
    migration: MigrationView
    server: Server | None = None
    thing: str = ""


@dataclass(frozen=True, slots=True)
class Clearing:
    """The removal of what a rehearsal without a migration left in one place.

    Attributes:
        rehearsal: its id.
        server: where, if it is on a server; else in the backup place.
        mark: what it made there, if its mark is there.
        thing: the entry of the backup place.
    """

    rehearsal: UUID
    server: Server | None = None
    mark: RehearsalMark | None = None
    thing: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding.

    Attributes:
        kind: a stable word, for filters and metrics.
        severity: `error` (a customer is or may be affected), `warning` (look today) or `info`.
        where: the instance, server, queue or place.
        what: in words, with names.
        since: when it began, as far as that can be known.
        advice: what an operator does about it.
        repair: what `--repair` does; None when it does nothing about it.
        thing: the name of what it is about, where one `where` may have several findings of this kind.
        action: the repair.
        clearing: the repair where no migration is concerned.
    """

    kind: Kind
    severity: Severity
    where: str
    what: str
    advice: str
    since: datetime | None = None
    repair: str | None = None
    instance_id: UUID | None = None
    migration_id: UUID | None = None
    thing: str = ""
    action: Action | None = field(default=None, repr=False)
    clearing: Clearing | None = field(default=None, repr=False)

    @property
    def safe_to_repair(self) -> bool:
        """Whether there is a repair."""
        return self.action is not None or self.clearing is not None

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the same finding in a later check; `what` may hold a count that changes."""
        named = self.thing or (self.action.thing if self.action else "")
        return self.kind, self.where, named or str(self.migration_id)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "where": self.where,
            "what": self.what,
            "since": self.since,
            "safe_to_repair": self.safe_to_repair,
            "repair": self.repair,
            "advice": self.advice,
            "instance": self.instance_id,
            "migration": self.migration_id,
        }


def about(
    snapshot: InstanceSnapshot,
    kind: Kind,
    severity: Severity,
    what: str,
    advice: str,
    *,
    since: datetime | None = None,
    thing: str = "",
) -> Finding:
    """A finding about one instance."""
    return Finding(
        kind=kind,
        severity=severity,
        where=snapshot.where,
        what=what,
        advice=advice,
        since=since,
        instance_id=snapshot.id,
        migration_id=snapshot.migration.id if snapshot.migration else None,
        thing=thing,
    )


NOT_CHECKED = "fix what the error says, then run rehome doctor again: nothing is known about this part"
"""Advice where a check failed."""

SEVERITIES = ("error", "warning", "info")


def most_severe_first(findings: list[Finding]) -> list[Finding]:
    """In the order in which to read them."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.where, one.kind, one.what))
