"""What a `rehome check --rehearse` that was killed has left: the journal does not know it, its mark does. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor.finding import Clearing, Finding

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from uuid import UUID

    from rehome_consumer.doctor.snapshot import ServerSnapshot, Snapshot
    from rehome_consumer.model import RehearsalMark
    from rehome_consumer.ports.operators import Inventory

SETTLED: Final = timedelta(minutes=10)
"""Age from which a rehearsal without any session counts as ended."""


def marks(snapshot: Snapshot) -> Mapping[UUID, RehearsalMark]:
    """Rehearsals without a migration that are marked on some server."""
    return {mark.id: mark for one in snapshot.servers if one.inventory for mark in one.inventory.rehearsals}


def findings(snapshot: Snapshot) -> Iterator[Finding]:
    """Each place where one left something that has ended: it is old, and has no session anywhere."""
    at_work = {
        session.migration_id
        for one in snapshot.servers
        if one.inventory
        for session in one.inventory.sessions
    }
    if any(one.inventory is None for one in snapshot.servers if one.server.kind == "shared"):
        return  # while one is at work it holds a snapshot of its source
    for mark in marks(snapshot).values():
        if mark.id in at_work or snapshot.now - mark.since < SETTLED:
            continue
        for one in snapshot.servers:
            yield from _on_server(one, mark)
        for entry in snapshot.stored:
            if entry.migration_id == mark.id:
                yield _finding(
                    mark, "the backup place", f"dump {entry.name}", Clearing(mark.id, thing=entry.name)
                )


def rest_of(snapshot: Snapshot) -> Snapshot:
    """Without what belongs to such rehearsals, at work or not."""
    marked = marks(snapshot)
    return replace(
        snapshot,
        servers=tuple(
            replace(one, inventory=_without(one.inventory, marked)) if one.inventory else one
            for one in snapshot.servers
        ),
        stored=tuple(entry for entry in snapshot.stored if entry.migration_id not in marked),
    )


def _without(inventory: Inventory, marked: Container[UUID | None]) -> Inventory:
    return replace(
        inventory,
        databases=tuple(
            one
            for one in inventory.databases
            if (one.tag.migration_id if one.tag else one.maker) not in marked
        ),
        sessions=tuple(one for one in inventory.sessions if one.migration_id not in marked),
        short_lived=tuple(one for one in inventory.short_lived if one not in marked),
    )


def _on_server(one: ServerSnapshot, mark: RehearsalMark) -> Iterator[Finding]:
    inventory = one.inventory
    if inventory is None:
        return
    where = f"server {one.server.name}"
    if mark in inventory.rehearsals:
        what = f"perhaps database {mark.database}, role(s) {', '.join(mark.roles)}"
        yield _finding(mark, where, what, Clearing(mark.id, one.server, mark))
    elif mark.id in inventory.short_lived:
        what = f"short-lived role rehome_{mark.id.hex}_..."
        yield _finding(mark, where, what, Clearing(mark.id, one.server))


def _finding(mark: RehearsalMark, where: str, what: str, clearing: Clearing) -> Finding:
    return Finding(
        kind="leftover_rehearsal",
        severity="warning",
        where=where,
        what=f"{what}: of a rehearsal by `rehome check` that did not end",
        advice="rehome doctor --repair",
        since=mark.since,
        repair="removes it",
        thing=str(mark.id),
        clearing=clearing,
    )
