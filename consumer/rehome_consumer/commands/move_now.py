"""`rehome move-now`: let one migration go on outside of the maintenance window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_text, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.operators.moving_now import move_now
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

ABOUT = """\
Let a migration that waits for the maintenance window (REHOME_WINDOW), or for the upgrade's `not_before`, go on now: its
instance may be stopped at any time from now on. It goes on within a minute; follow it with `rehome watch MIGRATION`.

Slots, the hours of rehearsals and a pause hold it up as ever. Refused once its instance is stopped. A later attempt
waits for the window again. Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN, with a login that may write."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "move-now",
        help="let a migration go on outside of the maintenance window",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("id", type=an_id, metavar="ID", help="the migration's or the instance's id")
    parser.add_argument("--reason", type=a_text, metavar="WHY", help="why, for the journal")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_move_now)


async def _move_now(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        done = await move_now(PostgresJournalViews(pool), args.id, by=who(), why=args.reason or "")
    if args.json:
        as_json({"migration": done.migration_id, "instance": done.instance_id, "paused": done.pause})
        return 0
    printed(
        detail(
            f"migration {done.migration_id} of instance {done.instance_id} waits for no window any more", ""
        )
    )
    if done.pause is not None:
        printed(detail(f"but rehome is {done.pause}: it goes on after `rehome resume`", ""))
    else:
        say(f"it goes on within a minute; follow it with: rehome watch {done.migration_id}")
    return 0
