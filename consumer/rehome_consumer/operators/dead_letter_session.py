"""What `rehome dead` works on: all dead letters, held while it runs, and what is known about each."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from rehome_consumer import bootstrap, saga
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.dead_letters import DeadLetters
from rehome_consumer.adapters.state.views import PostgresJournalViews
from rehome_consumer.doctor import forecast
from rehome_consumer.engine import replay
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.engine.replay import Case
from rehome_consumer.errors import NotFound, RehomeError
from rehome_consumer.operators.tools import WORLD, operator_tools
from rehome_consumer.settings import read_settings
from rehome_events.envelope import event_id

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Iterable

    from rehome_consumer.adapters.rabbitmq.dead_letters import HeldDeadLetter
    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.doctor.observer import Observer
    from rehome_consumer.doctor.snapshot import InstanceSnapshot
    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.settings import Settings

NEEDED = frozenset({"amqp_url", "state"})
LOCK = "dead letters"
"""Name of the lock by which one tool at a time reads the queue."""
SHORTEST_PREFIX = 6  # characters by which a dead letter may be named, if no other one starts with them


@dataclass(frozen=True, slots=True)
class Copies:
    """The copies of one dead letter: a consumer that dies just after publishing it leaves two."""

    held: list[HeldDeadLetter]

    async def ack(self) -> None:
        """Remove all of them from the queue."""
        for one in self.held:
            await one.ack()


@dataclass(frozen=True, slots=True)
class DeadLetterSession:
    """The dead letters, the journal, a way to publish, and an observer (or why there is none)."""

    dead_letters: list[tuple[DeadLetter, Copies]]
    journal: PostgresJournal
    views: PostgresJournalViews
    broker: AmqpBroker
    observer: Observer | None
    not_observed: str

    def find(self, wanted: str) -> tuple[DeadLetter, Copies]:
        """The dead letter with this id, or the only one whose id starts with it.

        Raises:
            NotFound: there is none, or several start so.
        """
        for one in self.dead_letters:
            if one[0].id == wanted:
                return one
        if len(wanted) < SHORTEST_PREFIX:
            raise NotFound(
                f"no dead letter {wanted!r}; the start of an id must have {SHORTEST_PREFIX} characters or more"
            )
        matching = [one for one in self.dead_letters if one[0].id.startswith(wanted)]
        if len(matching) == 1:
            return matching[0]
        what = f"{len(matching)} dead letters start with" if matching else "no dead letter"
        raise NotFound(f"{what} {wanted!r}; see `rehome dead list`")

    async def case(self, dead_letter: DeadLetter, *, observe: bool) -> tuple[Case, InstanceSnapshot | None]:
        """What the journal says about a dead letter; with a snapshot if `observe`, or if that decides."""
        row = await self.journal.migration(dead_letter.migration_id) if dead_letter.migration_id else None
        if row is None:
            newer = None
            if dead_letter.event is not None and (instance := _uuid(dead_letter.instance)):
                newer = await self.views.newer_than(instance, dead_letter.event.time)
            return Case(newer=_described(newer)), None
        steps = [one for one in await self.views.steps(row.id) if one["attempt"] == row.attempt]
        undoing = any(one["step"] == saga.ROLL_BACK.name for one in steps)
        snapshot = await self._snapshot(row.instance_id, row.id) if observe or undoing else None
        case = Case(
            migration=row,
            done=frozenset(one["step"] for one in steps if one["state"] == "done"),
            started=frozenset(one["step"] for one in steps),
            undoing=undoing,
            as_left=snapshot is not None and forecast.is_as_left(snapshot),
            newer=_described(await self.views.newer(row.id)),
        )
        return case, snapshot

    async def step_event(self, case: Case) -> bytes | None:
        """The event of the step at which this migration stopped, as published; None: no longer in the outbox."""
        step = replay.stopped_at(case)
        if step is None or case.migration is None:
            return None
        return await self.views.outbox_body(event_id(case.migration.id, case.migration.attempt, step.on.TYPE))

    async def _snapshot(self, instance_id: UUID, migration_id: UUID) -> InstanceSnapshot | None:
        if self.observer is None:
            return None
        return await self.observer.instance(instance_id, *await self.views.by_ids([migration_id]))


@asynccontextmanager
async def dead_letter_session(*, observe: bool) -> AsyncIterator[DeadLetterSession]:
    """All dead letters, for the length of the block; those not acknowledged are back in the queue at its end.

    Args:
        observe: whether servers, files and services can be read too, where settings allow it.
    """
    settings = read_settings(needed=NEEDED)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(bootstrap.state_pool(settings, 3))
        connection = await stack.enter_async_context(bootstrap.amqp(settings, "rehome dead"))
        views = PostgresJournalViews(pool)
        observer, not_observed = await _observer(stack) if observe else (None, "")
        await stack.enter_async_context(views.alone(LOCK))
        held = await stack.enter_async_context(DeadLetters(connection).held())
        yield DeadLetterSession(
            dead_letters=with_copies(held),
            journal=bootstrap.journal(pool, settings),
            views=views,
            broker=AmqpBroker(connection),
            observer=observer,
            not_observed=not_observed,
        )


def with_copies(held: Iterable[HeldDeadLetter]) -> list[tuple[DeadLetter, Copies]]:
    """Dead letters with their copies, in the order of the queue; the last copy is the one that is read."""
    found: dict[tuple[str, str], tuple[DeadLetter, Copies]] = {}
    for place, one in enumerate(held):
        dead_letter = read_dead_letter(one, place)
        key = (dead_letter.id, dead_letter.handler)
        before = found[key][1].held if key in found else []
        found[key] = (dead_letter, Copies([*before, one]))
    return list(found.values())


def none_matches(session: DeadLetterSession) -> str:
    """The message when no dead letter passes the filters."""
    count = len(session.dead_letters)
    return f"no dead letter matches the filters; there are {count} in all" if count else "no dead letters"


def matches(dead_letter: DeadLetter, args: argparse.Namespace) -> bool:
    """Whether a dead letter passes the filters of the command line."""
    filtered = (dead_letter.handler, dead_letter.type, dead_letter.instance, dead_letter.reason)
    return passes(*filtered, dead_letter.failed_at, args)


def passes(
    handler: str,
    type_: str,
    instance: str | None,
    reason: str,
    since: datetime | None,
    args: argparse.Namespace,
) -> bool:
    """Whether a dead letter with these attributes passes the filters of the command line."""
    old = timedelta(hours=args.older_than) if args.older_than is not None else None
    return (
        (not args.handler or handler == args.handler)
        and (not args.type or type_ == args.type)
        and (not args.instance or instance == args.instance)
        and (not args.reason or reason == args.reason)
        and (old is None or (since is not None and datetime.now(UTC) - since > old))
    )


async def _observer(stack: AsyncExitStack) -> tuple[Observer | None, str]:
    """An observer, or why there is none: a dead letter can be shown without it."""
    try:
        settings: Settings = read_settings(needed=NEEDED | WORLD)
        return (await stack.enter_async_context(operator_tools(settings))).observer, ""
    except RehomeError as error:
        return None, str(error)


def _described(newer: tuple[UUID, str] | None) -> str | None:
    return f"migration {newer[0]}, {newer[1]}" if newer else None


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
