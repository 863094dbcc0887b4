"""The journal as documents: what the console and `rehome report` show. They read it here, and nowhere else."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import orjson

from rehome_consumer import saga
from rehome_consumer.adapters.common.postgres_session import session
from rehome_consumer.adapters.state.views import NO_JOURNAL
from rehome_consumer.errors import Incompatible, NotFound, Refused, Unreachable
from rehome_consumer.operators.attention import attention
from rehome_consumer.operators.documents import (
    DeadLetter,
    Event,
    Line,
    Log,
    LoggedLine,
    Migration,
    Migrations,
    Overview,
    Paused,
    Step,
    Timeline,
    Try,
)
from rehome_consumer.ports.operators import MigrationView
from rehome_consumer.sql import load
from rehome_events.data import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehome_consumer.adapters.state.views import PostgresJournalViews
    from rehome_consumer.facts import RecordedFacts
    from rehome_consumer.ports.operators import ClaimHolder

SQL: Final = load("console")
LOG_LINES_SQL: Final = load("log_lines")
LIMIT: Final = 10.0
"""Seconds for one question."""
_SECRET: Final = re.compile(r"(?i)passw|pwd|secret|token|api_?key|credential")
"""Names of fields whose values nobody is shown."""
MOST: Final = 200
"""Migrations on a page."""
LOG_LINES: Final = 1000
"""Log lines in an answer."""
SURE: Final = 0.02
"""Part of a step that must be done before its end is foretold."""


class NoJournal(Unreachable):
    """The state database answers, and has no journal."""


class WrongParameter(Refused):
    """What was asked for is not well formed."""


class Reader:
    """The journal, as documents. Everything raises `RehomeError` where the state database does not answer."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], views: PostgresJournalViews) -> None:
        """Take the pool of the state database, and the views on it."""
        self._pool = pool
        self._views = views

    async def migrations(
        self,
        *,
        wanted: UUID | None = None,
        states: Sequence[str] | None = None,
        after: str | None = None,
        over: bool | None = None,
        limit: int = 50,
    ) -> Migrations:
        """A page of migrations, newest first.

        Args:
            wanted: an instance's or a migration's id; None: of all.
            states: only these; None or none: all.
            after: `next` of the page before.
            over: only those that are over, or that are not; None: both.
            limit: how many, from 1 to MOST.

        Raises:
            WrongParameter: `after` is no `next`.
        """
        moment, last = _place(after)
        rows = await self.fetch("page", wanted, states or None, moment, over, limit + 1, last)
        shown = rows[:limit]
        open_ = {row["instance_id"] for row in shown if row["ended_at"] is None}
        holders, line = await self._views.holders(open_), await self._views.in_line() if open_ else {}
        following = f"{shown[-1]['created_at'].isoformat()}_{shown[-1]['id']}" if len(rows) > limit else None
        return Migrations(
            migrations=[_migration({**row, **line.get(row["id"], {})}, holders) for row in shown],
            next=following,
        )

    async def timeline(self, migration_id: UUID) -> Timeline:
        """One migration with its steps, history, events and facts.

        Raises:
            NotFound: there is none.
        """
        found = (await self.migrations(wanted=migration_id, limit=1)).migrations
        if not found or found[0].id != migration_id:
            raise NotFound(f"there is no migration {migration_id} in this journal; is the id right?")
        facts = await self.facts(migration_id, found[0].attempt)
        return Timeline(
            migration=found[0],
            steps=[_step(row) for row in await self._views.steps(migration_id)],
            history=[
                Line(**{**row, "detail": _masked(row["detail"])})
                for row in await self._views.history(migration_id)
            ],
            events=await self.events(migration_id),
            facts=shown(facts),
        )

    async def newest(self, wanted: UUID) -> UUID:
        """The migration with this id; of an instance the one that is open, or its last one.

        Raises:
            NotFound: there is none; says where an upgrade waits that has none yet.
        """
        found = await self.migrations(wanted=wanted, over=False, limit=1)
        found = found if found.migrations else await self.migrations(wanted=wanted, limit=1)
        if found.migrations:
            return found.migrations[0].id
        for one in await self._views.waiting(wanted):
            raise NotFound(f"this upgrade has not begun: it waits for the end of migration {one.behind}")
        raise NotFound(f"there is no migration of instance {wanted}, and none with that id")

    async def facts(self, migration_id: UUID, attempt: int) -> RecordedFacts:
        """What an attempt remembers, as the journal has it."""
        return await self._views.facts(migration_id, attempt)

    async def events(self, migration_id: UUID) -> list[Event]:
        """The events of one migration that are in the outbox."""
        return [_event(row) for row in await self.fetch("events", migration_id)]

    async def log(self, migration_id: UUID, *, before: int | None = None, limit: int = 200) -> Log:
        """The last lines that consumers have logged in steps of a migration; none if it is not known, or too long ago.

        Args:
            migration_id: whose.
            before: `before` of the answer that has the newer ones; None: the last of all.
            limit: how many, from 1 to LOG_LINES.
        """
        try:
            rows = await self._fetch(LOG_LINES_SQL["lines"], migration_id, before, limit + 1)
        except (NoJournal, Incompatible):
            # The consumers are of a release that keeps none, or nobody has let this login read the new table yet.
            return Log(lines=[], before=None)
        shown_rows = rows[:limit]
        older = shown_rows[-1]["seq"] if len(rows) > limit else None
        # Two consumers write theirs when each of them comes to it.
        return Log(lines=sorted(map(_logged, reversed(shown_rows)), key=lambda line: line.at), before=older)

    async def overview(self) -> Overview:
        """What is going on."""
        running = (await self.migrations(over=False, limit=MOST)).migrations
        unsent, pause = await self._views.unsent(), await self._views.paused()
        return Overview(
            running=sorted(running, key=lambda one: one.attention is None),
            waiting=[_migration(asdict(one), {}) for one in await self._views.waiting()],
            paused=Paused(at=pause.at, by=pause.by, why=masked(pause.why)) if pause else None,
            states={row["state"]: row["number"] for row in await self.fetch("states")},
            dead_letters=len(await self._views.dead_letters()),
            unsent_events=sum(one.count for one in unsent),
        )

    async def dead_letters(self) -> list[DeadLetter]:
        """Dead letters of open migrations, oldest first."""
        letters = await self._views.dead_letters()
        views = await self._views.by_ids({one.migration_id for one in letters if one.migration_id})
        of = {view.id: view for view in views}
        found = []
        for one in letters:
            view = of.get(one.migration_id) if one.migration_id else None
            found.append(
                DeadLetter(
                    id=one.id,
                    handler=one.handler,
                    reason=one.reason,
                    migration_id=one.migration_id,
                    instance_id=view.instance_id if view else None,
                    error=_masked(view.error) if view and view.step == one.handler else None,
                    since=one.since,
                )
            )
        return found

    async def changes(self) -> str:
        """A text that differs whenever something that the console shows has changed."""
        logged = ""
        with suppress(NoJournal, Incompatible):  # as in `log`
            logged = str((await self.fetch("log_changes"))[0][0])
        return f"{(await self.fetch('changes'))[0][0]} {logged}"

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Rows of a query in console.sql.

        Raises:
            NoJournal: no consumer has made the journal yet, or it is elsewhere.
        """
        return await self._fetch(SQL[query], *arguments)

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with session(self._pool, "state database", LIMIT) as db:
            try:
                return await db.fetch(statement, *arguments)
            except asyncpg.UndefinedTableError:
                raise NoJournal(NO_JOURNAL) from None


_OF_THE_MIGRATION: Final = ("timestamp", "level", "event", "step", "migration", "instance")
"""Fields of a line that have a place of their own, or are the same in all of them."""


def _encodable(value: Any) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def _logged(row: Any) -> LoggedLine:
    fields = json.loads(
        row["line"]
    )  # a name with odd bytes is in it as lone surrogates, which orjson refuses
    return LoggedLine(
        seq=row["seq"],
        at=row["at"],
        level=_encodable(fields.get("level", "")),
        event=_encodable(fields.get("event", "")),
        step=fields.get("step"),
        fields={
            name: value if isinstance(value, int) else _encodable(value)
            for name, value in fields.items()
            if name not in _OF_THE_MIGRATION
        },
    )


def _place(after: str | None) -> tuple[datetime | None, UUID | None]:
    if after is None:
        return None, None
    moment, _, last = after.partition("_")
    try:
        at = datetime.fromisoformat(moment)
        return at if at.tzinfo else at.replace(tzinfo=UTC), UUID(last)
    except ValueError:
        raise WrongParameter(
            "after: it is not what `next` of a page was; leave it out for the first page"
        ) from None


def _migration(row: dict[str, Any], holders: dict[UUID, ClaimHolder]) -> Migration:
    stopped_at, up_at = _moment(row.pop("stopped_at", None)), _moment(row.pop("up_at", None))
    one = MigrationView(**row)
    now = datetime.now(UTC)
    holder = None if one.ended else holders.get(one.instance_id)
    down = stopped_at is not None and up_at is None and not one.ended
    progress = _progress(one)
    step = saga.named(one.step or "")
    return Migration(
        id=one.id,
        instance_id=one.instance_id,
        attempt=one.attempt,
        state=one.state,
        past_pivot=one.past_pivot,
        to_plan=one.to_plan,
        reason=_masked(one.reason),
        created_at=one.created_at,
        ended_at=one.ended_at,
        step=one.step,
        step_state=one.step_state,
        tries=one.tries,
        tries_allowed=len(step.retries) + 1 if step else None,
        error=_masked(one.error),
        next_try_at=one.next_try_at,
        progress=progress,
        seconds_left=seconds_left(one, progress, now),
        stopped_at=stopped_at,
        downtime_seconds=downtime(stopped_at, up_at or (now if down else None)),
        down=down,
        attention=attention(one, holder),
        worked_on_from=holder.address if holder else None,
        behind=one.behind,
        priority=one.priority,
        place_in_line=one.place_in_line,
        length_of_line=one.length_of_line,
    )


def _progress(one: MigrationView) -> float | None:
    if one.step_state != "running" or not one.progress_total:
        return None
    return min(1.0, (one.progress_done or 0) / one.progress_total)


def seconds_left(one: MigrationView, progress: float | None, now: datetime) -> float | None:
    """Seconds to the end of a step, at the rate that it had so far."""
    if progress is None or not SURE <= progress < 1 or one.tried_at is None:
        return None
    return (now - one.tried_at).total_seconds() * (1 - progress) / progress


def _step(row: dict[str, Any]) -> Step:
    done_at, started_at = row["done_at"], row["started_at"]
    return Step(
        attempt=row["attempt"],
        step=row["step"],
        state=row["state"],
        tries=row["tries"],
        error=_masked(row["error"]),
        next_try_at=row["next_try_at"],
        started_at=started_at,
        tried_at=row["tried_at"],
        done_at=done_at,
        seconds=(done_at - started_at).total_seconds() if done_at else None,
    )


def _event(row: asyncpg.Record) -> Event:
    return Event(
        id=row["event_id"],
        type=row["type"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        data=_without_secrets(orjson.loads(row["body"]).get("data")),
    )


def downtime(stopped_at: datetime | None, up_at: datetime | None) -> float | None:
    """Seconds from the stop until it served again; None where one of them is not known."""
    return (up_at - stopped_at).total_seconds() if stopped_at and up_at else None


def shown(facts: RecordedFacts) -> dict[str, Any]:
    """Facts by name, without secrets."""
    return {name: _without_secrets(value) for name, value in sorted(facts.values.items())}


def failed_tries(history: Sequence[Line]) -> list[Try]:
    """The tries that failed or had to wait, as a history has them: `restore waits`, `restore failed`."""
    found = []
    for line in history:
        step, _, what = line.what.partition(" ")
        if what in ("waits", "failed") and saga.named(step):
            found.append(Try(attempt=line.attempt, step=step, at=line.at, what=what, why=line.detail))
    return found


def _without_secrets(value: Any, name: str = "") -> Any:
    """A JSON value as anybody may see it; `name` is the field that it stands in."""
    if isinstance(value, dict):
        return {key: _without_secrets(part, str(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_secrets(part, name) for part in value]
    if isinstance(value, str):
        return "***" if _SECRET.search(name) else masked(value)
    return value


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _masked(text: str | None) -> str | None:
    """Errors are masked where they arise; a journal may be older than that."""
    return None if text is None else masked(text)
