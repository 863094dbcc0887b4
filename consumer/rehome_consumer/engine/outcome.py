"""The outcomes that a delivery can have, and which of them follows from an error. Pure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter

from rehome_consumer import saga
from rehome_consumer.engine.headers import FAILED, GAVE_UP
from rehome_consumer.errors import ClaimLost, Queued, Refused, RehomeError, Transient
from rehome_consumer.ports.engine import AnotherOpen
from rehome_events.data import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from rehome_consumer.ports.engine import MigrationRow, OutboxRow, StepRow
    from rehome_events.envelope import CloudEvent

UNKNOWN_TRIES: Final = 3
"""Errors that are no RehomeError count as transient, this many times."""
PATIENCE: Final = ("1s", "1s", "10s", "10s", "1m")
"""Delays of what is not counted as a try (claim held by another, too early); the last one repeats."""
SOON: Final = "10s"
"""The longest of these delays for what is among the next ones for a slot."""
EARLY_LIMIT: Final = 50
"""Returns of a delivery that comes too early, or meets a defect of rehome, before it is a dead letter."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run the step.

    Attributes:
        event: the event, with its migration and attempt.
        migration: the row as it was looked at.
        alone: no other run of this consumer beside it.
        again: it was started before in this attempt: it may have changed something.
    """

    event: CloudEvent[Any]
    migration: MigrationRow
    alone: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the step again after the tier's delay; `tries` is how often it was tried."""

    tier: str
    tries: int
    why: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Come back after a delay; not counted as a try.

    Attributes:
        early: it is too early, or met a defect, so it comes back EARLY_LIMIT times at most.
        behind: another delivery or migration holds its instance.
        soon: it is among the next ones for a slot, which must not stay idle.
    """

    why: str
    early: bool = False
    behind: bool = False
    soon: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make it a dead letter; `failed` is the run whose failure that is, if there was one."""

    reason: str
    error: str
    failed: StepRow | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """Nothing is left to do but to publish committed events.

    Attributes:
        migration_id: the migration whose events may wait to be published; None for none.
        committed: events that this run has committed and that are left to this consumer; where there are none, others
            of the migration are looked for.
        found: what the journal has of its step: `done` or `failed` before, `stale` (it is over or superseded);
            None where the step has just been done.
    """

    migration_id: UUID | None
    committed: tuple[OutboxRow, ...] = field(default=(), kw_only=True)
    found: Literal["done", "failed", "stale"] | None = None
    why: str = ""


Settled: TypeAlias = Retry | Defer | GiveUp | Ack
"""What a delivery can end in."""
Outcome: TypeAlias = Run | Settled

_MASKED: Final[TypeAdapter[str]] = TypeAdapter(Message)


def after_run(
    error: BaseException, row: StepRow, retries: Sequence[str], *, longest: str | None = None
) -> Retry | Defer | GiveUp:
    """What follows from the error of a run.

    Args:
        error: what ended the run; of a group, its gravest member counts.
        row: its step's, as the run was started.
        retries: the tier before the second, third, ... try.
        longest: a tier that replaces longer ones (for sandboxes and tests); None: none does.
    """
    cause, tries = gravest(error), row.tries + 1
    allowed = len(retries) if isinstance(cause, Transient) else min(len(retries), UNKNOWN_TRIES - 1)
    outcome: Retry | Defer | GiveUp
    if isinstance(cause, ClaimLost | AnotherOpen | Queued | asyncio.CancelledError):
        outcome = Defer(describe_error(cause), soon=isinstance(cause, Queued) and cause.next)
    elif isinstance(cause, Refused) or tries > allowed:
        outcome = GiveUp(FAILED, describe_error(cause), row)
    else:
        outcome = Retry(_at_most(longest, retries[tries - 1]), tries, describe_error(cause))
    return outcome


def after_trouble(error: Exception, early_returns: int) -> Defer | GiveUp:
    """What follows where a delivery could not be decided on, or its outcome not be carried out."""
    why = describe_error(error)
    known = Defer(why, behind=isinstance(error, AnotherOpen))
    return known if isinstance(error, RehomeError) else come_back(early_returns, why)


def come_back(early_returns: int, why: str) -> Defer | GiveUp:
    """Come back once more; a dead letter after EARLY_LIMIT returns."""
    return Defer(why, early=True) if early_returns < EARLY_LIMIT else GiveUp(GAVE_UP, why)


def patience(times: int, *, soon: bool = False) -> str:
    """The tier before an uncounted return number `times` (from 1)."""
    return _at_most(SOON if soon else None, PATIENCE[min(times, len(PATIENCE)) - 1])


def gravest(error: BaseException) -> BaseException:
    """The member of an exception group that counts: lost claim, then refused, then unknown, then transient."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    return min((gravest(member) for member in error.exceptions), key=_gravity)


def describe_error(error: BaseException) -> str:
    """An error in one line that can be stored anywhere, secrets masked. Errors of others come with their class."""
    text = " ".join(str(error).replace("\x00", " ").split()).encode(errors="replace").decode()
    text = _MASKED.validate_python(text)
    name = type(error).__name__
    parts = [text] if isinstance(error, RehomeError) and text else [name, text]
    return ": ".join(part for part in parts if part)


def _gravity(error: BaseException) -> int:
    """A lower number is graver."""
    transient = isinstance(error, Transient)
    return (isinstance(error, ClaimLost), isinstance(error, Refused), not transient, transient).index(True)


def _at_most(longest: str | None, tier: str) -> str:
    """The tier, or the longest one that is wanted."""
    return longest if longest is not None and saga.TIERS[tier] > saga.TIERS[longest] else tier
