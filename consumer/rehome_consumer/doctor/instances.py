"""One instance: its record, odoo.conf, service, connections and fences must agree. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor import after_migration
from rehome_consumer.doctor.finding import NOT_CHECKED, about
from rehome_consumer.model import TERMINATED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.model import Server

FENCED_IN: Final = frozenset(
    {"stopped", "backed_up", "provisioned", "conf_rewritten", "restored", "started", "completed"}
)
"""States of a migration in which its source must be fenced."""
_ENVIRONMENT: Final = ("ODOO_DATABASE_HOST", "ODOO_DATABASE_PORT_NUMBER", "ODOO_DATABASE_USER")


def findings(snapshot: InstanceSnapshot, now: datetime) -> Iterator[Finding]:
    """Everything that is not as it should be with one instance; nothing while a consumer works on it."""
    if snapshot.holder is not None:
        return
    for trouble in snapshot.troubles:
        yield about(
            snapshot,
            "not_checked",
            "warning",
            f"{trouble.what} could not be checked: {trouble.error}",
            NOT_CHECKED,
        )
    if snapshot.instance is None:
        return
    yield from _writable(snapshot)
    yield from _shared_login(snapshot)
    if not snapshot.moving and snapshot.instance.status != TERMINATED:
        yield from _consistent(snapshot)
        yield from _serving(snapshot)
    yield from after_migration.findings(snapshot, now)


def _writable(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """At most one of the two databases takes writes, and a source that was left is fenced."""
    source, target, view = snapshot.source_state, snapshot.target_state, snapshot.migration
    if view is None or snapshot.source is None or source is None:
        return
    if target and target.open and source.open:
        yield about(
            snapshot,
            "both_writable",
            "error",
            f"{source.database} takes writes on {snapshot.source.name} and on "
            f"{snapshot.target.name if snapshot.target else '?'}",
            "find out which one the customer's users write to; close the other one (ALTER ROLE ... NOLOGIN)",
        )
    elif source.open and view.state in FENCED_IN and not view.past_pivot and not view.ended:
        yield about(
            snapshot,
            "fence_removed",
            "error",
            f"the fence of {source.database} on {snapshot.source.name} was removed during the migration",
            f"rehome roll-back {view.id}: what was copied may be out of date",
        )
    elif source.open and view.past_pivot and not (snapshot.home and snapshot.home.id == snapshot.source.id):
        yield about(
            snapshot,
            "source_writable",
            "error",
            f"the old database {source.database} on {snapshot.source.name} takes writes "
            f"({source.sessions} connection(s)), although the instance has moved",
            "find out who uses it; then ALTER ROLE ... NOLOGIN and REVOKE CONNECT ON DATABASE ... FROM PUBLIC",
            since=view.ended_at,
        )


def _shared_login(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """Nobody else logs in as its role on the pool: a fence stops them, or would."""
    server, state = snapshot.source, snapshot.source_state
    if not snapshot.same_login or server is None or server.kind != "shared":
        return
    role = state.role if state else "its role"
    stopped = state is not None and state.can_login is False
    named = ", ".join(f"{one.database} {one.id}" for one in snapshot.same_login)
    yield about(
        snapshot,
        "shared_login",
        "error" if stopped else "warning",
        f"{role} on {server.name} is the login of {named} too" + (", and may not log in" if stopped else ""),
        f"give those instances a role of their own{' now: they are down' if stopped else ''} (the record's db_user and "
        "odoo.conf); until then no instance with this login can be moved",
    )


def _consistent(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """Record, odoo.conf, environment and connections, while no migration is under way."""
    instance, home, conf = snapshot.instance, snapshot.home, snapshot.conf
    if instance is None or home is None:
        yield about(
            snapshot,
            "record_without_server",
            "warning",
            "the record names no database server",
            "correct the record",
        )
        return
    if conf is not None and (conf.host, conf.port) != (home.host, home.port):
        yield about(
            snapshot,
            "conf_mismatch",
            "error",
            f"{conf.path} says {conf.host}:{conf.port}, the record says {home.host}:{home.port} ({home.name})",
            "find out which is right; correct the other one",
        )
    if instance.db_type is not None and instance.db_type != home.kind:
        yield about(
            snapshot,
            "record_mismatch",
            "warning",
            f"the record's db_type is {instance.db_type}, but its data is on {home.name}, which is {home.kind}",
            "was billing's plan.upgraded lost? rehome publish plan.upgraded sends it again",
        )
    if (instance.db_host or home.host) != home.host or (instance.db_port or home.port) != home.port:
        yield about(
            snapshot,
            "record_mismatch",
            "warning",
            f"the record's db_host and db_port are {instance.db_host}:{instance.db_port}, "
            f"its db_server_id is {home.name} at {home.host}:{home.port}",
            "correct the record",
        )
    yield from _environment(snapshot)
    yield from _elsewhere(snapshot, home)


def _environment(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    """Odoo reads odoo.conf only: a wrong environment of the service misleads people, not Odoo."""
    if snapshot.conf is None or snapshot.service is None:
        return
    wanted = (snapshot.conf.host, str(snapshot.conf.port), snapshot.conf.credentials.user)
    differing = [
        f"{name}={snapshot.service.env[name]}"
        for name, value in zip(_ENVIRONMENT, wanted, strict=True)
        if snapshot.service.env.get(name, value) != value
    ]
    if differing:
        yield about(
            snapshot,
            "environment_mismatch",
            "warning",
            f"service {snapshot.service.name} has {', '.join(differing)}; odoo.conf says {':'.join(wanted[:2])}, "
            f"user {wanted[2]}",
            "set the service's environment to what odoo.conf says; Odoo itself reads odoo.conf only",
        )


def _elsewhere(snapshot: InstanceSnapshot, home: Server) -> Iterator[Finding]:
    for server, state in (
        (snapshot.source, snapshot.source_state),
        (snapshot.target, snapshot.target_state),
    ):
        if server and state and server.id != home.id and state.sessions:
            yield about(
                snapshot,
                "connections_elsewhere",
                "error",
                f"{state.sessions} connection(s) to {state.database} on {server.name}, "
                f"but the instance's database is on {home.name}",
                "find out who it is: pg_stat_activity there",
            )


def _serving(snapshot: InstanceSnapshot) -> Iterator[Finding]:
    instance, service = snapshot.instance, snapshot.service
    if instance is None:
        return
    if instance.status == "maintenance":
        yield about(
            snapshot,
            "in_maintenance",
            "warning",
            "its status is maintenance, and no migration holds it",
            "if nobody works on it, write its real status into the record",
        )
    if service is not None and instance.status == "running" and not service.running:
        yield about(
            snapshot,
            "instance_down",
            "error",
            f"its status is running, but no task of service {service.name} runs ({service.replicas} wanted)",
            "look at the service's tasks and its log",
        )
