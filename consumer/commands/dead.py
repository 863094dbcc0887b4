"""`rehome dead`: look at the dead letters, send them again, or put them away with a reason."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from consumer import bootstrap
from consumer.adapters.broker import AmqpBroker
from consumer.adapters.dead_letters import DeadLetters
from consumer.adapters.journal_views import JournalViews
from consumer.commands.show import age, as_json, as_table
from consumer.delivery import replay
from consumer.errors import NotFound
from consumer.settings import read_settings
from consumer.topology import HANDLER

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from consumer.adapters.broker import AmqpDelivery
    from consumer.adapters.journal import PostgresJournal
    from consumer.delivery.replay import Letter, Plan

NEEDED = ("amqp_url", "platform_dsn")
COLUMNS = ("ID", "HANDLER", "TYPE", "INSTANCE", "REASON", "AGE", "TRIES", "ERROR")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands work on: the letters (held back from others), the journal, and a way to publish."""

    letters: list[tuple[Letter, AmqpDelivery]]
    journal: PostgresJournal
    views: JournalViews
    broker: AmqpBroker


def add(commands: Any) -> None:
    """Register the group."""
    dead = commands.add_parser(
        "dead",
        help="dead letters: list, show, replay, discard",
        description="Events that a handler could not deal with wait on the queue migration.dead until a person "
        "replays or discards them. Needs REHOME_AMQP_URL and REHOME_STATE_DSN or REHOME_PLATFORM_DSN.",
    )
    group = dead.add_subparsers(required=True, metavar="ACTION")
    listing = group.add_parser("list", help="all dead letters, or those that match")
    _filters(listing)
    listing.add_argument("--json", action="store_true", help="print one JSON document")
    listing.set_defaults(work=_list)
    show = group.add_parser(
        "show", help="one letter: its event, its error, its migration, what a replay would do"
    )
    show.add_argument("id", help="the letter's id (see `rehome dead list`)")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(work=_show)
    again = group.add_parser(
        "replay",
        help="send letters to the handler that failed, and to no other",
        description="Send one letter, all that match the filters, or all, to the handler that failed. A letter of "
        "a migration that was rolled back opens a new attempt from the start.",
    )
    again.add_argument("id", nargs="?", help="the letter's id")
    again.add_argument("--all", action="store_true", help="every letter (that matches the filters)")
    again.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")
    _filters(again)
    again.add_argument("--json", action="store_true", help="print one JSON document")
    again.set_defaults(work=_replay)
    discard = group.add_parser(
        "discard", help="take a letter away for good; the reason is kept in the journal"
    )
    discard.add_argument("id", help="the letter's id")
    discard.add_argument("--reason", required=True, help="why, for those who come after you")
    discard.set_defaults(work=_discard)


def _filters(parser: Any) -> None:
    parser.add_argument("--handler", help="only of this handler, such as restore")
    parser.add_argument("--type", help="only of this event type, such as migration.stopped")
    parser.add_argument("--instance", help="only of this instance (its id)")
    parser.add_argument("--reason", help="only with this reason, such as failed or undecodable")
    parser.add_argument("--older-than", type=float, metavar="HOURS", help="only if it failed longer ago")


async def _list(args: argparse.Namespace) -> int:
    async with _desk() as desk:
        found = [letter for letter, _ in desk.letters if _matches(letter, args)]
    if args.json:
        as_json([_summary(letter) for letter in found])
        return 0
    as_table(
        COLUMNS,
        (
            (
                one.id,
                one.handler,
                one.type,
                one.instance,
                one.reason,
                age(_when(one)),
                one.tries or "",
                one.error,
            )
            for one in found
        ),
        empty="no dead letters",
    )
    return 0


async def _show(args: argparse.Namespace) -> int:
    async with _desk() as desk:
        letter, _ = _find(desk, args.id)
        planned = await _plan(desk, letter)
        migration = letter.migration_id
        history = await desk.views.history(migration) if migration else []
    document = {
        **_summary(letter),
        "event": _body(letter),
        "headers": {key: str(value) for key, value in letter.message.headers.items()},
        "replay": planned.what,
        "history": history,
    }
    if args.json:
        as_json(document)
        return 0
    for name in (
        "id",
        "handler",
        "type",
        "instance",
        "migration",
        "reason",
        "failed_at",
        "tries",
        "error",
        "replay",
    ):
        print(f"{name:<10} {document[name] if document[name] is not None else ''}")
    print("event")
    print(orjson.dumps(document["event"], option=orjson.OPT_INDENT_2).decode())
    as_table(
        ("AT", "WHAT", "DETAIL"),
        ((f"{line['at']:%Y-%m-%d %H:%M:%S}", line["what"], line["detail"]) for line in history),
        empty="the journal has no history for it",
    )
    return 0


