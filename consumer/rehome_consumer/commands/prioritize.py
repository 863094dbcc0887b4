"""`rehome prioritize`: which migration goes first among those that wait for slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_priority, a_text, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.operators.in_line import in_line
from rehome_consumer.operators.prioritizing import prioritize
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

ABOUT = """\
Give a migration another priority among those that wait for a slot (REHOME_REHEARSALS_PER_SERVER,
REHOME_DUMPS_PER_SERVER, REHOME_DOWN_AT_ONCE): 0 to 9, higher goes first, 4 is normal. A level counts as much as half a
day of waiting, so that nobody waits for ever. Who has a slot keeps it.

Window, hours of rehearsals and a pause hold it up as ever. Refused once its instance is stopped. Needs
REHOME_PLATFORM_DSN or REHOME_STATE_DSN, with a login that may write."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "prioritize",
        help="let a migration go before others that wait for a slot, or after them",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("id", type=an_id, metavar="ID", help="the migration's or the instance's id")
    parser.add_argument("priority", type=a_priority, metavar="PRIORITY", help="0 to 9; 4 is normal")
    parser.add_argument("--reason", type=a_text, metavar="WHY", help="why, for the journal")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_prioritize)


async def _prioritize(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        done = await prioritize(
            PostgresJournalViews(pool), args.id, args.priority, by=who(), why=args.reason or ""
        )
    if args.json:
        as_json(
            {
                "migration": done.migration_id,
                "instance": done.instance_id,
                "before": done.before,
                "priority": done.priority,
                "place_in_line": done.place_in_line,
                "length_of_line": done.length_of_line,
            }
        )
        return 0
    printed(
        detail(
            f"migration {done.migration_id} of instance {done.instance_id} has priority {done.priority}, it had "
            f"{done.before}",
            "",
        )
    )
    if done.place_in_line:
        say(in_line(done.place_in_line, done.length_of_line, None))
    return 0
