"""`rehome status` and `rehome watch`: what is moving, what waits, why, and when it is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rehome_consumer import bootstrap
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_count, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, is_terminal, moment, printed, say
from rehome_consumer.commands.migration_lines import (
    block,
    heading,
    history_lines,
    percent,
    progressed,
    steps_table,
)
from rehome_consumer.commands.show import as_json
from rehome_consumer.errors import NotFound
from rehome_consumer.operators.attention import attention
from rehome_consumer.operators.in_line import in_line
from rehome_consumer.operators.tools import JOURNAL
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse
    from uuid import UUID

    from rehome_consumer.ports.operators import ClaimHolder, MigrationView

EVERY = 1.0  # seconds between two reads of `watch`
PROGRESS_STEP = 10  # per cent between two lines about the same step
OVERLAP = 200  # lines that are read again: transactions may commit in another order than they were numbered

ABOUT_STATUS = """\
One block for each migration that is not over, newest first: its state, its step, since when, when it is tried again
and why, and which consumer works on it. Below them the upgrades that wait for the end of another migration of their
instance. Above them who has paused all moves, if somebody has.

With an instance's or a migration's id: also its steps and history, and migrations that are over.

Exit code 1 when one of those shown needs an operator (it failed, or no consumer works on it although it is due), or
when there is no such instance or migration; 0 otherwise. Needs REHOME_PLATFORM_DSN or REHOME_STATE_DSN."""

ABOUT_WATCH = """\
Print what happens, until interrupted: each step as it waits, ends or fails, and the progress of long steps. Each line
begins with the instance's id; on a terminal with its first characters, and the id is printed once. With an id: of that
alone, also what happened before; it ends when that migration ends, with exit code 0 when it completed, 1 when not."""


def add(commands: Any) -> None:
    """Register the two commands."""
    status = commands.add_parser(
        "status",
        help="what is moving or waiting, and why",
        description=ABOUT_STATUS,
        formatter_class=Paragraphs,
    )
    status.add_argument("id", nargs="?", type=an_id, metavar="ID", help="an instance's or a migration's id")
    status.add_argument("--all", action="store_true", help="include migrations that are over")
    status.add_argument(
        "--limit", type=a_count, default=50, metavar="N", help="how many at most (default: 50)"
    )
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(work=_status)
    watch = commands.add_parser(
        "watch", help="follow migrations as they run", description=ABOUT_WATCH, formatter_class=Paragraphs
    )
    watch.add_argument("id", nargs="?", type=an_id, metavar="ID", help="an instance's or a migration's id")
    watch.set_defaults(work=_watch)


async def _status(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        views = PostgresJournalViews(pool)
        found = await views.migrations(args.id, args.limit, ended=args.all or args.id is not None)
        found += await views.waiting(args.id)
        holders = await views.holders({one.instance_id for one in found if not one.ended})
        pause = await views.paused()
        details = [await _details(views, one, holders, history=args.id is not None) for one in found]
    waiting = [one for one in found if attention(one, holders.get(one.instance_id))]
    code = 1 if waiting or (args.id is not None and not found) else 0
    if args.json:
        as_json(details)
        return code
    if pause is not None:
        printed(detail(f"rehome is {pause}; no new move begins until `rehome resume`", ""))
    if not found:
        printed(detail(_nothing(args), ""))
        return code
    say(heading())
    for one, document in zip(found, details, strict=True):
        printed(block(one, holders.get(one.instance_id)))
        if args.id is not None:
            printed(steps_table(document["steps"]))
            printed(text for line in document["history"] for text in history_lines(line))
    return code


async def _details(
    views: PostgresJournalViews, one: MigrationView, holders: dict[UUID, ClaimHolder], *, history: bool
) -> dict[str, Any]:
    holder = holders.get(one.instance_id) if not one.ended and one.behind is None else None
    document = {
        **asdict(one),
        "attention": attention(one, holder),
        "worked_on": {"from": holder.address, "since": holder.since} if holder else None,
    }
    if history:
        document |= {"steps": await views.steps(one.id), "history": await views.history(one.id)}
    return document


async def _watch(args: argparse.Namespace) -> int:
    async with bootstrap.state_pool(read_settings(needed=JOURNAL)) as pool:
        views = PostgresJournalViews(pool)
        wanted = args.id and await _newest(views, args.id)
        last = 0 if wanted else await views.last_line()
        printed_lines = set() if wanted else {line["seq"] for line in await views.lines_after(last - OVERLAP)}
        progress: dict[UUID, tuple[str | None, int]] = {}
        last_place = ""
        lead = Lead(alone=wanted is not None)
        if wanted:
            (one,) = await views.by_ids([wanted])
            printed(detail(f"migration {wanted} of instance {one.instance_id}, to {one.to_plan}", ""))
        while True:
            found = await views.migrations(wanted, ended=wanted is not None)
            for line in await views.lines_after(last - OVERLAP, wanted):
                if line["seq"] not in printed_lines:
                    printed_lines.add(line["seq"])
                    last = max(last, line["seq"])
                    printed(history_lines(line, lead(line["instance_id"])))
            for one in found:
                _print_progress(one, progress, lead)
            place = _place(found[0]) if wanted else ""
            if place and place != last_place:
                printed(detail(f"{moment(datetime.now(UTC))}  {place}", ""))
            last_place = place
            if wanted and found[0].ended:
                say(f"migration {found[0].id} is over: {found[0].state}")
                return 0 if found[0].state == "completed" else 1
            await asyncio.sleep(EVERY)


async def _newest(views: PostgresJournalViews, wanted: UUID) -> UUID:
    """The migration with this id, or the instance's open or last one."""
    found = await views.migrations(wanted, 1, ended=False) or await views.migrations(wanted, 1)
    if not found:
        raise NotFound(f"there is no migration of instance {wanted}, and none with that id")
    return found[0].id


class Lead:
    """How lines of `watch` begin: by the instance that they are about, where that may be one of several.

    A pipe gets its id in each line. On a terminal, which that would fill, its first characters; all of it once.
    """

    def __init__(self, *, alone: bool) -> None:
        """`alone`: all lines are about one instance, which was named."""
        self._alone = alone
        self._named: set[UUID] = set()

    def __call__(self, instance_id: UUID) -> str:
        """What to put before a line; on a terminal it may name the instance first."""
        if self._alone:
            return ""
        if not is_terminal():
            return f"{instance_id}  "
        short = str(instance_id)[:8]
        if instance_id not in self._named:
            self._named.add(instance_id)
            printed(detail(f"{short} is instance {instance_id}", ""))
        return f"{short}  "


def _print_progress(one: MigrationView, progress: dict[UUID, tuple[str | None, int]], lead: Lead) -> None:
    """A line for every ten per cent of a long step."""
    if one.step_state != "running" or not one.progress_total:
        return
    tens = percent(one) // PROGRESS_STEP
    if progress.get(one.id) != (one.step, tens):
        progress[one.id] = (one.step, tens)
        text = f"{moment(one.tried_at)}  {one.step} {progressed(one, terminal=is_terminal())}"
        printed(detail(text, lead(one.instance_id)))


def _place(one: MigrationView) -> str:
    """Where it waits for a slot, if it does."""
    return in_line(one.place_in_line, one.length_of_line, one.priority) if one.place_in_line else ""


def _nothing(args: argparse.Namespace) -> str:
    if args.id is not None:
        return f"there is no migration of instance {args.id}, and none with that id"
    return (
        "no migrations"
        if args.all
        else "no migration is under way or waiting (--all lists those that are over)"
    )
