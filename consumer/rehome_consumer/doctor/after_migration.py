"""What a migration that is over should have put back or taken along, and what is due. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from rehome_consumer.doctor.finding import Action, about
from rehome_consumer.doctor.snapshot import tag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehome_consumer.doctor.finding import Finding, Kind
    from rehome_consumer.doctor.snapshot import InstanceSeen
    from rehome_consumer.ports.operators import KeptFile, MigrationView


def findings(seen: InstanceSeen, now: datetime) -> Iterator[Finding]:
    """Fences, roles, files and sources that wait for somebody."""
    yield from _leftovers(seen)
    yield from _after_rollback(seen)
    yield from _due(seen, now)


def _after_rollback(seen: InstanceSeen) -> Iterator[Finding]:
    """A migration that was rolled back leaves the source open and the dedicated server closed."""
    view, source, target = seen.migration, seen.source_side, seen.target_side
    if view is None or view.state != "rolled_back" or seen.source is None:
        return
    if target and seen.target and target.can_login:
        what = f"role {target.role} may log in on {seen.target.name}, though the migration was rolled back"
        advice = f"make sure that nobody uses it there; rehome doctor {seen.id} --repair"
        finding = about(seen, "role_open", "warning", what, advice, since=view.ended_at, thing=target.role)
        repair = f"closes role {target.role} on {seen.target.name} and ends its sessions"
        action = Action("close_role", view, seen.target, target.role)
        yield _repairable(finding, repair, action) if _at_source(seen) else finding
    if source and source.exists and not source.open and _was_open(seen):
        what = f"{source.database} on {seen.source.name} is fenced, though the migration was rolled back"
        advice = f"see that record and odoo.conf name that server; rehome doctor {seen.id} --repair"
        finding = about(
            seen, "still_fenced", "error", what, advice, since=view.ended_at, thing=source.database
        )
        repair = f"lets {source.role} into {source.database} on {seen.source.name} as it was before"
        action = Action("unfence", view, seen.source, source.database)
        safe = _at_source(seen) and not (target and target.open)
        yield _repairable(finding, repair, action) if safe else finding


def _at_source(seen: InstanceSeen) -> bool:
    """Whether record and odoo.conf name the source: what is done elsewhere hits nobody."""
    conf, source = seen.conf, seen.source
    return (
        conf is not None
        and source is not None
        and seen.home is not None
        and seen.home.id == source.id
        and (conf.host, conf.port) == (source.host, source.port)
    )


def _was_open(seen: InstanceSeen) -> bool:
    """Whether tenants could enter before the fence; without a fence of ours nobody knows."""
    before = seen.facts.get("fence") or {}
    return bool(before.get("can_login")) and before.get("connection_limit") != 0


def _leftovers(seen: InstanceSeen) -> Iterator[Finding]:
    """Files of ours beside odoo.conf that no migration under way needs."""
    view = seen.migration
    for file in seen.files:
        if seen.moving and view is not None and file.tag == tag(view):
            continue
        kind: Kind = "temporary_file" if file.tag is None else "kept_conf"
        what = "a temporary file" if file.tag is None else "a kept copy"
        what = f"{what} beside odoo.conf: {file.name}"
        finding = about(
            seen, kind, "note", what, "remove it by hand", since=file.modified, thing=file.name
        )  # fmt: skip
        owned = view is not None and (file.tag is None or _is_of(view, file))
        if owned and view is not None and not seen.moving:
            action = Action("forget_conf", view, thing=file.tag or tag(view))
            finding = replace(finding, advice=f"rehome doctor {seen.id} --repair")
            yield _repairable(finding, "removes it: its migration is over", action)
        else:
            yield finding


def _is_of(view: MigrationView, file: KeptFile) -> bool:
    """Whether it is a copy of this migration, of whatever attempt."""
    start, _, attempt = (file.tag or "").rpartition("-")
    return start == view.id.hex[:12] and attempt.isdigit()


def _due(seen: InstanceSeen, now: datetime) -> Iterator[Finding]:
    """The retention of a source is over."""
    until = _moment(seen.facts.get("source_retained_until"))
    if until is None or until > now or "source_retired_at" in seen.facts or seen.source is None:
        return
    database = seen.source_side.database if seen.source_side else "database"
    yield about(
        seen,
        "source_due",
        "note",
        f"the old {database} on {seen.source.name} was kept long enough",
        f"rehome retire {seen.id}",
        since=until,
    )


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _repairable(finding: Finding, repair: str, action: Action) -> Finding:
    return replace(finding, repair=repair, action=action)
