"""A report as a page of a terminal's width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.commands.lines import detail, field, moment
from rehome_consumer.commands.migration_lines import history_lines, steps_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehome_consumer.model import Compared
    from rehome_consumer.operators.documents import Migration
    from rehome_consumer.operators.report import Act, Attempt, Report

NOT_KEPT = "not known: its events are no longer kept; rehome doctor {} looks"
NOT_OVER = "not known before its end"


def page(found: Report) -> list[str]:
    """The report: what matters first, then everything that happened, in order."""
    return [*_summary(found), *_acts(found.acts), *_steps(found), *_events(found), *_history(found)]


def _summary(found: Report) -> Iterator[str]:
    one = found.migration
    yield from field("migration", one.id)
    yield from field("instance", one.instance_id)
    yield from field("plan", f"to {one.to_plan}")
    yield from field("outcome", _outcome(one))
    yield from field("why", one.reason or one.error) if one.state != "completed" else ()
    yield from field("operator", f"needed: {one.attention}") if one.attention else ()
    for attempt in found.attempts:
        yield from _attempt(attempt, one, several=len(found.attempts) > 1)
    left = found.left_behind
    unknown = NOT_OVER if one.ended_at is None else NOT_KEPT.format(one.instance_id)
    for text in [unknown] if left is None else left or ["nothing"]:
        yield from field("left", text)
    yield from field("made", f"{moment(found.made_at)} UTC, as are all times")


def _attempt(attempt: Attempt, one: Migration, *, several: bool) -> Iterator[str]:
    """What one attempt cost; the last one may still be at it."""
    if several:
        yield from field("attempt", attempt.number)
    yield from field("downtime", _downtime(attempt, one if attempt.number == one.attempt else None))
    if attempt.strategy:
        why = f": {attempt.strategy_reason}" if attempt.strategy_reason else ""
        yield from field("copied", f"{attempt.strategy}{why}")
    yield from field("expected", _expected(attempt))
    for change in attempt.conf_changes or ():
        before = "not there" if change.before is None else change.before
        yield from field("odoo.conf", f"{change.name}: {before} -> {change.after}")
    verified = attempt.verified
    if verified is None:
        return
    counted = ("tables", "rows", "sequences", "indexes", "constraints", "extensions")
    counts = ", ".join(f"{getattr(verified, name)} {name}" for name in counted)
    yield from field("verified", f"{counts}: equal; SHA-256 {verified.digest}")
    if attempt.contents:
        yield from field("contents", contents(attempt.contents))
        yield from field("definitions", definitions(attempt.contents))


def contents(found: Compared) -> str:
    """Of which tables contents were compared, in a warm move."""
    if found.how == "everything":
        return f"of all tables: {found.why}"
    return (
        f"of the {found.tables} table(s) written to since the copy began; of {found.by_key} of them the {found.rows} "
        "row(s) written to"
    )


def definitions(found: Compared) -> str:
    """Whether definitions were compared after the stop, in a warm move."""
    if found.definitions == "unchanged":
        return "not read again: nothing has changed either database's since the copy was compared"
    return f"compared again: {found.definitions_why}" if found.definitions_why else "compared again"


def _outcome(one: Migration) -> str:
    """How it ended, or where it is."""
    if one.ended_at is None:
        step = f" (step {one.step}: {one.step_state})" if one.step else ""
        return f"not over: {one.state}{step}, opened {moment(one.created_at)}"
    took = _span((one.ended_at - one.created_at).total_seconds())
    return f"{one.state} after {took}: {moment(one.created_at)} to {moment(one.ended_at)}"


def _downtime(attempt: Attempt, present: Migration | None) -> str:
    if attempt.stopped_at is None:
        return "none: it was not stopped"
    if attempt.downtime_seconds is not None:
        until = moment(attempt.up_at)
        return f"{_span(attempt.downtime_seconds)}: {moment(attempt.stopped_at)} to {until}"
    if present is not None and present.down and present.downtime_seconds is not None:
        return f"{_span(present.downtime_seconds)} so far: since {moment(attempt.stopped_at)}"
    return f"since {moment(attempt.stopped_at)}; until when is not recorded"


def _expected(attempt: Attempt) -> str | None:
    """What the rehearsal had foretold, and what it was."""
    if attempt.expected_copy_seconds is None:
        return None
    was = f"was {_span(attempt.copy_seconds)}" if attempt.copy_seconds is not None else "not done"
    return f"copy {_span(attempt.expected_copy_seconds)} by the rehearsal; {was}"


def _acts(acts: list[Act]) -> Iterator[str]:
    yield from ("", "WHAT OPERATORS DID")
    for act in acts:
        who = f"by {act.who}" if act.who else "by whom was not recorded"
        why = f", because: {act.why}" if act.why else ""
        yield from detail(f"{moment(act.at)}  {act.what} {who}{why}", "  ")
        yield from detail(act.detail, "      ") if act.detail else ()
    if not acts:
        yield "  nothing"


def _steps(found: Report) -> Iterator[str]:
    yield from ("", "STEPS")
    yield from steps_table([step.model_dump() for step in found.steps])[1:-1]
    yield from ("", "TRIES THAT FAILED OR WAITED")
    for one in found.tries:
        why = f": {one.why}" if one.why else ""
        number = f" (attempt {one.attempt})" if len(found.attempts) > 1 else ""
        yield from detail(f"{moment(one.at)}  {one.step} {one.what}{number}{why}", "  ")
    if not found.tries:
        yield "  none"


def _events(found: Report) -> Iterator[str]:
    yield from ("", "EVENTS")
    for event in found.events:
        sent = "" if event.sent_at else "  not sent yet"
        yield from detail(f"{moment(event.created_at)}  {event.type}  {event.id}{sent}", "  ")
    if not found.events:
        yield "  no longer kept" if found.migration.ended_at else "  none yet"


def _history(found: Report) -> Iterator[str]:
    yield from ("", "HISTORY")
    for line in found.history:
        yield from history_lines(line.model_dump())


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 60:  # noqa: PLR2004 - a tenth is worth to be seen
        return f"{seconds:.1f} s"
    minutes, hours = round(seconds) // 60, round(seconds) // 3600
    return f"{hours} h {minutes % 60:02} min" if hours else f"{minutes} min {round(seconds) % 60:02} s"
