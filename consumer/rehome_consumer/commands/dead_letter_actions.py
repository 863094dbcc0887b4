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
        outcome = [await _one(session, dead_letter, copies, args) for dead_letter, copies in chosen]
        none = none_matches(session)
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
    session: DeadLetterSession, dead_letter: DeadLetter, copies: Copies, args: argparse.Namespace
) -> dict[str, Any]:
    """Replay one dead letter, or only say what that would do."""
    dry_run: bool = args.dry_run
    case, snapshot = await session.case(dead_letter, observe=dry_run or args.forward)
    planned = (
        replay.forward(dead_letter, case, await session.step_event(case))
        if args.forward
        else replay.plan(dead_letter, case)
    )
    if planned.message is not None and not dry_run:
        if case.migration is not None:
            what = f"{dead_letter.type} to {planned.handler}: {dead_letter.reason}, {dead_letter.error}"
            await session.views.add_to_history(case.migration.id, "dead letter replayed", what)
        await session.broker.publish(HANDLER, planned.handler, planned.message, mandatory=True)
        # After the confirm: a tool that dies in between leaves the dead letter, and its second replay is recognized.
        await copies.ack()
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
    async with dead_letter_session(observe=False) as session:
        chosen = {dead_letter.id: (dead_letter, copies) for dead_letter, copies in map(session.find, args.id)}
        for dead_letter, copies in chosen.values():
            await _save(session, dead_letter, args.reason)
            await copies.ack()  # after the journal has it: a tool that dies in between leaves the dead letter
            say(
                f"discarded {dead_letter.id} ({dead_letter.type} of handler {dead_letter.handler}): {args.reason}"
            )
            await _warn(session, dead_letter)
    return 0


async def _save(session: DeadLetterSession, dead_letter: DeadLetter, why: str) -> None:
    new = await session.views.discard(
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
        await session.views.add_to_history(dead_letter.migration_id, "dead letter discarded", what)


async def _warn(session: DeadLetterSession, dead_letter: DeadLetter) -> None:
    """Say what happens to a migration that is not over."""
    row = await session.journal.migration(dead_letter.migration_id) if dead_letter.migration_id else None
    if row is not None and not row.ended and row.state != "failing":
        printed(
            detail(
                f"migration {row.id} is still open, state {row.state}; without another delivery it goes no "
                f"further: rehome status {row.instance_id}, rehome roll-back {row.id}"
            )
        )
