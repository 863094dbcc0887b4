"""What operators do: through the functions of the command line, and nothing else.

Every act is in the history of its migration with who asked for it and why.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from rehome_consumer import bootstrap
from rehome_consumer.console.documents import (
    Discarded,
    LetGo,
    LookedAt,
    Pausing,
    Prioritized,
    QueuedLetter,
    Replay,
    RollBack,
    Started,
    Undo,
)
from rehome_consumer.engine.inbound import opened_by
from rehome_consumer.errors import NotFound, Refused, TimedOut
from rehome_consumer.operators.dead_letter_acts import discard_one, event_in, replay_one
from rehome_consumer.operators.dead_letter_session import dead_letter_session
from rehome_consumer.operators.documents import Paused
from rehome_consumer.operators.moving_now import move_now
from rehome_consumer.operators.pausing import order
from rehome_consumer.operators.prioritizing import prioritize
from rehome_consumer.operators.rollback_plan import read_order
from rehome_consumer.operators.rollback_request import is_taken_up, request
from rehome_consumer.ports.engine import Message
from rehome_consumer.ports.operators import STARTED, signed
from rehome_events.data import masked
from rehome_events.envelope import encode, new_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from rehome_consumer.adapters.state.journal import PostgresJournal
    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.console.access import Person
    from rehome_consumer.console.documents import Start
    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.model import Pause
    from rehome_consumer.settings import Settings

log = logging.getLogger(__name__)

LIMIT: Final = 120.0
"""Seconds for one act."""
WAIT: Final = 30.0
"""Seconds within which a running step must be stopped for a rollback."""
TAKEN_WITHIN: Final = 10
"""Looks, a second apart, for the migration that an upgrade has opened."""
SHOWN: Final = 4000
"""Characters of a body that is no JSON."""


@dataclass(frozen=True, slots=True)
class Acts:
    """The acts, with the parts that they need."""

    settings: Settings
    views: PostgresJournalViews
    journal: PostgresJournal

    async def queue(self) -> list[QueuedLetter]:
        """All dead letters; they are read from the queue, and put back."""
        async with _limited("the queue of dead letters"), dead_letter_session(observe=False) as session:
            return [QueuedLetter(**_summary(dead_letter)) for dead_letter, _ in session.dead_letters]

    async def look_at(self, wanted: str) -> LookedAt:
        """A dead letter, complete, and what its replay would do; nothing is changed.

        Raises:
            RehomeError: it is not there, or broker or journal do not answer.
        """
        async with _limited(f"dead letter {wanted}"), dead_letter_session(observe=True) as session:
            dead_letter, copies = session.find(wanted)
            would = await replay_one(session, dead_letter, copies, dry_run=True)
            return LookedAt(
                **_summary(dead_letter),
                event=event_in(dead_letter, shown=SHOWN),
                replay=Replay(
                    id=would.id, done=False, refused=would.refused, what=would.what, in_detail=would.in_detail
                ),
                not_looked_at=session.not_observed or None,
            )

    async def replay(self, wanted: str, who: Person, why: str, *, dry_run: bool) -> Replay:
        """Send a dead letter again, to the handler that failed."""
        async with _limited(f"dead letter {wanted}"), dead_letter_session(observe=True) as session:
            one = session.find(wanted)
            done = await replay_one(session, *one, dry_run=dry_run, by=who.name, why=why)
        if done.replayed:
            log.warning("console.replayed dead_letter=%s by=%s why=%s", done.id, who.name, why)
        return Replay(
            id=done.id, done=done.replayed, refused=done.refused, what=done.what, in_detail=done.in_detail
        )

    async def discard(self, wanted: str, who: Person, why: str) -> Discarded:
        """Remove a dead letter; the journal keeps a copy."""
        async with _limited(f"dead letter {wanted}"), dead_letter_session(observe=False) as session:
            dead_letter, copies = session.find(wanted)
            left = await discard_one(session, dead_letter, copies, why, by=who.name)
        log.warning("console.discarded dead_letter=%s by=%s why=%s", dead_letter.id, who.name, why)
        return Discarded(id=dead_letter.id, left=left)

    async def roll_back(self, wanted: UUID, who: Person, why: str, *, dry_run: bool) -> RollBack:
        """Undo a migration, or only say what that would do."""
        async with _limited(f"migration {wanted}"):
            undoing, blind = await read_order(self.settings, self.views, self.journal, wanted)
            taken_up = None
            if not dry_run:
                async with bootstrap.claims(self.settings) as claims:
                    await request(
                        self.views, self.journal, claims, undoing, reason=why, wait=WAIT, by=who.name
                    )
                migration = undoing.migration.id
                log.warning("console.rolls_back migration=%s by=%s why=%s", migration, who.name, why)
                taken_up = await is_taken_up(self.views, migration)
        return RollBack(
            migration_id=undoing.migration.id,
            cancel=undoing.cancel,
            running=undoing.view.step if undoing.holder else None,
            undo=[Undo(step=step, what=what) for step, what in undoing.undo],
            not_looked_at=blind or None,
            requested=not dry_run,
            taken_up=taken_up,
        )

    async def pause(self, who: Person, why: str, *, paused: bool) -> Pausing:
        """Pause all moves, or let them go on."""
        async with _limited("the pause"):
            done = await order(self.views, paused=paused, by=who.name, why=why)
        if done.changed:
            verb = "paused" if paused else "resumed"
            log.warning("console.%s by=%s why=%s", verb, who.name, why)
        return Pausing(changed=done.changed, paused=_pause(done.pause))

    async def start(self, who: Person, given: Start) -> Started:
        """Publish an upgrade, as billing would, and note in its migration's history who asked for it.

        Raises:
            Refused: REHOME_CONSOLE_PUBLISH_URL is not set, or its user may not publish upgrades.
            RehomeError: broker or journal do not answer.
        """
        url = self.settings.console_publish_url
        if url is None:
            raise Refused(
                "REHOME_CONSOLE_PUBLISH_URL is not set: this console begins no moves (rehome publish does)"
            )
        event = new_event(
            given.upgrade,
            subject=given.upgrade.instance_id,
            id=uuid4(),
            time=datetime.now(UTC),
            source="/billing",
        )
        migration_id = opened_by(event.id)
        async with _limited(f"upgrade {event.id}"):
            as_publisher = self.settings.model_copy(update={"amqp_url": url})
            async with bootstrap.broker(as_publisher, "rehome console") as broker:
                await broker.publish("billing", event.type, Message.of_event(encode(event)), mandatory=True)
            instance_id = given.upgrade.instance_id
            log.warning(
                "console.started_move event=%s instance=%s by=%s why=%s",
                event.id,
                instance_id,
                who.name,
                given.why,
            )
            taken = await self._noted(migration_id, signed(who.name, given.why))
        return Started(event_id=event.id, migration_id=migration_id, instance_id=instance_id, taken=taken)

    async def _noted(self, migration_id: UUID, detail: str) -> bool:
        for _ in range(TAKEN_WITHIN):
            with suppress(NotFound):  # no consumer ever ran
                if await self.views.by_ids([migration_id]):
                    await self.views.add_to_history(migration_id, STARTED, detail)
                    return True
            await asyncio.sleep(1)
        return False

    async def move_now(self, wanted: UUID, who: Person, why: str) -> LetGo:
        """Let a migration go on outside of the maintenance window."""
        async with _limited(f"migration {wanted}"):
            done = await move_now(self.views, wanted, by=who.name, why=why)
        log.warning("console.let_go migration=%s by=%s why=%s", done.migration_id, who.name, why)
        return LetGo(migration_id=done.migration_id, instance_id=done.instance_id, paused=_pause(done.pause))

    async def prioritize(self, wanted: UUID, who: Person, why: str, priority: int) -> Prioritized:
        """Give a migration another priority among those that wait for slots."""
        async with _limited(f"migration {wanted}"):
            done = await prioritize(self.views, wanted, priority, by=who.name, why=why)
        log.warning(
            "console.prioritized migration=%s priority=%d by=%s why=%s",
            *(done.migration_id, priority, who.name, why),
        )
        return Prioritized(**asdict(done))


@asynccontextmanager
async def _limited(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except TimeoutError:
        raise TimedOut(
            f"{what}: not done within {LIMIT:g} s; look whether it was, before you try again"
        ) from None


def _pause(pause: Pause | None) -> Paused | None:
    return None if pause is None else Paused(at=pause.at, by=pause.by, why=pause.why)


def _summary(dead_letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": dead_letter.id,
        "handler": dead_letter.handler,
        "type": dead_letter.type,
        "reason": dead_letter.reason,
        "error": masked(dead_letter.error),
        "tries": dead_letter.tries,
        "failed_at": dead_letter.failed_at,
        "instance": dead_letter.instance,
        "migration_id": dead_letter.migration_id,
    }
