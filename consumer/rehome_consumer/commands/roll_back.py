"""`rehome roll-back`: undo a migration by hand, after showing what that would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_span, a_text, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, field, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.rollback_plan import read_order
from rehome_consumer.operators.rollback_request import is_taken_up, request
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.operators.rollback_plan import Order

ABOUT = """\
Show what undoing a migration would do, with real names, and with --yes do it: the customer goes back to the shared
pool, nothing is lost. A running consumer does the work; follow it with `rehome watch MIGRATION`.

A step that is running at this moment is stopped first: its claim is ended, and its consumer gives it up at once.
A rollback that failed is started again. An upgrade whose first step is not done ends as rejected.

Refused past the point of no return (once the instance has answered on its new database a migration only goes forward;
the message says how), and for a migration that is over. Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN; with
REHOME_DATA_ROOT, REHOME_BACKUP_ROOT and the runtime's settings, servers, files and services are read as well."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "roll-back",
        help="undo a migration: the customer goes back to the shared pool",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("id", type=an_id, metavar="ID", help="the migration's or the instance's id")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument(
        "--reason",
        type=a_text,
        metavar="WHY",
        default="requested by an operator",
        help="why, for the event and the journal",
    )
    parser.add_argument(
        "--wait",
        type=a_span,
        default=30.0,
        metavar="SECONDS",
        help="how long to try to stop a running step (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_roll_back)


async def _roll_back(args: argparse.Namespace) -> int:
    settings = read_settings(needed=JOURNAL)
    async with bootstrap.state_pool(settings, 3) as pool:
        views, journal = PostgresJournalViews(pool), bootstrap.journal(pool, settings)
        order, blind = await read_order(settings, views, journal, args.id)
        taken_up = None
        if args.yes:
            async with bootstrap.claims(settings) as claims:
                await request(views, journal, claims, order, reason=args.reason, wait=args.wait, by=who())
            taken_up = await is_taken_up(views, order.migration.id)
    _print(order, blind, taken_up, args)
    return 0


def _print(order: Order, blind: str, taken_up: bool | None, args: argparse.Namespace) -> None:
    migration, holder = order.migration, order.holder
    if args.json:
        document = {
            "migration": migration.id,
            "instance": migration.instance_id,
            "state": migration.state,
            "cancel": order.cancel,
            "running": order.view.step if holder else None,
            "undo": order.undo,
            "not_checked": blind or None,
            "requested": args.yes,
            "taken_up": taken_up,
        }
        as_json(document)
        return
    printed(
        detail(f"migration {migration.id} of instance {migration.instance_id}, state {migration.state}", "")
    )
    if holder is not None:
        verb = "was stopped" if args.yes else "would be stopped"
        work = (
            f"step {order.view.step} has been running at {holder.address} for {age(holder.since)}: it {verb}"
        )
        printed(detail(work, ""))
    if order.cancel:
        say(f"its first step is not done, so that it {'is' if args.yes else 'would be'} rejected")
    else:
        say("it is being undone:" if args.yes else "undoing it would:")
        for name, what in order.undo or [("-", "nothing was started that needs undoing")]:
            printed(field(f"  {name}", what, 16))
    if blind:
        printed(detail(f"(not everything could be read: {blind})", "  "))
    if not args.yes:
        say("nothing was done; do it with --yes", error=True)
    elif taken_up:
        say(f"a consumer has taken it up; follow it with: rehome watch {migration.id}")
    else:
        say(
            "no consumer has taken it up yet: is one running?",
            "the request is stored, and done as soon as a consumer runs (rehome run)",
        )
