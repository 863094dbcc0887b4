"""One instance: record, odoo.conf, service, connections and fences must tell the same story. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rehome_consumer.doctor import after_migration
from rehome_consumer.doctor.finding import UNSEEN, about
from rehome_consumer.doctor.snapshot import GONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.finding import Finding
    from rehome_consumer.doctor.snapshot import InstanceSeen
    from rehome_consumer.model import Server

FENCED_IN: Final = frozenset(
    {"stopped", "backed_up", "provisioned", "conf_rewritten", "restored", "started", "completed"}
)
"""States of a migration in which its source must be fenced."""
_ENVIRONMENT: Final = ("ODOO_DATABASE_HOST", "ODOO_DATABASE_PORT_NUMBER", "ODOO_DATABASE_USER")


def findings(seen: InstanceSeen, now: datetime) -> Iterator[Finding]:
    """Everything that is not as it should be with one instance; nothing while somebody is at work on it."""
    if seen.holder is not None:
        return
    for trouble in seen.troubles:
        yield about(seen, "unseen", "warning", f"{trouble.what} could not be seen: {trouble.error}", UNSEEN)
    if seen.instance is None:
        return
    yield from _writable(seen)
    if not seen.moving and seen.instance.status != GONE:
        yield from _story(seen)
        yield from _serving(seen)
    yield from after_migration.findings(seen, now)


def _writable(seen: InstanceSeen) -> Iterator[Finding]:
    """At most one of the two databases takes writes, and a source that was left is fenced."""
    source, target, view = seen.source_side, seen.target_side, seen.migration
    if view is None or seen.source is None or source is None:
        return
    if target and target.open and source.open:
        yield about(
            seen,
            "two_writable",
            "error",
            f"{source.database} takes writes on {seen.source.name} and on {seen.target.name if seen.target else '?'}",
            "find out where the customer's users write; close the other one (ALTER ROLE ... NOLOGIN)",
        )
    elif source.open and view.state in FENCED_IN and not view.past_return and not view.ended:
        yield about(
            seen,
            "fence_lifted",
            "error",
            f"the fence of {source.database} on {seen.source.name} was lifted during the migration",
            f"rehome roll-back {view.id}: what was copied may be out of date",
        )
    elif source.open and view.past_return and not (seen.home and seen.home.id == seen.source.id):
        yield about(
            seen,
            "source_open",
            "error",
            f"the old database {source.database} on {seen.source.name} takes writes "
            f"({source.sessions} connection(s)), although the instance has moved",
            "find who uses it; then ALTER ROLE ... NOLOGIN and REVOKE CONNECT ON DATABASE ... FROM PUBLIC",
            since=view.ended_at,
        )


def _story(seen: InstanceSeen) -> Iterator[Finding]:
    """Record, odoo.conf, environment and connections, while nothing moves."""
    instance, home, conf = seen.instance, seen.home, seen.conf
    if instance is None or home is None:
        yield about(seen, "no_home", "warning", "the record names no database server", "mend the record")
        return
    if conf is not None and (conf.host, conf.port) != (home.host, home.port):
        yield about(
            seen,
            "conf_differs",
            "error",
            f"{conf.path} says {conf.host}:{conf.port}, the record {home.host}:{home.port} ({home.name})",
            "find out which is right; mend the other one",
        )
    if instance.db_type is not None and instance.db_type != home.kind:
        yield about(
            seen,
            "record_differs",
            "warning",
            f"the record's db_type is {instance.db_type}, but its data is on {home.name}, which is {home.kind}",
            "was billing's plan.upgraded lost? rehome publish plan.upgraded sends it",
        )
    if (instance.db_host or home.host) != home.host or (instance.db_port or home.port) != home.port:
        yield about(
            seen,
            "record_differs",
            "warning",
            f"the record's db_host and db_port are {instance.db_host}:{instance.db_port}, "
            f"its db_server_id is {home.name} at {home.host}:{home.port}",
            "mend the record",
        )
    yield from _environment(seen)
    yield from _elsewhere(seen, home)


def _environment(seen: InstanceSeen) -> Iterator[Finding]:
    """The service's environment only misleads people: Odoo reads odoo.conf alone."""
    if seen.conf is None or seen.service is None:
        return
    wanted = (seen.conf.host, str(seen.conf.port), seen.conf.credentials.user)
    differing = [
        f"{name}={seen.service.env[name]}"
        for name, value in zip(_ENVIRONMENT, wanted, strict=True)
        if seen.service.env.get(name, value) != value
    ]
    if differing:
        yield about(
            seen,
            "environment_differs",
            "warning",
            f"service {seen.service.name} has {', '.join(differing)}; odoo.conf says {':'.join(wanted[:2])}, "
            f"user {wanted[2]}",
            "set the service's environment as odoo.conf has it; Odoo itself reads odoo.conf only",
        )


def _elsewhere(seen: InstanceSeen, home: Server) -> Iterator[Finding]:
    for server, side in ((seen.source, seen.source_side), (seen.target, seen.target_side)):
        if server and side and server.id != home.id and side.sessions:
            yield about(
                seen,
                "connected_elsewhere",
                "error",
                f"{side.sessions} connection(s) to {side.database} on {server.name}, but it lives on {home.name}",
                "find who it is: pg_stat_activity there",
            )


def _serving(seen: InstanceSeen) -> Iterator[Finding]:
    instance, service = seen.instance, seen.service
    if instance is None:
        return
    if instance.status == "maintenance":
        yield about(
            seen,
            "in_maintenance",
            "warning",
            "its status is maintenance, and no migration holds it",
            "if nobody works on it, write its real status into the record",
        )
    if service is not None and instance.status == "running" and not service.running:
        yield about(
            seen,
            "down",
            "error",
            f"its status is running, but nothing of service {service.name} runs ({service.replicas} asked for)",
            "look at the service's tasks and its log",
        )
