"""One migration as a report: what happened, what it cost, who acted, and what is left of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from rehome_consumer import move
from rehome_consumer.facts import (
    BACKUP_BYTES,
    COMPARED,
    CONF_CHANGES,
    HEALTHY_AT,
    REHEARSAL,
    RESTARTED_AT,
    SOURCE,
    SOURCE_RETAINED_UNTIL,
    SOURCE_RETIRED_AT,
    STOPPED_AT,
    STRATEGY,
    VERIFIED,
    WARM_GIVEN_UP,
)
from rehome_consumer.model import Compared, ConfChange
from rehome_consumer.operators.documents import Document, Event, Line, Migration, Step, Try
from rehome_consumer.operators.reader import downtime, failed_tries, shown
from rehome_consumer.ports.operators import ACTS
from rehome_events.migration import MigrationRolledBack
from rehome_events.parts import Rehearsal, Verified

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from rehome_consumer.facts import RecordedFacts
    from rehome_consumer.operators.documents import Timeline
    from rehome_consumer.operators.reader import Reader

COPYING: Final = ("back_up", "restore")
"""The steps in which a cold move copies the data: what the rehearsal foretells."""
UNTOUCHED: Final = ("rejected", "nothing_to_do", "resized")
"""Ends of which nothing can be left."""
_SIGNED: Final = re.compile(
    r"by (?P<who>[^:;]+)"
    r"(?:: (?P<why>.*?)(?:; (?P<of>[\w.]+ (?:to|of) \w+\b.*))?|; (?P<what>.*))?",
    re.DOTALL,
)


class Attempt(Document):
    """One attempt: how the data was copied, how long the customer waited, and what was expected."""

    number: int
    strategy: str | None = Field(description="How it was copied: cold or warm; null: not decided.")
    strategy_reason: str | None
    stopped_at: datetime | None
    up_at: datetime | None = Field(description="When the instance served again, wherever.")
    downtime_seconds: float | None = Field(description="Null: it was not stopped, or is down still.")
    rehearsal: Rehearsal | None = Field(description="The forecast; null: none is recorded.")
    expected_copy_seconds: float | None = Field(
        description="How long the customer had to wait for the copy, by a full rehearsal; cold moves only."
    )
    copy_seconds: float | None = Field(
        description="How long that took: steps back_up and restore, with the waits between their tries."
    )
    verified: Verified | None = Field(description="What was compared, and found equal; null: not done.")
    contents: Compared | None = Field(
        description="What was compared after the stop of a warm move: of which tables contents, and whether "
        "definitions; null: of all, or it was cold."
    )
    conf_changes: list[ConfChange] | None = Field(
        description="What of odoo.conf was rewritten, passwords masked; null: nothing yet, or by an earlier release."
    )
    facts: dict[str, Any] = Field(description="What the attempt remembers; null for a secret.")


class Act(Document):
    """Something that an operator has done."""

    attempt: int
    at: datetime
    what: str
    who: str | None = Field(description="Null: it was not recorded.")
    why: str | None = Field(description="Null: no reason was given.")
    detail: str | None = Field(description="To what, and with what effect.")


class Report(Document):
    """One migration, complete. Times are UTC, lengths of time seconds; secrets are masked."""

    made_at: datetime
    migration: Migration
    attempts: list[Attempt]
    steps: list[Step]
    tries: list[Try]
    acts: list[Act] = Field(description="What operators have done.")
    left_behind: list[str] | None = Field(
        description="What is there yet, or needs a person. Null: not known, since it is not over, or since its events "
        "are no longer kept."
    )
    events: list[Event] = Field(
        description="Those still in the outbox; of migrations that are over not for ever."
    )
    history: list[Line]


async def report(reader: Reader, wanted: UUID) -> Report:
    """The report of a migration, or of an instance's migration that is open or its last one.

    Raises:
        NotFound: there is none.
    """
    timeline = await reader.timeline(await reader.newest(wanted))
    one = timeline.migration
    facts = [await reader.facts(one.id, number) for number in range(1, one.attempt + 1)]
    return Report(
        made_at=datetime.now(UTC),
        migration=one,
        attempts=[attempt_of(number, found, timeline.steps) for number, found in enumerate(facts, start=1)],
        steps=timeline.steps,
        tries=failed_tries(timeline.history),
        acts=[act_of(line) for line in timeline.history if line.what in ACTS],
        left_behind=left_behind(timeline, facts[-1]),
        events=timeline.events,
        history=timeline.history,
    )


def attempt_of(number: int, facts: RecordedFacts, steps: Iterable[Step]) -> Attempt:
    """An attempt, from what it remembers and from the migration's steps."""
    decided, given_up = facts.get(STRATEGY), facts.get(WARM_GIVEN_UP)
    strategy = "cold" if given_up is not None else decided.name if decided else None
    rehearsal = facts.get(REHEARSAL)
    ups = [at for at in (facts.get(HEALTHY_AT), facts.get(RESTARTED_AT)) if at is not None]
    up_at = min(ups, default=None)
    took = {step.step: step.seconds for step in steps if step.attempt == number}
    copying = [took.get(step) for step in COPYING]
    cold = strategy == "cold"
    return Attempt(
        number=number,
        strategy=strategy,
        strategy_reason=given_up or (decided.why if decided else None),
        stopped_at=facts.get(STOPPED_AT),
        up_at=up_at,
        downtime_seconds=downtime(facts.get(STOPPED_AT), up_at),
        rehearsal=rehearsal,
        expected_copy_seconds=_foretold(rehearsal) if cold else None,
        copy_seconds=sum(one for one in copying if one is not None) if cold and None not in copying else None,
        verified=facts.get(VERIFIED),
        contents=facts.get(COMPARED),
        conf_changes=list(changes) if (changes := facts.get(CONF_CHANGES)) is not None else None,
        facts=shown(facts),
    )


