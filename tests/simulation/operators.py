"""What operators do in a schedule: roll back by hand, replay and discard dead letters, let the doctor repair."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final
from uuid import UUID

from rehome_consumer import saga
from rehome_consumer.engine import replay
from rehome_consumer.engine.dead_letter import read_dead_letter
from rehome_consumer.engine.replay import Case
from rehome_consumer.model import Pause
from rehome_consumer.operators.rollback_request import ASK_TIMES
from rehome_consumer.ports.engine import encode_for_outbox
from rehome_consumer.rabbitmq.topology import DEAD, HANDLER
from rehome_events.envelope import decode, event_id
from rehome_events.migration import MigrationFailed, MigrationRejected
from tests.fakes.broker import FakeDelivery
from tests.simulation.doctor import Doctor
from tests.support.events import emitted, migration_of

if TYPE_CHECKING:
    from rehome_consumer.engine.dead_letter import DeadLetter
    from rehome_consumer.ports.engine import Message, MigrationRow
    from tests.fakes.broker import Stored
    from tests.fakes.claims import FakeClaim
    from tests.simulation.schedule import Schedule

TIMES: Final = 30
"""Tries to get the claim that a rollback by hand needs."""
DOCTOR_FIRST: Final = 0.4
"""How often the doctor is run before operators do anything else."""
WRITTEN: Final = "going back would lose it"
"""In the refusal of a rollback that came while the instance was starting, after users had written."""


class Operators:
    """People at the command line.

    Attributes:
        discarded: migrations of which a dead letter was discarded.
        doctor: `rehome doctor --repair`.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._random = schedule.random
        self._replays = 0
        self.discarded: set[UUID | None] = set()
        self.doctor = Doctor(schedule)

    async def roll_back_later(self, at: float) -> None:
        """`rehome roll-back --yes` of some upgrade, after so many seconds."""
        await self._schedule.loop.sleep(at)
        await self.roll_back(migration_of(self._random.choice(self._schedule.upgrades)))

    async def roll_back(self, migration: UUID) -> None:
        """As the command does: ask for the claim of the consumer at work, end it if it does not listen, and commit the
        request with the claim held.
        """
        schedule = self._schedule
        row = schedule.journal.migrations.get(migration)
        if row is None or row.ended or row.past_pivot:
            return
        asked: Counter[FakeClaim] = Counter()
        for _ in range(TIMES):
            holder = schedule.claims.held.get(row.instance_id)
            if holder is not None:
                end = schedule.claims.cut if asked[holder] == ASK_TIMES else schedule.claims.revoke
                asked[holder] += 1
                end(holder)
            async with schedule.claims.claim(row.instance_id) as claim:
                if claim is not None:
                    await self._request(schedule.journal.migrations[migration], row)
                    return

    async def pause_later(self, at: float, seconds: float) -> None:
        """`rehome pause` after so many seconds, and `rehome resume` after so many more, or when the faults end."""
        schedule = self._schedule
        await schedule.loop.sleep(at)
        journal = schedule.journal
        journal.pause = Pause(schedule.site.clock.now(), "anna@host")
        schedule.log("operator", "pauses")
        try:
            await schedule.loop.sleep(seconds)
        finally:
            journal.pause = None
            schedule.log("operator", "resumes")

    async def prioritize_later(self, at: float, priority: int) -> None:
        """`rehome prioritize` after so many seconds, of whichever move is not over then."""
        schedule = self._schedule
        await schedule.loop.sleep(at)
        open_ = [row.id for row in schedule.journal.migrations.values() if not row.ended]
        if open_:
            one = Random(f"{at}").choice(open_)  # noqa: S311 - reproducible is the point
            schedule.journal.priorities[one] = schedule.line.priorities[one] = priority
            schedule.log("operator", f"gives {one} priority {priority}")

    async def replay_later(self, at: float) -> None:
        """`rehome dead replay --all`, after so many seconds."""
        await self._schedule.loop.sleep(at)
        self.replay_all(blindly=self._random.random() < 0.5)

    def replay_all(self, *, blindly: bool) -> set[UUID | None]:
        """Replay every dead letter; discard what cannot be read, and what is refused with the advice to discard it.

        Args:
            blindly: without the checks of `rehome dead replay`, as RabbitMQ's shovel plug-in would.

        Returns:
            Migrations whose dead letters were sent.
        """
        node = self._schedule.node
        dead_letters = node.queues[DEAD].ready
        taken: set[UUID | None] = set()
        for place in range(len(dead_letters)):
            stored = dead_letters.popleft()
            dead_letter = read_dead_letter(FakeDelivery(node, node.queues[DEAD], stored), place)
            if dead_letter.event is None:
                continue
            sent = self._blind(dead_letter, stored) if blindly else self._planned(dead_letter)
            if not isinstance(sent, str):
                taken.add(dead_letter.migration_id)
                for _ in range(2 if self._random.random() < 0.2 else 1):
                    node.route(HANDLER, *sent)
            elif "discard" in sent:
                self._schedule.log("operator", f"discards {dead_letter.type} of {dead_letter.handler}")
                self.discarded.add(dead_letter.migration_id)
            else:
                dead_letters.append(stored)
        return taken

    async def tend(self, *, blindly: bool) -> None:
        """Let the doctor repair, or replay all dead letters and roll back by hand what has none and has not ended."""
        rows = self._schedule.journal.migrations.values()
        # past the point of no return only the doctor helps
        forward = any(row.past_pivot and not row.ended for row in rows)
        if (forward or self._random.random() < DOCTOR_FIRST) and await self.doctor.run():
            return
        taken = self.replay_all(blindly=blindly)
        for row in list(self._schedule.journal.migrations.values()):
            if not row.ended and row.id not in taken:
                await self.roll_back(row.id)

    async def _request(self, now: MigrationRow, before: MigrationRow) -> None:
        """Does nothing past the point of no return: the command refuses."""
        journal = self._schedule.journal
        if now.ended or now.past_pivot or now.attempt != before.attempt:
            return
        started = [
            step
            for migration, attempt, step in journal.steps
            if (migration, attempt) == (now.id, now.attempt)
        ]
        accept = journal.steps.get((now.id, now.attempt, saga.MIGRATION[0].name))
        data: MigrationFailed | MigrationRejected
        if accept is None or accept.state != "done":
            state = "rejected"
            data = MigrationRejected(
                instance_id=now.instance_id,
                to_plan="premium-monthly",
                reason="cancelled",
                message="requested",
            )
        else:
            state = "failing"
            step = [name for name in started if name != saga.ROLL_BACK.name][-1]
            data = MigrationFailed(
                instance_id=now.instance_id,
                step=step,
                error="Operator",
                message="requested",
                tries=1,
                next="roll_back",
            )
        self._schedule.log("operator", f"rolls back {now.id}: {state}")
        await journal.ask_roll_back(
            now, encode_for_outbox(emitted(data, now.id, now.attempt)), "requested", state=state
        )

    def _planned(self, dead_letter: DeadLetter) -> tuple[str, Message] | str:
        """As `rehome dead replay` decides; text: refused, and what to do instead."""
        journal = self._schedule.journal
        row = journal.migrations.get(dead_letter.migration_id or UUID(int=0))
        steps = {} if row is None else {
            key[2]: step for key, step in journal.steps.items() if key[:2] == (row.id, row.attempt)
        }  # fmt: skip
        done = frozenset(name for name, step in steps.items() if step.state == "done")
        case = Case(row, done, frozenset(steps), undoing=saga.ROLL_BACK.name in steps)
        if row is not None and row.state == "failed" and WRITTEN in (row.reason or ""):
            planned = replay.forward(dead_letter, replace(case, as_left=True), self._waking(case))
        else:
            planned = replay.plan(dead_letter, case)
        self._schedule.log("operator", f"{dead_letter.type} of {dead_letter.handler}: {planned.what}")
        return (planned.handler, planned.message) if planned.message else planned.what

    def _waking(self, case: Case) -> bytes | None:
        """The last event before the step at which a migration stopped."""
        step, row = replay.stopped_at(case), case.migration
        if step is None or row is None:
            return None
        wanted = event_id(row.id, row.attempt, step.on.TYPE)
        return next(
            (one.row.message.body for one in self._schedule.journal.outbox if one.event_id == wanted), None
        )

    def _blind(self, dead_letter: DeadLetter, stored: Stored) -> tuple[str, Message]:
        assert dead_letter.event
        row = self._schedule.journal.migrations.get(dead_letter.migration_id or UUID(int=0))
        event, handler = dead_letter.event, stored.routing_key
        if row is not None and row.state == "rolled_back":
            event, handler = decode(row.trigger), saga.MIGRATION[0].name
        self._replays += 1
        self._schedule.log("operator", f"replays {event.type} for {handler}")
        return handler, replay.again(event, UUID(int=0x10000 + self._replays, version=4))
