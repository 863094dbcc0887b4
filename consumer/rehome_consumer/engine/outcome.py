"""What follows from an error. Pure: an error and the tries so far in, a verdict out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pydantic import TypeAdapter

from rehome_consumer.errors import ClaimLost, Queued, Refused, RehomeError, Transient
from rehome_consumer.ports.engine import AnotherOpen
from rehome_events.data import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_TRIES: Final = 3
"""Errors outside our tree count as transient, this many times."""
PATIENCE: Final = ("1s", "1s", "10s", "10s", "1m")
"""Delays of what is not counted as a try (claim held by another, too early); the last one repeats."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after the tier's delay."""

    tier: str
    why: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Come back; not counted as a try."""

    why: str


@dataclass(frozen=True, slots=True)
class Fail:
    """It has failed for good."""

    why: str
    error: str


Verdict: TypeAlias = Retry | Defer | Fail

_MASKED: Final[TypeAdapter[str]] = TypeAdapter(Message)


def verdict(
    error: BaseException, tries: int, retries: Sequence[str], *, longest: str | None = None
) -> Verdict:
    """Decide.

    Args:
        error: what ended the try; of a group, its gravest member counts.
        tries: how many there were, this one included.
        retries: the tier before the second, third, ... try.
        longest: a tier that replaces longer ones (for a sandbox in a hurry); None: none does.
    """
    cause = gravest(error)
    why = told(cause)
    if isinstance(cause, ClaimLost | AnotherOpen | Queued | asyncio.CancelledError):
        return Defer(why)
    if isinstance(cause, Refused):
        return Fail(why, type(cause).__name__)
    allowed = len(retries) if isinstance(cause, Transient) else min(len(retries), UNKNOWN_TRIES - 1)
    if tries > allowed:
        return Fail(why, type(cause).__name__)
    tier = retries[tries - 1]
    return Retry(longest if longest and _seconds(tier) > _seconds(longest) else tier, why)


def patience(times: int) -> str:
    """The delay before an uncounted return number `times` (from 1)."""
    return PATIENCE[min(times, len(PATIENCE)) - 1]


def gravest(error: BaseException) -> BaseException:
    """The member of an exception group that decides: lost claim, then refused, then unknown, then transient."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    members = [gravest(member) for member in error.exceptions]
    return min(members, key=_gravity)


def told(error: BaseException) -> str:
    """An error in one line that every store takes, secrets masked. Foreign ones come with their class."""
    text = " ".join(str(error).replace("\x00", " ").split()).encode(errors="replace").decode()
    text = _MASKED.validate_python(text)
    if isinstance(error, RehomeError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _gravity(error: BaseException) -> int:
    for index, kind in enumerate((ClaimLost, Refused)):
        if isinstance(error, kind):
            return index
    return 3 if isinstance(error, Transient) else 2


def _seconds(tier: str) -> int:
    return int(tier[:-1]) * {"s": 1, "m": 60, "h": 3600}[tier[-1]]
