"""What a replay or a rollback would do, in concrete words, from what was seen. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.doctor.snapshot import backup_name, tag

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.model import Server
    from rehome_consumer.ports.operators import DatabaseState, TaggedDatabase

UNKNOWN = "?"


def replaying(
    step: str, snapshot: InstanceSnapshot, started: Collection[str] | None = None
) -> tuple[str, ...]:
    """What running a step again would do to the world as it is, one line per thing.

    Args:
        step: its name.
        snapshot: the instance and its migration.
        started: steps that were begun, for a rollback; None: all of them.
    """
    match step:
        case "accept":
            home = snapshot.home.name if snapshot.home else "no known server"
            return (
                f"would decide about the upgrade again; the data is on {home} now",
                _state_of_source(snapshot),
            )
        case "prepare":
            target = (
                _name(snapshot.target) if snapshot.target else "a dedicated server, asked of database-service"
            )
            return (f"would run every check again, for {target}", _state_of_source(snapshot))
        case "stop":
            return (
                f"would stop service {_service(snapshot)} and fence the source",
                _state_of_source(snapshot),
            )
        case "back_up":
            return (_backing_up(snapshot), _state_of_source(snapshot))
        case "provision":
            return (
                f"would make role and scratch database on {_name(snapshot.target)}",
                _state_of_target(snapshot),
            )
        case "rewrite_conf":
            return (f"would point odoo.conf to {_name(snapshot.target)}", _rewriting(snapshot))
        case "restore":
            return (
                (
                    f"would restore the backup on {_name(snapshot.target)}, compare it with the source, "
                    "and let the role in"
                ),
                _state_of_backup(snapshot),
                _state_of_source(snapshot),
                _state_of_target(snapshot),
            )
        case "start":
            return (
                f"would point the record to {_name(snapshot.target)} and start service {_service(snapshot)}",
                _rewriting(snapshot),
                _state_of_source(snapshot),
                _state_of_target(snapshot),
            )
        case "complete":
            sessions = snapshot.target_state.sessions if snapshot.target_state else UNKNOWN
            return (
                f"would count connections ({sessions} on {_name(snapshot.target)} now), and close the record",
                _state_of_source(snapshot),
            )
        case _:
            return tuple(f"would undo {name}: {what}" for name, what in undoing(snapshot, started))


def in_detail(
    step: str, snapshot: InstanceSnapshot | None, started: Collection[str] | None = None
) -> list[str]:
    """As `replaying`, and what could not be looked at; nothing where nothing was seen."""
    if snapshot is None:
        return []
    blind = [f"{trouble.what} could not be looked at: {trouble.error}" for trouble in snapshot.troubles]
    return [*replaying(step, snapshot, started), *blind]


def undoing(snapshot: InstanceSnapshot, started: Collection[str] | None) -> list[tuple[str, str]]:
    """What a rollback would do: (step, words), in the order of undoing.

    Args:
        snapshot: the instance and its migration.
        started: steps that were begun; None: all of them.
    """
    words = {
        "start": lambda: (
            f"stop service {_service(snapshot)}; stop at once if somebody wrote to the new database; "
            f"point the record back to {_name(snapshot.source)}"
        ),
        "restore": lambda: (
            f"close role {_role(snapshot)} on {_name(snapshot.target)}; nothing written there is given up"
        ),
        "rewrite_conf": lambda: _conf_back(snapshot),
        "provision": lambda: _target_away(snapshot),
        "back_up": lambda: _backup_away(snapshot),
        "stop": lambda: _source_back(snapshot),
        "prepare": lambda: _server_back(snapshot),
    }
    return [
        (
            step.name,
            words[step.name]() if step.name in words else (step.undo.__doc__ or "").partition("\n")[0],
        )
        for step in reversed(saga.MIGRATION)
        if step.undo is not None and (started is None or step.name in started)
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


def _name(server: Server | None) -> str:
    return server.name if server else "an unknown server"


def _service(snapshot: InstanceSnapshot) -> str:
    if snapshot.service is not None:
        return f"{snapshot.service.name} ({len(snapshot.service.running)} running)"
    return snapshot.instance.service if snapshot.instance else UNKNOWN


def _role(snapshot: InstanceSnapshot) -> str:
    return snapshot.target_state.role if snapshot.target_state else UNKNOWN


def _size(database_state: DatabaseState) -> str:
    return f", {database_state.bytes / 1_000_000:.0f} MB" if database_state.bytes is not None else ""


def _state_of_source(snapshot: InstanceSnapshot) -> str:
    database_state = snapshot.source_state
    if database_state is None:
        return f"source on {_name(snapshot.source)}: could not be looked at"
    if not database_state.exists:
        return f"source {database_state.database} on {_name(snapshot.source)}: it is not there"
    doors = "fenced" if database_state.fenced else "open" if database_state.open else "half closed"
    return (
        f"source {database_state.database} on {_name(snapshot.source)}: there{_size(database_state)}, {doors}, "
        f"{database_state.sessions} connection(s)"
    )


def _database(one: TaggedDatabase) -> str:
    verified = one.tag is not None and one.tag.state == "verified"
    return f"{'verified' if verified else 'scratch'} database {one.name}"


def _state_of_target(snapshot: InstanceSnapshot) -> str:
    where = _name(snapshot.target)
    if snapshot.target is None:
        return "no dedicated server is there"
    view = snapshot.migration
    ours = [one for one in snapshot.on_target if one.tag and view and one.tag.attempt == view.attempt]
    if not ours:
        database_state = snapshot.target_state
        if database_state is not None and database_state.exists:
            return f"database {database_state.database} is on {where} and is not this migration's: it would be refused"
        return f"no database of this migration is on {where} yet"
    if any(one.tag and one.tag.state == "verified" for one in ours):
        return f"{_database(ours[0])} is on {where}: it would be used as it is"
    return f"{_database(ours[0])} on {where} would be dropped and made anew"


def _sealed(snapshot: InstanceSnapshot) -> bool:
    view = snapshot.migration
    return view is not None and any(one.name == backup_name(view) for one in snapshot.stored)


def _state_of_backup(snapshot: InstanceSnapshot) -> str:
    name = backup_name(snapshot.migration) if snapshot.migration else UNKNOWN
    return f"backup {name}: {'sealed' if _sealed(snapshot) else 'not there'}"


def _backing_up(snapshot: InstanceSnapshot) -> str:
    name = backup_name(snapshot.migration) if snapshot.migration else UNKNOWN
    if _sealed(snapshot):
        return f"would check backup {name}, which is sealed, and use it"
    half = any(one.kind == "partial" for one in snapshot.stored)
    return f"would dump the source into backup {name}{'; a half one is thrown away' if half else ''}"


def _rewriting(snapshot: InstanceSnapshot) -> str:
    if snapshot.conf is None or snapshot.target is None:
        return "odoo.conf: could not be looked at"
    wanted, now = (
        f"{snapshot.target.host}:{snapshot.target.port}",
        f"{snapshot.conf.host}:{snapshot.conf.port}",
    )
    if wanted == now:
        return f"{snapshot.conf.path} names {now} already"
    return f"{snapshot.conf.path} names {now}; the dedicated server is {wanted}"


def _conf_back(snapshot: InstanceSnapshot) -> str:
    view = snapshot.migration
    kept = next((file for file in snapshot.files if view and file.tag == tag(view)), None)
    path = snapshot.conf.path if snapshot.conf else "odoo.conf"
    if kept is None:
        return f"leave {path} as it is (no copy was kept); put the service's definition back, stopped"
    return f"put {kept.name} back in the place of {path}; put the service's definition back, stopped"


def _target_away(snapshot: InstanceSnapshot) -> str:
    where = _name(snapshot.target)
    if snapshot.target is None:
        return "nothing: there is no dedicated server"
    names = [one.name for one in snapshot.on_target]
    dropped = f"drop {', '.join(names)}" if names else "drop no database (there is none of this migration's)"
    return f"close role {_role(snapshot)} on {where}; {dropped}"


def _backup_away(snapshot: InstanceSnapshot) -> str:
    names = [one.name for one in snapshot.stored]
    return f"remove {', '.join(names)} from the backup place" if names else "nothing: there is no backup"


def _source_back(snapshot: InstanceSnapshot) -> str:
    if "fence" not in snapshot.facts:
        return "nothing: the source was not fenced"
    database_state = snapshot.source_state
    database = database_state.database if database_state else UNKNOWN
    replicas = snapshot.facts.get("replicas") or 0
    start = (
        f"start service {_service(snapshot)} with {replicas} replica(s)" if replicas else "leave it stopped"
    )
    role = database_state.role if database_state else UNKNOWN
    return f"let {role} into {database} on {_name(snapshot.source)} again; {start}"


def _server_back(snapshot: InstanceSnapshot) -> str:
    if not snapshot.facts.get("provisioning"):
        return f"nothing: {_name(snapshot.target)} was there before" if snapshot.target else "nothing"
    if snapshot.target is None:
        return "look for the dedicated server that was asked for, and give it back to database-service"
    return f"give dedicated server {_name(snapshot.target)} back to database-service"
