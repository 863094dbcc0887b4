"""`rehome pause` and `rehome resume`: no new move begins, while those under way end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_text
from rehome_consumer.commands.lines import Paragraphs, detail, moment, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.operators.pausing import order
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

SHOWN: Final = 20
"""Orders that are listed."""

ABOUT_PAUSE = """\
Let no new move begin, on any consumer, until `rehome resume`. What waits is not lost, and no try is counted: its
instance serves, and `rehome status` says why it waits.

Where the instance is stopped already, the move goes on to its end; so do rollbacks, and a rehearsal that has begun. A
move that is prepared is not stopped. Upgrades that need no move (new limits) are done as ever.

Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN, with a login that may write."""

ABOUT_RESUME = """\
Let moves begin again after `rehome pause`. Those that waited go on within a minute, in the order in which their events
come back.

Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN, with a login that may write."""


def add(commands: Any) -> None:
    """Register the two commands."""
    pause = commands.add_parser(
        "pause",
        help="let no new move begin; those under way end",
        description=ABOUT_PAUSE,
        formatter_class=Paragraphs,
    )
    pause.add_argument(
        "--history", action="store_true", help="only list who paused and resumed, when and why"
    )
    pause.set_defaults(paused=True)
    resume = commands.add_parser(
        "resume",
        help="let moves begin again",
        description=ABOUT_RESUME,
        formatter_class=Paragraphs,
    )
    resume.set_defaults(paused=False, history=False)
    for parser in (pause, resume):
        parser.add_argument("--reason", type=a_text, metavar="WHY", help="why, for the journal")
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(work=_order)


async def _order(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        views = PostgresJournalViews(pool)
        if args.history:
            _list(await views.pauses(SHOWN), args)
            return 0
        done = await order(views, paused=args.paused, by=who(), why=args.reason or "")
    if args.json:
        as_json({"changed": done.changed, "paused": done.pause})
    elif done.pause is None:
        say("moves go on" if done.changed else "moves go on already: rehome was not paused")
    else:
        already = "" if done.changed else "already "
        printed(detail(f"rehome is {already}{done.pause}", ""))
        say("no new move begins until `rehome resume`; those whose instance is stopped go on to their end")
    return 0


def _list(pauses: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if args.json:
        as_json(pauses)
        return
    if not pauses:
        say("rehome was never paused")
    for one in pauses:
        why = f": {one['why']}" if one["why"] else ""
        verb = "paused" if one["paused"] else "resumed"
        printed(detail(f"{moment(one['at'])}  {verb} by {one['by']}{why}", ""))
