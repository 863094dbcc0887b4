"""What `rehome dead` works at: the letters, held back from other tools, and what can be known of each."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from rehome_consumer import bootstrap, saga
from rehome_consumer.adapters.rabbitmq.broker import AmqpBroker
from rehome_consumer.adapters.rabbitmq.dead_letters import DeadLetters
from rehome_consumer.adapters.state.views import JournalViews
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
LETTERS = "dead letters"
SHORTEST = 6  # characters by which a letter may be named, if no other one starts with them


@dataclass(frozen=True, slots=True)
class Copies:
    """One letter's copies in the queue: a consumer that died in mid burial leaves two of the same."""

    held: list[HeldDeadLetter]

    async def ack(self) -> None:
        """Take all of them out of the queue for good."""
        for one in self.held:
            await one.ack()


@dataclass(frozen=True, slots=True)
class DeadLetterSession:
    """The letters, the journal, a way to publish, and eyes on the world (or why there are none)."""

    dead_letters: list[tuple[DeadLetter, Copies]]
    journal: PostgresJournal
    views: JournalViews
    broker: AmqpBroker
    observer: Observer | None
    blind: str

    def find(self, wanted: str) -> tuple[DeadLetter, Copies]:
        """The letter with this id, or whose id alone starts with it.

        Raises:
            NotFound: there is none, or several start so.
        """
        for one in self.dead_letters:
            if one[0].id == wanted:
                return one
        if len(wanted) < SHORTEST:
            raise NotFound(
                f"no dead letter {wanted!r}; to name one by how its id begins takes {SHORTEST} characters or more"
            )
        alike = [one for one in self.dead_letters if one[0].id.startswith(wanted)]
        if len(alike) == 1:
            return alike[0]
        what = f"{len(alike)} dead letters start with" if alike else "no dead letter"
        raise NotFound(f"{what} {wanted!r}; see `rehome dead list`")

    async def case(self, dead_letter: DeadLetter, *, look: bool) -> tuple[Case, InstanceSnapshot | None]:
        """What journal and world say of a letter; the world is looked at if `look`, or if it decides."""
        row = await self.journal.migration(dead_letter.migration_id) if dead_letter.migration_id else None
        if row is None:
            newer = None
            if dead_letter.event is not None and (instance := _uuid(dead_letter.instance)):
                newer = await self.views.newer_than(instance, dead_letter.event.time)
            return Case(newer=_told(newer)), None
        steps = [one for one in await self.views.steps(row.id) if one["attempt"] == row.attempt]
        undoing = any(one["step"] == saga.ROLL_BACK.name for one in steps)
        snapshot = await self._snapshot(row.instance_id, row.id) if look or undoing else None
        case = Case(
            migration=row,
            done=frozenset(one["step"] for one in steps if one["state"] == "done"),
            started=frozenset(one["step"] for one in steps),
            undoing=undoing,
            as_left=snapshot is not None and forecast.is_as_left(snapshot),
            newer=_told(await self.views.newer(row.id)),
        )
        return case, snapshot

    async def waking(self, case: Case) -> bytes | None:
        """The event that wakes the step at which this migration stopped, as it was told; None: it is gone."""
        step = replay.stopped_at(case)
        if step is None or case.migration is None:
            return None
        return await self.views.told(event_id(case.migration.id, case.migration.attempt, step.on.TYPE))

    async def _snapshot(self, instance_id: UUID, migration_id: UUID) -> InstanceSnapshot | None:
        if self.observer is None:
            return None
        return await self.observer.instance(instance_id, *await self.views.those([migration_id]))


@asynccontextmanager
async def dead_letter_session(*, world: bool) -> AsyncIterator[DeadLetterSession]:
    """All letters, for the length of the block; those that were not acknowledged are back at its end.

    Args:
        world: whether servers, files and services are looked at too, where settings allow it.
    """
    settings = read_settings(needed=NEEDED)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(bootstrap.state_pool(settings, 3))
        connection = await stack.enter_async_context(bootstrap.amqp(settings, "rehome dead"))
        views = JournalViews(pool)
        observer, blind = await _observer(stack) if world else (None, "")
        await stack.enter_async_context(views.alone(LETTERS))
        held = await stack.enter_async_context(DeadLetters(connection).held())
        yield DeadLetterSession(
            dead_letters=gathered(held),
            journal=bootstrap.journal(pool, settings),
            views=views,
            broker=AmqpBroker(connection),
            observer=observer,
            blind=blind,
        )


def gathered(held: Iterable[HeldDeadLetter]) -> list[tuple[DeadLetter, Copies]]:
    """Letters with their copies, in the order of the queue; of copies the last tells."""
    found: dict[tuple[str, str], tuple[DeadLetter, Copies]] = {}
    for place, one in enumerate(held):
        dead_letter = read_dead_letter(one, place)
        key = (dead_letter.id, dead_letter.handler)
        before = found[key][1].held if key in found else []
        found[key] = (dead_letter, Copies([*before, one]))
    return list(found.values())


def none_matches(there: DeadLetterSession) -> str:
    """What is said when no letter is left by the filters."""
    return (
        f"no dead letter matches; {len(there.dead_letters)} wait(s) in all"
        if there.dead_letters
        else "no dead letters"
    )


def matches(dead_letter: DeadLetter, args: argparse.Namespace) -> bool:
    """Whether a letter passes the filters of the command line."""
    told = (dead_letter.handler, dead_letter.type, dead_letter.instance, dead_letter.reason)
    return passes(*told, dead_letter.failed_at, args)


def passes(
    handler: str,
    type_: str,
    instance: str | None,
    reason: str,
    since: datetime | None,
    args: argparse.Namespace,
) -> bool:
    """Whether what has these passes the filters of the command line."""
    old = timedelta(hours=args.older_than) if args.older_than is not None else None
    return (
        (not args.handler or handler == args.handler)
        and (not args.type or type_ == args.type)
        and (not args.instance or instance == args.instance)
        and (not args.reason or reason == args.reason)
        and (old is None or (since is not None and datetime.now(UTC) - since > old))
    )


async def _observer(stack: AsyncExitStack) -> tuple[Observer | None, str]:
    """Eyes on the world, or why there are none: a letter can be read without them."""
    try:
        settings: Settings = read_settings(needed=NEEDED | WORLD)
        return (await stack.enter_async_context(operator_tools(settings))).observer, ""
    except RehomeError as error:
        return None, str(error)


def _told(newer: tuple[UUID, str] | None) -> str | None:
    return f"migration {newer[0]}, {newer[1]}" if newer else None


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None
