"""What may be left over: at rest nothing that is held, at the end nothing that migrations made for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.adapters.postgres.replication_parts import name_of, witness_of
from rehome_consumer.adapters.postgres.short_lived_roles import prefix
from rehome_consumer.facts import LENT_LEFT
from rehome_consumer.steps.support.slots import DOWN
from rehome_events.migration import MigrationRolledBack
from tests.fakes.replicator import FULL
from tests.fakes.world import ADMIN, SHORT_LIVED
from tests.simulation.published import read_event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from tests.fakes.world import FakeServer
    from tests.simulation.published import Published
    from tests.simulation.schedule import Schedule

NOT_REACHED: Final = "what is left of "
LENT: Final = "a temporary replica identity: "
UNKNOWN: Final = "a dedicated server was asked for"
"""Beginnings of the leftovers that a rollback reports: in a place that did not answer; of a table that was in use; a
server it cannot name."""


def nothing_held(schedule: Schedule) -> Iterator[str]:
    """No claim, session, unsent event; no role of a migration that ended, no slot of one that needs it no more.

    A dedicated server that a rollback did not reach, and has named, may have its part until the doctor comes.
    """
    named = _named(schedule)
    if schedule.site.refused:
        yield f"refused to a customer: {schedule.site.refused}"
    if schedule.claims.held:
        yield f"claims are held: {schedule.claims.held}"
    for (host, _), there in schedule.site.world.servers.items():
        if sessions := [one.application for one in there.sessions if one.user == ADMIN]:
            yield f"sessions of the consumer on {host}: {sessions}"
        if not _not_reached(schedule, host, named):
            yield from _held_on(schedule, host, there)
    if unsent := [one.row.routing_key for one in schedule.journal.outbox if one.sent is None]:
        yield f"unsent are {unsent}"
    for resource, migration, attempt in schedule.journal.slots:
        last = schedule.journal.steps.get((migration, attempt, "start" if resource == DOWN else "back_up"))
        if last is not None and last.state == "done":
            yield f"migration {migration} still has its slot of {resource}"


def _held_on(schedule: Schedule, host: str, there: FakeServer) -> Iterator[str]:
    """What it has of migrations that ended."""
    waiting = [prefix(row.id) for row in schedule.journal.migrations.values() if not row.ended]
    waiting += _in_use(schedule, host)
    if lent := _lent(there, waiting):
        yield f"temporary replica identities on {host}: {lent}"
    if roles := [
        name
        for name in there.roles
        # One that was cut off has its roles until it goes on, or the doctor removes them.
        if SHORT_LIVED.fullmatch(name) and not name.startswith(tuple(waiting))
    ]:
        yield f"short-lived roles on {host}: {roles}"
    over = [row.id for row in schedule.journal.migrations.values() if row.ended]
    ended = [name(one) for one in over for name in (name_of, witness_of)]
    followed = [one.follows.name for one in there.databases.values() if one.follows]
    published = [name for one in there.databases.values() for name in one.publications]
    if left := [name for name in (*there.slots, *followed, *published) if name in ended]:
        yield f"what copies follow by on {host}: {left}"


def nothing_left(schedule: Schedule) -> Iterator[str]:
    """Of what ended migrations made, nothing is left but what they reported."""
    yield from nothing_held(schedule)
    if not all(row.ended for row in schedule.journal.migrations.values()):
        return
    named = _named(schedule)
    completed = {row.id for row in schedule.journal.migrations.values() if row.state == "completed"}
    yield from _databases_left(schedule, completed, named)
    yield from _servers_left(schedule, completed, named)
    if copies := [path for path in schedule.site.odoo_conf.files if path.name != "odoo.conf"]:
        yield f"backups of odoo.conf: {copies}"
    for name in schedule.site.world.backups:
        reported = any(name.removesuffix("-rehearsal") in text for text in named)
        if not reported and not any(name.startswith(str(migration)) for migration in completed):
            yield f"backup {name} is left"


def _databases_left(schedule: Schedule, completed: set[UUID], named: list[str]) -> Iterator[str]:
    """Nothing on a dedicated server but databases that were moved there, and their roles."""
    for (host, _), there in schedule.site.world.servers.items():
        if host == schedule.site.pool.host or _not_reached(schedule, host, named):
            continue
        labels = {name: one.label for name, one in there.databases.items() if one.label}
        if left := [
            name
            for name, label in labels.items()
            if label.tag.state == "scratch" or label.tag.migration_id not in completed
        ]:
            yield f"databases on {host}: {left}"
        owners = {there.databases[name].owner for name in labels}
        if open_ := [
            one.name for one in there.roles.values() if one.can_login and one.name not in {ADMIN, *owners}
        ]:
            yield f"roles that may log in on {host}: {open_}"


def _servers_left(schedule: Schedule, completed: set[UUID], named: list[str]) -> Iterator[str]:
    """No dedicated server but those of moved instances, and those that were there before."""
    if any(text.startswith(UNKNOWN) for text in named):
        return
    moved = {schedule.journal.migrations[one].instance_id for one in completed}
    before = {schedule.tenants[index] for index in schedule.plan.has_server}
    for row in schedule.site.platform.servers.values():
        tenant = row["dedicated_to_instance_id"]
        if tenant and tenant not in moved | before and not any(row["name"] in text for text in named):
            yield f"server {row['name']} is left"


def after_the_doctor(schedule: Schedule) -> Iterator[str]:
    """What a rollback named and left, the doctor has removed, now that everything answers.

    But for what only a person may remove: a copy that was open to users once, and a complete backup.
    """
    if not all(row.ended for row in schedule.journal.migrations.values()):
        return
    for (host, _), there in schedule.site.world.servers.items():
        if roles := [name for name in there.roles if SHORT_LIVED.fullmatch(name)]:
            yield f"short-lived roles on {host}: {roles}"
        if lent := _lent(there, []):
            yield f"temporary replica identities on {host}: {lent}"
        followed = [one.follows.name for one in there.databases.values() if one.follows]
        published = [name for one in there.databases.values() for name in one.publications]
        if left := [*there.slots, *followed, *published]:
            yield f"what copies follow by on {host}: {left}"
        labels = {name: one.label for name, one in there.databases.items() if one.label}
        if scratch := [name for name, label in labels.items() if label.tag.state == "scratch"]:
            yield f"databases on {host}: {scratch}"
    if dumps := [name for name in schedule.site.world.backups if name.endswith("-rehearsal")]:
        yield f"dumps of rehearsals: {dumps}"


def _lent(there: FakeServer, waiting: list[str]) -> list[str]:
    """Tables with a replica identity that no role of a migration under way has lent them; nobody else sets FULL."""
    lent = {one for name, role in there.roles.items() if name.startswith(tuple(waiting)) for one in role.lent}
    return [
        f"{database.name}.{table}"
        for database in there.databases.values()
        for table, identity in database.identities.items()
        if identity == FULL and (database.name, table) not in lent
    ]


def _in_use(schedule: Schedule, host: str) -> list[str]:
    """How the roles begin of migrations that have named a table of the pool that was in use: the doctor finds it."""
    if host != schedule.site.pool.host:
        return []
    completed = [prefix(one) for one, _, name in schedule.journal.stored_facts if name == LENT_LEFT.name]
    return completed + [
        prefix(event.migration)
        for event in _rolled_back(schedule)
        if event.migration and any(text.startswith(LENT) for text in event.leftovers)
    ]


def _not_reached(schedule: Schedule, host: str, named: list[str]) -> bool:
    """Whether a rollback has named this server as one that did not answer; the pool is always waited for."""
    if host == schedule.site.pool.host:
        return False
    return any(text.startswith(NOT_REACHED) and f" on {host} " in text for text in named)


def _named(schedule: Schedule) -> list[str]:
    """What rollbacks reported as left over."""
    return [text for event in _rolled_back(schedule) for text in event.leftovers]


def _rolled_back(schedule: Schedule) -> list[Published]:
    return [read_event(message) for _, key, message in schedule.node.log if key == MigrationRolledBack.TYPE]
