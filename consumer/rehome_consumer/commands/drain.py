"""`rehome drain`: move all customers of a shared pool to servers of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from rehome_consumer import bootstrap
from rehome_consumer.adapters.platform.instances import PostgresPlatform
from rehome_consumer.adapters.postgres.inspection import PostgresInspector
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.commands.arguments import a_count, a_text
from rehome_consumer.commands.drain_lines import outcome_document, outcome_lines, plan_document, plan_lines
from rehome_consumer.commands.lines import Paragraphs, detail, moment, printed, say
from rehome_consumer.commands.publish import add_terms, granted_by, tier_of, valid
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.signals import at_signals
from rehome_consumer.commands.who import who
from rehome_consumer.errors import NotFound, Refused
from rehome_consumer.operators.drain_parts import Order, Pool
from rehome_consumer.operators.drain_plan import Wanted
from rehome_consumer.operators.draining import Drain
from rehome_consumer.ports.engine import Message
from rehome_consumer.settings import read_settings
from rehome_events.envelope import encode

if TYPE_CHECKING:
    import argparse

    from rehome_consumer.model import Server
    from rehome_consumer.settings import Settings
    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent

AT_ONCE: Final = 2
"""As many are rehearsed or down at a time on one pool, by default, too (REHOME_DUMPS_PER_SERVER)."""
BUSY: Final = 16
"""Active sessions of a pool: about as many as a server of that size has cores."""
FAILURES: Final = 3
"""More than one bad luck, and few customers who were down for nothing."""
ALONE_WITHIN: Final = 3.0
"""Seconds in which another drain of this pool must have ended."""
NOBODY: Final = UUID(int=0)
OF_A_SIGNAL: Final = 128
"""Added to a signal's number: the exit code of whom it ended."""

ABOUT = """\
Show how all customers of a shared pool (POOL: its name in `db_servers`) would be moved to servers of their own: the
smallest database first, what is under way already, and who is left out and why. Changes nothing.

With --publish: publish plan.upgraded for one after the other, as billing would, with a dedicated database; at most
--at-once of the pool's migrations under way, and the next one only while at most --busy sessions are active on the
pool. It says each one's end, and ends itself when all are over. Those that wait for an operator hold up nobody.
Windows, slots, and a pause hold as ever.

Ctrl-C or SIGTERM ends the publishing; what is published goes on. The same command goes on from there: it keeps nothing
of its own. Those whose last move was rolled back are left out, unless --again.

Exit code 1 when some were not moved, or one under way needs an operator; 130 or 143 after a signal. Needs
REHOME_PLATFORM_DSN, with --publish also REHOME_AMQP_URL and a login that may write into the journal."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "drain",
        help="move all customers of a pool to servers of their own, by a plan that is shown first",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("pool", type=a_text, metavar="POOL", help="the pool's name in `db_servers`")
    parser.add_argument("--publish", action="store_true", help="do it")
    parser.add_argument("--to-plan", type=a_text, metavar="NAME", help="the new plan, for --publish")
    add_terms(parser)
    parser.add_argument(
        "--at-once",
        type=a_count,
        default=AT_ONCE,
        metavar="N",
        help=f"migrations of this pool under way at a time, at most (default: {AT_ONCE})",
    )
    parser.add_argument(
        "--busy",
        type=a_count,
        default=BUSY,
        metavar="N",
        help=f"publish only while at most N sessions are active on the pool (default: {BUSY})",
    )
    parser.add_argument(
        "--failures",
        type=a_count,
        default=FAILURES,
        metavar="N",
        help=f"publish no more once N did not complete (default: {FAILURES})",
    )
    parser.add_argument("--again", action="store_true", help="also those whose last move was rolled back")
    parser.add_argument("--reason", type=a_text, metavar="WHY", help="why, for the journal")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_drain, complain=parser.error, db_type="dedicated")


async def _drain(args: argparse.Namespace) -> int:
    if args.publish and args.to_plan is None:
        args.complain("--publish needs --to-plan NAME")
    order = _order(args)
    settings = read_settings(needed={"platform_dsn", "amqp_url"} if args.publish else {"platform_dsn"})
    async with bootstrap.platform_pool(settings) as platform, bootstrap.state_pool(settings, 3) as state:
        records, views = PostgresPlatform(platform), PostgresJournalViews(state)
        server = await _named(records, args.pool)
        inspector = PostgresInspector(bootstrap.sessions(settings))
        pool = Pool(server, records, inspector, views, again=args.again)
        if order is None:
            entries, _ = await pool.look()
            if args.json:
                as_json(plan_document(server, entries))
            else:
                printed(plan_lines(server, entries))
            return 1 if any(one.needs_operator for one in entries) else 0
        async with views.alone(f"drain of {server.name}", ALONE_WITHIN):
            return await _carry_out(settings, pool, order, args)


async def _carry_out(settings: Settings, pool: Pool, order: Order, args: argparse.Namespace) -> int:
    stop, task = asyncio.Event(), asyncio.current_task()

    def ask_to_stop() -> None:
        if stop.is_set() and task is not None:  # the second time: at once, whatever it is at
            task.cancel()
        stop.set()

    async def sleep(seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)

    async def publish(event: CloudEvent[PlanUpgraded]) -> None:
        async with bootstrap.broker(settings, "rehome drain") as broker:
            await broker.publish("billing", event.type, Message.of_event(encode(event)), mandatory=True)

    def tell(instance: UUID | None, text: str) -> None:
        at = f"{moment(datetime.now(UTC))}  "
        say(*detail(f"{at}{f'{instance}  ' if instance else ''}{text}", ""), error=args.json)

    clock = bootstrap.SystemClock()
    drain = Drain(pool, order, publish=publish, say=tell, clock=clock, sleep=sleep, stop=stop)
    with at_signals(ask_to_stop) as came:
        try:
            async with AsyncExitStack() as stack:
                stack.callback(_end, drain, pool.server, args, stop)
                await drain.run()
        except asyncio.CancelledError:
            if not came:
                raise
    if came:
        return OF_A_SIGNAL + came[0]
    return 0 if drain.summary.well else 1


def _end(drain: Drain, server: Server, args: argparse.Namespace, stop: asyncio.Event) -> None:
    """Say what it came to, however it ended."""
    if args.json:
        as_json(outcome_document(server, drain.summary, stopped=stop.is_set()))
    else:
        printed(outcome_lines(server, drain.summary))


def _order(args: argparse.Namespace) -> Order | None:
    """What is ordered; None: only to show the plan. Ends the command where it could not be published."""
    granted = granted_by(args)
    if not args.publish:
        return None
    wanted = Wanted(args.to_plan, tier_of(args), granted, args.not_before, args.priority)
    valid(args, lambda: wanted.data(NOBODY, NOBODY, NOBODY))
    return Order(
        wanted=wanted,
        at_once=args.at_once,
        busy=args.busy,
        failures=args.failures,
        by=who(),
        why=args.reason or "",
    )


async def _named(records: PostgresPlatform, name: str) -> Server:
    """The pool of this name.

    Raises:
        NotFound: there is none; names those that there are.
        Refused: it is a customer's own server.
    """
    servers = await records.tenant_servers()
    found = next((one for one in servers if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in servers if one.kind == "shared") or "none"
        raise NotFound(f"there is no server {name} in `db_servers`; pools are: {names}")
    if found.kind != "shared":
        raise Refused(f"{name} is a customer's own server ({found.kind}): only a shared pool is drained")
    return found
