"""What the engine needs besides the ports of steps: broker, journal, claims. Steps never use these."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID, uuid5

import orjson

from rehome_consumer.errors import Conflict
from rehome_events.catalog import lookup
from rehome_events.envelope import CONTENT_TYPE, encode
from rehome_events.versions import in_every_version

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from rehome_consumer.ports.steps import Facts
    from rehome_events.envelope import CloudEvent

UNMOVED = frozenset({"rejected", "resized", "nothing_to_do"})
"""States in which a migration is over and has moved nothing."""
ENDED = UNMOVED | {"completed", "rolled_back"}
"""States in which a migration is over; all others hold the instance. The journal sets `ended_at` in these alone."""


BROKER_HEADERS = "x-"
"""Prefix of the headers that the broker writes; they are not copied when a message is published again."""
ENGINE_HEADERS = "rehome-"
"""Prefix of the headers that the engine writes (`rehome_consumer.engine.headers`)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One AMQP message, in or out, as far as the engine uses it."""

    body: bytes
    message_id: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    app_id: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_event(cls, body: bytes) -> Message:
        """The message that carries an encoded event, its attributes mirrored into the properties."""
        attributes = orjson.loads(body)
        return cls(
            body=body,
            message_id=attributes["id"],
            type=attributes["type"],
            correlation_id=attributes.get("migrationid"),
            content_type=CONTENT_TYPE,
            app_id=attributes["source"].strip("/"),
            timestamp=datetime.fromisoformat(attributes["time"]),
        )


class Delivery(Protocol):
    """A message from a queue, unacknowledged."""

    @property
    def message(self) -> Message:
        """The message as it came."""
        ...

    @property
    def exchange(self) -> str:
        """The exchange it was published to."""
        ...

    @property
    def routing_key(self) -> str:
        """The key it was published with."""
        ...

    async def ack(self) -> None:
        """Acknowledge it. A lost channel is logged, not raised: the message is delivered again."""
        ...


class Broker(Protocol):
    """RabbitMQ, or a fake of it."""

    async def publish(self, exchange: str, routing_key: str, message: Message, *, mandatory: bool) -> None:
        """Publish and wait for the confirm.

        Raises Unreachable (no connection, channel lost), TimedOut (no confirm) or Refused (unroutable,
        no permission). After any but Refused the message may have arrived all the same.
        """
        ...

    def consume(self, queue: str) -> AsyncGenerator[Delivery, None]:
        """Deliveries of a queue, one at a time (prefetch 1), without end; survives reconnections.

        What was delivered and not acknowledged when the generator is closed goes back to the queue.

        Raises Unreachable when the queue cannot be consumed any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration, as the engine and operators see it (also of an upgrade that turned out to need no move).

    Attributes:
        attempt: 1, or more after a replay of a migration that was rolled back.
        state: `open`, the last event's name (`prepared`, `stopped`, ...), `failing` (a rollback is under
            way), `failed` (waits for an operator), or one of ENDED.
        past_pivot: the instance has answered on its new database; only forward from here.
        reason: why it is in this state, if there is more to say.
    """

    id: UUID
    instance_id: UUID
    attempt: int
    state: str
    past_pivot: bool
    reason: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class MigrationRow(Migration):
    """The journal's row of one migration, as the engine uses it.

    Attributes:
        trigger: the `plan.upgraded` that opened it, as it came.
        token: fencing token, at first 0; grows with every change (a new attempt adds one), so that a look at the row
            can be known to be old.
    """

    trigger: bytes
    token: int

    def only_opened_since(self, known: MigrationRow | None) -> bool:
        """Whether nothing became of the migration since a look at it, but that it, or its next attempt, was opened.

        Args:
            known: what the look found; None: no migration.
        """
        if known is None:
            return self.token == 0
        return self.token - known.token == self.attempt - known.attempt


@dataclass(frozen=True, slots=True)
class StepRow:
    """The journal's row of one step of one attempt.

    Attributes:
        state: `running`, `waiting` (for its next try), `done`, `failed`.
        runs: times it was started since it was first asked for, or replayed.
        tries: those of them that ended in an error that counts.
        deaths: those of them that ended with neither result nor error.
        token: fencing token of this run; a later change of the migration has a greater one.
        replays: ids of the replays that reset it.
        dead_lettered: the dead letter of its failure was confirmed by the broker.
    """

    migration_id: UUID
    attempt: int
    step: str
    state: str
    runs: int
    tries: int
    deaths: int
    token: int
    replays: tuple[UUID, ...] = ()
    dead_lettered: bool = False
    error: str | None = None

    @property
    def done(self) -> bool:
        """Whether it is done."""
        return self.state == "done"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a delivery wants to know of the journal.

    Attributes:
        migration_id: its migration; None when it does not say.
        attempt: of the migration; None is the present one.
        step: its step.
        before: the step before that; None for none.
    """

    migration_id: UUID | None
    attempt: int | None
    step: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a `Lookup`; None for each row that is not there."""

    migration: MigrationRow | None = None
    step: StepRow | None = None
    previous: StepRow | None = None


class Claim(Protocol):
    """The right to work on one instance. Held while the consumer's session of claims lives."""

    @property
    def found(self) -> Found | None:
        """What the journal had when the claim was taken; None where nothing was asked."""
        ...

    async def check(self) -> None:
        """Raise ClaimLost unless the claim is still held; asks the server."""
        ...

    async def lost(self) -> None:
        """Return when the claim is lost (for racing against a step)."""
        ...


