"""The journal in memory. Every method is atomic: none gives way to another task."""

from __future__ import annotations

import dataclasses
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import orjson

from rehome_consumer.errors import ClaimLost, NotReady, Refused
from rehome_consumer.model import NORMAL, InLine, Pause, Secret
from rehome_consumer.model.line import GRACE, NEXT, OFTEN, SELDOM, Turn, Waiter, rank, turn
from rehome_consumer.ports.engine import (
    ENDED,
    RESERVED,
    AnotherOpen,
    Found,
    Message,
    MigrationRow,
    OutboxEvent,
    OutboxRow,
    Sending,
    StepRow,
)
from rehome_consumer.ports.operators import DeadLetterRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import datetime

    from rehome_consumer.facts import Fact
    from rehome_consumer.ports.engine import Lookup
    from rehome_consumer.ports.steps import Clock
    from rehome_events.envelope import CloudEvent

T = TypeVar("T")
Key = tuple[UUID, int, str]


@dataclasses.dataclass(slots=True)
class StepTimes:
    started: datetime
    tried: datetime
    done: datetime | None = None
    next_try: datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the table of upgrades that wait."""

    migration_id: UUID
    instance_id: UUID
    to_plan: str
    behind: UUID
    since: datetime
    updated_at: datetime
    next_try_at: datetime


@dataclasses.dataclass(slots=True)
class WaitsForSlots:
    """A row of the table of those who wait for slots."""

    migration_id: UUID
    attempt: int
    wanted: Mapping[str, int]
    since: datetime
    looked_at: datetime
    looks_within: timedelta
    called_at: datetime | None = None
    away: bool = False


@dataclasses.dataclass(slots=True)
class Outgoing:
    """A row of the outbox.

    `put` is when it was committed, `sent` when the broker's confirm was recorded; until `reserved` it is left to the
    consumer that committed it.
    """

    row: OutboxRow
    event_id: UUID
    put: datetime
    sent: datetime | None = None
    reserved: datetime | None = None


class FakeJournal:
    """Port `Journal`; one object for all consumers.

    Attributes:
        place: the mark of the backup place.
        wrong_key: whether the consumer's key is another than that of the secrets.
        migrations, steps, stored_facts, outbox, history, waiting, dead_letters, slots, line: the tables.
        priorities: by migration.
        pause: the pause that is in force.
        earlier_consumers: connections of consumers of an earlier release.
        discarded: messages that operators have discarded as dead letters.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.place: UUID | None = None
        self.wrong_key = False
        self.migrations: dict[UUID, MigrationRow] = {}
        self.steps: dict[Key, StepRow] = {}
        self.stored_facts: dict[Key, Any] = {}
        self.slots: set[tuple[str, UUID, int]] = set()
        self.line: dict[UUID, WaitsForSlots] = {}
        self.priorities: dict[UUID, int] = {}
        self.outbox: list[Outgoing] = []
        self.waiting: dict[UUID, Waiting] = {}
        self.dead_letters: dict[Key, DeadLetterRecord] = {}
        self.history: list[tuple[UUID, int, str]] = []
        self.pause: Pause | None = None
        self.earlier_consumers = 0
        self.discarded: set[str] = set()
        self._opened_by: dict[UUID, set[UUID]] = {}
        self._times: dict[Key, StepTimes] = {}
        self._being_sent: set[UUID] = set()
        self._seq = 0

    async def require_key(self) -> None:
        for (migration, _, _), stored in self.stored_facts.items():
            if self.wrong_key and isinstance(stored, Secret) and not self.migrations[migration].ended:
                raise NotReady(f"REHOME_SECRET_KEY is not the key of the secrets of migration {migration}")

    async def place_mark(self, found: UUID | None = None) -> UUID | None:
        self.place = self.place or found
        return self.place

    async def open(
        self, migration_id: UUID, instance_id: UUID, event: CloudEvent[Any], body: bytes
    ) -> MigrationRow:
        replay = {event.id} if event.replayof is not None else set()
        there = self.migrations.get(migration_id)
        if there is None:
            self._require_free(instance_id)
            now = self.clock.now()
            self.migrations[migration_id] = MigrationRow(
                migration_id, instance_id, 1, "open", False, None, now, now, None, trigger=body, token=0
            )
            self._opened_by[migration_id] = replay
            self.priorities[migration_id] = NORMAL if event.data.priority is None else event.data.priority
            self.history.append((migration_id, 1, "opened"))
        elif there.state == "rolled_back" and replay - self._opened_by[migration_id]:
            self._require_free(instance_id)
            self._opened_by[migration_id] |= replay
            self._change(
                migration_id,
                attempt=there.attempt + 1,
                token=there.token + 1,
                state="open",
                past_pivot=False,
                reason=None,
                ended_at=None,
            )
            self.history.append((migration_id, there.attempt + 1, "opened again"))
        lost = self.clock.now() - timedelta(hours=1)
        self.waiting = {
            key: one
            for key, one in self.waiting.items()
            if key != migration_id and (one.instance_id != instance_id or one.next_try_at >= lost)
        }
        return self.migrations[migration_id]

    async def put_off(self, migration_id: UUID, event: CloudEvent[Any], delay: timedelta) -> None:
        upgrade, now = event.data, self.clock.now()
        if migration_id in self.migrations and event.replayof is None:
            return
        for row in self.migrations.values():
            if row.instance_id == upgrade.instance_id and not row.ended and row.id != migration_id:
                before = self.waiting.get(migration_id)
                since = before.since if before else now
                self.waiting[migration_id] = Waiting(
                    migration_id, row.instance_id, upgrade.to_plan, row.id, since, now, now + delay
                )

    async def migration(self, migration_id: UUID) -> MigrationRow | None:
        return self.migrations.get(migration_id)

    async def step(self, migration_id: UUID, attempt: int, step: str) -> StepRow | None:
        return self._step(migration_id, attempt, step)

    def _step(self, migration_id: UUID, attempt: int, step: str) -> StepRow | None:
        row = self.steps.get((migration_id, attempt, step))
        if row is None:
            return None
        token = self.migrations[migration_id].token
        return row if row.token == token else dataclasses.replace(row, token=token)

    def look_up(self, lookup: Lookup) -> Found:
        """What a claim finds."""
        migration = self.migrations.get(lookup.migration_id) if lookup.migration_id else None
        if migration is None:
            return Found()
        attempt = migration.attempt if lookup.attempt is None else lookup.attempt
        steps = (self._step(migration.id, attempt, name) for name in (lookup.step, lookup.before or ""))
        return Found(migration, *steps)

    async def begin(
        self, migration: MigrationRow, step: str, *, replay: UUID | None, sent: Sequence[OutboxRow] = ()
    ) -> StepRow:
        self._mark(sent)
        token = self._take_token(migration.id, migration.token, step)
        key = (migration.id, migration.attempt, step)
        replays = () if replay is None else (replay,)
        row = self.steps.get(key)
        if row is None:
            row = StepRow(*key, "running", 1, 0, 0, token, replays)
            self._times[key] = StepTimes(self.clock.now(), self.clock.now())
        else:
            if replay is not None and replay not in row.replays:
                row = StepRow(*key, "waiting", 0, 0, 0, token, row.replays + replays)
            row = dataclasses.replace(
                row,
                state="running",
                runs=row.runs + 1,
                deaths=row.deaths + (row.state == "running"),
                token=token,
            )
            self._times[key].tried, self._times[key].next_try = self.clock.now(), None
        self.steps[key] = row
        self.dead_letters.pop(key, None)
        return row

    async def finish(
        self, row: StepRow, *, state: str, event: OutboxEvent | None, reason: str | None, past_pivot: bool
    ) -> tuple[OutboxRow, ...]:
        self._take_token(row.migration_id, row.token, row.step)
        earlier = any(
            one.row.migration_id == row.migration_id for one in self._unsent() if self._is_free(one)
        )
        self._set(row, state="done", error=None)
        self._times[_key(row)].done, self._times[_key(row)].next_try = self.clock.now(), None
        self._state(row.migration_id, state, reason, past_pivot=past_pivot)
        alone = event is not None and len(event.bodies) == 1
        until = self.clock.now() + timedelta(seconds=RESERVED) if alone else None
        put = self._put(row.migration_id, event, until)
        self.history.append((row.migration_id, row.attempt, f"{row.step} done"))
        return put if alone and not earlier else ()

    async def sent(self, rows: Sequence[OutboxRow]) -> None:
        self._mark(rows)

    async def wait(self, row: StepRow, error: str, delay: timedelta) -> None:
        self._take_token(row.migration_id, row.token, row.step)
        self._set(row, state="waiting", tries=self.steps[_key(row)].tries + 1, error=error)
        self._times[_key(row)].next_try = self.clock.now() + delay
        self.history.append((row.migration_id, row.attempt, f"{row.step} waits"))

    async def interrupted(self, row: StepRow, why: str, delay: timedelta) -> None:
        if self.migrations[row.migration_id].token == row.token:
            if self.steps[_key(row)].error != why:
                self.history.append((row.migration_id, row.attempt, f"{row.step} waits"))
            self._set(row, state="waiting", error=why)
            self._times[_key(row)].next_try = self.clock.now() + delay
        else:
            self._set(row, deaths=max(self.steps[_key(row)].deaths - 1, 0))

    async def fail(self, row: StepRow, *, state: str, error: str, event: OutboxEvent | None) -> None:
        self._take_token(row.migration_id, row.token, row.step)
        self._set(row, state="failed", tries=self.steps[_key(row)].tries + 1, error=error)
        self._times[_key(row)].next_try = None
        self._state(row.migration_id, state, error, past_pivot=False)
        self._put(row.migration_id, event)
        self.history.append((row.migration_id, row.attempt, f"{row.step} failed"))

    async def dead_letter_sent(self, row: StepRow) -> None:
        if self.steps[_key(row)].state == "failed":
            self._set(row, dead_lettered=True)

    async def dead_lettered(
        self, migration_id: UUID, attempt: int | None, step: str, message_id: str, reason: str
    ) -> None:
        row = self.migrations.get(migration_id)
        if row is not None:
            key = (migration_id, row.attempt if attempt is None else attempt, step)
            self.dead_letters[key] = DeadLetterRecord(
                message_id, step, reason, migration_id, self.clock.now()
            )

    async def not_dead_lettered(self, migration_id: UUID, attempt: int | None, step: str) -> None:
        for key in list(self.dead_letters):
            if key[0] == migration_id and attempt in (None, key[1]) and key[2] == step:
                del self.dead_letters[key]

    async def ask_roll_back(
        self, migration: MigrationRow, event: OutboxEvent, why: str, *, state: str = "failing"
    ) -> None:
        """As the real journal's: what an operator's command does."""
        now = self.migrations[migration.id]
        self._take_token(now.id, now.token, "the operator's rollback")
        if now.ended or now.past_pivot:
            raise Refused(f"migration {migration.id} cannot be rolled back")
        rollback = self.steps.get((now.id, now.attempt, "roll_back"))
        if rollback is not None:
            self._set(rollback, state="waiting", runs=0, tries=0, deaths=0, error=None, dead_lettered=False)
        self._state(now.id, state, why, past_pivot=False)
        self._put(now.id, event)
        self.history.append((now.id, now.attempt, "rollback asked for"))

    def in_line(self) -> list[WaitsForSlots]:
        """Those who wait for slots, in order."""
        return sorted((one for one in self.line.values() if self._waits(one)), key=self.mark)

    def mark(self, one: WaitsForSlots) -> tuple[datetime, UUID]:
        """What they are ordered by."""
        return rank(one.since, self.priorities[one.migration_id]), one.migration_id

    def _waits(self, one: WaitsForSlots) -> bool:
        row = self.migrations[one.migration_id]
        has = {
            slot for slot, mine, attempt in self.slots if (mine, attempt) == (one.migration_id, one.attempt)
        }
        return (
            not (one.away or row.ended or row.state in ("failing", "failed"))
            and one.attempt == row.attempt
            and not one.wanted.keys() <= has
        )

    def times(self, row: StepRow) -> StepTimes:
        """When a step was started, tried and done, and when it comes back."""
        return self._times[_key(row)]

    def facts(self, row: StepRow) -> FakeFacts:
        return FakeFacts(self, row)

    @asynccontextmanager
    async def sending(self, migration_id: UUID) -> AsyncIterator[Sending]:
        free = migration_id not in self._being_sent
        rows = [one.row for one in self._unsent() if one.row.migration_id == migration_id] if free else []
        sending = Sending(tuple(rows))
        if free:
            self._being_sent.add(migration_id)
        try:
            yield sending
            self._mark([row for row in sending.rows if row.seq in sending.confirmed])
        finally:
            if free:
                self._being_sent.discard(migration_id)

    async def unsent(self) -> list[UUID]:
        return list(dict.fromkeys(one.row.migration_id for one in self._unsent() if self._is_free(one)))

    async def purge(self, keep: timedelta) -> None:
        oldest = self.clock.now() - keep
        self.outbox = [
            one
            for one in self.outbox
            if one.sent is None or one.sent >= oldest or not self.migrations[one.row.migration_id].ended
        ]
        self.line = {key: one for key, one in self.line.items() if not self.migrations[key].ended}

    def _unsent(self) -> list[Outgoing]:
        return [one for one in self.outbox if one.sent is None]

    def _is_free(self, one: Outgoing) -> bool:
        return one.reserved is None or one.reserved < self.clock.now()

    def _mark(self, rows: Sequence[OutboxRow]) -> None:
        confirmed = {(row.seq, row.revision) for row in rows}
        for one in self.outbox if confirmed else ():
            if (one.row.seq, one.row.revision) in confirmed:
                one.sent = self.clock.now()

    def _require_free(self, instance_id: UUID) -> None:
        for row in self.migrations.values():
            if row.instance_id == instance_id and not row.ended:
                raise AnotherOpen(f"migration {row.id} holds instance {instance_id}")

    def _take_token(self, migration_id: UUID, last: int, step: str) -> int:
        row = self.migrations[migration_id]
        if row.token != last:
            raise ClaimLost(f"another consumer took over migration {migration_id} during {step}")
        self._change(migration_id, token=last + 1)
        return last + 1

    def _state(self, migration_id: UUID, state: str, reason: str | None, *, past_pivot: bool) -> None:
        row = self.migrations[migration_id]
        self._change(
            migration_id,
            state=state,
            reason=row.reason if reason is None else reason,
            ended_at=self.clock.now() if state in ENDED else None,
            past_pivot=row.past_pivot or past_pivot,
        )

    def _change(self, migration_id: UUID, **columns: Any) -> None:
        row = self.migrations[migration_id]
        self.migrations[migration_id] = dataclasses.replace(row, updated_at=self.clock.now(), **columns)

    def _set(self, row: StepRow, **columns: Any) -> None:
        self.steps[_key(row)] = dataclasses.replace(self.steps[_key(row)], **columns)

    def _put(
        self, migration_id: UUID, event: OutboxEvent | None, reserved: datetime | None = None
    ) -> tuple[OutboxRow, ...]:
        if event is None:
            return ()
        there, now, put = {one.event_id: one for one in self.outbox}, self.clock.now(), []
        for key, body in event.bodies.items():
            one = there.get(key)
            if one is None:
                self._seq += 1
                row = OutboxRow(self._seq, migration_id, event.exchange, event.type, Message.of_event(body))
                self.outbox.append(one := Outgoing(row, key, now, reserved=reserved))
            else:
                message, revision = Message.of_event(body), one.row.revision + 1
                one.row = dataclasses.replace(one.row, message=message, revision=revision)
                one.put, one.sent, one.reserved = now, None, reserved
            put.append(one.row)
        return tuple(put)


