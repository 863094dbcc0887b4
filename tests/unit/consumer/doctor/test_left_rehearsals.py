"""What a killed `rehome check --rehearse` left: found by its mark, once it is surely over."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from rehome_consumer.doctor.finding import Clearing, Finding
from rehome_consumer.doctor.servers import findings
from rehome_consumer.doctor.snapshot import ServerSnapshot, Snapshot
from rehome_consumer.model import OwnershipTag, RehearsalMark
from rehome_consumer.ports.operators import BackupEntry, Inventory, MigrationSessions, TaggedDatabase
from tests.support.snapshots import DEDICATED, POOL, a_snapshot, ago

ID = UUID(int=0x77, version=4)
SCRATCH = f"acme__rehome_{ID.hex[:12]}-1"
MARK = RehearsalMark(ID, ago(hours=1), SCRATCH, ("rehearsal_0",))
DUMP = BackupEntry(f".{ID}-1-rehearsal.partial", "partial", ago(hours=1), ID, 1)


def left(mark: RehearsalMark = MARK, **on_pool: Any) -> Snapshot:
    """A mark, its database, a short-lived role on the pool, a dump."""
    there = Inventory(
        databases=(TaggedDatabase(SCRATCH, tag=OwnershipTag(ID, 1, "scratch")),), rehearsals=(mark,)
    )
    here = Inventory(**{"short_lived": (ID,), **on_pool})
    return a_snapshot(servers=(ServerSnapshot(POOL, here), ServerSnapshot(DEDICATED, there)), stored=(DUMP,))


def found(snapshot: Snapshot) -> list[Finding]:
    return list(findings(snapshot))


def test_all_of_it_can_be_removed() -> None:
    everything = found(left())
    assert {one.kind for one in everything} == {"leftover_rehearsal"}
    assert [one.clearing for one in everything] == [
        Clearing(ID, POOL),
        Clearing(ID, DEDICATED, MARK),
        Clearing(ID, thing=DUMP.name),
    ]
    assert len({one.key for one in everything}) == len(everything)


@pytest.mark.parametrize(
    "snapshot",
    [
        left(replace(MARK, since=ago(minutes=9))),
        left(sessions=(MigrationSessions(ID, 1, ago(hours=1)),)),
        replace(left(), servers=(ServerSnapshot(POOL, trouble="no answer"), *left().servers[1:])),
    ],
    ids=["it has just begun", "it has a session", "its source does not answer"],
)
def test_one_that_may_be_at_work_is_left_alone(snapshot: Snapshot) -> None:
    assert [one.kind for one in found(snapshot) if one.kind != "not_checked"] == []


def test_without_a_mark_nothing_is_removed() -> None:
    """A tenant can write a tag on its own database, and no mark."""
    servers = [
        replace(one, inventory=replace(one.inventory, rehearsals=()))
        for one in left().servers
        if one.inventory
    ]
    assert not any(one.safe_to_repair for one in found(replace(left(), servers=tuple(servers))))
