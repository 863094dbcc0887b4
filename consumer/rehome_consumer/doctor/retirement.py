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
        snapshot: its instance, looked at just now.
        now: the present moment.
        early: the end of the retention is not waited for.
    """
    if snapshot.instance is None:
        return ["the instance is not in the platform's table `instances`: drop its old database by hand"]
    if snapshot.instance.status == TERMINATED:
        return ["the instance is terminated: it cannot prove its new database; drop the old one by hand"]
    return [
        *_retention(done, snapshot, now, early=early),
        *_lives_elsewhere(snapshot),
        *_serves(snapshot),
        *_source(snapshot),
    ]


def _retention(done: Completed, snapshot: InstanceSnapshot, now: datetime, *, early: bool) -> Iterator[str]:
    if snapshot.holder is not None:
        yield "somebody is at work on the instance at this moment"
    if (
        snapshot.migration is None
        or snapshot.migration.id != done.id
        or snapshot.migration.state != "completed"
    ):
        yield "a later migration of the instance is there"
    if early:
        return
    if done.until is None:
        yield "the journal does not say until when it is kept: say --now if you know"
    elif done.until > now:
        yield f"it is kept until {done.until:%Y-%m-%d %H:%M} UTC (--now does not wait for that)"


def _lives_elsewhere(snapshot: InstanceSnapshot) -> Iterator[str]:
    """Record and odoo.conf name the dedicated server."""
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
    service, database_state = snapshot.service, snapshot.target_state
    if service is None or not service.replicas or not service.running:
        yield "the instance does not run: start it, so that it can prove its new database"
    elif database_state is None or not database_state.exists or not database_state.sessions:
        yield "the instance has no connection to its database on the dedicated server"


def _source(snapshot: InstanceSnapshot) -> Iterator[str]:
    source, database_state = snapshot.source, snapshot.source_state
    if source is None or database_state is None:
        yield "the source server could not be looked at"
        return
    if not database_state.exists:
        return
    if source.kind != "shared":
        yield f"{source.name} is no shared pool"
    if database_state.tag is not None:
        yield f"{database_state.database} on {source.name} carries a mark of a migration: it is no source"
    if not database_state.fenced:
        yield f"{database_state.database} on {source.name} is not fenced (any more): somebody may have written to it"
    if database_state.sessions:
        yield f"{database_state.sessions} connection(s) to {database_state.database} on {source.name}"