class FakeFacts:
    """Port `Facts`."""

    def __init__(self, journal: FakeJournal, row: StepRow) -> None:
        self._journal = journal
        self._row = row
        self.progressed: list[tuple[int, int]] = []

    async def remember(self, fact: Fact[T], value: T) -> T:
        encoded = fact.encode(value)
        return _decoded(
            fact, self._keep(fact.name, Secret(encoded) if fact.secret else orjson.dumps(encoded))
        )

    async def recall(self, fact: Fact[T]) -> T | None:
        stored = self._journal.stored_facts.get(self._fact(fact.name))
        return None if stored is None else _decoded(fact, stored)

    async def acquire_slots(self, wanted: Mapping[str, int], *, waits: bool = True) -> InLine | None:
        self._require_newest()
        journal, mine = self._journal, self._row.migration_id
        missing = {
            slot: places
            for slot, places in wanted.items()
            if (slot, mine, self._row.attempt) not in journal.slots
        }
        if not missing:
            return None
        lacks = next((slot for slot, places in missing.items() if self._taken(slot) >= places), None)
        now = journal.clock.now()
        before = journal.line.get(mine)
        if before is not None and (before.attempt != self._row.attempt or not before.wanted.keys() & wanted):
            before = None
        since = before.since if before else now
        mark = (rank(since, journal.priorities[mine]), mine)
        others = [one for one in journal.in_line() if one.migration_id != mine and one.wanted.keys() & wanted]
        ahead = [one for one in others if journal.mark(one) < mark] if waits else []
        punctual = before is not None and before.looked_at + 2 * before.looks_within + GRACE > now
        my_turn = Turn(goes=False)
        if lacks is None:
            waiters = [
                Waiter(
                    one.migration_id,
                    one.wanted,
                    overdue=punctual
                    and one.called_at is not None
                    and one.called_at + one.looks_within + GRACE < now,
                )
                for one in ahead
            ]
            slots = {*missing, *(slot for one in ahead for slot in one.wanted)}
            my_turn = turn(missing, waiters, {slot: self._taken(slot) for slot in slots})
        for one in others:
            if one.migration_id in my_turn.gone:
                one.away, one.called_at = True, None
            elif one.migration_id in my_turn.called:
                one.called_at = one.called_at or now
        if my_turn.goes:
            journal.line.pop(mine, None)
            for slot in missing:
                self._release(slot)
                journal.slots.add((slot, mine, self._row.attempt))
            return None
        if not waits:
            return InLine(0, 0, lacks=lacks, soon=False)
        place = 1 + sum(not one.away for one in ahead)
        soon = place <= NEXT * min(wanted.values())
        journal.line[mine] = WaitsForSlots(
            mine, self._row.attempt, dict(wanted), since, now, OFTEN if soon else SELDOM
        )
        return InLine(place, 1 + sum(not one.away for one in others), lacks=lacks, soon=soon)

    async def release_slots(self, resources: Collection[str]) -> None:
        self._require_newest()
        for resource in resources:
            self._release(resource)
        place = self._journal.line.get(self._row.migration_id)
        if place is not None:
            place.away, place.called_at = True, None

    def _taken(self, resource: str) -> int:
        """Slots of others."""
        migrations = self._journal.migrations
        return sum(
            name == resource
            and one != self._row.migration_id
            and not migrations[one].ended
            and migrations[one].state != "failed"
            and migrations[one].attempt == attempt
            for name, one, attempt in self._journal.slots
        )

    def _release(self, resource: str) -> None:
        mine = (resource, self._row.migration_id)
        self._journal.slots = {slot for slot in self._journal.slots if slot[:2] != mine}

    async def paused(self) -> Pause | None:
        return self._journal.pause

    async def earlier_consumers(self) -> int:
        return self._journal.earlier_consumers

    async def progress(self, done: int, total: int) -> None:
        self.progressed.append((done, total))

    async def started(self) -> frozenset[str]:
        mine = (self._row.migration_id, self._row.attempt)
        return frozenset(key[2] for key in self._journal.steps if key[:2] == mine)

    async def seconds_per_step(self) -> Mapping[str, float]:
        mine = (self._row.migration_id, self._row.attempt)
        return {
            key[2]: (times.done - times.started).total_seconds()
            for key, times in self._journal._times.items()
            if key[:2] == mine and times.done is not None
        }

    def _require_newest(self) -> None:
        if self._journal.migrations[self._row.migration_id].token != self._row.token:
            raise ClaimLost(f"another consumer took over migration {self._row.migration_id}")

    def _fact(self, name: str) -> Key:
        return (self._row.migration_id, self._row.attempt, name)

    def _keep(self, name: str, value: Any) -> Any:
        self._require_newest()
        return self._journal.stored_facts.setdefault(self._fact(name), value)


def _decoded(fact: Fact[T], stored: bytes | Secret) -> T:
    return fact.decode(stored.reveal() if isinstance(stored, Secret) else orjson.loads(stored))


def _key(row: StepRow) -> Key:
    return (row.migration_id, row.attempt, row.step)
