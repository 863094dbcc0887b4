"""`rehome dead`: list and show dead letters; `dead_letter_actions` replays or discards them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from rehome_consumer import bootstrap, saga
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands import dead_letter_actions
from rehome_consumer.commands.arguments import a_span
from rehome_consumer.commands.lines import Paragraphs, detail, field, folded, moment, printed, say, say_json
from rehome_consumer.commands.show import as_json
from rehome_consumer.doctor import forecast
from rehome_consumer.engine import replay
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.dead_letter_acts import event_in
from rehome_consumer.operators.dead_letter_session import (
    NEEDED,
    dead_letter_session,
    matches,
    none_matches,
    passes,
)
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.engine.dead_letter import DeadLetter

MOST_DISCARDED = 100
SHOWN = 2000
"""Bytes of a body that is no JSON."""
HANDLERS = [step.name for step in saga.MIGRATION]
WIDTHS = (36, 14, 17, 9, 5)

ABOUT = """\
Deliveries that a handler gave up wait in the queue migration.dead until an operator replays or discards them.
The reason says how a dead letter got there: failed (the step failed; the error is recorded), undecodable (not a
readable event), crashed (consumers died on it several times; the broker moved it), unknown_migration (the journal has
no such migration), gave_up_waiting (what it follows never happened).

Nothing is lost if a command is interrupted: a dead letter leaves the queue only when its replay or copy is safe."""


def add(commands: Any) -> None:
    """Register the group."""
    dead = commands.add_parser(
        "dead",
        aliases=["dead-letters"],
        help="dead letters: list, show, replay, discard",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    group = dead.add_subparsers(required=True, metavar="ACTION", title="actions")
    listing = group.add_parser(
        "list",
        help="all dead letters, or those that match",
        description="Each with its handler, reason and age; below it the instance, the event and the error. "
        "Needs REHOME_AMQP_URL, and REHOME_PLATFORM_DSN or REHOME_STATE_DSN.",
    )
    filters(listing)
    listing.add_argument(
        "--discarded", action="store_true", help="list those discarded lately instead, with the reasons"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(work=_list)
    show = group.add_parser(
        "show",
        help="one dead letter: event, error, migration, and what a replay would do",
        description="Everything about one dead letter. Where REHOME_DATA_ROOT, REHOME_BACKUP_ROOT and the runtime's "
        "settings are set too, servers, files and services are read to say what a replay would do.",
    )
    show.add_argument("id", help="the dead letter's id, or its first characters (see `rehome dead list`)")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(work=_show)
    dead_letter_actions.add(group, filters)


def filters(parser: Any) -> None:
    """The options that choose dead letters."""
    parser.add_argument(
        "--handler",
        choices=HANDLERS,
        metavar="STEP",
        help="only those of this handler, such as restore",
    )
    parser.add_argument(
        "--type", metavar="TYPE", help="only those of this event type, such as migration.stopped"
    )
    parser.add_argument("--instance", metavar="ID", help="only those of this instance")
    parser.add_argument("--reason", help="only those with this reason, such as failed or crashed")
    parser.add_argument(
        "--older-than", type=a_span, metavar="HOURS", help="only those that failed longer ago"
    )


async def _list(args: argparse.Namespace) -> int:
    if args.discarded:
        return await _list_discarded(args)
    async with dead_letter_session(observe=False) as session:
        found = [dead_letter for dead_letter, _ in session.dead_letters if matches(dead_letter, args)]
        none = none_matches(session)
    if args.json:
        as_json([summary(dead_letter) for dead_letter in found])
        return 0
    printed(folded(("ID", "HANDLER", "REASON", "AGE", "TRIES"), WIDTHS) if found else [none])
    for one in found:
        printed(folded((one.id, one.handler, one.reason, age(one.failed_at), one.tries or ""), WIDTHS))
        printed(detail(f"instance {one.instance or '?'}, {one.type}"))
        printed(detail(one.error))
    return 0


async def _list_discarded(args: argparse.Namespace) -> int:
    settings = read_settings(needed=NEEDED)
    async with bootstrap.state_pool(settings) as pool:
        discarded = await PostgresJournalViews(pool).discards(MOST_DISCARDED)
    found = [
        one
        for one in discarded
        if passes(one["handler"], one["type"], one["instance"], one["reason"], one["at"], args)
    ]
    if args.json:
        as_json(found)
        return 0
    for one in found:
        printed(folded((one["id"], one["handler"], one["reason"], age(one["at"])), WIDTHS))
        printed(detail(f"instance {one['instance'] or '?'}, {one['type']}; discarded: {one['why']}"))
    if not found:
        say("no discarded dead letter matches the filters" if discarded else "no dead letter was discarded")
    return 0


async def _show(args: argparse.Namespace) -> int:
    async with dead_letter_session(observe=True) as session:
        dead_letter, _ = session.find(args.id)
        case, snapshot = await session.case(dead_letter, observe=True)
        planned = replay.plan(dead_letter, case)
        history = await session.views.history(case.migration.id) if case.migration else []
    document = {
        **summary(dead_letter),
        "event": event_in(dead_letter, shown=SHOWN),
        "headers": {key: str(value) for key, value in dead_letter.message.headers.items()},
        "replay": planned.what,
        "replay_allowed": planned.message is not None,
        "replay_in_detail": forecast.in_detail(planned.handler, snapshot, case.started)
        if planned.message
        else [],
        "not_checked": session.not_observed or None,
        "history": history,
    }
    if args.json:
        as_json(document)
        return 0
    for name in ("id", "handler", "type", "instance", "migration", "reason", "failed_at", "tries", "error"):
        printed(field(name, document[name]))
    printed(field("replay", planned.what))
    for line in document["replay_in_detail"]:
        printed(detail(f"- {line}", " " * 11))
    if session.not_observed:
        why = f"(servers, files and services were not read: {session.not_observed})"
        printed(detail(why, " " * 11))
    say("event")
    say_json(orjson.dumps(document["event"], option=orjson.OPT_INDENT_2).decode())
    say("history" if history else "the journal has no history of it")
    for line in history:
        printed(detail(f"{moment(line['at'])}  {line['what']}: {line['detail'] or ''}".rstrip(": ")))
    return 0


def summary(dead_letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as a row of a listing."""
    return {
        "id": dead_letter.id,
        "handler": dead_letter.handler,
        "type": dead_letter.type,
        "instance": dead_letter.instance,
        "migration": str(dead_letter.migration_id) if dead_letter.migration_id else None,
        "reason": dead_letter.reason,
        "failed_at": dead_letter.failed_at,
        "tries": dead_letter.tries,
        "error": dead_letter.error,
    }
