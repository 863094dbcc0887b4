"""The JSON documents of the console's API beside those of the journal (rehome_consumer.operators.documents)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from rehome_consumer.model import HIGHEST, LOWEST
from rehome_consumer.operators.documents import DeadLetter, Document, Event, Paused
from rehome_events.billing import PlanUpgraded


class Events(Document):
    """The events of one migration, in order."""

    events: list[Event]


class DeadLetters(Document):
    """Dead letters that the journal knows, oldest first."""

    dead_letters: list[DeadLetter]
    in_queue: int | None = Field(
        description="How many are in the queue: also those that belong to no open migration. Null: not known."
    )


class Queue(Document):
    """A queue of the broker's."""

    name: str
    ready: int = Field(description="Messages that no consumer has yet.")
    consumers: int = Field(
        description="Who read it: each consumer process with REHOME_WORKERS readers of each step."
    )


class Queues(Document):
    """The queues of the topology that are there."""

    queues: list[Queue]
    trouble: str | None = Field(description="Why the broker cannot be asked; null: it was.")


class Part(Document):
    """Something that the console needs, and whether it is there."""

    part: str
    error: str | None


class Ready(Document):
    """Whether the console can answer."""

    ready: bool
    parts: list[Part]


class Problem(Document):
    """An error, as RFC 9457 describes it (application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    errors: list[str] = Field(default_factory=list, description="Each parameter that is wrong, and how.")


class Reason(Document):
    """What an act needs."""

    why: str = Field(min_length=3, max_length=500, description="Why, for the journal.")
    dry_run: bool = Field(default=False, description="Only say what it would do.")


class Why(Document):
    """What an act needs that cannot be tried out."""

    why: str = Field(min_length=3, max_length=500, description="Why, for the journal.")


class Priority(Document):
    """The priority that a migration is to get."""

    priority: int = Field(ge=LOWEST, le=HIGHEST, description="Higher goes first; 4 is normal.")
    why: str = Field(min_length=3, max_length=500, description="Why, for the journal.")


class Prioritized(Document):
    """A migration that has another priority."""

    migration_id: UUID
    instance_id: UUID
    before: int = Field(description="The priority until now.")
    priority: int
    place_in_line: int | None = Field(description="Where it waits for a slot now: its place, from 1.")
    length_of_line: int | None = Field(description="How many wait there.")


class Start(Document):
    """An upgrade that is to be published, as billing would."""

    upgrade: PlanUpgraded = Field(description="The data of the event plan.upgraded.")
    why: str = Field(min_length=3, max_length=500, description="Why, for the journal.")


class Started(Document):
    """An upgrade that was published, and that the broker has."""

    event_id: UUID
    migration_id: UUID = Field(
        description="The migration that it opens; not before the instance's last one is over."
    )
    instance_id: UUID
    taken: bool = Field(
        description="A consumer has opened the migration, and its history says who asked for it. False: not within "
        "seconds; then only the console's log says who."
    )


class LetGo(Document):
    """A migration that waits for no window any more."""

    migration_id: UUID
    instance_id: UUID
    paused: Paused | None = Field(description="The pause that holds it up all the same.")


class Pausing(Document):
    """What an order to pause, or to go on, came to."""

    changed: bool = Field(description="False: it was so already, and the earlier order stays.")
    paused: Paused | None = Field(description="The pause that is in force; null: moves go on.")


class Replay(Document):
    """What a replay did, or would do."""

    id: str
    done: bool
    refused: bool = Field(description="It is not done, for the reason in `what`.")
    what: str
    in_detail: list[str]


class QueuedLetter(Document):
    """A dead letter as the queue has it."""

    id: str
    handler: str
    type: str
    reason: str
    error: str
    tries: int | None
    failed_at: datetime | None
    instance: str | None
    migration_id: UUID | None


class QueuedLetters(Document):
    """All dead letters of the queue, in its order."""

    dead_letters: list[QueuedLetter]


class LookedAt(QueuedLetter):
    """A dead letter, complete, and what its replay would do."""

    event: Any = Field(description="The event as JSON; the beginning of the body where it is none.")
    replay: Replay
    not_looked_at: str | None = Field(description="Why servers, files and services could not be looked at.")


class Discarded(Document):
    """A dead letter that was removed."""

    id: str
    left: str | None = Field(description="What is to be done about its migration, where that is not over.")


class Undo(Document):
    """What is undone of one step."""

    step: str
    what: str


class RollBack(Document):
    """What a rollback does, or would do."""

    migration_id: UUID
    cancel: bool = Field(description="Its first step is not done: it is rejected, and nothing needs undoing.")
    running: str | None = Field(description="The step that is stopped first.")
    undo: list[Undo]
    not_looked_at: str | None = Field(description="What could not be looked at, and why.")
    requested: bool
    taken_up: bool | None = Field(description="Whether a consumer has begun; null: nothing was requested.")
