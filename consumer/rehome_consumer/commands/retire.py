"""`rehome retire`: drop the old database of a completed migration, when its retention is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rehome_consumer.commands.arguments import an_id
from rehome_consumer.commands.lines import Paragraphs, detail, moment, printed, row, say
from rehome_consumer.commands.show import age, as_json
from rehome_consumer.doctor.retirement import refusals
from rehome_consumer.errors import Conflict, NotFound, RehomeError, TimedOut
from rehome_consumer.operators.tools import WORLD, operator_tools
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.operators.tools import OperatorTools
    from rehome_consumer.ports.operators import Completed

HEALTHY_WITHIN = 60.0  # seconds in which an instance that runs must answer
WIDTHS = (36, 20, 8, 19)

ABOUT = """\
A completed migration leaves the old database on the pool, whole and fenced, for REHOME_RETENTION_DAYS. This lists
those that are still there. With --yes the ones whose time is over are dropped: the database, its role if that owns
nothing else and nobody uses it, and the migration's backup. Never anything else.

Refused, with the reason, unless record and odoo.conf name the dedicated server, the instance runs, answers and is
connected there, and the old database is still fenced and nobody is connected to it.

Exit code 1 when something was refused. Needs REHOME_PLATFORM_DSN, REHOME_DATA_ROOT, REHOME_BACKUP_ROOT and the
runtime's settings."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """One old database: whether it may go, and what became of it."""

    done: Completed
    snapshot: InstanceSnapshot
    reasons: list[str]
    outcome: list[str] = field(default_factory=list)

    @property
    def is_due(self) -> bool:
        """Whether its retention is over."""
        return self.done.until is not None and self.done.until <= datetime.now(UTC)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        database_state, source = self.snapshot.source_state, self.snapshot.source
        return {
            "migration": self.done.id,
            "instance": self.done.instance_id,
            "database": database_state.database if database_state else None,
            "server": source.name if source else None,
            "bytes": database_state.bytes if database_state else None,
            "kept_until": self.done.until,
            "due": self.is_due,
            "backups": [one.name for one in self.snapshot.stored],
            "refused": self.reasons,
            "done": self.outcome,
        }


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "retire",
        help="drop old databases of completed migrations, when their time is over",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("id", nargs="?", type=an_id, metavar="ID", help="an instance's or a migration's id")
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument(
        "--now", action="store_true", help="do not wait for the end of the retention (only with an id)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_retire, complain=parser.error)


async def _retire(args: argparse.Namespace) -> int:
    if args.now and args.id is None:
        args.complain("--now needs the id of an instance or migration")
    settings = read_settings(needed=WORLD)
    async with operator_tools(settings) as tools:
        found = [await _look(tools, done, early=args.now) for done in await tools.views.completed(args.id)]
        if args.id is not None and not found:
            raise NotFound(f"no completed migration of {args.id} whose old database is still kept")
        if args.yes:
            found = [await _one(tools, one, args) for one in found]
    if args.json:
        as_json([one.document() for one in found])
    else:
        _tell(found, args)
    wanted = [one for one in found if args.id is not None or one.is_due]
    return 1 if args.yes and any(one.reasons for one in wanted) else 0


async def _look(tools: OperatorTools, done: Completed, *, early: bool) -> Retirement:
    snapshot = await tools.observer.instance(done.instance_id)
    return Retirement(done, snapshot, refusals(done, snapshot, datetime.now(UTC), early=early))


async def _one(tools: OperatorTools, one: Retirement, args: argparse.Namespace) -> Retirement:
    """Retire one, with the instance's claim held and everything looked at once more."""
    if one.reasons or not (args.now or one.is_due):
        return one
    outcome: list[str] = []
    try:
        async with tools.claims.claim(one.done.instance_id) as claim:
            if claim is None:
                raise Conflict("somebody is at work on the instance at this moment")
            snapshot = replace(await tools.observer.instance(one.done.instance_id), holder=None)  # it is us
            again = Retirement(
                one.done, snapshot, refusals(one.done, snapshot, datetime.now(UTC), early=args.now)
            )
            if again.reasons:
                return again
            await _answers(tools, snapshot)
            await _drop(tools, again, outcome)
    except RehomeError as error:
        return replace(one, reasons=[str(error)], outcome=outcome)
    return replace(one, outcome=outcome)


async def _answers(tools: OperatorTools, snapshot: InstanceSnapshot) -> None:
    """The instance answers. It runs, so that this starts nothing; raises what is wrong with it."""
    if snapshot.instance is None or snapshot.service is None:
        raise Conflict("the instance could not be looked at")
    try:
        async with asyncio.timeout(HEALTHY_WITHIN):
            await tools.runtime.start(snapshot.instance, snapshot.service.replicas, None)
    except TimeoutError:
        raise TimedOut(
            f"service {snapshot.service.name} did not answer within {HEALTHY_WITHIN:g} s: is it healthy?"
        ) from None


async def _drop(tools: OperatorTools, one: Retirement, outcome: list[str]) -> None:
    """The database, then its role, then the backup; each may be gone already, from an earlier run."""
    source, database_state = one.snapshot.source, one.snapshot.source_state
    if source is None or database_state is None:
        raise Conflict("the source server could not be looked at")
    if await tools.inspector.drop_fenced(source, database_state.database, database_state.role):
        outcome.append(f"dropped database {database_state.database} on {source.name}")
    left = await tools.inspector.drop_unused_role(source, database_state.role)
    outcome.append(left or f"dropped role {database_state.role} on {source.name}")
    for entry in one.snapshot.stored:
        await tools.inventory.remove(entry.name)
        outcome.append(f"removed {entry.name} from the backup place")
    await tools.views.retired(one.done.id, "; ".join(outcome))


def _tell(found: list[Retirement], args: argparse.Namespace) -> None:
    if not found:
        say("no old database of a completed migration is kept")
        return
    say(row(("INSTANCE", "OLD DATABASE", "SIZE", "KEPT UNTIL (UTC)", "DUE"), WIDTHS))
    for one in found:
        database_state, source = one.snapshot.source_state, one.snapshot.source
        size = (
            f"{database_state.bytes / 1_000_000:.0f} MB"
            if database_state and database_state.bytes is not None
            else "gone"
        )
        cells = (
            one.done.instance_id,
            database_state.database if database_state else "?",
            size,
            moment(one.done.until),
        )
        say(row((*cells, age(one.done.until)), WIDTHS))
        printed(detail(f"on {source.name if source else '?'}, migration {one.done.id}"))
        for line in one.outcome:
            printed(detail(line))
        for reason in one.reasons:
            printed(detail(f"{'refused' if args.yes else 'stays'}: {reason}"))
        if not one.reasons and not one.outcome:
            kept = ", ".join(["the database", "its role if unused", *(e.name for e in one.snapshot.stored)])
            printed(detail(f"--yes would drop {kept}"))
