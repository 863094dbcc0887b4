"""One thing that is not as it should be: what, where, since when, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.model import Server
    from rehome_consumer.ports.operators import MigrationView

Severity = Literal["error", "warning", "note"]

Kind = Literal[
    "two_writable", "source_open", "fence_lifted", "still_fenced", "down", "conf_differs", "connected_elsewhere",
    "stuck", "dead_lettered", "unsent", "waits_for_operator", "failed_without_dead_letter", "no_queue", "no_reader",
    "record_differs", "environment_differs", "no_home", "in_maintenance", "role_open",
    "scratch_left", "copy_left", "sessions_left", "role_left", "slot_left", "half_backup", "backup_left",
    "unused_server", "conf_backup", "temporary_file", "source_due", "dead_letter_of_ended", "unseen",
]  # fmt: skip
"""Stable words for what can be found; docs/operating.md says of each what it means and what to do."""

RepairKind = Literal[
    "send", "wake", "wake_afresh", "drop_databases", "end_sessions", "drop_slot",
    "remove_stored", "forget_conf", "unfence", "close_role",
]  # fmt: skip
"""What a repair can be; `rehome_consumer.doctor.repair` does them."""


@dataclass(frozen=True, slots=True)
class Action:
    """A repair that is safe.

    Attributes:
        deed: which.
        migration: on whose behalf; it must still be as it was seen when the repair begins.
        server: where, if it is on a server.
        thing: the name of what is acted on: a database, a role, a file, a step.
    """

    repair_kind: RepairKind
    migration: MigrationView
    server: Server | None = None
    thing: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding.

    Attributes:
        kind: a stable word, for filters and metrics.
        severity: `error` (a customer is or may be hit), `warning` (look today) or `note`.
        where: the instance, server, queue or place.
        what: in words, with names.
        since: when it began, as far as that can be known.
        advice: what a person does about it.
        repair: what `--repair` does; None when that touches nothing of it.
        thing: the name of what it is about, where there may be several such findings of one `where`.
        action: the repair.
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

    @property
    def key(self) -> tuple[str, str, str]:
        """By which the same finding is known again; `what` may hold a count that changes."""
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
            "safe_to_repair": self.action is not None,
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


UNSEEN = "mend what the error says, then look again: whatever is wrong there was not seen"
"""Advice where a look failed."""

SEVERITIES = ("error", "warning", "note")


def gravest_first(findings: list[Finding]) -> list[Finding]:
    """In the order in which to read them."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.where, one.kind, one.what))
