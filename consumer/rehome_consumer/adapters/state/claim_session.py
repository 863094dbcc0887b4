"""The session that holds all claims of a consumer. What is asked at the same time is asked in one round trip.

An advisory lock belongs to a session, and one session can hold any number. If it ends, all its claims are lost at once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from rehome_consumer.adapters.common.postgres_errors import FOREIGN, translated
from rehome_consumer.errors import RehomeError, Unreachable
from rehome_consumer.ports.engine import Found, MigrationRow, StepRow
from rehome_consumer.sql import load

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from rehome_consumer.ports.engine import Lookup

log = logging.getLogger(__name__)

SQL = load("claims")
WHAT = "state database"
REVOKED: Final = "rehome_revoked"
"""Channel on which an operator's tool asks whoever holds the claim on an instance (the payload) to give it up."""

COMPANY: Final = 0.002
"""Seconds for which what is given back waits for another request to go with: the next step of the migration is near."""

MIGRATION: Final = ("id", "instance_id", "attempt", "state", "past_pivot", "trigger", "reason", "created_at",
                    "updated_at", "token", "ended_at")  # fmt: skip
STEP: Final = ("state", "runs", "tries", "deaths", "dead_lettered", "error")


@dataclass(slots=True)
class Asked:
    """Something that waits for the next round, or is asked in it."""

    act: Literal["claim", "release", "ping"]
    instance_id: UUID | None
    lookup: Lookup | None = None
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a lock is held now, and what was looked up."""

    held: bool
    found: Found | None


class ClaimSession:
    """One connection, and a task that asks it in rounds.

    Attributes:
        over: the session has ended; nothing that it held is held any more.
    """

    def __init__(
        self, connection: asyncpg.Connection[asyncpg.Record], *, ask_every: float, answer_within: float
    ) -> None:
        """Take a connection of its own.

        Args:
            connection: ended with the session.
            ask_every: seconds of silence after which the server is asked whether it is still there.
            answer_within: seconds that a round may take before the session counts as lost.
        """
        self._connection = connection
        self._ask_every = ask_every
        self._answer_within = answer_within
        self._waiting: list[Asked] = []
        self._in_round: list[Asked] = []
        self._wake = asyncio.Event()
        self._at_end: dict[object, Callable[[], None]] = {}
        self.over = False
        connection.add_termination_listener(lambda _: self._end(Unreachable(f"{WHAT}: its connection ended")))
        self._rounds: asyncio.Task[None] | None = None

    async def begin(self, silent_for: float, revoked: Callable[[UUID], None]) -> None:
        """Set the server's limit for silence (seconds), and listen for claims that an operator takes away."""

        def told(*notification: object) -> None:
            with suppress(ValueError):
                revoked(UUID(str(notification[3])))

        async with asyncio.timeout(self._answer_within):
            await self._connection.execute(SQL["limits"], f"{silent_for * 1000:.0f}ms")
            await self._connection.add_listener(REVOKED, told)
        self._rounds = asyncio.create_task(self._run(), name="claims")

    def at_end(self, claim: object, call: Callable[[], None]) -> None:
        """Call this when the session ends, unless `forget` comes first."""
        if self.over:
            call()
        else:
            self._at_end[claim] = call

    def forget(self, claim: object) -> None:
        """A claim has ended before the session."""
        self._at_end.pop(claim, None)

    async def claim(self, instance_id: UUID, lookup: Lookup | None) -> Answer:
        """Try to take the lock. Raises Unreachable or TimedOut when the session has ended."""
        return await self._ask(Asked("claim", instance_id, lookup))

    async def ping(self) -> None:
        """Raise Unreachable or TimedOut unless the server answers after this call."""
        await self._ask(Asked("ping", None))

    def release(self, instance_id: UUID) -> asyncio.Future[Answer]:
        """Give a lock back in the next round. A session that has ended holds none."""
        asked = Asked("release", instance_id)
        if self.over:
            asked.answer.cancel()
        else:
            self._put(asked)
        return asked.answer

    async def close(self) -> None:
        """End the session; the locks end with it."""
        self._end(Unreachable(f"{WHAT}: the session of the claims was closed"))
        if self._rounds is not None:
            await asyncio.gather(self._rounds, return_exceptions=True)
        try:
            await self._connection.close(timeout=self._answer_within)
        except FOREIGN:
            self._connection.terminate()

    async def _ask(self, asked: Asked) -> Answer:
        if self.over:
            raise Unreachable(f"{WHAT}: its connection ended")
        self._put(asked)
        return await asked.answer

    def _put(self, asked: Asked) -> None:
        self._waiting.append(asked)
        self._wake.set()

    async def _run(self) -> None:
        """Round after round, until the session ends."""
        while True:
            if not await self._woken(self._ask_every):
                self._waiting.append(Asked("ping", None))
            if all(one.act == "release" for one in self._waiting):
                await self._woken(COMPANY)
            # What is given back first: it may be asked for in the same round.
            self._in_round = sorted(
                (one for one in self._waiting if not one.answer.cancelled() or one.act == "release"),
                key=lambda one: one.act != "release",
            )
            self._waiting = []
            try:
                with translated(WHAT):
                    async with asyncio.timeout(self._answer_within):
                        rows = await self._round(self._in_round)
                self._answered(rows)
            except RehomeError as error:
                self._lose(error)
                return
            except Exception as error:
                log.exception("claims.defect")
                self._lose(Unreachable(f"{WHAT}: {type(error).__name__}"))
                return

    async def _woken(self, within: float) -> bool:
        """Wait until something more is asked; False when nothing was."""
        try:
            async with asyncio.timeout(within):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _round(self, asked: list[Asked]) -> list[Any]:
        acts, instances = [one.act for one in asked], [one.instance_id for one in asked]
        lookups = [one.lookup for one in asked]
        if not any(lookups):
            return await self._connection.fetch(SQL["round"], acts, instances)
        return await self._connection.fetch(
            SQL["round_with_lookups"],
            acts,
            instances,
            [one and one.migration_id for one in lookups],
            [one and one.attempt for one in lookups],
            [one and one.step for one in lookups],
            [one and one.before for one in lookups],
        )

    def _answered(self, rows: list[Any]) -> None:
        asked, self._in_round = self._in_round, []
        for one, row in zip(asked, rows, strict=True):
            held = bool(row["held"])
            if not one.answer.done():
                one.answer.set_result(Answer(held, _found(row, one.lookup) if one.lookup else None))
            elif one.act == "claim" and held:  # who asked for it has gone meanwhile
                self._put(Asked("release", one.instance_id))

    def _lose(self, error: RehomeError) -> None:
        """The server does not answer as it should: what it holds for this session must end there, too."""
        self._rounds = None
        self._end(error)
        self._connection.terminate()

    def _end(self, error: RehomeError) -> None:
        """Nothing is held any more; everybody is told."""
        if self.over:
            return
        self.over = True
        asked, self._waiting, self._in_round = [*self._in_round, *self._waiting], [], []
        for one in asked:
            if one.act == "release":
                one.answer.cancel()
            elif not one.answer.done():
                one.answer.set_exception(error)
                one.answer.exception()  # a ping of the session's own is awaited by nobody
        for call in self._at_end.values():
            call()
        self._at_end.clear()
        if self._rounds is not None:
            self._rounds.cancel()


def _found(row: Any, lookup: Lookup) -> Found:
    """The rows of `look_up`."""
    if row["id"] is None:
        return Found()
    migration = MigrationRow(**{name: row[name] for name in MIGRATION})
    return Found(
        migration,
        _step(row, "step", migration, lookup.step),
        _step(row, "before", migration, lookup.before or ""),
    )


def _step(row: Any, prefix: str, migration: MigrationRow, step: str) -> StepRow | None:
    if row[f"{prefix}_state"] is None:
        return None
    return StepRow(
        migration_id=migration.id,
        attempt=row["step_attempt"],
        step=step,
        token=migration.token,
        replays=tuple(row[f"{prefix}_replays"]),
        **{name: row[f"{prefix}_{name}"] for name in STEP},
    )
