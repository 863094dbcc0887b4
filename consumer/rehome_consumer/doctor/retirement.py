"""Whether the source of a completed migration may be dropped for good. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.model import TERMINATED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.ports.operators import Completed


def refusals(done: Completed, snapshot: InstanceSnapshot, now: datetime, *, early: bool) -> list[str]:
    """Every reason why the source must stay; none: it may go.

    Args:
        done: the migration.
        snapshot: of its instance, taken just now.
        now: the present moment.
        early: the end of the retention is not waited for.
    """
    if snapshot.instance is None:
        return ["the instance is not in the platform's table `instances`: drop its old database by hand"]
    if snapshot.instance.status == TERMINATED:
        return ["the instance is terminated: it cannot show that it serves; drop the old database by hand"]
    return [
        *_retention(done, snapshot, now, early=early),
        *_lives_elsewhere(snapshot),
        *_serves(snapshot),
        *_source(snapshot),
    ]


def _retention(done: Completed, snapshot: InstanceSnapshot, now: datetime, *, early: bool) -> Iterator[str]:
    if snapshot.holder is not None:
        yield "a consumer works on the instance at this moment"
    if (
        snapshot.migration is None
        or snapshot.migration.id != done.id
        or snapshot.migration.state != "completed"
    ):
        yield "there is a later migration of the instance"
    if early:
        return
    if done.until is None:
        yield "the journal does not say until when it is kept: use --now if you are sure"
    elif done.until > now:
        yield f"it is kept until {done.until:%Y-%m-%d %H:%M} UTC (--now does not wait for that)"


def _lives_elsewhere(snapshot: InstanceSnapshot) -> Iterator[str]:
    """The record and odoo.conf must name the dedicated server."""
    target, home, conf, instance = snapshot.target, snapshot.home, snapshot.conf, snapshot.instance
    if target is None:
        yield "its dedicated server is not in the platform's table `db_servers`"
        return
    if home is None or home.id != target.id or (instance and instance.db_type != "dedicated"):
        yield f"the record names {home.name if home else 'no server'}, not {target.name} (dedicated)"
    if conf is None:
        yield "its odoo.conf could not be read"
    elif (conf.host, conf.port) != (target.host, target.port):
        yield f"{conf.path} names {conf.host}:{conf.port}, not {target.host}:{target.port}"


def _serves(snapshot: InstanceSnapshot) -> Iterator[str]:
    service, target = snapshot.service, snapshot.target_state
    if service is None or not service.replicas or not service.running:
        yield "the instance does not run: start it, so that it can show that it serves from its new database"
    elif target is None or not target.exists or not target.sessions:
        yield "the instance has no connection to its database on the dedicated server"


def _source(snapshot: InstanceSnapshot) -> Iterator[str]:
    server, source = snapshot.source, snapshot.source_state
    if server is None or source is None:
        yield "the source server could not be checked"
        return
    if not source.exists:
        return
    if server.kind != "shared":
        yield f"{server.name} is not a shared pool"
    if source.tag is not None:
        yield f"{source.database} on {server.name} has an ownership tag of a migration: it is not a source"
    if not source.fenced:
        yield f"{source.database} on {server.name} is not fenced (any more): someone may have written to it"
    if source.sessions:
        yield f"{source.sessions} connection(s) to {source.database} on {server.name}"
