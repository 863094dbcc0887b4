"""A migration in 100 columns: state, step, since when, next try, which consumer works on it, and why it waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer import saga
from rehome_consumer.commands.lines import detail, moment, row
from rehome_consumer.commands.show import age
from rehome_consumer.doctor.migrations import idle_since

if TYPE_CHECKING:
    from rehome_consumer.ports.operators import ClaimHolder, MigrationView

WIDTHS: Final = (36, 14, 22, 8)
STEP_WIDTHS: Final = (2, 12, 8, 5, 19, 9)
GRACE: Final = timedelta(seconds=90)
"""How late a try may start before an operator has to look: deliveries wait for each other."""


def heading() -> str:
    """The line above the blocks."""
    return row(("INSTANCE", "STATE", "STEP", "SINCE", "NEXT TRY"), WIDTHS)


def block(one: MigrationView, holder: ClaimHolder | None, *, now: datetime | None = None) -> list[str]:
    """A migration: one row, and the details below it."""
    now = now or datetime.now(UTC)
    waiting = not one.ended and one.step_state == "waiting"
    following = age(one.next_try_at, now=now) if waiting and one.next_try_at else ""
    if following and not following.startswith("in "):
        following = "now"
    step = "" if one.ended else f"{one.step or ''} {one.step_state or ''}{_progress(one)}".strip()
    cells = (one.instance_id, one.state, step, age(_since(one), now=now), following)
    lines = [row(cells, WIDTHS)]
    plan = f"to {one.to_plan}" + (f", attempt {one.attempt}" if one.attempt > 1 else "")
    if one.behind is None:
        lines += detail(f"migration {one.id} {plan}{_tries(one)}")
    else:
        lines += detail(f"upgrade {plan}; its migration will be {one.id}")
    why = one.error or one.reason
    if why and one.state != "completed":
        lines += detail(f"why: {why}")
    if not one.ended:
        lines += detail(_work(one, holder, now)) if one.behind is None else []
        need = attention(one, holder, now=now)
        lines += detail(f"needs an operator: {need}") if need else []
    return lines


def attention(one: MigrationView, holder: ClaimHolder | None, *, now: datetime | None = None) -> str | None:
    """Why an operator has to look at it; None when that is not needed."""
    now = now or datetime.now(UTC)
    if one.behind is not None:
        late = one.next_try_at is not None and now - one.next_try_at > GRACE
        return "its next try is overdue: is a consumer running? see also rehome dead list" if late else None
    if one.ended or holder is not None:
        return None
    if one.state == "failed":
        undo = "" if one.past_pivot else f", or rehome roll-back {one.id}"
        return f"it failed; rehome dead list --instance {one.instance_id}{undo}"
    since = idle_since(one)
    if now - since > GRACE:
        return f"no consumer has worked on it for {age(since, now=now)}; rehome doctor {one.instance_id}"
    return None


def steps_table(steps: list[dict[str, Any]]) -> list[str]:
    """All steps of all attempts."""
    lines = ["", "  " + row(("#", "STEP", "STATE", "TRIES", "STARTED", "SECONDS", "ERROR"), STEP_WIDTHS)]
    for step in steps:
        took = (step["done_at"] - step["started_at"]).total_seconds() if step["done_at"] else None
        seconds = f"{took:.1f}" if took is not None else ""
        started = moment(step["started_at"])
        cells = (step["attempt"], step["step"], step["state"], step["tries"] or "", started, seconds)
        lines.append("  " + row(cells, STEP_WIDTHS))
        lines += detail(step["error"], "       ") if step["error"] else []
    return [*lines, ""]


def history_lines(line: dict[str, Any], before: str = " ") -> list[str]:
    """One entry of a history after `before`, wrapped."""
    text = f"{moment(line['at'])}  {line['what']}" + (f": {line['detail']}" if line["detail"] else "")
    return detail(text, f"{before} ")


def _tries(one: MigrationView) -> str:
    """How often the step was tried, and what happens after the last try."""
    step = saga.named(one.step or "")
    if not one.tries or step is None or one.ended or one.state == "failed":
        return f", tried {one.tries} time(s)" if one.tries else ""
    then = "it is rolled back" if step.if_it_fails == "roll_back" else "it waits for an operator"
    return f", tried {one.tries} of {len(step.retries) + 1} time(s), then {then}"


def _progress(one: MigrationView) -> str:
    if not one.progress_total or one.step_state != "running":
        return ""
    return f" {min(100, 100 * (one.progress_done or 0) // one.progress_total)}%"


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
