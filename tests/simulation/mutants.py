"""Proof that the simulation finds bugs: each guarantee is broken on purpose, and the schedules must notice.

A mutant is patched into a process of its own, which plays seed after seed until something does not hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.broken_engine import BROKEN as ENGINE
from tests.simulation.broken_journal import BROKEN as JOURNAL
from tests.simulation.broken_steps import BROKEN as STEPS
from tests.simulation.schedule import Schedule
from tests.simulation.unplayable import why

if TYPE_CHECKING:
    from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {
    one.__name__.replace("_", " "): one for one in (*ENGINE, *JOURNAL, *STEPS)
}
BOUND = 5000
"""Schedules within which every mutant must be found."""


@dataclass(frozen=True, slots=True)
class Found:
    """The schedule that noticed, how many were played until then, and what did not hold; `seed` None: none noticed."""

    name: str
    seed: int | None
    schedules: int
    violation: str
    seconds: float

    @property
    def row(self) -> str:
        """A line of the table: what was broken, how many schedules it took, which invariant noticed."""
        taken = "survives" if self.seed is None else str(self.schedules)
        return f"| {self.name} | {taken} | {self.violation.partition(':')[0]} |"


def hunt(name: str, bound: int = BOUND, first: int = 0) -> Found:
    """Break it, for good, in this process, and play until it is noticed."""
    MUTANTS[name]()
    began = time.process_time()
    for number in range(bound):
        schedule = Schedule(first + number)
        try:
            violations = schedule.run()
        except Exception as error:  # noqa: BLE001 - a schedule that cannot be played has noticed it, too
            violations = [f"it can be played: {why(error)}"]
        if violations:
            seconds = time.process_time() - began
            return Found(name, first + number, number + 1, violations[0], seconds)
    return Found(name, None, bound, "-", time.process_time() - began)
