"""What may be left over: at rest nothing that is held, after the end nothing that migrations made for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from events.migration import MigrationRolledBack
from tests.fakes.world import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.schedule import Schedule


def nothing_held(schedule: Schedule) -> Iterator[str]:
    """No claim, no session of ours, no event unsent, no turn of whoever has had it."""
    if schedule.claims.held:
        yield f"claims are held: {schedule.claims.held}"
    for (host, _), there in schedule.site.world.servers.items():
        if ours := [one.application for one in there.sessions if one.user == ADMIN]:
            yield f"sessions of ours on {host}: {ours}"
    if unsent := [one.row.routing_key for one in schedule.journal.outbox if one.sent is None]:
        yield f"unsent are {unsent}"
    for resource, migration, attempt in schedule.journal.turns:
        dumped = schedule.journal.steps.get((migration, attempt, "back_up"))
        if dumped is not None and dumped.state == "done":
            yield f"migration {migration} still has its turn of {resource}"


def nothing_left(schedule: Schedule) -> Iterator[str]:
    """Of what migrations that are over made, nothing is left but what they named."""
    yield from nothing_held(schedule)
    if not all(row.ended for row in schedule.journal.migrations.values()) or _left_behind(schedule):
        return
    for (host, _), there in schedule.site.world.servers.items():
        if scratch := [name for name in there.databases if "__rehome_" in name]:
            yield f"scratch databases on {host}: {scratch}"
    if kept := [path for path in schedule.site.odoo_conf.files if path.name != "odoo.conf"]:
        yield f"kept copies: {kept}"
    completed = {row.id for row in schedule.journal.migrations.values() if row.state == "completed"}
    for name in schedule.site.world.backups:
        if not any(name.startswith(str(migration)) for migration in completed):
            yield f"backup {name} is left"
    dedicated = len(schedule.site.platform.servers) - 1
    if dedicated > len(completed):
        yield f"{dedicated} dedicated server(s) for {len(completed)} completed migration(s)"


def _left_behind(schedule: Schedule) -> bool:
    """Whether a rollback said that it had to leave something."""
    from tests.simulation.invariants import told_by  # noqa: PLC0415 - they are two halves

    return any(
        told_by(message).leftovers for _, key, message in schedule.node.log if key == MigrationRolledBack.TYPE
    )
