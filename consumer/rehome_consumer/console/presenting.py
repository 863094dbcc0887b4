"""How values look on a page. Everything that a template writes is made visible, then escaped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rehome_consumer import saga
from rehome_consumer.operators.in_line import in_line
from rehome_consumer.operators.reader import failed_tries
from rehome_events.printable import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.operators.documents import Migration, Step, Timeline

SHORT: Final = 280
"""Characters of a text in a list; its page has all of it."""
FORWARD: Final = tuple(step.name for step in saga.MIGRATION if step is not saga.ROLL_BACK)

TONES: Final = {
    "completed": "good",
    "done": "good",
    "rolled_back": "warn",
    "failing": "warn",
    "failed": "bad",
    "running": "busy",
    "rejected": "quiet",
    "nothing_to_do": "quiet",
    "resized": "good",
    "waiting": "quiet",
}
"""State -> colour. The word is always there, too."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A step on the timeline, in per cent of the attempt's time.

    Attributes:
        ticks: where a try failed, or had to wait.
        allowed: how many tries it has.
    """

    step: Step
    ticks: Sequence[float]
    left: float
    width: float
    seconds: float
    allowed: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt's steps; `total` seconds from its first step's start to its last one's end."""

    number: int
    bars: Sequence[Bar]
    total: float


def environment() -> Environment:
    """Jinja with our filters."""
    made = Environment(
        loader=PackageLoader("rehome_consumer.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {
        "ago": ago, "due": due, "span": span, "moment": moment, "short": short, "pretty": pretty, "tone": tone,
        "clock": clock, "short_id": short_id, "in_line": its_place,
    }  # fmt: skip
    made.globals |= {"steps_done": steps_done, "steps_all": len(FORWARD)}
    return made


def attempts(timeline: Timeline, now: datetime | None = None) -> list[Attempt]:
    """The steps of each attempt as bars, the newest attempt first."""
    now = now or datetime.now(UTC)
    over = timeline.migration.ended_at
    found = []
    for number in sorted({step.attempt for step in timeline.steps}, reverse=True):
        own = [step for step in timeline.steps if step.attempt == number]
        last = number == timeline.migration.attempt
        ends = [
            _end(step, own[place + 1 :], over if last else None, now, last=last)
            for place, step in enumerate(own)
        ]
        first = min(step.started_at for step in own)
        total = max((max(ends) - first).total_seconds(), 0.001)
        failed = _failed_tries(timeline, number)
        bars = [
            _bar(step, end, first, total, failed.get(step.step, []))
            for step, end in zip(own, ends, strict=True)
        ]
        found.append(Attempt(number, bars, total))
    return found


def steps_done(one: Migration) -> int:
    """How many of the steps forward are done, or at work."""
    return FORWARD.index(one.step) + 1 if one.step in FORWARD else 0


def ago(at: datetime | None) -> str:
    """How long ago, or in how long."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    return f"in {span(-seconds)}" if seconds < -1 else f"{span(max(0, seconds))} ago"


def due(at: datetime) -> str:
    """In how long; `now` once that is over."""
    return ago(at) if at > datetime.now(UTC) else "now"


def span(seconds: float | None) -> str:
    """A length of time."""
    if seconds is None:
        return ""
    if seconds < 10:  # noqa: PLR2004 - a tenth is worth to be seen
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"


def moment(at: datetime | None) -> str:
    """A moment in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else ""


def clock(at: datetime) -> str:
    """The time of the day."""
    return f"{at.astimezone(UTC):%H:%M:%S}"


def short(text: str | None) -> str:
    """The beginning of a text."""
    text = text or ""
    return text if len(text) <= SHORT else f"{text[:SHORT]} …"


def its_place(one: Migration) -> str:
    """Where a migration waits for a slot."""
    return in_line(one.place_in_line, one.length_of_line, one.priority)


def short_id(value: object) -> str:
    """As many characters of an id as people compare."""
    return str(value)[:8]


def pretty(value: Any) -> Markup:
    """A value as JSON, escaped."""
    text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    return Markup.escape(visible_json(text))


def tone(state: str | None) -> str:
    """The colour of a state."""
    return TONES.get(state or "", "busy")


def _shown(value: Any) -> Any:
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _end(step: Step, later: Sequence[Step], over: datetime | None, now: datetime, *, last: bool) -> datetime:
    """When a step ended; one that failed: when the next one began."""
    if step.done_at is not None:
        return step.done_at
    if later:
        return later[0].started_at
    return max(step.tried_at, over or (now if last else step.tried_at))


def _failed_tries(timeline: Timeline, attempt: int) -> dict[str, list[datetime]]:
    """When tries of each step failed or had to wait."""
    found: dict[str, list[datetime]] = {}
    for one in failed_tries(timeline.history):
        if one.attempt == attempt:
            found.setdefault(one.step, []).append(one.at)
    return found


def _bar(step: Step, end: datetime, first: datetime, total: float, failed: Sequence[datetime]) -> Bar:
    seconds = max(0.0, (end - step.started_at).total_seconds())
    left = min(99.0, 100 * (step.started_at - first).total_seconds() / total)
    known = saga.named(step.step)
    return Bar(
        step=step,
        ticks=[round(min(99.5, max(0.0, 100 * (at - first).total_seconds() / total)), 2) for at in failed],
        left=round(left, 2),
        width=round(max(0.8, min(100 - left, 100 * seconds / total)), 2),
        seconds=seconds,
        allowed=len(known.retries) + 1 if known else None,
    )
