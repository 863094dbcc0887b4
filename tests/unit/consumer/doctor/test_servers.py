"""The reconciler's findings about servers and the backup place: what migrations left, and unused servers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rehome_consumer.doctor.servers import findings, not_ready
from rehome_consumer.doctor.snapshot import InstanceSnapshot, ServerSnapshot, Trouble
from rehome_consumer.model import OwnershipTag
from rehome_consumer.ports.operators import (
    BackupEntry,
    ClaimHolder,
    Inventory,
    MigrationSessions,
    TaggedDatabase,
)
from rehome_consumer.ports.readiness import Cause
from tests.support.snapshots import (
    DEDICATED,
    INSTANCE,
    MIGRATION,
    POOL,
    a_snapshot,
    a_view,
    ago,
    kinds,
    moved,
    on_pool,
)

if TYPE_CHECKING:
    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import Snapshot
    from rehome_consumer.ports.operators import MigrationView

STRANGER = UUID(int=0x99, version=4)
HOLDER = ClaimHolder(INSTANCE, 1, "10.0.0.1", ago(seconds=5))


def scratch(of: UUID = MIGRATION, attempt: int = 1) -> TaggedDatabase:
    return TaggedDatabase(f"acme__rehome_{of.hex[:12]}-{attempt}", tag=OwnershipTag(of, attempt, "scratch"))


VERIFIED = TaggedDatabase("acme", tag=OwnershipTag(MIGRATION, 1, "verified"))
MAKING = TaggedDatabase(f"rehome_making_{MIGRATION.hex}", maker=MIGRATION)
SESSIONS = MigrationSessions(MIGRATION, 2, ago(hours=1))
SEALED = BackupEntry(f"{MIGRATION}-1", "backup", ago(hours=1), MIGRATION, 1)
PARTIAL = BackupEntry(f".{MIGRATION}-1.partial", "partial", ago(hours=1), MIGRATION, 1)


def on_server(view: MigrationView | str, *stored: BackupEntry, **inventory: Any) -> Snapshot:
    """A migration in a state, things on the pool, and things in the backup place."""
    view = a_view(view) if isinstance(view, str) else view
    there = ServerSnapshot(POOL, Inventory(**inventory))
    return a_snapshot(servers=(there,), migrations={MIGRATION: view}, stored=stored)


def found(snapshot: Snapshot) -> dict[str, Finding]:
    return {one.kind: one for one in findings(snapshot)}


LEFT: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "a scratch database": ({"databases": (scratch(),)}, "leftover_scratch", "drop_database"),
    "one that was being created": ({"databases": (MAKING,)}, "leftover_scratch", "drop_database"),
    "one that a tenant commented so": (
        {"databases": (replace(VERIFIED, tag=OwnershipTag(MIGRATION, 1, "scratch")),)},
        "leftover_scratch",
        None,
    ),
    "a verified copy": ({"databases": (VERIFIED,)}, "leftover_copy", None),
    "sessions": ({"sessions": (SESSIONS,)}, "leftover_sessions", "end_sessions"),
    "a short-lived role": ({"short_lived": (MIGRATION,)}, "leftover_role", "end_sessions"),
    "what a copy followed by": ({"followed": (MIGRATION,)}, "leftover_sync", "remove_sync"),
}


@pytest.mark.parametrize(("inventory", "kind", "repair_kind"), LEFT.values(), ids=LEFT)
def test_what_a_migration_that_is_over_left_on_a_server_is_found(
    inventory: dict[str, Any], kind: str, repair_kind: str | None
) -> None:
    finding = found(on_server("rolled_back", **inventory))[kind]
    assert (finding.action.repair_kind if finding.action else None) == repair_kind
    assert "is rolled_back" in finding.what
    assert finding.migration_id == MIGRATION


@pytest.mark.parametrize(("inventory", "kind", "repair_kind"), LEFT.values(), ids=LEFT)
def test_what_belongs_to_an_unknown_migration_is_found_and_left_alone(
    inventory: dict[str, Any], kind: str, repair_kind: str | None
) -> None:
    finding = found(replace(on_server("rolled_back", **inventory), migrations={}))[kind]
    assert (finding.action, finding.repair) == (None, None)
    assert "is unknown to this journal" in finding.what


@pytest.mark.parametrize(("inventory", "kind", "repair_kind"), LEFT.values(), ids=LEFT)
def test_what_a_migration_under_way_needs_is_not_found(
    inventory: dict[str, Any], kind: str, repair_kind: str | None
) -> None:
    snapshot = replace(on_server("provisioned", **inventory), holders={INSTANCE: HOLDER})
    assert found(snapshot) == {}


def test_a_scratch_database_of_an_earlier_attempt_is_left_over() -> None:
    second = a_view("provisioned", attempt=2)
    assert list(found(on_server(second, databases=(scratch(attempt=1),)))) == ["leftover_scratch"]
    assert found(on_server(second, databases=(scratch(attempt=2),))) == {}


def test_sessions_of_a_migration_that_nobody_works_on_are_ended() -> None:
    finding = found(on_server("provisioned", sessions=(SESSIONS,)))["leftover_sessions"]
    assert finding.action
    assert finding.since == ago(hours=1)


def test_the_copy_that_a_completed_migration_made_is_not_left_over() -> None:
    assert found(on_server("completed", databases=(VERIFIED,))) == {}
    assert list(found(on_server("rolled_back", databases=(VERIFIED,)))) == ["leftover_copy"]


def test_a_server_that_does_not_answer_is_reported() -> None:
    snapshot = a_snapshot(servers=(ServerSnapshot(POOL, trouble="no answer"),))
    assert "no answer" in found(snapshot)["not_checked"].what


def test_a_server_that_is_being_created_need_not_answer() -> None:
    coming = replace(POOL, status="provisioning")
    assert found(a_snapshot(servers=(ServerSnapshot(coming, trouble="no answer"),))) == {}


@pytest.mark.parametrize(
    ("entry", "state", "kind", "repair_kind"),
    [
        (PARTIAL, "rolled_back", "partial_backup", "remove_backup"),
        (PARTIAL, "completed", "partial_backup", "remove_backup"),
        (SEALED, "rolled_back", "leftover_backup", None),
    ],
)
def test_what_was_left_in_the_backup_place_is_found(
    entry: BackupEntry, state: str, kind: str, repair_kind: str | None
) -> None:
    finding = found(on_server(state, entry))[kind]
    assert (finding.action.repair_kind if finding.action else None) == repair_kind


@pytest.mark.parametrize(
    ("entry", "state"), [(PARTIAL, "stopped"), (SEALED, "stopped"), (SEALED, "completed"), (SEALED, "failed")]
)
def test_a_backup_that_is_needed_is_not_found(entry: BackupEntry, state: str) -> None:
    assert found(on_server(state, entry)) == {}


def test_a_backup_of_an_unknown_migration_is_found_and_left_alone() -> None:
    stray = BackupEntry(f"{STRANGER}-1", "backup", ago(days=9), STRANGER, 1)
    assert found(on_server("completed", stray))["leftover_backup"].action is None
    partial = replace(stray, kind="partial")
    assert found(on_server("completed", partial))["partial_backup"].action is None


def using(*instances: InstanceSnapshot) -> list[str]:
    """Findings about the dedicated server, given its instance."""
    return kinds(list(findings(a_snapshot(*instances, servers=(ServerSnapshot(DEDICATED, Inventory()),)))))


def test_a_dedicated_server_whose_database_is_elsewhere_is_unused() -> None:
    assert using(on_pool()) == ["unused_server"]
    assert using(on_pool("rolled_back")) == ["unused_server"]
    assert using(on_pool("completed", home=None)) == ["unused_server"]


def test_a_dedicated_server_that_is_used_or_about_to_be_or_not_checked_is_not_unused() -> None:
    assert using(moved()) == []
    assert using(on_pool("prepared")) == []
    assert using(on_pool(holder=HOLDER)) == []
    assert using(on_pool(home=None, troubles=(Trouble("the record", "no answer"),))) == []
    assert using() == []


def test_what_a_consumer_lacks_is_found_by_part_and_stays_the_same_finding() -> None:
    lacks = (Cause("client_programs", "there is no vacuumdb"), Cause("runtime", "no answer in 3 s"))
    first, second = not_ready(a_snapshot(not_ready=lacks, host="node-1"))
    assert (first.kind, first.severity, first.where) == ("not_ready", "error", "consumer at node-1")
    assert first.what == "client_programs: there is no vacuumdb"
    assert first.key != second.key
    (later,) = not_ready(a_snapshot(not_ready=(Cause("runtime", "no answer in 5 s"),), host="node-1"))
    assert later.key == second.key
    assert first.action is None
