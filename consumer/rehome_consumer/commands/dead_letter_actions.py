"""`rehome dead replay` and `rehome dead discard`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rehome_consumer.commands.arguments import a_text
from rehome_consumer.commands.lines import detail, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.operators.dead_letter_acts import discard_one, replay_one
from rehome_consumer.operators.dead_letter_session import dead_letter_session, matches, none_matches

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def add(group: Any, filters: Callable[[Any], None]) -> None:
    """Register the two actions; `filters` adds the options that choose dead letters."""
    again = group.add_parser(
        "replay",
        help="send dead letters again, to the handler that failed and to no other",
        description="Send one dead letter again, or all that match the filters. Each goes to the handler that failed "
        "and to no other subscriber. One of a migration that was rolled back opens a new attempt from the start, "
        "with the original plan.upgraded. Refused, with the reason, where that would be unsafe or useless. "
        "Replaying twice changes nothing. Exit code 1 when one was refused.",
    )
    again.add_argument("id", nargs="?", help="the dead letter's id, or its first characters")
    again.add_argument("--all", action="store_true", help="every dead letter (that matches the filters)")
    again.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")
    again.add_argument(
        "--forward",
        action="store_true",
        help="for the dead letter of a rollback that was refused because users have written to the new database: "
        "continue the move instead",
    )
    filters(again)
    again.add_argument("--json", action="store_true", help="print one JSON document")
    again.set_defaults(work=_replay, complain=again.error)
    discard = group.add_parser(
        "discard",
        help="remove dead letters from the queue; a copy and the reason stay in the journal",
        description="Remove dead letters from the queue. A complete copy stays in the journal's table rehome.discards "
        "with the reason (`rehome dead list --discarded`). An open migration whose dead letter is discarded does not "
        "continue by itself.",
    )
    discard.add_argument("id", nargs="+", help="ids of dead letters, or their first characters")
    discard.add_argument("--reason", required=True, type=a_text, metavar="WHY", help="why, for the journal")
    discard.set_defaults(work=_discard)


async def _replay(args: argparse.Namespace) -> int:
    if bool(args.id) == bool(args.all):
        args.complain("give a dead letter's id, or --all (with --handler, --type, ... to choose among them)")
    if args.forward and args.all:
        args.complain("--forward needs the id of one dead letter")
    # All dead letters are read before the first is replayed: what fails again meanwhile is not replayed again.
    async with dead_letter_session(observe=True) as session:
        chosen = (
            [session.find(args.id)]
            if args.id
            else [one for one in session.dead_letters if matches(one[0], args)]
        )
        outcome = [
            await replay_one(session, *one, dry_run=args.dry_run, forward=args.forward, by=who())
            for one in chosen
        ]
        none = none_matches(session)
    if args.json:
        as_json([asdict(one) for one in outcome])
        return 1 if any(one.refused for one in outcome) else 0
    for one in outcome:
        say(one.id)
        what = f"replayed: will {one.what.removeprefix('would ')}" if one.replayed else one.what
        printed(detail(what))
        for line in one.in_detail:
            printed(detail(f"- {line}"))
    if not outcome:
        say(none)
    return 1 if any(one.refused for one in outcome) else 0


async def _discard(args: argparse.Namespace) -> int:
    async with dead_letter_session(observe=False) as session:
        chosen = {dead_letter.id: (dead_letter, copies) for dead_letter, copies in map(session.find, args.id)}
        for dead_letter, copies in chosen.values():
            left = await discard_one(session, dead_letter, copies, args.reason, by=who())
            say(
                f"discarded {dead_letter.id} ({dead_letter.type} of handler {dead_letter.handler}): {args.reason}"
            )
            printed(detail(left) if left else [])
    return 0