async def _replay(args: argparse.Namespace) -> int:
    if not args.id and not args.all:
        raise NotFound("name a letter, or say --all (with --handler, --type, ... to choose among them)")
    outcome = []
    async with _desk() as desk:  # the set is frozen here: what fails again meanwhile is not replayed twice
        chosen = (
            [_find(desk, args.id)] if args.id else [one for one in desk.letters if _matches(one[0], args)]
        )
        for letter, delivery in chosen:
            planned = await _plan(desk, letter)
            sent = planned.message is not None and not args.dry_run
            if sent and planned.message is not None:
                await desk.broker.publish(HANDLER, planned.handler, planned.message, mandatory=True)
                await delivery.ack()  # after the confirm: dying in between gives a duplicate, never a loss
            outcome.append(
                {"id": letter.id, "handler": planned.handler, "replayed": sent, "what": planned.what}
            )
    refused = any(not one["replayed"] for one in outcome) and not args.dry_run
    if args.json:
        as_json(outcome)
    else:
        for one in outcome:
            print(f"{one['id']}  {'replayed: ' if one['replayed'] else ''}{one['what']}")
        if not outcome:
            print("no dead letter matches")
    return 1 if refused else 0


async def _discard(args: argparse.Namespace) -> int:
    async with _desk() as desk:
        letter, delivery = _find(desk, args.id)
        if letter.migration_id and await desk.journal.migration(letter.migration_id):
            await desk.journal.note(
                letter.migration_id,
                "dead letter discarded",
                f"{letter.type} of {letter.handler}: {args.reason}",
            )
        await delivery.ack()
    print(f"discarded {letter.id} ({letter.type} of handler {letter.handler}): {args.reason}")
    return 0


@asynccontextmanager
async def _desk() -> AsyncIterator[Desk]:
    settings = read_settings(needed=NEEDED)
    async with (
        bootstrap.state_pool(settings) as pool,
        bootstrap.amqp(settings, "rehome dead") as connection,
        DeadLetters(connection).held() as held,
    ):
        yield Desk(
            letters=[(replay.read(one, place), one) for place, one in enumerate(held)],
            journal=bootstrap.journal(pool, settings),
            views=JournalViews(pool),
            broker=AmqpBroker(connection),
        )


async def _plan(desk: Desk, letter: Letter) -> Plan:
    migration = await desk.journal.migration(letter.migration_id) if letter.migration_id else None
    return replay.plan(letter, migration)


def _find(desk: Desk, wanted: str) -> tuple[Letter, AmqpDelivery]:
    for letter, delivery in desk.letters:
        if letter.id == wanted:
            return letter, delivery
    raise NotFound(f"no dead letter {wanted}; see `rehome dead list`")


def _matches(letter: Letter, args: argparse.Namespace) -> bool:
    when = _when(letter)
    return (
        (not args.handler or letter.handler == args.handler)
        and (not args.type or letter.type == args.type)
        and (not args.instance or letter.instance == args.instance)
        and (not args.reason or letter.reason == args.reason)
        and (
            args.older_than is None
            or (when is not None and datetime.now(UTC) - when > timedelta(hours=args.older_than))
        )
    )


def _when(letter: Letter) -> datetime | None:
    try:
        return datetime.fromisoformat(letter.failed_at) if letter.failed_at else None
    except ValueError:
        return None


def _body(letter: Letter) -> Any:
    """The event as JSON if it is any, else the beginning of what came."""
    try:
        return orjson.loads(letter.message.body)
    except orjson.JSONDecodeError:
        return letter.message.body[:2000].decode(errors="replace")


def _summary(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "handler": letter.handler,
        "type": letter.type,
        "instance": letter.instance,
        "migration": str(letter.migration_id) if letter.migration_id else None,
        "reason": letter.reason,
        "failed_at": letter.failed_at,
        "tries": letter.tries,
        "error": letter.error,
    }
