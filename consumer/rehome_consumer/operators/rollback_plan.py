"""What `rehome roll-back` would undo, and where a rollback is not possible."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehome_consumer import saga
from rehome_consumer.doctor import forecast
from rehome_consumer.errors import NotFound, Refused, RehomeError
from rehome_consumer.facts import SOURCE_RETAINED_UNTIL, SOURCE_RETIRED_AT
from rehome_consumer.operators.tools import WORLD, operator_tools
from rehome_consumer.settings import read_settings

if TYPE_CHECKING:
    from uuid import UUID

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.facts import RecordedFacts
    from rehome_consumer.ports.engine import MigrationRow
    from rehome_consumer.ports.operators import ClaimHolder, MigrationView
    from rehome_consumer.settings import Settings


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be undone, and how.

    Attributes:
        started: steps of the present attempt that were started, in order.
        cancel: nothing but the decision to move was started: there is nothing to undo.
        holder: who works on it now.
        undo: (step, words), in the order of undoing.
    """

    migration: MigrationRow
    view: MigrationView
    started: list[str]
    cancel: bool
    holder: ClaimHolder | None
    undo: list[tuple[str, str]]


async def read_order(
    settings: Settings, views: PostgresJournalViews, journal: PostgresJournal, wanted: UUID
) -> tuple[Order, str]:
    """What would be undone, and why servers, files and service could not be looked at (empty: they were).

    Raises:
        NotFound: no such migration or instance.
        Refused: it cannot be rolled back; says what to do instead.
    """
    view = next(iter(await views.migrations(wanted, 1, ended=False)), None)
    view = view or next(iter(await views.migrations(wanted, 1)), None)
    row = await journal.migration(view.id) if view else None
    if view is None or row is None:
        raise NotFound(
            f"no migration {wanted}, nor one of an instance with that id; see `rehome status --all`"
        )
    facts = await views.facts(row.id, row.attempt)
    _check(row, facts)
    steps = [step for step in await views.steps(row.id) if step["attempt"] == row.attempt]
    started = [step["step"] for step in steps]
    accepted = any(step["step"] == saga.MIGRATION[0].name and step["state"] == "done" for step in steps)
    snapshot, blind = await _snapshot(settings, view) if accepted else (None, "")
    undo = forecast.undoing(snapshot, started) if snapshot else _in_general(started)
    holder = (await views.holders([row.instance_id])).get(row.instance_id)
    return Order(row, view, started, not accepted, holder, undo if accepted else []), blind


def _check(migration: MigrationRow, facts: RecordedFacts) -> None:
    """Raise Refused where it cannot be rolled back, and say what to do instead."""
    if migration.state == "completed":
        until = facts.get(SOURCE_RETAINED_UNTIL)
        old = (
            "was dropped"
            if SOURCE_RETIRED_AT in facts
            else f"is kept, fenced, until {until.isoformat() if until else 'an unknown date'}"
        )
        raise Refused(
            f"migration {migration.id} is over: completed. The instance serves from its dedicated server, and users "
            f"have written there since; the old database {old}. A move back is a new move, by hand"
        )
    if migration.ended:
        raise Refused(f"migration {migration.id} is over: {migration.state}; there is nothing to undo")
    if migration.past_pivot:
        raise Refused(
            f"migration {migration.id} is past the point of no return: the instance serves from its new database. "
            f"Go forward: fix what step complete complains about ({migration.reason or 'see rehome status'}), then "
            f"rehome dead replay --all --handler complete --instance {migration.instance_id}"
        )


def _in_general(started: list[str]) -> list[tuple[str, str]]:
    """(step, what its undo does) in the order they run, where servers, files and service were not looked at."""
    return [
        (step.name, (step.undo.__doc__ or "").strip().partition("\n")[0])
        for step in reversed(saga.MIGRATION)
        if step.undo is not None and step.name in started
    ]


async def _snapshot(settings: Settings, view: MigrationView) -> tuple[InstanceSnapshot | None, str]:
    try:
        read_settings(needed=WORLD)
        async with AsyncExitStack() as stack:
            tools = await stack.enter_async_context(operator_tools(settings))
            snapshot = await tools.observer.instance(view.instance_id, view)
    except RehomeError as error:
        return None, str(error)
    return snapshot, "; ".join(f"{trouble.what}: {trouble.error}" for trouble in snapshot.troubles)
