"""Whether the source of a completed migration may be dropped for good. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.doctor.snapshot import GONE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.snapshot import InstanceSeen
    from rehome_consumer.ports.operators import Completed


def refusals(done: Completed, seen: InstanceSeen, now: datetime, *, early: bool) -> list[str]:
    """Every reason why the source must stay; none: it may go.

    Args:
        done: the migration.
        seen: its instance, looked at just now.
        now: the present moment.
        early: the end of the retention is not waited for.
    """
    if seen.instance is None:
        return ["the instance is not in the platform's table `instances`: drop its old database by hand"]
    if seen.instance.status == GONE:
        return ["the instance is terminated: it cannot prove its new database; drop the old one by hand"]
    return [
        *_retention(done, seen, now, early=early),
        *_lives_elsewhere(seen),
        *_serves(seen),
        *_source(seen),
    ]


def _retention(done: Completed, seen: InstanceSeen, now: datetime, *, early: bool) -> Iterator[str]:
    if seen.holder is not None:
        yield "somebody is at work on the instance at this moment"
    if seen.migration is None or seen.migration.id != done.id or seen.migration.state != "completed":
        yield "a later migration of the instance is there"
    if early:
        return
    if done.until is None:
        yield "the journal does not say until when it is kept: say --now if you know"
    elif done.until > now:
        yield f"it is kept until {done.until:%Y-%m-%d %H:%M} UTC (--now does not wait for that)"


def _lives_elsewhere(seen: InstanceSeen) -> Iterator[str]:
    """Record and odoo.conf name the dedicated server."""
    target, home, conf, instance = seen.target, seen.home, seen.conf, seen.instance
    if target is None:
        yield "its dedicated server is not in the platform's table `db_servers`"
        return
    if home is None or home.id != target.id or (instance and instance.db_type != "dedicated"):
        yield f"the record names {home.name if home else 'no server'}, not {target.name} (dedicated)"
    if conf is None:
        yield "its odoo.conf could not be read"
    elif (conf.host, conf.port) != (target.host, target.port):
        yield f"{conf.path} names {conf.host}:{conf.port}, not {target.host}:{target.port}"


def _serves(seen: InstanceSeen) -> Iterator[str]:
    service, side = seen.service, seen.target_side
    if service is None or not service.replicas or not service.running:
        yield "the instance does not run: start it, so that it can prove its new database"
    elif side is None or not side.exists or not side.sessions:
        yield "the instance has no connection to its database on the dedicated server"


def _source(seen: InstanceSeen) -> Iterator[str]:
    source, side = seen.source, seen.source_side
    if source is None or side is None:
        yield "the source server could not be looked at"
        return
    if not side.exists:
        return
    if source.kind != "shared":
        yield f"{source.name} is no shared pool"
    if side.mark is not None:
        yield f"{side.database} on {source.name} carries a mark of a migration: it is no source"
    if not side.fenced:
        yield f"{side.database} on {source.name} is not fenced (any more): somebody may have written to it"
    if side.sessions:
        yield f"{side.sessions} connection(s) to {side.database} on {source.name}"
