"""One experiment: a migration whose consumer is killed at one boundary, once, and replaced."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer import saga
from sandbox.chaos import Order
from sandbox.database_service import Switches
from sandbox.writers import Writers
from tests.chaos.arena import PLAN
from tests.chaos.invariants import Before, breaches, repeats
from tests.chaos.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.local import Site
    from tests.chaos.arena import Arena, Consumer

END_SECONDS = 90.0
LONG_SECONDS = 0.12
"""A call that takes longer is also cut off in its middle."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens besides the kill.

    Attributes:
        name: shown in tables.
        ends: the event it must end with.
        fail: a step that fails for good.
        refusals: calls of database-service that fail before one succeeds.
        upgrades: how many times billing publishes the upgrade.
        plan: the plan that is paid for.
        tier: the instance's tier before.
    """

    name: str
    ends: str
    fail: str | None = None
    refusals: int = 0
    upgrades: int = 1
    plan: str = PLAN
    tier: str = "standard"

    async def make_site(self, arena: Arena) -> Site:
        """The customer."""
        return await arena.make_site(plan_tier=self.tier)

    async def begin(self, arena: Arena, site: Site) -> None:
        """Publish."""
        arena.local.database_service.switches = Switches(fail_times=self.refusals, fail_status=503)
        for _ in range(self.upgrades):
            await arena.billing.upgrade(site.id, self.plan)


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("moved", "migration.completed"),
        Scenario("rolled back", "migration.rolled_back", fail="start"),
        Scenario("retried", "migration.completed", refusals=1),
        Scenario("asked twice", "migration.completed", upgrades=2),
        Scenario("resized", "instance.resized", plan="standard-monthly", tier="basic"),
    )
}


@dataclass(frozen=True, slots=True)
class Case:
    """Where to kill: `later` seconds after the `nth` passage of `boundary`."""

    scenario: str
    boundary: str
    nth: int = 1
    later: float = 0.0

    @property
    def step(self) -> str:
        """The step that is hit; for a publish the one that told the event."""
        head, _, rest = self.boundary.partition(".")
        if head != "publish":
            return head
        told = rest.rpartition(".")[0]
        return next(
            (step.name for step in saga.MIGRATION if told in {event.TYPE for event in step.tells}),
            "(failure)",
        )

    @property
    def place(self) -> str:
        """The boundary without its step, and which passage."""
        place = self.boundary if self.boundary.startswith("publish.") else self.boundary.partition(".")[2]
        if self.later:
            place = place.removesuffix(".before") + ".during"
        return place if self.nth == 1 else f"{place} ({self.nth})"


@dataclass
class Result:
    """What became of it.

    Attributes:
        outcome: the last event, or `not reached`.
        seconds: from the consumer's death to the next event, or to rest if none was to come.
        repeats: copies of events that a subscriber got more than once.
        breaches: what did not hold.
    """

    case: Case
    outcome: str
    seconds: float = 0.0
    repeats: int = 0
    looks: int = 0
    breaches: list[str] = field(default_factory=list)


async def record(arena: Arena, scenario: Scenario) -> list[Case]:
    """Play a scenario undisturbed; every boundary that it passes is a case, and the middle of long calls."""
    site = await scenario.make_site(arena)
    await arena.ensure_consumer()
    arena.orders.give(None, fail=scenario.fail)
    await scenario.begin(arena, site)
    await arena.subscriber.wait_for(scenario.ends, instance_id=site.id, limit=END_SECONDS)
    await arena.wait_until_quiet()
    cases: list[Case] = []
    begun: dict[tuple[str, int], float] = {}
    passed: dict[str, int] = {}
    for at, _, boundary in arena.orders.passages():
        nth = passed[boundary] = passed.get(boundary, 0) + 1
        cases.append(Case(scenario.name, boundary, nth))
        call, _, edge = boundary.rpartition(".")
        if edge == "before":
            begun[call, nth] = at
        elif edge == "after" and (took := at - begun[call, nth]) > LONG_SECONDS:
            cases.append(Case(scenario.name, f"{call}.before", nth, round(took / 2, 3)))
    await arena.letters()
    await arena.remove_site(site)
    return cases


async def play(arena: Arena, case: Case, site: Site) -> Result:
    """Kill there, replace the consumer, wait for the end and for rest, and look whether everything holds."""
    scenario = SCENARIOS[case.scenario]
    victim = await arena.ensure_consumer()
    logged = arena.log.stat().st_size
    before = await Before.of(arena, site)
    arena.orders.give(Order("kill", case.boundary, case.nth, case.later), fail=scenario.fail)
    async with Watch(arena, site) as watch, Writers(site.url) as writers:
        await writers.wait_acknowledged(2)
        await scenario.begin(arena, site)
        if not await _died(arena, scenario, site, victim):
            return Result(case, "not reached")
        died = time.monotonic()
        await arena.start_consumer()
        last = await arena.subscriber.wait_for(scenario.ends, instance_id=site.id, limit=END_SECONDS)
        await arena.wait_until_quiet()
        rested = time.monotonic()
        await writers.wait_acknowledged(2)
    return Result(
        case,
        last.type,
        _next_news(arena, site, died, rested) - died,
        repeats(arena, site),
        watch.looks,
        await breaches(arena, site, before, watch, writers, logged=logged),
    )


async def _died(arena: Arena, scenario: Scenario, site: Site, victim: Consumer) -> bool:
    """Whether the consumer ends by the order; False when everything came to its end before."""
    ending = asyncio.ensure_future(victim.child.process.wait())

    async def over() -> None:
        await arena.subscriber.wait_for(scenario.ends, instance_id=site.id, limit=END_SECONDS)
        await arena.wait_until_quiet()

    finishing = asyncio.ensure_future(over())
    await asyncio.wait((ending, finishing), return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        finishing.cancel()
        await asyncio.gather(finishing, return_exceptions=True)
        return True
    ending.cancel()
    arena.orders.give(None)
    await finishing
    return False


def _next_news(arena: Arena, site: Site, died: float, rested: float) -> float:
    """When the first event arrived that nobody had seen before the death."""
    about = [(at, event.id) for at, event in arena.arrivals if event.subject == str(site.id)]
    known = {event_id for at, event_id in about if at <= died}
    return min((at for at, event_id in about if event_id not in known), default=rested)
