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
    from random import Random

    from tests.simulation.fault_plan import Plan

MUTANTS: dict[str, Callable[[], None]] = {
    one.__name__.replace("_", " "): one for one in (*ENGINE, *JOURNAL, *STEPS)
}


def _spoils_what_followed(plan: Plan, random: Random) -> None:
    plan.strategy, plan.unfollowed = "auto", []
    plan.at_step = {"restore": {random.randrange(1, 12): "truncate"}}  # after the base of the copy was made


def _spoils_what_waited(plan: Plan, random: Random) -> None:
    """Copies follow while they wait, so that customers write meanwhile."""
    plan.strategy, plan.unfollowed, plan.opens = "auto", [], None
    plan.tenants, plan.priorities, plan.has_server = [1] * 3, [None] * 3, []
    plan.paused = [(random.uniform(0.2, 2.0), 30.0)]
    plan.at_boundary[random.randrange(600, 1100)] = "truncate"


def _rolls_back_twice(plan: Plan, random: Random) -> None:
    plan.cutover = "quick"
    plan.at_step = {
        random.choice(("restore", "start")): {random.randrange(5, 30): "refuse"},
        "roll_back": {random.randrange(5, 80): "kill"},
    }


def _sleeps_before_it_begins(plan: Plan, random: Random) -> None:
    plan.consumers = 3
    plan.at_boundary = {random.randrange(2, 5): "pause"}


def _loses_one_that_waits(plan: Plan, random: Random) -> None:
    plan.tenants, plan.duplicates, plan.opens, plan.paused = [1] * 5, 0.0, None, []
    plan.priorities, plan.has_server = [random.randint(0, 9) for _ in plan.tenants], []
    plan.at_boundary = {random.randrange(200, 1000): "lose"}


LEANING: dict[str, Callable[[Plan, Random], None]] = {
    "changed catalogs have the signature that they had": _spoils_what_followed,
    "a copy that followed is not verified": _spoils_what_followed,
    "the witness tells of no table": _spoils_what_waited,
    "what an upgrade opens is taken for new": _sleeps_before_it_begins,
    "who does not look any more is waited for": _loses_one_that_waits,
    "a rollback that is run again stops the instance once more": _rolls_back_twice,
}
"""What would take thousands of schedules to come about by chance: theirs lean towards it."""
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
        schedule = Schedule(first + number, lean=LEANING.get(name))
        try:
            violations = schedule.run()
        except Exception as error:  # noqa: BLE001 - a schedule that cannot be played has noticed it, too
            violations = [f"it can be played: {why(error)}"]
        if violations:
            seconds = time.process_time() - began
            return Found(name, first + number, number + 1, violations[0], seconds)
    return Found(name, None, bound, "-", time.process_time() - began)
