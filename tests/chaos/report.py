"""The results as text: a line per experiment as it ends, the complete matrix, and a row per step."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from rehome_consumer import saga

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.experiment import Result

STEPS = (*(step.name for step in saga.MIGRATION), "(failure)")
"""In the order of the saga; the last belongs to no step: the publication of `migration.failed`."""
NOT_REACHED = "not reached"

console = Console(highlight=False, soft_wrap=True)


def print_result(result: Result) -> None:
    """One line, and one for each breach."""
    case = result.case
    console.print(
        f"{case.scenario:15} {case.step:13} {case.place:42} {result.outcome:22} "
        f"{result.seconds:5.1f} s  {result.repeats} repeated"
    )
    for breach in result.breaches:
        console.print(f"    BREACH: {breach}", markup=False)


def matrix(results: Sequence[Result]) -> Table:
    """Step x boundary -> outcome, seconds to recover, duplicates that a subscriber received."""
    table = Table("step", "boundary", "scenario", "outcome", "recovered", "repeats", "held", box=None)
    for step in STEPS:
        name = step
        for result in results:
            case = result.case
            if case.step != step:
                continue
            reached = result.outcome != NOT_REACHED
            table.add_row(
                name,
                case.place,
                case.scenario,
                result.outcome,
                f"{result.seconds:.1f} s" if reached else "",
                str(result.repeats) if reached else "",
                "" if not reached else "no" if result.breaches else "yes",
            )
            name = ""
    return table


def summary(results: Sequence[Result]) -> Table:
    """A row per step."""
    table = Table("step", "tried", "held", NOT_REACHED, "median s", "longest s", "repeated events")
    for step in STEPS:
        of_step = [result for result in results if result.case.step == step]
        if of_step:
            table.add_row(step, *_totals(of_step))
    table.add_section()
    table.add_row("all", *_totals(results))
    return table


def _totals(results: Sequence[Result]) -> list[str]:
    reached = [result for result in results if result.outcome != NOT_REACHED]
    times = [result.seconds for result in reached] or [0.0]
    return [
        str(len(reached)),
        str(sum(not result.breaches for result in reached)),
        str(len(results) - len(reached)),
        f"{statistics.median(times):.1f}",
        f"{max(times):.1f}",
        str(sum(result.repeats for result in reached)),
    ]


def print_tables(results: Sequence[Result]) -> None:
    """Both tables, and the figures in one line."""
    if not results:
        return
    wide = Console(highlight=False, width=None if console.is_terminal else 120)
    wide.print(matrix(results))
    wide.print(summary(results))
    broken = sum(bool(result.breaches) for result in results)
    observed = sum(result.observations for result in results)
    console.print(
        f"{len(results)} experiments, {broken} with breaches; {observed} observations of both servers"
    )
