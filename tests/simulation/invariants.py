"""What must hold when a schedule has come to rest, and what at every moment. A violation begins with its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.engine.inbound import opened_by
from rehome_consumer.facts import BEGUN_AT, FENCE, HEALTHY_AT, WARM_GIVEN_UP
from rehome_consumer.model import closed
from rehome_events.envelope import event_id
from rehome_events.migration import (
    MigrationCompleted,
    MigrationFailed,
    MigrationRejected,
    MigrationRolledBack,
    MigrationStarted,
)
from tests.fakes.odoo_conf import read
from tests.simulation import leftovers
from tests.simulation.no_secrets import no_secret
from tests.simulation.published import dead_letters, dead_letters_published, events, published, read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from rehome_consumer.facts import Fact
    from rehome_consumer.ports.engine import StepRow
    from tests.fakes.site import Site
    from tests.simulation.schedule import Schedule

OUTCOMES: Final = {MigrationCompleted.TYPE, MigrationRolledBack.TYPE, MigrationRejected.TYPE}
CHANGING: Final = {MigrationFailed.TYPE}
"""Events that may have newer content when they are published again."""
FORWARD: Final = [kind.TYPE for step in saga.MIGRATION[:-1] for kind in step.emits[:1]]
PARTNERS: Final = [(1, "Asustek"), (2, "Agrolait")]
HARMLESS: Final = {
    "kill",
    "pause",
    "cut",
    "shutdown",
    "node",
    "lost_ack",
    "garbage",
    "ahead",
    "fail",
    "unready",
}
"""Faults that must not fail a migration, unless there are many of them."""
FEW: Final = 3
GATED: Final = {"prepare": BEGUN_AT, "stop": FENCE}
"""Steps that wait while operators have paused all moves -> the fact that they write first when they went past that."""


def at_rest(schedule: Schedule) -> list[str]:
    """Before operators act."""
    always = (_nothing_lost, _one_outcome, leftovers.nothing_held, no_secret)
    return _named(schedule, ("nothing is stuck", _nothing_stuck), *zip(NAMES, always, strict=True))


def at_the_end(schedule: Schedule) -> list[str]:
    """After operators have acted."""
    always = (_nothing_lost, _one_outcome, leftovers.nothing_left, no_secret)
    return _named(
        schedule,
        ("every migration ends", _all_over),
        ("every failure has its dead letter", _dead_letters_written),
        ("no crash fails a migration", _completed),
        ("up and consistent", _up_and_consistent),
        ("nothing is stopped in vain", _stopped_in_vain),
        ("a copy that followed is exact", _followed_exactly),
        *zip(NAMES, always, strict=True),
    )


def after_the_doctor(schedule: Schedule) -> list[str]:
    """At the very end, when the doctor has looked once more."""
    return _named(schedule, ("the doctor removes what is left", leftovers.after_the_doctor))


NAMES: Final = ("nothing is lost", "one outcome", "nothing is left over", "no secret is published")


def writable(site: Site, tenant: UUID) -> str | None:
    """At every moment: at most one writable database, and only with the customer's data in it."""
    places = site.writable(tenant)
    if len(places) > 1:
        return f"one writable database: {tenant} is writable on {places}"
    name = site.platform.instances[tenant]["database_name"]
    for (host, _), there in site.world.servers.items():
        if host in places and there.databases[name].tables.get("public.res_partner") != PARTNERS:
            return f"one writable database: {tenant} is writable on {host}, without its data"
    if len(writers := site.writers(tenant)) > 1:
        return f"one task writes: {writers} of {tenant} do"
    careful = site.policy.cutover == "careful"
    if careful and (ending := site.ending(tenant)) and set(places) - {site.pool.host}:
        return f"one task writes: {tenant} is writable on {places} before {ending} have ended"
    return None


def few_down(schedule: Schedule, row: StepRow, fact: Fact[Any]) -> str | None:
    """At every moment: no more instances are down for a move at a time than the policy says.

    One whose migration waits for an operator is not counted: others do not wait for it.
    """
    journal, most = schedule.journal, schedule.site.policy.down_at_once
    if fact is not FENCE or most is None:
        return None
    down = [
        other.id
        for other in journal.migrations.values()
        if not (other.ended or other.past_pivot or other.state == "failed" or other.id == row.migration_id)
        and (other.id, other.attempt, FENCE.name) in journal.stored_facts
        and (other.id, other.attempt, HEALTHY_AT.name) not in journal.stored_facts
    ]
    return (
        f"few are down: {down} are, and migration {row.migration_id} is stopped"
        if len(down) >= most
        else None
    )


