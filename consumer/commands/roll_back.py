"""`rehome roll-back`: undo a migration by hand, after showing what that would do."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from consumer import bootstrap, saga
from consumer.adapters.journal_views import JournalViews
from consumer.commands.show import as_json
from consumer.errors import NotFound, Refused, TimedOut
from consumer.settings import read_settings
from events.envelope import event_id, new_event
from events.migration import MigrationFailed

if TYPE_CHECKING:
    import argparse

    from consumer.adapters.journal import PostgresJournal
    from consumer.ports_engine import MigrationRow
    from consumer.settings import Settings

NEEDED = ("platform_dsn",)


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "roll-back",
        help="undo a migration: the customer goes back to the shared pool",
        description="Show what undoing the migration would do, and with --yes do it. Refused once the instance has "
        "answered on its new database: from there on only forward. The consumer does the work; follow it with "
        "`rehome status`. Needs REHOME_STATE_DSN or REHOME_PLATFORM_DSN.",
    )
    parser.add_argument("id", type=UUID, metavar="MIGRATION", help="the migration's or the instance's id")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument(
        "--reason", default="asked for by an operator", help="why, for the event and the journal"
    )
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS", help="for a step that is running"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_roll_back)


async def _roll_back(args: argparse.Namespace) -> int:
    settings = read_settings(needed=NEEDED)
    async with bootstrap.state_pool(settings) as pool:
        views, journal = JournalViews(pool), bootstrap.journal(pool, settings)
        migration = await _find(views, journal, args.id)
        begun = [
            step["step"] for step in await views.steps(migration.id) if step["attempt"] == migration.attempt
        ]
        _check(migration)
        undos = _undos(begun)
        if args.yes:
            await _ask(settings, journal, migration, args, begun)
    if args.json:
        as_json({"migration": migration.id, "state": migration.state, "asked": args.yes, "undo": undos})
        return 0
    print(f"migration {migration.id} of instance {migration.instance_id}, state {migration.state}")
    print("it is being undone:" if args.yes else "undoing it would:")
    for name, what in undos or [("-", "nothing was begun that needs undoing")]:
        print(f"  {name:<14}{what}")
    if not args.yes:
        print("nothing was done; do it with --yes", file=sys.stderr)
    return 0


def _check(migration: MigrationRow) -> None:
    """Raise Refused where there is no way back, and say what there is instead."""
    if migration.ended:
        raise Refused(f"migration {migration.id} is over: {migration.state}")
    if migration.past_return:
        raise Refused(
            f"migration {migration.id} is past the point of no return: the instance serves from its new database. "
            "Go forward: mend what step complete complains about and `rehome dead replay` its letter"
        )


def _undos(begun: list[str]) -> list[tuple[str, str]]:
    """(step, what its undo does) in the order they run."""
    return [
        (step.name, (step.undo.__doc__ or "").strip().partition("\n")[0])
        for step in reversed(saga.MIGRATION)
        if step.undo is not None and step.name in begun
    ]


async def _find(views: JournalViews, journal: PostgresJournal, wanted: UUID) -> MigrationRow:
    found = await views.migrations(wanted, 1)
    row = await journal.migration(found[0].id) if found else None
    if row is None:
        raise NotFound(
            f"no migration {wanted}, nor one of an instance with that id; see `rehome status --all`"
        )
    return row


async def _ask(
    settings: Settings,
    journal: PostgresJournal,
    migration: MigrationRow,
    args: argparse.Namespace,
    begun: list[str],
) -> None:
    """Commit the wish, and the event that tells it, with the instance's claim held.

    It is published by the consumer, which is told of it at once: an operator needs no right to publish events.
    """
    event = new_event(
        MigrationFailed(
            instance_id=migration.instance_id,
            step=begun[-1] if begun else saga.MIGRATION[0].name,
            error="Operator",
            message=args.reason,
            attempts=1,
            next="roll_back",
        ),
        subject=migration.instance_id,
        id=event_id(migration.id, migration.attempt, MigrationFailed.TYPE),
        time=datetime.now(UTC),
        migrationid=migration.id,
        attempt=migration.attempt,
    )
    claims = bootstrap.claims(settings)
    deadline = asyncio.get_running_loop().time() + args.wait
    while True:
        async with claims.claim(migration.instance_id) as claim:
            if claim is not None:
                await journal.ask_roll_back(migration, event, args.reason)
                break
        if asyncio.get_running_loop().time() > deadline:
            raise TimedOut(
                f"a step of migration {migration.id} is running since before; waited {args.wait:g} s for it. "
                "Try again later or with a longer --wait"
            )
        await asyncio.sleep(0.5)
