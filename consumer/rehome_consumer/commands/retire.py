"""`rehome retire`: drop the old database of a completed migration, when its retention is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rehome_consumer.commands.arguments import an_id
from rehome_consumer.commands.lines import Paragraphs, detail, folded, moment, printed, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.doctor.retirement import refusals
from rehome_consumer.errors import Conflict, NotFound, RehomeError, TimedOut
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.tools import WORLD, operator_tools
from rehome_consumer.ports.operators import signed
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.operators.tools import OperatorTools
    from rehome_consumer.ports.operators import Completed

HEALTHY_WITHIN = 60.0  # seconds in which an instance that runs must answer
WIDTHS = (36, 20, 8, 19, 8)

ABOUT = """\
A completed migration leaves the old database on the pool, complete and fenced, for REHOME_RETENTION_DAYS. This lists
those that still exist. --yes drops those whose retention is over: the database, its role if that owns nothing else and
is not used, and the migration's backup. Nothing else.

Refused, with the reason, unless the record and odoo.conf name the dedicated server, the instance runs, answers and is
connected there, and the old database is still fenced and has no connections.

Exit code 1 when something was refused. Needs REHOME_PLATFORM_DSN, REHOME_DATA_ROOT, REHOME_BACKUP_ROOT and the
runtime's settings."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """One old database: the reasons why it must stay, and what was done."""

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
        state, source = self.snapshot.source_state, self.snapshot.source
        return {
            "migration": self.done.id,
            "instance": self.done.instance_id,
            "database": state.database if state else None,
            "server": source.name if source else None,
            "bytes": state.bytes if state else None,
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
        help="drop old databases of completed migrations, when their retention is over",
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
        found = [await _check(tools, done, early=args.now) for done in await tools.views.completed(args.id)]
        if args.id is not None and not found:
            raise NotFound(f"{args.id} has no completed migration whose old database is still kept")
        if args.yes:
            found = [await _one(tools, one, args) for one in found]
    if args.json:
        as_json([one.document() for one in found])
    else:
        _print(found, args)
    wanted = [one for one in found if args.id is not None or one.is_due]
    return 1 if args.yes and any(one.reasons for one in wanted) else 0


async def _check(tools: OperatorTools, done: Completed, *, early: bool) -> Retirement:
    snapshot = await tools.observer.instance(done.instance_id)
    return Retirement(done, snapshot, refusals(done, snapshot, datetime.now(UTC), early=early))


async def _one(tools: OperatorTools, one: Retirement, args: argparse.Namespace) -> Retirement:
    """Retire one, with the instance's claim held and everything checked once more."""
    if one.reasons or not (args.now or one.is_due):
        return one
    outcome: list[str] = []
    try:
        async with tools.claims.claim(one.done.instance_id) as claim:
            if claim is None:
                raise Conflict("a consumer works on the instance at this moment")
            # This process holds the claim.
            snapshot = replace(await tools.observer.instance(one.done.instance_id), holder=None)
            again = Retirement(
                one.done, snapshot, refusals(one.done, snapshot, datetime.now(UTC), early=args.now)
            )
            if again.reasons:
                return again
            await _require_answer(tools, snapshot)
            await _drop(tools, again, outcome)
    except RehomeError as error:
        return replace(one, reasons=[str(error)], outcome=outcome)
    return replace(one, outcome=outcome)


async def _require_answer(tools: OperatorTools, snapshot: InstanceSnapshot) -> None:
    """Raise unless the instance answers. It runs already, so that this starts nothing."""
    if snapshot.instance is None or snapshot.service is None:
        raise Conflict("the instance could not be checked")
    try:
        async with asyncio.timeout(HEALTHY_WITHIN):
            await tools.runtime.start(snapshot.instance, snapshot.service.replicas, None)
    except TimeoutError:
        raise TimedOut(
            f"service {snapshot.service.name} did not answer within {HEALTHY_WITHIN:g} s: is it healthy?"
        ) from None


async def _drop(tools: OperatorTools, one: Retirement, outcome: list[str]) -> None:
    """Drop the database, then its role, then the backup; an earlier run may have dropped each already."""
    source, state = one.snapshot.source, one.snapshot.source_state
    if source is None or state is None:
        raise Conflict("the source server could not be checked")
    if await tools.inspector.drop_fenced(source, state.database, state.role):
        outcome.append(f"dropped database {state.database} on {source.name}")
    left = await tools.inspector.drop_unused_role(source, state.role)
    outcome.append(left or f"dropped role {state.role} on {source.name}")
    for entry in one.snapshot.stored:
        await tools.inventory.remove(entry.name)
        outcome.append(f"removed {entry.name} from the backup place")
    await tools.views.retired(one.done.id, signed(who(), what="; ".join(outcome)))


def _print(found: list[Retirement], args: argparse.Namespace) -> None:
    if not found:
        say("no old database of a completed migration is kept")
        return
    printed(folded(("INSTANCE", "OLD DATABASE", "SIZE", "KEPT UNTIL (UTC)", "DUE"), WIDTHS))
    for one in found:
        state, source = one.snapshot.source_state, one.snapshot.source
        size = f"{state.bytes / 1_000_000:.0f} MB" if state and state.bytes is not None else "dropped"
        cells = (one.done.instance_id, state.database if state else "?", size, moment(one.done.until))
        printed(folded((*cells, age(one.done.until)), WIDTHS))
        printed(detail(f"on {source.name if source else '?'}, migration {one.done.id}"))
        for line in one.outcome:
            printed(detail(line))
        for reason in one.reasons:
            printed(detail(f"{'refused' if args.yes else 'stays'}: {reason}"))
        if not one.reasons and not one.outcome:
            dropped = ", ".join(
                ["the database", "its role if unused", *(e.name for e in one.snapshot.stored)]
            )
            printed(detail(f"--yes would drop {dropped}"))
