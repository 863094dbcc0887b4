"""`rehome roll-back`: undo a migration by hand, after showing what that would do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap, saga
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_span, a_text, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, field, printed, say
from rehome_consumer.commands.show import age, as_json
from rehome_consumer.errors import Incompatible, TimedOut
from rehome_consumer.operators.rollback_plan import read_order
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.ports.engine import OutboxEvent, encode_for_outbox
from rehome_consumer.settings import read_settings
from rehome_events.envelope import event_id, new_event
from rehome_events.migration import MigrationFailed, MigrationRejected

if TYPE_CHECKING:
    import argparse
    from uuid import UUID

    from rehome_consumer.adapters.state.claims import PostgresClaims
    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.operators.rollback_plan import Order
    from rehome_consumer.ports.operators import ClaimHolder

TAKEN_UP_WITHIN = 10.0  # seconds in which a running consumer must notice the request
LOOK_EVERY = 0.2

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
            await _request(views, journal, bootstrap.claims(settings), order, args)
            taken_up = await _is_taken_up(views, order.migration.id)
    _print(order, blind, taken_up, args)
    return 0


async def _request(
    views: PostgresJournalViews,
    journal: PostgresJournal,
    claims: PostgresClaims,
    order: Order,
    args: argparse.Namespace,
) -> None:
    """Commit the request with the instance's claim held; the session of a current holder is ended.

    Raises:
        TimedOut: other processes took the claim again and again.
        Incompatible: this login may not end the holder's session.
    """
    migration = order.migration
    clock = asyncio.get_running_loop().time
    deadline = clock() + args.wait
    while True:
        holder = (await views.holders([migration.instance_id])).get(migration.instance_id)
        if holder is not None:
            await _cut(views, holder)
        async with claims.claim(migration.instance_id) as claim:
            if claim is not None:
                state = "rejected" if order.cancel else "failing"
                await journal.ask_roll_back(migration, _event(order, args.reason), args.reason, state=state)
                return
        if clock() > deadline:
            raise TimedOut(
                f"consumers took the claim on instance {migration.instance_id} again and again for {args.wait:g} s. "
                "Nothing was changed. Try again with a longer --wait, or stop the consumers"
            )


async def _cut(views: PostgresJournalViews, holder: ClaimHolder) -> None:
    try:
        await views.cut(holder)
    except Incompatible as error:
        raise Incompatible(
            f"the running step could not be stopped: {error}. Use the consumer's login, or stop the consumer "
            f"at {holder.address}"
        ) from None


def _event(order: Order, reason: str) -> OutboxEvent:
    migration = order.migration
    forward = [step for step in order.started if step != saga.ROLL_BACK.name]
    data: MigrationFailed | MigrationRejected = MigrationFailed(
        instance_id=migration.instance_id,
        step=forward[-1] if forward else saga.MIGRATION[0].name,
        error="Operator",
        message=reason,
        tries=1,
        next="roll_back",
    )
    if order.cancel:
        data = MigrationRejected(
            instance_id=migration.instance_id,
            to_plan=order.view.to_plan,
            reason="cancelled",
            message=reason,
        )
    event = new_event(
        data,
        subject=migration.instance_id,
        id=event_id(migration.id, migration.attempt, data.TYPE),
        time=datetime.now(UTC),
        migrationid=migration.id,
        attempt=migration.attempt,
    )
    return encode_for_outbox(event)


async def _is_taken_up(views: PostgresJournalViews, migration_id: UUID) -> bool:
    """Whether a running consumer has sent the event: then it also does the work."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + TAKEN_UP_WITHIN
    while True:
        sent = await views.is_sent(migration_id)
        if sent or clock() > deadline:
            return sent
        await asyncio.sleep(LOOK_EVERY)


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
