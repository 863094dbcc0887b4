"""Servers and the backup place: what migrations left behind, and dedicated servers that are not used. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor import left_rehearsals
from rehome_consumer.doctor.finding import Action, Finding
from rehome_consumer.move import is_scratch_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.doctor.finding import Kind, RepairKind
    from rehome_consumer.doctor.snapshot import ServerSnapshot, Snapshot
    from rehome_consumer.model import Server
    from rehome_consumer.ports.operators import BackupEntry, MigrationView, TaggedDatabase

COMING_OR_GOING: Final = frozenset({"provisioning", "initializing", "deprovisioning"})
"""Statuses in which a server need not answer."""
_BY_HAND: Final = "rehome cannot know whether it is still needed: check, then remove it by hand"


ASK_THE_CONSUMER: Final = (
    "fix it: a consumer looks again within a minute. This is how it looks from this machine, with these settings; "
    "consumers elsewhere may lack something else: their /readyz says so, and their logs (consumer.not_ready)"
)


def not_ready(snapshot: Snapshot) -> Iterator[Finding]:
    """What a consumer lacks here; it leaves deliveries to others meanwhile."""
    for cause in snapshot.not_ready:
        yield Finding(
            kind="not_ready",
            severity="error",
            where=f"consumer at {snapshot.host}",
            what=f"{cause.part}: {cause.message}",
            advice=ASK_THE_CONSUMER,
            thing=cause.part,
        )


def findings(snapshot: Snapshot) -> Iterator[Finding]:
    """What rehome made on servers and in the backup place, and no migration under way needs."""
    yield from left_rehearsals.findings(snapshot)
    snapshot = left_rehearsals.rest_of(snapshot)
    for one in snapshot.servers:
        if one.inventory is None:
            if one.server.status in COMING_OR_GOING:
                continue
            what = f"it could not be checked: {one.trouble}"
            yield Finding(
                "not_checked", "warning", f"server {one.server.name}", what, "is it up? is its row in db_servers right?"
            )  # fmt: skip
            continue
        for database in one.inventory.databases:
            yield from _database(snapshot, one.server, database)
        for session in one.inventory.sessions:
            leftover = _Leftover(
                "leftover_sessions",
                one.server,
                f"{session.count} session(s) named rehome:{session.migration_id}",
                session.since,
            )
            yield from leftover.found(snapshot, session.migration_id, "ends them", "end_sessions", idle=True)
        for migration_id in one.inventory.short_lived:
            leftover = _Leftover(
                "leftover_role", one.server, f"short-lived role rehome_{migration_id.hex}_..."
            )
            yield from leftover.found(snapshot, migration_id, "drops it", "end_sessions", idle=True)
        for migration_id in one.inventory.followed:
            name = f"slot, publication, subscription, replica identity or role rehome_{migration_id.hex}"
            leftover = _Leftover("leftover_sync", one.server, f"{name}, by which a copy followed")
            yield from leftover.found(snapshot, migration_id, "removes it", "remove_sync")
    yield from (finding for one in snapshot.servers for finding in _unused(snapshot, one))
    yield from (finding for entry in snapshot.stored for finding in _backup(snapshot, entry))


class _Leftover:
    """Something left on a server."""

    def __init__(self, kind: Kind, server: Server, what: str, since: datetime | None = None) -> None:
        self.kind = kind
        self.server = server
        self.what = what
        self.since = since

    def found(
        self,
        snapshot: Snapshot,
        owner: UUID | None,
        repair: str,
        repair_kind: RepairKind,
        *,
        thing: str = "",
        idle: bool = False,
    ) -> Iterator[Finding]:
        """The finding, if its migration is over (or, with `idle`, if no consumer works on its instance)."""
        view = snapshot.migrations.get(owner) if owner else None
        if view is not None and (view.instance_id in snapshot.holders or not (view.ended or idle)):
            return
        yield self.finding(view, owner, repair, repair_kind if view else None, thing)

    def finding(
        self,
        view: MigrationView | None,
        owner: UUID | None,
        repair: str,
        repair_kind: RepairKind | None,
        thing: str,
    ) -> Finding:
        """With the repair, if there is one."""
        state = f"is {view.state}" if view else "is unknown to this journal"
        return Finding(
            kind=self.kind,
            severity="warning",
            where=f"server {self.server.name}",
            what=f"{self.what}; its migration {owner or '?'} {state}",
            since=self.since or (view.ended_at if view else None),
            advice="rehome doctor --repair" if repair_kind else _BY_HAND,
            repair=repair if repair_kind else None,
            instance_id=view.instance_id if view else None,
            migration_id=owner,
            action=Action(repair_kind, view, self.server, thing) if view and repair_kind else None,
        )


def _database(snapshot: Snapshot, server: Server, database: TaggedDatabase) -> Iterator[Finding]:
    """A scratch database of an attempt that is over, or a verified one of a migration that was rolled back."""
    tag = database.tag
    owner = tag.migration_id if tag else database.maker
    view = snapshot.migrations.get(owner) if owner else None
    if view is not None and view.instance_id in snapshot.holders:
        return
    current = view is not None and not view.ended and (tag is None or tag.attempt == view.attempt)
    if current or (tag and view and tag.state == "verified" and view.state == "completed"):
        return
    verified = tag is not None and tag.state == "verified"
    kind: Kind = "leftover_copy" if verified else "leftover_scratch"
    what = f"{'verified copy' if verified else 'scratch database'} {database.name}"
    # A verified copy may have been written to; a scratch database has never been open to anyone. A tenant may write
    # such a comment on its own database once it is open, but cannot give it such a name.
    safe = view is not None and not verified and _is_rehomes_name(database.name, view.id)
    yield _Leftover(kind, server, what).finding(
        view, owner, "drops it", "drop_database" if safe else None, database.name
    )


def _is_rehomes_name(name: str, migration_id: UUID) -> bool:
    return is_scratch_name(name, migration_id) or name == f"rehome_making_{migration_id.hex}"


def _unused(snapshot: Snapshot, one: ServerSnapshot) -> Iterator[Finding]:
    """A dedicated server whose instance's database is elsewhere, and which no migration is about to use."""
    owner = one.server.dedicated_to_instance_id
    if one.server.kind != "dedicated" or owner is None:
        return
    instance = next((instance for instance in snapshot.instances if instance.id == owner), None)
    if (
        instance is None
        or instance.moving
        or instance.holder
        or any(t.what == "the record" for t in instance.troubles)
    ):
        return
    if instance.home is None or instance.home.id != one.server.id:
        lives = f"is on {instance.home.name}" if instance.home else "is on no known server"
        yield Finding(
            kind="unused_server",
            severity="warning",
            where=f"server {one.server.name}",
            what=f"made for instance {owner}, whose database {lives}",
            advice="give it back through database-service, unless an upgrade is about to come",
            instance_id=owner,
            migration_id=instance.migration.id if instance.migration else None,
        )


def _backup(snapshot: Snapshot, entry: BackupEntry) -> Iterator[Finding]:
    """A partial backup of a migration that is over (or of an earlier attempt), or a backup that no migration needs."""
    view = snapshot.migrations.get(entry.migration_id) if entry.migration_id else None
    if view is not None and view.instance_id in snapshot.holders:
        return
    current = view is not None and not view.ended and entry.attempt == view.attempt
    if current or (entry.kind != "partial" and view is not None and view.state == "completed"):
        return
    partial = entry.kind == "partial"
    state = f"is {view.state}" if view else "is unknown to this journal"
    safe = partial and view is not None
    yield Finding(
        kind="partial_backup" if partial else "leftover_backup",
        severity="warning",
        where="the backup place",
        what=f"{'partial backup' if partial else 'backup'} {entry.name}; its migration {state}",
        since=entry.modified,
        advice="rehome doctor --repair" if safe else _BY_HAND,
        repair="removes it" if safe else None,
        instance_id=view.instance_id if view else None,
        migration_id=entry.migration_id,
        action=Action("remove_backup", view, thing=entry.name) if safe and view else None,
    )
