"""Replaying a dead letter: what it would do, and the message that does it. Pure: no broker, no journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from consumer import saga
from consumer.delivery import letters
from consumer.delivery.reading import migration_id_of
from consumer.ports_engine import Message
from events.envelope import decode, encode
from events.errors import Undecodable

if TYPE_CHECKING:
    from consumer.ports_engine import Delivery, MigrationRow
    from events.envelope import CloudEvent

NO_HANDLER: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, read as far as it can be read.

    Attributes:
        id: the message id, by which commands name it; `?` and its place when it has none.
        handler: whose queue it was in.
        event: the event, or None when it cannot be read; then `trouble` says why.
        reason: `failed`, `undecodable`, ..., or `crashed` when the broker parked it itself.
    """

    id: str
    handler: str
    type: str
    reason: str
    error: str
    failed_at: str | None
    tries: int
    event: CloudEvent[Any] | None
    trouble: str | None
    message: Message

    @property
    def migration_id(self) -> UUID | None:
        """The migration it belongs to, if it says so."""
        return migration_id_of(self.event) if self.event else None

    @property
    def instance(self) -> str | None:
        """The instance it is about, if it says so."""
        return self.event.subject if self.event else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do; `message` is None when it is refused."""

    what: str
    handler: str
    message: Message | None


def read(delivery: Delivery, place: int) -> Letter:
    """Read a dead letter; never fails, whatever is in it."""
    message = delivery.message
    headers = message.headers
    event, trouble = None, None
    try:
        event = decode(message.body, message.content_type, headers)
    except Undecodable as error:
        trouble = str(error)
    parked = letters.REASON not in headers  # the broker did it: after too many redeliveries
    return Letter(
        id=message.message_id or f"?{place}",
        handler=str(headers.get(letters.HANDLER) or delivery.routing_key or NO_HANDLER),
        type=event.type if event else str(message.type or "?"),
        reason=str(headers.get(letters.REASON, "crashed")),
        error=str(
            headers.get(letters.ERROR) or ("the consumer died on it, time and again" if parked else "")
        ),
        failed_at=_text(headers.get(letters.FAILED_AT)),
        tries=_number(headers.get(letters.ATTEMPT)),
        event=event,
        trouble=trouble,
        message=message,
    )


def plan(letter: Letter, migration: MigrationRow | None) -> Plan:
    """What replaying would do, given the migration's row in the journal (None: there is none)."""
    step = saga.named(letter.handler)
    if step is None:
        return Plan(f"refused: there is no handler {letter.handler}", letter.handler, None)
    if letter.event is None:
        return Plan(
            f"would run {step.name} again on a message that it could not read: {letter.trouble}",
            step.name,
            _stripped(letter.message),
        )
    if migration is None:
        if step is not saga.MIGRATION[0]:
            return Plan("refused: the journal has no such migration", step.name, None)
        return Plan(f"would run {step.name}", step.name, _again(letter.event))
    if migration.state == "rolled_back":
        trigger = decode(migration.trigger)
        return Plan(
            f"would open attempt {migration.attempt + 1} of migration {migration.id} from the start "
            f"with the original {trigger.type}",
            saga.MIGRATION[0].name,
            _again(trigger),
        )
    if migration.ended:
        return Plan(
            f"refused: migration {migration.id} is {migration.state}; discard the letter", step.name, None
        )
    if migration.state == "failing":
        return Plan(
            f"refused: migration {migration.id} is being rolled back; wait for its end", step.name, None
        )
    return Plan(f"would run {step.name} again on migration {migration.id}", step.name, _again(letter.event))


def _again(event: CloudEvent[Any]) -> Message:
    """The same event under a new id that says whose replay it is (the first event's, however often)."""
    replayed = event.model_copy(update={"id": uuid4(), "replayof": event.replayof or event.id})
    return Message.of_event(encode(replayed))


def _stripped(message: Message) -> Message:
    """The same message without what engine and broker wrote into its headers."""
    kept = {k: v for k, v in message.headers.items() if not k.startswith(("mig-", "x-"))}
    return Message(
        body=message.body,
        message_id=message.message_id,
        type=message.type,
        correlation_id=message.correlation_id,
        content_type=message.content_type,
        app_id=message.app_id,
        timestamp=message.timestamp,
        headers=kept,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
