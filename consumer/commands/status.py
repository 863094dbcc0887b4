"""`rehome status` and `rehome watch`: what is moving, what waits, why, and when it is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import UUID

from consumer import bootstrap
from consumer.adapters.journal_views import JournalViews, MigrationView
from consumer.commands.show import age, as_json, as_table
from consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

NEEDED = ("platform_dsn",)
COLUMNS = ("MIGRATION", "INSTANCE", "PLAN", "STATE", "STEP", "TRIES", "SINCE", "NEXT TRY", "WHY")


def add(commands: Any) -> None:
    """Register the two commands."""
    status = commands.add_parser(
        "status",
        help="what is moving or waiting, and why",
        description="List migrations, newest first; with an instance's or a migration's id, show its steps and "
        "history too. Needs REHOME_STATE_DSN or REHOME_PLATFORM_DSN.",
    )
    status.add_argument(
        "id", nargs="?", type=UUID, metavar="INSTANCE", help="an instance's or a migration's id"
    )
    status.add_argument(
        "--all", action="store_true", help="also migrations that are over (default with INSTANCE)"
    )
    status.add_argument("--limit", type=int, default=50, help="how many at most (default: 50)")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(work=_status)
    watch = commands.add_parser(
        "watch",
        help="follow migrations as they go",
        description="Print each step as it begins, waits, ends or fails, until interrupted.",
    )
    watch.add_argument("id", nargs="?", type=UUID, metavar="INSTANCE", help="only this instance or migration")
    watch.set_defaults(work=_watch)


async def _status(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=NEEDED)) as pool:
        views = JournalViews(pool)
        found = await views.migrations(args.id, args.limit)
        if args.id is None and not args.all:
            found = [one for one in found if one.ended_at is None]
        details = [await _details(views, one) for one in found] if args.id else [asdict(one) for one in found]
    if args.json:
        as_json(details)
        return 0
    as_table(COLUMNS, (_row(one) for one in found), empty=_nothing(args))
    for detail in details if args.id else ():
        _print_details(detail)
    return 0


async def _watch(args: argparse.Namespace) -> int:
    seen: set[tuple[Any, ...]] = set()
    async with bootstrap.state_pool(read_settings(needed=NEEDED)) as pool:
        views = JournalViews(pool)
        while True:
            for one in reversed(await views.migrations(args.id)):
                for line in await views.history(one.id):
                    key = (one.id, line["at"], line["what"])
                    if key not in seen:
                        seen.add(key)
                        print(
                            f"{line['at']:%H:%M:%S} {str(one.instance_id)[:8]} {line['what']} {line['detail'] or ''}"
                        )
            await asyncio.sleep(1.0)


async def _details(views: JournalViews, one: MigrationView) -> dict[str, Any]:
    return {
        **asdict(one),
        "steps": await views.steps(one.id),
        "history": await views.history(one.id),
    }


def _row(one: MigrationView) -> tuple[Any, ...]:
    progress = ""
    if one.progress_total and one.step_state == "running":
        progress = f" {min(100, 100 * (one.progress_done or 0) // one.progress_total)}%"
    return (
        one.id,
        one.instance_id,
        one.to_plan,
        one.state,
        f"{one.step or ''} {one.step_state or ''}{progress}".strip(),
        one.tries,
        age(one.updated_at),
        age(one.next_try_at) if one.step_state == "waiting" else "",
        one.error or one.note,
    )


def _print_details(detail: dict[str, Any]) -> None:
    print(f"\nmigration {detail['id']}, attempt {detail['attempt']}, state {detail['state']}")
    as_table(
        ("ATTEMPT", "STEP", "STATE", "TRIES", "BEGUN", "SECONDS", "ERROR"),
        (
            (
                step["attempt"], step["step"], step["state"], step["tries"], f"{step['begun_at']:%Y-%m-%d %H:%M:%S}",
                f"{(step['done_at'] - step['begun_at']).total_seconds():.1f}" if step["done_at"] else "", step["error"],
            )
            for step in detail["steps"]
        ),
        empty="no step was begun",
    )  # fmt: skip
    print()
    as_table(
        ("AT", "WHAT", "DETAIL"),
        ((f"{line['at']:%Y-%m-%d %H:%M:%S}", line["what"], line["detail"]) for line in detail["history"]),
        empty="no history",
    )


def _nothing(args: argparse.Namespace) -> str:
    if args.id is not None:
        return f"no migration of instance {args.id} (or with that id)"
    return "no migrations" if args.all else "no migration is under way or waiting (all of them: --all)"
