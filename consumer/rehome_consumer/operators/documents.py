"""The journal as JSON documents, which the console, its API and `rehome report` share.

Times are UTC, lengths of time seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Document(BaseModel):
    """A part of an answer; unknown fields are a defect."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Migration(Document):
    """One migration as a list shows it; or an upgrade that waits, under the id that its migration will have."""

    id: UUID
    instance_id: UUID
    attempt: int = Field(description="Counted from 1; a replay after a rollback opens the next.")
    state: str = Field(
        description="What it is: open, prepared, stopped, ..., failing, failed, completed, rejected."
    )
    past_pivot: bool = Field(description="Whether users may have written to the new database.")
    to_plan: str
    reason: str | None = Field(description="Why it was rejected, rolled back, or needed nothing.")
    created_at: datetime
    ended_at: datetime | None
    step: str | None = Field(description="The step at work, or the last one.")
    step_state: str | None = Field(description="running, waiting, done or failed.")
    tries: int | None = Field(description="Tries of this step that failed.")
    tries_allowed: int | None = Field(
        description="So many, then it is rolled back, or waits for an operator."
    )
    error: str | None = Field(description="What its last try failed with, or what it waits for.")
    next_try_at: datetime | None
    progress: float | None = Field(description="Of a long step that runs: from 0 to 1.")
    seconds_left: float | None = Field(description="Of that step, if it goes on as fast as it has.")
    stopped_at: datetime | None = Field(description="When the instance was stopped.")
    downtime_seconds: float | None = Field(description="How long it is, or was, down.")
    down: bool = Field(description="Whether it is down now.")
    attention: str | None = Field(description="Why an operator has to look at it.")
    worked_on_from: str | None = Field(description="Address of the consumer that works on it.")
    behind: UUID | None = Field(description="Of an upgrade that waits: the migration for whose end it waits.")


class Migrations(Document):
    """A page of migrations, newest first."""

    migrations: list[Migration]
    next: str | None = Field(description="Pass it as `after` for the next page; null: this is the last one.")


class Step(Document):
    """One step of one attempt."""

    attempt: int
    step: str
    state: str
    tries: int = Field(description="Tries that failed.")
    error: str | None
    next_try_at: datetime | None
    started_at: datetime
    tried_at: datetime = Field(description="When its last try began.")
    done_at: datetime | None
    seconds: float | None = Field(
        description="From its first start to its end, with the waits between tries."
    )


class Line(Document):
    """One line of a migration's history."""

    attempt: int
    at: datetime
    what: str
    detail: str | None


class LoggedLine(Document):
    """What a consumer has logged in a step."""

    seq: int
    at: datetime
    level: str
    event: str = Field(description="A stable word, such as `step.finished`.")
    step: str | None
    fields: dict[str, Any] = Field(description="All other fields of the line; secrets are masked.")


class Log(Document):
    """Log lines of one migration, oldest first."""

    lines: list[LoggedLine]
    before: int | None = Field(description="`before` of the lines that are older; null: there are none.")


class Try(Document):
    """A try of a step that failed, or had to wait, as the history has it."""

    attempt: int
    step: str
    at: datetime
    what: str = Field(description="waits: it is tried again. failed: it is not.")
    why: str | None


class Event(Document):
    """An event that the migration published, or is about to."""

    id: UUID
    type: str
    created_at: datetime
    sent_at: datetime | None = Field(description="When the broker had confirmed it; null: it waits.")
    data: Any = Field(description="The event's data, as subscribers get it.")


class Timeline(Document):
    """One migration with everything that happened."""

    migration: Migration
    steps: list[Step]
    history: list[Line]
    events: list[Event] = Field(
        description="Those still in the outbox; of migrations that are over not for ever."
    )
    facts: dict[str, Any] = Field(description="What the attempt remembers; null for a secret.")


class DeadLetter(Document):
    """A delivery of an open migration that a handler gave up."""

    id: str
    handler: str
    reason: str
    migration_id: UUID | None
    instance_id: UUID | None
    error: str | None = Field(description="What the handler's last try failed with.")
    since: datetime | None


class Paused(Document):
    """A pause that is in force: no new move begins."""

    at: datetime
    by: str
    why: str


class Overview(Document):
    """What moves, what waits, what needs an operator, and how many there are of each state."""

    running: list[Migration] = Field(
        description="Open migrations, those that need an operator first, 200 at most."
    )
    waiting: list[Migration] = Field(
        description="Upgrades that wait for another migration of their instance."
    )
    paused: Paused | None = Field(description="Who paused all moves; null: they go on.")
    states: dict[str, int] = Field(description="All migrations by state.")
    dead_letters: int
    unsent_events: int