def in_window(schedule: Schedule, row: StepRow, fact: Fact[Any]) -> str | None:
    """At every moment: no try stops an instance that began and acts while the maintenance window is closed."""
    journal, policy = schedule.journal, schedule.site.policy
    if fact is not FENCE or (row.migration_id, row.attempt, fact.name) in journal.stored_facts:
        return None
    tried, now = journal.times(row).tried, schedule.site.clock.now()
    if closed(policy.windows, tried) is None or closed(policy.windows, now) is None:
        return None
    return f"stopped in the window alone: migration {row.migration_id} was stopped at {now:%H:%M:%S}"


def unpaused(schedule: Schedule, row: StepRow, fact: Fact[Any]) -> str | None:
    """At every moment: no try that was started in a pause begins a move, or stops an instance."""
    journal = schedule.journal
    if GATED.get(row.step) is not fact or (row.migration_id, row.attempt, fact.name) in journal.stored_facts:
        return None
    if journal.pause is None or journal.times(row).tried <= journal.pause.at:
        return None
    return f"paused moves wait: {row.step} of migration {row.migration_id} went on in a pause"


def _named(schedule: Schedule, *checks: tuple[str, Callable[[Schedule], Iterator[str]]]) -> list[str]:
    return [f"{name}: {what}" for name, check in checks for what in check(schedule)]


def _all_over(schedule: Schedule) -> Iterator[str]:
    for row in schedule.journal.migrations.values():
        if not row.ended:
            yield f"migration {row.id} is still {row.state}: {row.reason}"


def _completed(schedule: Schedule) -> Iterator[str]:
    """Where nothing refused to work for good, no migration was rolled back: it completed."""
    kinds = [kind for kind, _ in schedule.faults.injected]
    if (
        schedule.plan.rolled_back_at
        or schedule.plan.moods
        or schedule.unmovable_since
        or not HARMLESS.issuperset(kinds)
        or len(kinds) > FEW
    ):
        return
    for upgrade in schedule.upgrades[: len(schedule.tenants)]:
        row = schedule.journal.migrations.get(opened_by(upgrade.id))
        if row is not None and (row.state, row.attempt) not in {("completed", 1), ("nothing_to_do", 1)}:
            yield f"migration {row.id} is {row.state} in attempt {row.attempt}: {row.reason}, after {kinds}"


def _stopped_in_vain(schedule: Schedule) -> Iterator[str]:
    """What no restore takes is found before the stop."""
    for tenant, before in schedule.unmovable_since.items():
        for key, row in schedule.journal.steps.items():
            of_tenant = schedule.journal.migrations[row.migration_id].instance_id == tenant
            if of_tenant and row.step == "stop" and row.state == "done" and key not in before:
                yield f"{tenant} was stopped in attempt {row.attempt}, though its database cannot be restored"


def _dead_letters_written(schedule: Schedule) -> Iterator[str]:
    """A step that failed for good has a dead letter, whatever its migration did then.

    If the broker has lost a message of the migration, it may have been that one.
    """
    written = dead_letters_published(schedule)
    for row in schedule.journal.steps.values():
        if row.migration_id in schedule.faults.lost:
            continue
        attempt = None if row.step == saga.MIGRATION[0].name else row.attempt
        is_last = row.attempt == schedule.journal.migrations[row.migration_id].attempt
        if row.state == "failed" and is_last and (row.migration_id, attempt, row.step) not in written:
            yield f"step {row.step} of migration {row.migration_id} failed without a dead letter"


def _nothing_stuck(schedule: Schedule) -> Iterator[str]:
    """Ended, or a dead letter and `migration.failed`."""
    letters = list(dead_letters(schedule))
    waiting = {letter.migration for letter in letters} | schedule.operators.discarded
    unsure = {
        letter.migration for letter in letters if letter.reason != "failed"
    } | schedule.operators.discarded
    failed = {
        (event.migration, event.attempt) for event in events(schedule) if event.type == MigrationFailed.TYPE
    }
    for upgrade in schedule.upgrades:
        migration = opened_by(upgrade.id)
        if migration not in {*schedule.journal.migrations, *waiting} and not schedule.on_its_way(upgrade.id):
            yield f"upgrade {upgrade.id} left no trace"
    for row in schedule.journal.migrations.values():
        if (
            row.ended
            or row.id in schedule.faults.lost
            or (row.state in {"requested", "prepared"} and schedule.faults.lost)
        ):
            continue  # an operator is needed, also for migrations that wait for the slot of such a one
        if row.id not in waiting:
            yield f"migration {row.id} is {row.state} without a dead letter: {row.reason}"
        elif row.state == "failed" and (row.id, row.attempt) not in failed:
            yield f"migration {row.id} failed without migration.failed"
        elif row.state == "failing":
            yield f"migration {row.id} is failing, and no consumer rolls it back"
        elif row.state != "failed" and row.id not in unsure:
            yield f"migration {row.id} has a dead letter of a failure, and is {row.state}"


