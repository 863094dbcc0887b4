"""The drain of a pool: upgrades published one after another, as many at a time as its servers and the pool bear.

It keeps nothing: what was moved is not on the pool any more, and what is under way stands in the journal. So the same
command goes on where an earlier one ended, however that ended.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rehome_consumer.engine.inbound import opened_by
from rehome_consumer.errors import NotFound, Transient
from rehome_consumer.facts import HEALTHY_AT, STOPPED_AT
from rehome_consumer.operators.ages import age
from rehome_consumer.operators.attention import GRACE, attention
from rehome_consumer.operators.drain_parts import UNDONE, Followed, Summary
from rehome_consumer.operators.reader import downtime
from rehome_consumer.ports.operators import DRAINED, signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from rehome_consumer.operators.drain_parts import Order, Pool
    from rehome_consumer.operators.drain_plan import Entry
    from rehome_consumer.ports.operators import ClaimHolder, MigrationView
    from rehome_consumer.ports.steps import Clock
    from rehome_events.billing import PlanUpgraded
    from rehome_events.envelope import CloudEvent

    Publish = Callable[[CloudEvent[PlanUpgraded]], Awaitable[None]]
    Say = Callable[[UUID | None, str], None]

EVERY: Final = 5.0
"""Seconds between two looks."""
LONG: Final = timedelta(minutes=2)
"""How long a step may wait before it is said for what."""
PATIENCE: Final = timedelta(minutes=10)
"""How long servers may not answer before the drain ends."""
NOTED_WITHIN: Final = 5
"""Seconds in which the last ones published are still noted in their histories when the drain is stopped."""


class Drain:
    """One run of a drain."""

    def __init__(
        self,
        pool: Pool,
        order: Order,
        *,
        publish: Publish,
        say: Say,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]],
        stop: asyncio.Event,
    ) -> None:
        """Take what it works on.

        Args:
            pool: the pool, and the journal.
            order: what was ordered.
            publish: publishes an upgrade, and waits for the broker's confirm.
            say: tells operators something, about an instance or (None) about the drain.
            clock: the time.
            sleep: waits so many seconds, or until `stop` is set.
            stop: set by whoever wants the publishing to end.
        """
        self._pool = pool
        self._order = order
        self._publish_event = publish
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._stop = stop
        self._followed: dict[UUID, Followed] = {}
        self._meant: set[UUID] = set()
        self._said: dict[object, str] = {}
        self._entries: list[Entry] = []
        self._began: datetime | None = None
        self._silent_since: datetime | None = None
        self._gave_up = False

    async def run(self) -> None:
        """Publish, and follow what was published, until all of it is over, waits for an operator, or `stop` is set.

        Raises:
            Transient: a server has not answered for PATIENCE.
            RehomeError: the broker refuses the upgrades, or a server says no.
        """
        while not self._stop.is_set():
            try:
                if await self._round():
                    return
                if self._silent_since is not None:
                    self._silent_since = None
                    self._said.pop("waits", None)
            except Transient as error:
                self._bear(error)
            await self._sleep(EVERY)
        await self._note_last()

    @property
    def summary(self) -> Summary:
        """What became of it, as far as it was seen."""
        candidates = self._candidates()
        left_out = [one for one in self._entries if one.verdict == "left_out"]
        return Summary(list(self._followed.values()), candidates, left_out, self._gave_up)

    async def _round(self) -> bool:
        """Look, tell, and publish one if it may be; whether there is nothing left to wait for."""
        self._entries, moves = await self._pool.look()
        await self._follow(moves)
        self._gave_up |= self._bad >= self._order.failures
        entry = next(iter(self._candidates()), None)
        under_way = sum(one.counts for one in self._followed.values())
        if entry is None or self._gave_up:
            if self._gave_up:
                self._once(
                    "waits", "gave up", f"{self._order.failures} did not complete: nothing more is begun"
                )
            if under_way:
                self._once(
                    "waits for the end", "", f"nothing more to publish: waits for {under_way} under way"
                )
            return not under_way
        held_up = await self._held_up(under_way)
        if held_up is not None:
            self._once("waits", *held_up)
        elif not self._stop.is_set():
            await self._publish(entry)
        return False

    async def _held_up(self, under_way: int) -> tuple[str, str] | None:
        """What must pass before the next one is published: a word for it, and a sentence."""
        pause = await self._pool.views.paused()
        if pause is not None:
            return "paused", f"rehome is {pause}; nothing is published until `rehome resume`"
        if under_way >= self._order.at_once:
            return "at once", f"waits for an end: {under_way} under way (--at-once {self._order.at_once})"
        active = await self._pool.inspector.active_sessions(self._pool.server)
        if active > self._order.busy:
            name, most = self._pool.server.name, self._order.busy
            return "busy", f"waits for fewer active sessions on {name} than {active} (--busy {most})"
        return None

    async def _publish(self, entry: Entry) -> None:
        instance, views = entry.instance, self._pool.views
        newest: list[MigrationView] = []
        with suppress(NotFound):  # no consumer ever ran
            newest = await views.migrations(instance.id, 1)
        if newest and not newest[0].ended:
            return  # opened since the look; the next one finds it
        now = self._clock.now()
        event = self._order.wanted.event(entry.resident, newest[0].id if newest else None, now)
        migration_id = opened_by(event.id)
        self._meant.add(migration_id)
        await self._publish_event(event)
        self._followed[migration_id] = Followed(migration_id, instance.id, now, ours=True, event_id=event.id)
        size = f"{entry.bytes / 1_000_000:.0f} MB" if entry.bytes is not None else "size unknown"
        self._say(
            instance.id,
            f"published: {instance.name}, {size}, to {self._order.wanted.to_plan}; {migration_id}",
        )

    def _candidates(self) -> list[Entry]:
        tried = {one.instance_id for one in self._followed.values() if one.ours}
        return [one for one in self._entries if one.verdict == "moves" and one.instance.id not in tried]

    @property
    def _bad(self) -> int:
        """How many did not complete."""
        return sum(one.state in {"failed", *UNDONE} and not one.old for one in self._followed.values())

    async def _follow(self, moves: Iterable[MigrationView]) -> None:
        """Tell what has become of those under way."""
        now = self._clock.now()
        views = {one.id: one for one in moves}
        for view in views.values():
            if view.ended:
                continue
            if view.id in self._followed:
                self._followed[view.id].told = False  # where it was over, and somebody has replayed it
                continue
            old = self._began is None and view.state == "failed"
            ours = view.id in self._meant
            self._followed[view.id] = Followed(view.id, view.instance_id, now, ours=ours, old=old)
        self._began = self._began or now
        waited_for = [one for one in self._followed.values() if not one.told]
        gone = {one.id for one in waited_for} - views.keys()
        with suppress(NotFound):  # no consumer ever ran
            views |= {one.id: one for one in await self._pool.views.by_ids(gone)}
        holders = (
            await self._pool.views.holders({one.instance_id for one in waited_for}) if waited_for else {}
        )
        for one in waited_for:
            if one.id not in views and one.waits_behind:
                one.told = True  # it was discarded: nothing will become of it
                self._say(one.instance_id, "its upgrade waited behind another one, and is gone")
                continue
            one.view = views.get(one.id, one.view)
            await self._note(one)
            await self._tell(one, holders.get(one.instance_id), now)

    async def _note(self, one: Followed) -> None:
        """Write into its history who has asked for it, as soon as it has one."""
        if not one.ours or one.noted or one.view is None or one.waits_behind:
            return
        what = f"drain of {self._pool.server.name}"
        detail = signed(self._order.by, self._order.why, what)
        await self._pool.views.add_to_history(one.id, DRAINED, detail)
        one.noted = True

    async def _note_last(self) -> None:
        """When the drain is stopped: note those just published, if a consumer takes them within seconds."""
        for _ in range(NOTED_WITHIN):
            unnoted = {one.id for one in self._followed.values() if one.ours and not one.noted}
            if not unnoted:
                return
            with suppress(NotFound, Transient):
                for view in await self._pool.views.by_ids(unnoted):
                    self._followed[view.id].view = view
                    await self._note(self._followed[view.id])
            await asyncio.sleep(1)

    async def _tell(self, one: Followed, holder: ClaimHolder | None, now: datetime) -> None:
        view = one.view
        if view is None:
            if now - one.since > GRACE:
                if one.event_id and await self._pool.views.discarded([str(one.event_id)]):
                    self._say(one.instance_id, "its upgrade was discarded, and no consumer had taken it")
                    one.told = one.discarded = True
                    return
                text = f"no consumer has taken its upgrade for {age(one.since, now=now)}: is one running?"
                self._once((one.id, "needs"), "untaken", text, one.instance_id)
            return
        if view.ended:
            self._say(one.instance_id, await self._end(view))
            one.told = True
            return
        need = attention(view, holder, now=now)
        if need is None:
            self._said.pop((one.id, "needs"), None)
        else:
            self._once((one.id, "needs"), view.state, f"needs an operator: {need}", one.instance_id)
        since = view.started_at or view.created_at
        if view.step_state == "waiting" and view.state != "failed" and view.error and now - since > LONG:
            self._once((one.id, "waits"), view.error, f"{view.step} waits: {view.error}", one.instance_id)

    async def _end(self, view: MigrationView) -> str:
        if view.state != "completed":
            return f"{view.state.replace('_', ' ')}: {view.reason or 'no reason is recorded'}"
        took = age(view.created_at, now=view.ended_at)
        facts = await self._pool.views.facts(view.id, view.attempt)
        down = downtime(facts.get(STOPPED_AT), facts.get(HEALTHY_AT))
        return f"completed in {took}" + ("" if down is None else f", down for {down:.1f} s")

    def _bear(self, error: Transient) -> None:
        now = self._clock.now()
        self._silent_since = self._silent_since or now
        if now - self._silent_since > PATIENCE:
            raise error
        self._once("waits", "no answer", f"waits, for {age(now - PATIENCE, now=now)} at most: {error}")

    def _once(self, subject: object, kind: str, text: str, instance: UUID | None = None) -> None:
        """Say it, unless the same kind of thing was the last that was said on this subject."""
        if self._said.get(subject) != kind:
            self._said[subject] = kind
            self._say(instance, text)