class Claims(Protocol):
    """Exclusive rights, one per instance, among all consumers."""

    def claim(
        self, instance_id: UUID, lookup: Lookup | None = None
    ) -> AbstractAsyncContextManager[Claim | None]:
        """The claim, or None when another holds it. Released at exit.

        With `lookup` its `found` says what the journal has, read once the claim is held, in the same round trip.
        """
        ...


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that is committed and not yet confirmed by the broker.

    `revision` counts how often it was put there: a confirm of an earlier one says nothing about this one.
    """

    seq: int
    migration_id: UUID
    exchange: str
    routing_key: str
    message: Message
    revision: int = 1


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event on its way to the outbox: checked and encoded, once, in every version that is published.

    Attributes:
        exchange, type: where it is published; the type is the routing key.
        bodies: by key of the outbox, newest version first. The newest stands under the event's own id, as it
            does when it is the only one.
    """

    exchange: str
    type: str
    bodies: Mapping[UUID, bytes]


def encode_for_outbox(event: CloudEvent[Any]) -> OutboxEvent:
    """Encode it. Raises EventError when it would not be valid."""
    newest, *older = in_every_version(event)
    bodies = {
        newest.id: encode(newest),
        **{uuid5(one.id, f"v{one.data.VERSION}"): encode(one) for one in older},
    }
    return OutboxEvent(lookup(event.type, event.data.VERSION).exchange, event.type, bodies)


@dataclass(slots=True)
class Sending:
    """Events that are being sent, and those of them (by `seq`) that the broker has confirmed."""

    rows: tuple[OutboxRow, ...]
    confirmed: list[int] = field(default_factory=list)


class AnotherOpen(Conflict):
    """Another migration holds the instance; this upgrade waits for its end."""


RESERVED: Final = 5.0
"""Seconds for which an event is left to the consumer that committed it; then every relay may publish it."""