def _nothing_lost(schedule: Schedule) -> Iterator[str]:
    """Every order whose saving was confirmed is there once; the source is unchanged."""
    site = schedule.site
    pool = site.pool.host
    for tenant in schedule.tenants:
        if found := writable(site, tenant):
            yield found
        confirmed = site.confirmed[tenant]
        orders = site.orders(tenant)
        home = _home(schedule, tenant)
        if pool not in orders or home not in orders:
            yield f"{tenant} belongs to {home}, and is only on {sorted(orders)}"
            continue
        if _has_ended(schedule, tenant) and orders[home] != confirmed:
            yield f"orders of {tenant} on {home} are {orders[home]}, confirmed were {confirmed}"
        if orders[pool] != confirmed[: len(orders[pool])]:
            yield f"the source of {tenant} was changed: {orders[pool]}, confirmed were {confirmed}"
        if not set(confirmed) <= set().union(*orders.values()):
            yield f"of the orders {confirmed} of {tenant} there are only {orders}"
        name = _row(schedule, tenant)["database_name"]
        hosts = (pool, home) if _has_ended(schedule, tenant) else (pool,)
        found_on = {host: site.world.servers[host, 5432].databases[name] for host in hosts}
        for host, database in found_on.items():
            if database.tables["public.res_partner"] != PARTNERS:
                yield f"{tenant} is not complete on {host}"
            if database.objects["index"] != found_on[pool].objects["index"]:
                yield f"{tenant} has other definitions on {host} than on {pool}"


def _one_outcome(schedule: Schedule) -> Iterator[str]:
    """Copies are equal, ids are those of the contract, and an attempt has one outcome and one order."""
    bodies: dict[str, bytes] = {}
    order: dict[tuple[UUID, int], list[str]] = {}
    for message in published(schedule):
        event = read_event(message)
        if event.migration is None or event.attempt is None:
            yield f"{event.type} names no migration"
            continue
        if event.id != event_id(event.migration, event.attempt, event.type):
            yield f"{event.type} has id {event.id}"
        if bodies.setdefault(str(event.id), message.body) != message.body and event.type not in CHANGING:
            yield f"copies of {event.type} {event.id} differ"
        types = order.setdefault((event.migration, event.attempt), [])
        if event.type not in types:
            types.append(event.type)
    for (migration, attempt), types in order.items():
        started_and_undone = {MigrationStarted.TYPE, MigrationRolledBack.TYPE} <= set(types)
        if len(OUTCOMES.intersection(types)) > 1 or started_and_undone:
            yield f"migration {migration} attempt {attempt} has the outcomes {types}"
        steps = [kind for kind in types if kind in FORWARD]
        if steps != FORWARD[: len(steps)]:
            yield f"migration {migration} attempt {attempt} published {types}"


def _up_and_consistent(schedule: Schedule) -> Iterator[str]:
    """The instance is up on the server that record, odoo.conf and environment name, and only there."""
    site = schedule.site
    site.reconcile()
    for tenant, replicas in zip(schedule.tenants, schedule.plan.tenants, strict=True):
        if not _has_ended(schedule, tenant):
            continue
        row, home = _row(schedule, tenant), _home(schedule, tenant)
        service = site.runtime.services[row["service_name"]]
        path = site.odoo_conf.path(site.instance(tenant))
        conf = read(site.odoo_conf.files[path], str(path))
        env = service.spec["env"]["ODOO_DATABASE_HOST"]
        if not home == conf["db_host"] == env == row["db_host"]:
            yield f"{tenant}: record {home}, {row['db_host']}; odoo.conf {conf['db_host']}; environment {env}"
        if site.writable(tenant) != [home]:
            yield f"{tenant} belongs to {home} and is writable on {site.writable(tenant)}"
        if bool(service.running) is not bool(replicas):
            yield f"{tenant} has {len(service.running)} running task(s), wanted {replicas}"
        if row["status"] != ("running" if replicas else "stopped"):
            yield f"{tenant} is {row['status']}, with {replicas} replica(s) wanted"
        dedicated = row["db_type"] == "dedicated"
        if dedicated is not (home != site.pool.host):
            yield f"{tenant} is of type {row['db_type']} on {home}"


def _followed_exactly(schedule: Schedule) -> Iterator[str]:
    """A copy that followed its source until the end was given up for no difference, unless rows were taken from it."""
    if any(kind == "truncate" for kind, _ in schedule.injected):
        return
    for (migration, _, name), stored in schedule.journal.stored_facts.items():
        if name == WARM_GIVEN_UP.name and "differs" in str(stored):
            yield f"that of migration {migration} was given up: {stored}"


def _row(schedule: Schedule, tenant: UUID) -> dict[str, Any]:
    return schedule.site.platform.instances[tenant]


def _home(schedule: Schedule, tenant: UUID) -> str:
    server = _row(schedule, tenant)["db_server_id"]
    return str(schedule.site.platform.servers[server]["host"]) if server else ""


def _has_ended(schedule: Schedule, tenant: UUID) -> bool:
    return all(row.ended for row in schedule.journal.migrations.values() if row.instance_id == tenant)
