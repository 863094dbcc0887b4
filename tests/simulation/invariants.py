"""What must hold when a schedule has come to rest (the numbers are those of the reliability notes)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from consumer import saga
from consumer.adapters.odoo_conf_files import conf_path
from consumer.delivery.reading import opened_by
from consumer.ports_engine import ENDED
from consumer.topology import DEAD
from events.billing import PlanUpgraded
from events.envelope import event_id
from events.migration import MigrationCompleted, MigrationFailed, MigrationRejected, MigrationRolledBack
from tests.fakes.odoo_conf import read
from tests.fakes.site import PASSWORD
from tests.fakes.world import ADMIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.ports_engine import Message, MigrationRow
    from tests.simulation.schedule import Schedule

OUTCOMES = {MigrationCompleted.TYPE, MigrationRolledBack.TYPE, MigrationRejected.TYPE}
GARBAGE = 10
"""A longer body is an event."""
RETOLD = {MigrationFailed.TYPE}
"""Events that say something newer when they are told again."""


@dataclass(frozen=True)
class Told:
    """An event as far as invariants look at it: read from its bytes, since the whole reading takes long."""

    id: UUID
    type: str
    migration: UUID | None
    attempt: int | None
    data: dict[str, Any] = field(default_factory=dict)


def at_rest(schedule: Schedule) -> list[str]:
    """With operators still to come: nothing is stuck without a word, nothing is lost."""
    return [
        *_visible(schedule),
        *_nothing_lost(schedule),
        *_one_outcome(schedule),
        *_tidy(schedule),
        *_no_secret(schedule),
    ]


def at_the_end(schedule: Schedule) -> list[str]:
    """After operators: every migration is over, and every instance where it should be."""
    return [
        *(
            f"migration {row.id} is still {row.state}: {row.note}"
            for row in schedule.journal.migrations.values()
            if not row.ended
        ),
        *_nothing_lost(schedule),
        *_one_outcome(schedule),
        *_at_home(schedule),
        *_tidy(schedule),
        *_no_secret(schedule),
    ]


def _visible(schedule: Schedule) -> Iterator[str]:
    """3. Over, or a dead letter and `migration.failed`."""
    letters = {event.migration for event in _letters(schedule)}
    failed = {event.migration for event in _told(schedule) if event.type == MigrationFailed.TYPE}
    for upgrade in schedule.upgrades:
        migration = opened_by(upgrade.id)
        if migration not in schedule.journal.migrations and migration not in letters:
            yield f"upgrade {upgrade.id} left no trace"
    for row in schedule.journal.migrations.values():
        if row.ended:
            continue
        if row.id not in letters:
            yield f"migration {row.id} is {row.state} without a dead letter: {row.note}"
        elif row.state == "failed" and row.id not in failed:
            yield f"migration {row.id} failed without migration.failed"
        elif row.state == "failing":
            yield f"migration {row.id} is failing, and nobody rolls it back"


def _nothing_lost(schedule: Schedule) -> Iterator[str]:
    """1. and 2.: one writable database at most; every order that a customer was told is saved is there once."""
    for tenant in schedule.tenants:
        places = schedule.site.writable(tenant)
        if len(places) > 1:
            yield f"{tenant} is writable on {places}"
        orders = schedule.site.orders(tenant)
        confirmed = schedule.site.confirmed[tenant]
        home = _home(schedule, tenant)
        pool = schedule.site.pool.host
        if home not in orders:
            yield f"the database of {tenant} is not on {home}, where its record says it is"
        elif _is_over(schedule, tenant) and orders[home] != confirmed:
            yield f"orders of {tenant} on {home} are {orders[home]}, confirmed were {confirmed}"
        if orders[pool] != confirmed[: len(orders[pool])]:
            yield f"the source of {tenant} was changed: {orders[pool]}, confirmed were {confirmed}"
        union = set().union(*orders.values())
        if not set(confirmed) <= union:
            yield f"orders {set(confirmed) - union} of {tenant} are lost"
        source = schedule.site.world.at(schedule.site.pool).databases[_row(schedule, tenant)["database_name"]]
        if source.tables["public.res_partner"] != [(1, "Asustek"), (2, "Agrolait")]:
            yield f"the source of {tenant} was changed"


def _one_outcome(schedule: Schedule) -> Iterator[str]:
    """4. Copies are equal, ids are those of the contract, and an attempt has one outcome and one order."""
    bodies: dict[str, bytes] = {}
    order: dict[tuple[UUID, int], list[str]] = {}
    for message in _published(schedule):
        event = told_by(message)
        if event.migration is None or event.attempt is None:
            yield f"{event.type} names no migration"
            continue
        if event.id != event_id(event.migration, event.attempt, event.type):
            yield f"{event.type} has id {event.id}"
        if bodies.setdefault(str(event.id), message.body) != message.body and event.type not in RETOLD:
            yield f"copies of {event.type} {event.id} differ"
        told = order.setdefault((event.migration, event.attempt), [])
        if event.type not in told:
            told.append(event.type)
    forward = [kind.TYPE for step in saga.MIGRATION[:-1] for kind in step.tells[:1]]
    for (migration, attempt), told in order.items():
        if len(OUTCOMES.intersection(told)) > 1:
            yield f"migration {migration} has the outcomes {told}"
        steps = [kind for kind in told if kind in forward]
        if steps != forward[: len(steps)]:
            yield f"migration {migration} attempt {attempt} told {told}"


def _at_home(schedule: Schedule) -> Iterator[str]:
    """5. The instance is up where record, odoo.conf and environment say, and there alone."""
    site = schedule.site
    for tenant, replicas in zip(schedule.tenants, schedule.plan.tenants, strict=True):
        if not _is_over(schedule, tenant):
            continue
        row, home = _row(schedule, tenant), _home(schedule, tenant)
        service = site.runtime.services[row["service_name"]]
        path = conf_path(site.odoo_conf.data_root, site.instance(tenant))
        conf = read(site.odoo_conf.files[path], str(path))
        env = service.spec["env"]["ODOO_DATABASE_HOST"]
        if not home == conf["db_host"] == env == row["db_host"]:
            yield f"{tenant}: record {home}, {row['db_host']}; odoo.conf {conf['db_host']}; environment {env}"
        if site.writable(tenant) != [home]:
            yield f"{tenant} lives on {home} and is writable on {site.writable(tenant)}"
        if bool(service.running) is not bool(replicas):
            yield f"{tenant} has {len(service.running)} running task(s), wanted {replicas}"
        if row["status"] != ("running" if replicas else "stopped"):
            yield f"{tenant} is {row['status']}, with {replicas} replica(s) wanted"
        dedicated = row["db_type"] == "dedicated"
        if dedicated is not (home != site.pool.host):
            yield f"{tenant} is of type {row['db_type']} on {home}"


def _tidy(schedule: Schedule) -> Iterator[str]:
    """6. Nothing of ours is left over."""
    if schedule.claims.held:
        yield f"claims are held: {schedule.claims.held}"
    for (host, _), there in schedule.site.world.servers.items():
        if ours := [one.application for one in there.sessions if one.user == ADMIN]:
            yield f"sessions of ours on {host}: {ours}"
    if all(row.ended for row in schedule.journal.migrations.values()):
        yield from _left_over(schedule)


def _left_over(schedule: Schedule) -> Iterator[str]:
    """Of what migrations that are over made, nothing is left but what they named."""
    leftovers = any(
        event.data["leftovers"] for event in _told(schedule) if event.type == MigrationRolledBack.TYPE
    )
    if leftovers:
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


def _no_secret(schedule: Schedule) -> Iterator[str]:
    """7. No password in any message."""
    secrets = [PASSWORD.encode(), b"admin-secret", b"made-for-"]
    for _, key, message in schedule.node.log:
        text = message.body + repr(message.headers).encode()
        if any(secret in text for secret in secrets):
            yield f"a secret in {key}"


def _published(schedule: Schedule) -> list[Message]:
    return [message for exchange, _, message in schedule.node.log if exchange == "migration"]


def _told(schedule: Schedule) -> list[Told]:
    return [told_by(message) for message in _published(schedule)]


def told_by(message: Message) -> Told:
    """What the event says that a message carries."""
    event = orjson.loads(message.body)
    migration = event.get("migrationid")
    return Told(
        id=UUID(event["id"]),
        type=event["type"],
        migration=UUID(migration) if migration else _opens(event),
        attempt=event.get("attempt"),
        data=event["data"],
    )


def _opens(event: dict[str, Any]) -> UUID | None:
    if event["type"] != PlanUpgraded.TYPE:
        return None
    return opened_by(UUID(event.get("replayof") or event["id"]))


def _letters(schedule: Schedule) -> Iterator[Told]:
    """The events of all dead letters, but for the schedule's garbage."""
    for stored in schedule.node.queues[DEAD].ready:
        if len(stored.message.body) > GARBAGE:
            yield told_by(stored.message)


def _row(schedule: Schedule, tenant: UUID) -> dict[str, Any]:
    return schedule.site.platform.instances[tenant]


def _home(schedule: Schedule, tenant: UUID) -> str:
    server = _row(schedule, tenant)["db_server_id"]
    return str(schedule.site.platform.servers[server]["host"]) if server else ""


def _is_over(schedule: Schedule, tenant: UUID) -> bool:
    rows: list[MigrationRow] = [
        row for row in schedule.journal.migrations.values() if row.instance_id == tenant
    ]
    return all(row.state in ENDED for row in rows)