def act_of(line: Line) -> Act:
    """A line of the history that an operator's act has left, taken apart as `signed` has put it together."""
    found = _SIGNED.fullmatch(line.detail or "")
    return Act(
        attempt=line.attempt,
        at=line.at,
        what=line.what,
        who=found["who"] if found else None,
        why=found["why"] if found else None,
        detail=(found["of"] or found["what"]) if found else line.detail,
    )


def left_behind(timeline: Timeline, facts: RecordedFacts) -> list[str] | None:
    """What a migration that is over has left, in words; None where nobody knows."""
    one = timeline.migration
    if one.ended_at is None:
        return None
    if one.state in UNTOUCHED:
        return []
    if one.state != "completed":
        undone = [event for event in timeline.events if event.type == MigrationRolledBack.TYPE]
        if not undone:
            return None
        return [str(text) for text in (undone[-1].data or {}).get("leftovers") or ()]
    if facts.get(SOURCE_RETIRED_AT) is not None:
        return []
    until = facts.get(SOURCE_RETAINED_UNTIL)
    kept = (
        f"kept until {until:%Y-%m-%d %H:%M:%S} UTC, then rehome retire {one.instance_id}" if until else "kept"
    )
    found = [f"the old database, fenced, on server {_server(timeline, facts)}: {kept}"]
    if facts.get(BACKUP_BYTES) is not None:
        found.append(f"backup {move.backup_id(one.id, one.attempt)} at the backup place: removed with it")
    return found


def _foretold(rehearsal: Rehearsal | None) -> float | None:
    """How long the copy takes, by a rehearsal of all rows."""
    if rehearsal is None or rehearsal.mode != "full":
        return None
    return rehearsal.dump_seconds + rehearsal.restore_seconds + rehearsal.compare_seconds


def _server(timeline: Timeline, facts: RecordedFacts) -> str:
    """The source's name, where an event that is still kept has it; else its id."""
    for event in timeline.events:
        source = event.data.get("source") if isinstance(event.data, dict) else None
        if isinstance(source, dict) and "name" in source:
            return str(source["name"])
    return str(facts.get(SOURCE) or "?")
