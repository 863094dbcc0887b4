"""The types of commands' arguments; a wrong value is refused in one line that says what is expected (exit code 2)."""

from __future__ import annotations

import argparse
import math
from datetime import datetime
from uuid import UUID

from rehome_consumer.model import HIGHEST, LOWEST


def an_id(text: str) -> UUID:
    """The complete id of an instance or a migration."""
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an id such as 7e77fa1e-d1d7-45cd-a43e-0f7d03ee63aa (rehome status --all lists them)"
        ) from None


def a_span(text: str) -> float:
    """A length of time, or another amount: a number of 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def a_count(text: str) -> int:
    """A whole number, 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def a_priority(text: str) -> int:
    """A priority."""
    if text not in {str(one) for one in range(LOWEST, HIGHEST + 1)}:
        raise argparse.ArgumentTypeError(f"{text!r} is no priority from {LOWEST} to {HIGHEST}")
    return int(text)


def a_text(text: str) -> str:
    """Something that is not blank."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it must not be empty")
    return text


def a_moment(text: str) -> datetime:
    """A moment with its offset to UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no moment such as 2026-09-30T22:00Z or 2026-10-01T00:00+02:00"
        )
    return moment
