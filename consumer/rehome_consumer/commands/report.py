"""`rehome report`: one migration from its opening to its end, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import an_id
from rehome_consumer.commands.lines import Paragraphs, printed
from rehome_consumer.commands.report_lines import page
from rehome_consumer.commands.show import as_json
from rehome_consumer.operators.reader import Reader
from rehome_consumer.operators.report import report
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

ABOUT = """\
One migration on one page: its outcome, the customer's downtime and what a rehearsal had foretold, what was compared,
what operators did (who, when, why), what is left behind, each step, each try that failed, each event, and the history.
With an instance's id: of its migration that is open, or of its last one. Secrets are masked. Nothing is changed.

--json prints all of it, with the events' data and the facts, as one document.

Exit code 1 when there is no such migration. Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "report",
        help="one migration on one page: outcome, downtime, tries, acts, what is left",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("id", type=an_id, metavar="ID", help="a migration's or an instance's id")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_report)


async def _report(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        found = await report(Reader(pool, PostgresJournalViews(pool)), args.id)
    if args.json:
        as_json(found.model_dump(mode="json"))
    else:
        printed(page(found))
    return 0
