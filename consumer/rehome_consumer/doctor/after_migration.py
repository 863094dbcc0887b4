"""What a migration that is over should have restored or removed, and what is due. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rehome_consumer.doctor.finding import Action, about
from rehome_consumer.doctor.snapshot import tag
from rehome_consumer.facts import FENCE, SOURCE_RETAINED_UNTIL, SOURCE_RETIRED_AT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.finding import Finding, Kind
    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.ports.operators import ConfBackup, MigrationView


def findings(snapshot: InstanceSnapshot, now: datetime) -> Iterator[Finding]:
    """Fences, roles, files and old databases that a migration left."""
    yield from _leftovers(snapshot)
    yield from _after_rollback(snapshot)
    yield from _due(snapshot, now)


def _after_rollback(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """After a rollback the source must be open, and the role on the dedicated server must not log in."""
    view, source, target = snapshot.migration, snapshot.source_state, snapshot.target_state
    if view is None or view.state != "rolled_back" or snapshot.source is None:
        return
    if target and snapshot.target and target.can_login:
        what = (
            f"role {target.role} may log in on {snapshot.target.name}, though the migration was rolled back"
        )
        advice = f"make sure that nobody uses it there, then: rehome doctor {snapshot.id} --repair"
        finding = about(
            snapshot, "target_role_open", "warning", what, advice, since=view.ended_at, thing=target.role
        )
        repair = f"closes role {target.role} on {snapshot.target.name} and ends its sessions"
        action = Action("close_role", view, snapshot.target, target.role)
        yield _repairable(finding, repair, action) if _at_source(snapshot) else finding
    if source and source.exists and not source.open and _was_open(snapshot):
        what = f"{source.database} on {snapshot.source.name} is fenced, though the migration was rolled back"
        advice = f"check that the record and odoo.conf name that server, then: rehome doctor {snapshot.id} --repair"
        finding = about(
            snapshot, "source_still_fenced", "error", what, advice, since=view.ended_at, thing=source.database
        )
        repair = (
            f"removes the fence: role {source.role} can use database {source.database} on "
            f"{snapshot.source.name} as before"
        )
        action = Action("unfence", view, snapshot.source, source.database)
        safe = _at_source(snapshot) and not (target and target.open)
        yield _repairable(finding, repair, action) if safe else finding


def _at_source(snapshot: InstanceSnapshot) -> bool:
    """Whether the record and odoo.conf name the source: then nobody uses the target."""
    conf, source = snapshot.conf, snapshot.source
    return (
        conf is not None
        and source is not None
        and snapshot.home is not None
        and snapshot.home.id == source.id
        and (conf.host, conf.port) == (source.host, source.port)
    )


def _was_open(snapshot: InstanceSnapshot) -> bool:
    """Whether the tenant could connect before the fence; False where no fence was recorded."""
    before = snapshot.facts.get(FENCE)
    return before is not None and before.can_login and before.connection_limit != 0


def _leftovers(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """Files of rehome's beside odoo.conf that no migration under way needs."""
    view = snapshot.migration
    for file in snapshot.files:
        if snapshot.moving and view is not None and file.tag == tag(view):
            continue
        kind: Kind = "leftover_temp_file" if file.tag is None else "leftover_conf_backup"
        what = f"{'temporary file beside' if file.tag is None else 'backup of'} odoo.conf: {file.name}"
        finding = about(
            snapshot, kind, "info", what, "remove it by hand", since=file.modified, thing=file.name
        )  # fmt: skip
        owned = view is not None and (file.tag is None or _is_of(view, file))
        if owned and view is not None and not snapshot.moving:
            action = Action("remove_conf_backup", view, thing=file.tag or tag(view))
            finding = replace(finding, advice=f"rehome doctor {snapshot.id} --repair")
            yield _repairable(finding, "removes it, since its migration is over", action)
        else:
            yield finding


def _is_of(view: MigrationView, file: ConfBackup) -> bool:
    """Whether it is a backup by this migration, in any attempt."""
    start, _, attempt = (file.tag or "").rpartition("-")
    return start == view.id.hex[:12] and attempt.isdigit()


def _due(snapshot: InstanceSnapshot, now: datetime) -> Iterator[Finding]:
    """The retention of a source is over."""
    until = snapshot.facts.get(SOURCE_RETAINED_UNTIL)
    if until is None or until > now or SOURCE_RETIRED_AT in snapshot.facts or snapshot.source is None:
        return
    database = snapshot.source_state.database if snapshot.source_state else "database"
    yield about(
        snapshot,
        "retirement_due",
        "info",
        f"the retention of the old {database} on {snapshot.source.name} is over",
        f"rehome retire {snapshot.id}",
        since=until,
    )


def _repairable(finding: Finding, repair: str, action: Action) -> Finding:
    return replace(finding, repair=repair, action=action)
