"""`rehome dead replay` and `rehome dead discard`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer.commands.arguments import a_text
from rehome_consumer.commands.lines import detail, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.doctor import forecast
from rehome_consumer.engine import replay
from rehome_consumer.operators.dead_letter_session import dead_letter_session, matches, none_matches
from rehome_consumer.rabbitmq.topology import HANDLER

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.operators.dead_letter_session import Copies, DeadLetterSession


def add(group: Any, filters: Callable[[Any], None]) -> None:
    """Register the two actions; `filters` adds the options by which letters are chosen."""
    again = group.add_parser(
        "replay",
        help="send letters to the handler that failed, and to no other",
        description="Send one letter, or all that match the filters. Each goes to the handler that failed and to no "
        "other subscriber. A letter of a migration that was rolled back opens a new attempt from the start, with "
        "the original plan.upgraded. Refused, with the reason, where that would be unsafe or pointless. Sending "
        "a letter twice changes nothing. Exit code 1 when one was refused.",
    )
    again.add_argument("id", nargs="?", help="the letter's id, or how it begins")
    again.add_argument("--all", action="store_true", help="every letter (that matches the filters)")
    again.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")
    again.add_argument(
        "--forward",
        action="store_true",
        help="with the letter of a rollback that was refused because users have written to the new database: go on "
        "with the move instead",
    )
    filters(again)
    again.add_argument("--json", action="store_true", help="print one JSON document")
    again.set_defaults(work=_replay, complain=again.error)
    discard = group.add_parser(
        "discard",
        help="take letters away for good; they and the reason are kept in the journal",
        description="Take letters away. They stay, whole, in the journal's table rehome.discards with the reason "
        "(`rehome dead list --discarded`). An open migration whose letter is discarded goes no further by itself.",
    )
    discard.add_argument("id", nargs="+", help="letters' ids, or how they begin")
    discard.add_argument(
        "--reason", required=True, type=a_text, metavar="WHY", help="for those who come after you"
    )
    discard.set_defaults(work=_discard)


async def _replay(args: argparse.Namespace) -> int:
    if bool(args.id) == bool(args.all):
        args.complain("name a letter, or say --all (with --handler, --type, ... to choose among them)")
    if args.forward and args.all:
        args.complain("--forward is for one letter: name it")
    async with dead_letter_session(
        world=True
    ) as there:  # the set is frozen: what fails again meanwhile is not replayed
        chosen = (
            [there.find(args.id)] if args.id else [one for one in there.dead_letters if matches(one[0], args)]
        )
        outcome = [await _one(there, dead_letter, copies, args) for dead_letter, copies in chosen]
        none = none_matches(there)
    if args.json:
        as_json(outcome)
        return 1 if any(one["refused"] for one in outcome) else 0
    for one in outcome:
        say(one["id"])
        what = f"replayed: will {one['what'].removeprefix('would ')}" if one["replayed"] else one["what"]
        printed(detail(what))
        for line in one["in_detail"]:
            printed(detail(f"- {line}"))
    if not outcome:
        say(none)
    return 1 if any(one["refused"] for one in outcome) else 0


async def _one(
    there: DeadLetterSession, dead_letter: DeadLetter, copies: Copies, args: argparse.Namespace
) -> dict[str, Any]:
    """Replay one letter, or only say what that would do."""
    dry_run: bool = args.dry_run
    case, snapshot = await there.case(dead_letter, look=dry_run or args.forward)
    planned = (
        replay.forward(dead_letter, case, await there.waking(case))
        if args.forward
        else replay.plan(dead_letter, case)
    )
    if planned.message is not None and not dry_run:
        if case.migration is not None:
            what = f"{dead_letter.type} to {planned.handler}: {dead_letter.reason}, {dead_letter.error}"
            await there.views.add_to_history(case.migration.id, "dead letter replayed", what)
        await there.broker.publish(HANDLER, planned.handler, planned.message, mandatory=True)
        await copies.ack()  # after the confirm: dying in between leaves the letter, its replay is known again
    return {
        "id": dead_letter.id,
        "handler": planned.handler,
        "replayed": planned.message is not None and not dry_run,
        "refused": planned.message is None,
        "what": planned.what,
        "in_detail": forecast.in_detail(planned.handler, snapshot, case.started)
        if planned.message and dry_run
        else [],
    }


async def _discard(args: argparse.Namespace) -> int:
    async with dead_letter_session(world=False) as there:
        chosen = {dead_letter.id: (dead_letter, copies) for dead_letter, copies in map(there.find, args.id)}
        for dead_letter, copies in chosen.values():
            await _keep(there, dead_letter, args.reason)
            await copies.ack()  # after the journal has it: dying in between leaves the letter
            say(
                f"discarded {dead_letter.id} ({dead_letter.type} of handler {dead_letter.handler}): {args.reason}"
            )
            await _warn(there, dead_letter)
    return 0


async def _keep(there: DeadLetterSession, dead_letter: DeadLetter, why: str) -> None:
    new = await there.views.discard(
        message_id=dead_letter.id,
        handler=dead_letter.handler,
        type_=dead_letter.type,
        instance=dead_letter.instance,
        migration_id=dead_letter.migration_id,
        reason=dead_letter.reason,
        error=dead_letter.error,
        why=why,
        body=dead_letter.message.body,
    )
    if new and dead_letter.migration_id is not None:
        what = f"{dead_letter.type} of {dead_letter.handler}: {why}"
        await there.views.add_to_history(dead_letter.migration_id, "dead letter discarded", what)


async def _warn(there: DeadLetterSession, dead_letter: DeadLetter) -> None:
    """Say what becomes of a migration that is not over."""
    row = await there.journal.migration(dead_letter.migration_id) if dead_letter.migration_id else None
    if row is not None and not row.ended and row.state != "failing":
        printed(
            detail(
                f"migration {row.id} is still open, state {row.state}; if nothing else is on its way it goes no "
                f"further: rehome status {row.instance_id}, rehome roll-back {row.id}"
            )
        )
