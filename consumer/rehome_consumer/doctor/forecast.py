"""What a replay or a rollback would do, as the steps describe it, from what was observed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.doctor.snapshot import backup_name, tag
from rehome_consumer.steps.support.situation import UNKNOWN, OwnDatabase, Situation, TenantDatabase

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.ports.operators import DatabaseState


def replaying(
    step: str, snapshot: InstanceSnapshot, started: Collection[str] | None = None
) -> tuple[str, ...]:
    """What running a step again would do to the world as it is, one line per thing.

    Args:
        step: its name.
        snapshot: the instance and its migration.
        started: steps that were started, for a rollback; None: all of them.
    """
    found = saga.named(step)
    return found.describe(situation_of(snapshot, started)) if found else ()


def in_detail(
    step: str, snapshot: InstanceSnapshot | None, started: Collection[str] | None = None
) -> list[str]:
    """As `replaying`, and what could not be looked at; nothing where nothing was looked at."""
    if snapshot is None:
        return []
    unseen = [f"{trouble.what} could not be looked at: {trouble.error}" for trouble in snapshot.troubles]
    return [*replaying(step, snapshot, started), *unseen]


def undoing(snapshot: InstanceSnapshot, started: Collection[str] | None) -> list[tuple[str, str]]:
    """What a rollback would do: (step, words), in the order of undoing.

    Args:
        snapshot: the instance and its migration.
        started: steps that were started; None: all of them.
    """
    situation = situation_of(snapshot, started)
    return [
        (step.name, step.describe_undo(situation))
        for step in reversed(saga.MIGRATION)
        if step.describe_undo is not None and (started is None or step.name in started)
    ]


def is_as_left(snapshot: InstanceSnapshot) -> bool:
    """Whether nothing of a forward migration was undone: it may go on where it stopped."""
    conf, target, view = snapshot.conf, snapshot.target, snapshot.migration
    return (
        view is not None
        and conf is not None
        and target is not None
        and (conf.host, conf.port) == (target.host, target.port)
        and snapshot.source_state is not None
        and snapshot.source_state.fenced
        and any(one.tag and one.tag.attempt == view.attempt for one in snapshot.on_target)
    )


def situation_of(snapshot: InstanceSnapshot, started: Collection[str] | None = None) -> Situation:
    """What the descriptions of steps need of a snapshot."""
    view, target, conf = snapshot.migration, snapshot.target, snapshot.conf
    backup = backup_name(view) if view else UNKNOWN
    return Situation(
        started=started,
        facts=snapshot.facts,
        home=snapshot.home.name if snapshot.home else None,
        source=snapshot.source.name if snapshot.source else None,
        target=target.name if target else None,
        target_address=f"{target.host}:{target.port}" if target else None,
        source_database=_tenant_database(snapshot.source_state),
        target_database=_tenant_database(snapshot.target_state),
        own_databases=tuple(
            OwnDatabase(
                one.name, one.tag.state == "verified", view is not None and one.tag.attempt == view.attempt
            )
            for one in snapshot.on_target
            if one.tag
        ),
        service=_service(snapshot),
        conf=str(conf.path) if conf else None,
        conf_address=f"{conf.host}:{conf.port}" if conf else None,
        conf_backup=next((file.name for file in snapshot.files if view and file.tag == tag(view)), None),
        backup=backup,
        sealed=view is not None and any(one.name == backup for one in snapshot.stored),
        partial=any(one.kind == "partial" for one in snapshot.stored),
        stored=tuple(one.name for one in snapshot.stored),
    )


def _tenant_database(state: DatabaseState | None) -> TenantDatabase | None:
    if state is None:
        return None
    return TenantDatabase(
        name=state.database,
        role=state.role,
        exists=state.exists,
        access="fenced" if state.fenced else "open" if state.open else "partly closed",
        sessions=state.sessions,
        bytes=state.bytes,
    )


def _service(snapshot: InstanceSnapshot) -> str:
    if snapshot.service is not None:
        return f"{snapshot.service.name} ({len(snapshot.service.running)} running)"
    return snapshot.instance.service if snapshot.instance else UNKNOWN
