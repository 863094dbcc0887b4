"""`rehome doctor`: compare what is recorded with what is really there, and repair what is safe to repair."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import bootstrap
from rehome_consumer.adapters.rabbitmq.dead_letters import DeadLetters
from rehome_consumer.adapters.state.facts import MemoryFacts
from rehome_consumer.commands.arguments import a_span, an_id
from rehome_consumer.commands.lines import Paragraphs, detail, printed, row, say
from rehome_consumer.commands.show import as_json
from rehome_consumer.commands.who import who
from rehome_consumer.doctor.diagnosis import diagnose
from rehome_consumer.doctor.finding import NOT_CHECKED, Finding
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.errors import NotFound, RehomeError
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.dead_letter_session import LOCK
from rehome_consumer.operators.tools import EVERYTHING, operator_tools
from rehome_consumer.ports.operators import DeadLetterRecord
from rehome_consumer.process.readiness import Readiness
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    import argparse

    from aio_pika.abc import AbstractRobustConnection

    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.doctor.repair import Repairs
    from rehome_consumer.doctor.snapshot import Snapshot
    from rehome_consumer.settings import Settings

WIDTHS: Final = (8, 21, 6)
FAILING: Final = frozenset({"error", "warning"})
"""Severities that make the exit code 1."""

ABOUT = """\
Compare, for one instance or for all that were moved lately: the record, odoo.conf, the service's environment,
connections and fences. Also find what was left behind: events that were not sent, migrations without a delivery, dead
letters, and leftovers on servers, in the backup place and beside odoo.conf. Changes nothing.

--repair does what is safe, each repair only while no consumer works on the instance: unsent events are sent, a stuck
migration gets its event again, scratch databases, partial backups and temporary files of migrations that are over are
removed, a source that a rollback left fenced is opened. A database that may have been written to is never dropped.

Exit code 1 when an error or a warning is found (with --repair: is left). The consumer checks too, every
REHOME_DOCTOR_EVERY seconds, and reports in its log (doctor.finding) and metrics (rehome_findings)."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "doctor",
        help="find what is not as it should be; repair what is safe with --repair",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("instance", nargs="?", type=an_id, metavar="INSTANCE", help="only this instance")
    parser.add_argument("--repair", action="store_true", help="repair what is safe to repair")
    parser.add_argument(
        "--stuck-after",
        type=a_span,
        metavar="SECONDS",
        help="time without a change after which a migration counts as stuck (default: REHOME_STUCK_AFTER)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(work=_doctor)


async def _doctor(args: argparse.Namespace) -> int:
    settings = read_settings(needed=EVERYTHING)
    stuck_after = settings.stuck_after if args.stuck_after is None else args.stuck_after
    async with AsyncExitStack() as stack:
        found: list[Finding] = []
        connection: AbstractRobustConnection | None = None
        try:
            connection = await stack.enter_async_context(bootstrap.amqp(settings, "rehome doctor"))
        except RehomeError as error:
            found.append(
                Finding(
                    "not_checked",
                    "error",
                    "the broker",
                    str(error),
                    "is it running? then: rehome topology check",
                )
            )
        readiness = await _readiness(settings, connection, stack)
        tools = await stack.enter_async_context(operator_tools(settings, connection, readiness))
        dead_letters = await _dead_letters(tools.views, connection, found)
        snapshot = await tools.observer.everything(args.instance, dead_letters)
        if (
            args.instance is not None
            and snapshot.instances[0].instance is None
            and not snapshot.instances[0].migration
        ):
            raise NotFound(f"instance {args.instance} is neither in the platform's table nor in the journal")
        found += diagnose(snapshot, stuck_after=timedelta(seconds=stuck_after), only=args.instance)
        done = await _repaired(tools.repairs(connection, who()), found) if args.repair and connection else {}
    if args.json:
        as_json([{**one.document(), "outcome": done.get(one)} for one in found])
    else:
        _print(found, done, snapshot)
    left = [one for one in found if one.severity in FAILING and done.get(one) != "repaired"]
    return 1 if left else 0


async def _readiness(
    settings: Settings, connection: AbstractRobustConnection | None, stack: AsyncExitStack
) -> Readiness:
    """That of a consumer with these settings on this machine."""
    state = await stack.enter_async_context(bootstrap.state_pool(settings))
    ports = await stack.enter_async_context(bootstrap.ports(settings, MemoryFacts()))
    journal = bootstrap.journal(state, settings)
    return Readiness(
        bootstrap.checks(settings, ports, journal, connection, only_look=True), level=logging.DEBUG
    )


async def _dead_letters(
    views: PostgresJournalViews, connection: AbstractRobustConnection | None, found: list[Finding]
) -> tuple[DeadLetterRecord, ...] | None:
    """The dead letters; None (and a finding) when they cannot be read."""
    if connection is None:
        return None
    try:
        async with views.alone(LOCK), DeadLetters(connection).held() as held:
            dead_letters = [read_dead_letter(one, place) for place, one in enumerate(held)]
    except RehomeError as error:
        found.append(Finding("not_checked", "warning", "the dead letters", str(error), NOT_CHECKED))
        return None
    return tuple(
        DeadLetterRecord(one.id, one.handler, one.reason, one.migration_id, one.failed_at)
        for one in dead_letters
    )


async def _repaired(repairs: Repairs, found: list[Finding]) -> dict[Finding, str]:
    """The outcome for each finding that is safe to repair."""
    done: dict[Finding, str] = {}
    for one in found:
        if one.safe_to_repair:
            try:
                await repairs.repair(one)
                done[one] = "repaired"
            except RehomeError as error:
                done[one] = f"not repaired: {error}"
    return done


def _print(found: list[Finding], done: dict[Finding, str], snapshot: Snapshot) -> None:
    if not found:
        dead_letters = (
            f"{len(snapshot.dead_letters)} dead letter(s)"
            if snapshot.dead_letters is not None
            else "no dead letters"
        )
        checked = f"{len(snapshot.instances)} instance(s), {len(snapshot.servers)} database server(s), {dead_letters}"
        printed(detail(f"nothing found; checked {checked}, the queues and the backup place", ""))
        return
    say(row(("SEVERITY", "KIND", "SINCE", "WHERE"), WIDTHS))
    for one in found:
        say(row((one.severity, one.kind, age(one.since), one.where), WIDTHS))
        if one.instance_id is not None and str(one.instance_id) not in one.where:
            printed(detail(f"instance {one.instance_id}"))
        printed(detail(one.what))
        outcome = done.get(one)
        if outcome is not None:
            printed(detail(f"repaired (--repair {one.repair})" if outcome == "repaired" else outcome))
        else:
            printed(detail(f"do: {one.advice}"))
            printed(detail(f"--repair {one.repair}") if one.repair else [])
