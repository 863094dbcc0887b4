"""How long a customer has to expect to be down, by what earlier moves of the same kind took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKED_AT: Final = 200
"""The newest moves that are looked at."""
COUNTED: Final = 20
"""Of those that are like this one, the newest that count: servers change."""
FEWEST: Final = 3
"""Fewer say nothing."""
SIMILAR: Final = 2.0
"""How many times larger or smaller a database may be to be like this one."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A completed move.

    Attributes:
        strategy: how the data was copied in the end, `warm` or `cold`.
        bytes: size of the database.
        downtime: seconds from the stop until it served again.
    """

    strategy: str
    bytes: int
    downtime: float


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to be expected: the shortest and the longest downtime (seconds) of so many moves."""

    shortest: float
    longest: float
    moves: int


def expected(moves: Sequence[Moved], strategy: str, size: int) -> Expected | None:
    """What to expect of a move; None where too few were like it. Nothing is reckoned from moves of other sizes.

    Args:
        moves: completed ones, newest first.
        strategy: how the data will be copied. How long a warm move takes hardly depends on the size.
        size: bytes of the database.
    """
    like = [
        one.downtime
        for one in moves
        if one.strategy == strategy and (strategy == "warm" or size / SIMILAR <= one.bytes <= size * SIMILAR)
    ][:COUNTED]
    return Expected(min(like), max(like), len(like)) if len(like) >= FEWEST else None


def described(found: Expected | None, strategy: str) -> str:
    """In a sentence."""
    size = "" if strategy == "warm" else " of databases half to twice as large"
    if found is None:
        measure = "" if strategy == "warm" else "; --rehearse measures the copy"
        return f"not known: fewer than {FEWEST} {strategy} moves{size} have completed here{measure}"
    return f"{found.shortest:.1f} to {found.longest:.1f} s: so long were the last {found.moves} {strategy} moves{size}"
