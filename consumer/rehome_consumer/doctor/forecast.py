"""What a replay or a rollback would do, in concrete words, from what was seen. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.doctor.snapshot import backup_name, tag

if TYPE_CHECKING:
    from collections.abc import Collection

    from rehome_consumer.doctor.snapshot import InstanceSeen
    from rehome_consumer.model import Server
    from rehome_consumer.ports.operators import MarkedDatabase, Side

UNKNOWN = "?"


def replaying(step: str, seen: InstanceSeen, begun: Collection[str] | None = None) -> tuple[str, ...]:
    """What running a step again would do to the world as it is, one line per thing.

    Args:
        step: its name.
        seen: the instance and its migration.
        begun: steps that were begun, for a rollback; None: all of them.
    """
    match step:
        case "accept":
            home = seen.home.name if seen.home else "no known server"
            return (
                f"would decide about the upgrade again; the data is on {home} now",
                _state_of_source(seen),
            )
        case "prepare":
            target = _name(seen.target) if seen.target else "a dedicated server, asked of database-service"
            return (f"would run every check again, for {target}", _state_of_source(seen))
        case "stop":
            return (f"would stop service {_service(seen)} and fence the source", _state_of_source(seen))
        case "back_up":
            return (_backing_up(seen), _state_of_source(seen))
        case "provision":
            return (f"would make role and scratch database on {_name(seen.target)}", _state_of_target(seen))
        case "rewrite_conf":
            return (f"would point odoo.conf to {_name(seen.target)}", _rewriting(seen))
        case "restore":
            return (
                f"would restore the backup on {_name(seen.target)}, compare it with the source, and let the role in",
                _state_of_backup(seen),
                _state_of_source(seen),
                _state_of_target(seen),
            )
        case "start":
            return (
                f"would point the record to {_name(seen.target)} and start service {_service(seen)}",
                _rewriting(seen),
                _state_of_source(seen),
                _state_of_target(seen),
            )
        case "complete":
            sessions = seen.target_side.sessions if seen.target_side else UNKNOWN
            return (
                f"would count connections ({sessions} on {_name(seen.target)} now), and close the record",
                _state_of_source(seen),
            )
        case _:
            return tuple(f"would undo {name}: {what}" for name, what in undoing(seen, begun))


def in_detail(step: str, seen: InstanceSeen | None, begun: Collection[str] | None = None) -> list[str]:
    """As `replaying`, and what could not be looked at; nothing where nothing was seen."""
    if seen is None:
        return []
    blind = [f"{trouble.what} could not be looked at: {trouble.error}" for trouble in seen.troubles]
    return [*replaying(step, seen, begun), *blind]


def undoing(seen: InstanceSeen, begun: Collection[str] | None) -> list[tuple[str, str]]:
    """What a rollback would do: (step, words), in the order of undoing.

    Args:
        seen: the instance and its migration.
        begun: steps that were begun; None: all of them.
    """
    words = {
        "start": lambda: (
            f"stop service {_service(seen)}; stop at once if somebody wrote to the new database; "
            f"point the record back to {_name(seen.source)}"
        ),
        "restore": lambda: (
            f"close role {_role(seen)} on {_name(seen.target)}; nothing written there is given up"
        ),
        "rewrite_conf": lambda: _conf_back(seen),
        "provision": lambda: _target_away(seen),
        "back_up": lambda: _backup_away(seen),
        "stop": lambda: _source_back(seen),
        "prepare": lambda: _server_back(seen),
    }
    return [
        (
            step.name,
            words[step.name]() if step.name in words else (step.undo.__doc__ or "").partition("\n")[0],
        )
        for step in reversed(saga.MIGRATION)
        if step.undo is not None and (begun is None or step.name in begun)
    ]


def is_as_left(seen: InstanceSeen) -> bool:
    """Whether nothing of a forward migration was undone: it may go on where it stopped."""
    conf, target, view = seen.conf, seen.target, seen.migration
    return (
        view is not None
        and conf is not None
        and target is not None
        and (conf.host, conf.port) == (target.host, target.port)
        and seen.source_side is not None
        and seen.source_side.fenced
        and any(one.mark and one.mark.attempt == view.attempt for one in seen.on_target)
    )


def _name(server: Server | None) -> str:
    return server.name if server else "an unknown server"


def _service(seen: InstanceSeen) -> str:
    if seen.service is not None:
        return f"{seen.service.name} ({len(seen.service.running)} running)"
    return seen.instance.service if seen.instance else UNKNOWN


def _role(seen: InstanceSeen) -> str:
    return seen.target_side.role if seen.target_side else UNKNOWN


def _size(side: Side) -> str:
    return f", {side.bytes / 1_000_000:.0f} MB" if side.bytes is not None else ""


def _state_of_source(seen: InstanceSeen) -> str:
    side = seen.source_side
    if side is None:
        return f"source on {_name(seen.source)}: could not be looked at"
    if not side.exists:
        return f"source {side.database} on {_name(seen.source)}: it is not there"
    doors = "fenced" if side.fenced else "open" if side.open else "half closed"
    return (
        f"source {side.database} on {_name(seen.source)}: there{_size(side)}, {doors}, "
        f"{side.sessions} connection(s)"
    )


def _database(one: MarkedDatabase) -> str:
    verified = one.mark is not None and one.mark.state == "verified"
    return f"{'verified' if verified else 'scratch'} database {one.name}"


def _state_of_target(seen: InstanceSeen) -> str:
    where = _name(seen.target)
    if seen.target is None:
        return "no dedicated server is there"
    view = seen.migration
    ours = [one for one in seen.on_target if one.mark and view and one.mark.attempt == view.attempt]
    if not ours:
        side = seen.target_side
        if side is not None and side.exists:
            return f"database {side.database} is on {where} and is not this migration's: it would be refused"
        return f"no database of this migration is on {where} yet"
    if any(one.mark and one.mark.state == "verified" for one in ours):
        return f"{_database(ours[0])} is on {where}: it would be used as it is"
    return f"{_database(ours[0])} on {where} would be dropped and made anew"


def _sealed(seen: InstanceSeen) -> bool:
    view = seen.migration
    return view is not None and any(one.name == backup_name(view) for one in seen.stored)


def _state_of_backup(seen: InstanceSeen) -> str:
    name = backup_name(seen.migration) if seen.migration else UNKNOWN
    return f"backup {name}: {'sealed' if _sealed(seen) else 'not there'}"


def _backing_up(seen: InstanceSeen) -> str:
    name = backup_name(seen.migration) if seen.migration else UNKNOWN
    if _sealed(seen):
        return f"would check backup {name}, which is sealed, and use it"
    half = any(one.kind == "half" for one in seen.stored)
    return f"would dump the source into backup {name}{'; a half one is thrown away' if half else ''}"


def _rewriting(seen: InstanceSeen) -> str:
    if seen.conf is None or seen.target is None:
        return "odoo.conf: could not be looked at"
    wanted, now = (
        f"{seen.target.host}:{seen.target.port}",
        f"{seen.conf.host}:{seen.conf.port}",
    )
    if wanted == now:
        return f"{seen.conf.path} names {now} already"
    return f"{seen.conf.path} names {now}; the dedicated server is {wanted}"


def _conf_back(seen: InstanceSeen) -> str:
    view = seen.migration
    kept = next((file for file in seen.files if view and file.tag == tag(view)), None)
    path = seen.conf.path if seen.conf else "odoo.conf"
    if kept is None:
        return f"leave {path} as it is (no copy was kept); put the service's definition back, stopped"
    return f"put {kept.name} back in the place of {path}; put the service's definition back, stopped"


def _target_away(seen: InstanceSeen) -> str:
    where = _name(seen.target)
    if seen.target is None:
        return "nothing: there is no dedicated server"
    names = [one.name for one in seen.on_target]
    dropped = f"drop {', '.join(names)}" if names else "drop no database (there is none of this migration's)"
    return f"close role {_role(seen)} on {where}; {dropped}"


def _backup_away(seen: InstanceSeen) -> str:
    names = [one.name for one in seen.stored]
    return f"remove {', '.join(names)} from the backup place" if names else "nothing: there is no backup"


def _source_back(seen: InstanceSeen) -> str:
    if "fence" not in seen.facts:
        return "nothing: the source was not fenced"
    side = seen.source_side
    database = side.database if side else UNKNOWN
    replicas = seen.facts.get("replicas") or 0
    start = f"start service {_service(seen)} with {replicas} replica(s)" if replicas else "leave it stopped"
    return f"let {side.role if side else UNKNOWN} into {database} on {_name(seen.source)} again; {start}"


def _server_back(seen: InstanceSeen) -> str:
    if not seen.facts.get("provisioning"):
        return f"nothing: {_name(seen.target)} was there before" if seen.target else "nothing"
    if seen.target is None:
        return "look for the dedicated server that was asked for, and give it back to database-service"
    return f"give dedicated server {_name(seen.target)} back to database-service"
