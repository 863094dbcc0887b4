"""A migration in lines: state, step, since when, next try, which consumer works on it, and why it waits.

Ids and states are always in the row. A terminal that is too narrow for the rest has that below, in words.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.commands.lines import cut, detail, moment, row, width
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.attention import attention
from rehome_consumer.operators.in_line import in_line
from rehome_consumer.operators.reader import seconds_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.ports.operators import ClaimHolder, MigrationView

HEADINGS: Final = ("INSTANCE", "STATE", "STEP", "SINCE", "NEXT TRY")
WIDTHS: Final = (36, 14, 22, 8, 8)
STEP_HEADINGS: Final = ("#", "STEP", "STATE", "TRIES", "STARTED", "SECONDS", "ERROR")
STEP_WIDTHS: Final = (2, 12, 8, 5, 19, 9, 5)
BAR: Final = 20
"""Columns of a progress bar."""
STARTED: Final = 4
"""The column that a narrow terminal has no place for; the history has it."""


def heading() -> str:
    """The line above the blocks."""
    return _row(HEADINGS)


def block(one: MigrationView, holder: ClaimHolder | None, *, now: datetime | None = None) -> list[str]:
    """A migration: one row, and the details below it."""
    now = now or datetime.now(UTC)
    waiting = not one.ended and one.step_state == "waiting"
    following = age(one.next_try_at, now=now) if waiting and one.next_try_at else ""
    if following and not following.startswith("in "):
        following = "now"
    step = "" if one.ended else f"{one.step or ''} {one.step_state or ''}{_progress(one)}".strip()
    since = age(_since(one), now=now)
    lines = [_row((one.instance_id, one.state, cut(step, WIDTHS[2]), since, following))]
    told = (("STEP", "step", step), ("SINCE", "for", since), ("NEXT TRY", "next try", following))
    below = ", ".join(f"{word} {text}" for column, word, text in told if text and column not in _shown())
    lines += detail(below) if below else []
    plan = f"to {one.to_plan}" + (f", attempt {one.attempt}" if one.attempt > 1 else "")
    if one.behind is None:
        lines += detail(f"migration {one.id} {plan}{_tries(one)}")
    else:
        lines += detail(f"upgrade {plan}; its migration will be {one.id}")
    why = one.error or one.reason
    if why and one.state != "completed":
        lines += detail(f"why: {why}")
    place = in_line(one.place_in_line, one.length_of_line, one.priority)
    lines += detail(place) if place and not one.ended else []
    if not one.ended:
        lines += detail(_work(one, holder, now)) if one.behind is None else []
        need = attention(one, holder, now=now)
        lines += detail(f"needs an operator: {need}") if need else []
    return lines


def steps_table(steps: list[dict[str, Any]]) -> list[str]:
    """All steps of all attempts."""
    lines = ["", _step_row(STEP_HEADINGS)]
    for step in steps:
        took = (step["done_at"] - step["started_at"]).total_seconds() if step["done_at"] else None
        seconds = f"{took:.1f}" if took is not None else ""
        started = moment(step["started_at"])
        cells = (step["attempt"], step["step"], step["state"], step["tries"] or "", started, seconds)
        lines.append(_step_row(cells))
        lines += detail(step["error"], "       ") if step["error"] else []
    return [*lines, ""]


def history_lines(line: dict[str, Any], before: str = "  ") -> list[str]:
    """One entry of a history after `before`, wrapped."""
    text = f"{moment(line['at'])}  {line['what']}" + (f": {line['detail']}" if line["detail"] else "")
    return detail(text, before)


def _shown() -> tuple[str, ...]:
    """The columns that the terminal has place for: a step may be below its row, then times as well."""
    for left_out in ((), ("STEP",)):
        kept = [size for name, size in zip(HEADINGS, WIDTHS, strict=True) if name not in left_out]
        if sum(kept) + 2 * (len(kept) - 1) <= width():
            return tuple(name for name in HEADINGS if name not in left_out)
    return HEADINGS[:2]


def _row(cells: Sequence[Any]) -> str:
    shown = _shown()
    kept = [(cell, size) for name, cell, size in zip(HEADINGS, cells, WIDTHS, strict=True) if name in shown]
    return row([cell for cell, _ in kept], [size for _, size in kept])


def _step_row(cells: Sequence[Any]) -> str:
    narrow = sum(STEP_WIDTHS) + 2 * len(STEP_WIDTHS) > width()
    kept = [place for place in range(len(cells)) if not narrow or place != STARTED]
    return "  " + row([cells[place] for place in kept], [STEP_WIDTHS[place] for place in kept])


def _tries(one: MigrationView) -> str:
    """How often the step was tried, and what happens after the last try."""
    step = saga.named(one.step or "")
    if not one.tries or step is None or one.ended or one.state == "failed":
        return f", tried {one.tries} time(s)" if one.tries else ""
    then = "it is rolled back" if step.if_it_fails == "roll_back" else "it waits for an operator"
    return f", tried {one.tries} of {len(step.retries) + 1} time(s), then {then}"


def percent(one: MigrationView) -> int:
    """How far the step is, which reports its progress."""
    return min(100, 100 * (one.progress_done or 0) // (one.progress_total or 1))


def progressed(one: MigrationView, *, terminal: bool, now: datetime | None = None) -> str:
    """How far a step is that reports its progress, and how long it takes yet if it goes on so; for people a bar."""
    done = percent(one)
    cells = BAR * done // 100
    bar = f" [{'#' * cells}{'.' * (BAR - cells)}]" if terminal else ""
    left = seconds_left(one, done / 100, now or datetime.now(UTC))
    return f"{done}%{bar}" + ("" if left is None else f", about {_left(timedelta(seconds=left))} left")


def _left(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds} s" if seconds < 120 else _length(span)  # noqa: PLR2004 - 90 s reads better


def _progress(one: MigrationView) -> str:
    if not one.progress_total or one.step_state != "running":
        return ""
    return f" {percent(one)}%"


def _length(span: timedelta) -> str:
    minutes = int(span.total_seconds()) // 60
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"  # noqa: PLR2004 - 90 min reads better


def _since(one: MigrationView) -> datetime:
    """Since when it is at this step, or over."""
    return one.ended_at or one.started_at or one.created_at


def _work(one: MigrationView, holder: ClaimHolder | None, now: datetime) -> str:
    if holder is not None:
        step = saga.named(one.step or "")
        longest = f" (a try may take {_length(step.limit)})" if step and one.step_state == "running" else ""
        return f"a consumer at {holder.address} has worked on it for {age(holder.since, now=now)}{longest}"
    if one.step_state == "running":
        return "no consumer works on it: the one that ran this step has ended; its delivery comes again"
    return "no consumer works on it now"