class Journal(Protocol):
    """Migrations, steps, facts and the outbox. Every method is one transaction."""

    async def require_key(self) -> None:
        """Raise NotReady unless this consumer's key opens a secret of an open migration, if there is any secret."""
        ...

    async def place_mark(self, found: UUID | None = None) -> UUID | None:
        """The mark of the backup place that all consumers share; None: none yet, and `found` becomes it, if given."""
        ...

    async def open(
        self, migration_id: UUID, instance_id: UUID, event: CloudEvent[Any], body: bytes
    ) -> MigrationRow:
        """The migration of this upgrade, opened now if it is new.

        A replayed event (`replayof`) of a migration that was rolled back opens its next attempt, once per
        replay. Raises AnotherOpen while another migration holds the instance.
        """
        ...

    async def put_off(self, migration_id: UUID, event: CloudEvent[Any], delay: timedelta) -> None:
        """Record that this upgrade waits and comes back in `delay`, if another migration holds its instance.

        The record is deleted when its migration opens, or another one of the instance an hour after its time.
        """
        ...

    async def migration(self, migration_id: UUID) -> MigrationRow | None:
        """The migration's row, or None."""
        ...

    async def step(self, migration_id: UUID, attempt: int, step: str) -> StepRow | None:
        """The step's row, or None when it was never started."""
        ...

    async def begin(
        self, migration: MigrationRow, step: str, *, replay: UUID | None, sent: Sequence[OutboxRow] = ()
    ) -> StepRow:
        """Count a run of the present attempt and take the next fencing token.

        Args:
            migration: the row on which the decision to run was made.
            step: its name.
            replay: id of the replay that asks for it, or None; the first run it asks for resets the counts.
            sent: events of any migration that the broker has confirmed, recorded in the same transaction.

        Raises ClaimLost when the migration has changed since.
        """
        ...

    async def finish(
        self, row: StepRow, *, state: str, event: OutboxEvent | None, reason: str | None, past_pivot: bool
    ) -> tuple[OutboxRow, ...]:
        """Step done, migration in `state`, event in the outbox: together. Raises ClaimLost for an old token.

        Returns the row of the event, which is the caller's to publish: no relay takes it for RESERVED seconds. Nothing
        where earlier events of the migration must be published first, or where there are several versions, which must
        stay together if this consumer dies between them: then `sending` has all of them.
        """
        ...

    async def sent(self, rows: Sequence[OutboxRow]) -> None:
        """Record that the broker has confirmed these. One that was put there again since is still to be sent."""
        ...

    async def wait(self, row: StepRow, error: str, delay: timedelta) -> None:
        """Record why the step did not succeed and when it is tried again. Raises ClaimLost as `finish`."""
        ...

    async def interrupted(self, row: StepRow, why: str, delay: timedelta) -> None:
        """Record why the run was interrupted, and when it comes back. Neither a try nor a death.

        Never raises ClaimLost; where a later run was started meanwhile, only the death counted for it is undone.
        """
        ...

    async def fail(self, row: StepRow, *, state: str, error: str, event: OutboxEvent | None) -> None:
        """Step failed, migration `failing` or `failed`, `migration.failed` in the outbox: together.

        Raises ClaimLost as `finish`.
        """
        ...

    async def dead_letter_sent(self, row: StepRow) -> None:
        """Record that the dead letter of its failure is confirmed by the broker."""
        ...

    async def dead_lettered(
        self, migration_id: UUID, attempt: int | None, step: str, message_id: str, reason: str
    ) -> None:
        """Record that a delivery to a step is a dead letter, or will be if this consumer dies now.

        Nothing where there is no such migration. `attempt` None: the present one. Starting the step deletes the record.
        """
        ...

    async def not_dead_lettered(self, migration_id: UUID, attempt: int | None, step: str) -> None:
        """Delete the record of `dead_lettered`; `attempt` None: of all attempts."""
        ...

    def facts(self, row: StepRow) -> Facts:
        """The facts of this attempt; writing with an old token raises ClaimLost."""
        ...

    def sending(self, migration_id: UUID) -> AbstractAsyncContextManager[Sending]:
        """Unsent events of a migration, in order, those left to a consumer too; none while another relay sends them.

        What was confirmed is marked as sent when the context ends without an error.
        """
        ...

    async def unsent(self) -> list[UUID]:
        """Migrations with unsent events that are not left to the consumer which committed them, oldest first."""
        ...

    async def purge(self, keep: timedelta) -> None:
        """Delete events sent longer ago than `keep`, at most a thousand."""
        ...
