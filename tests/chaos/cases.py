"""The experiments: scenarios, and the boundaries that each passes undisturbed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rehome_consumer import saga
from sandbox.demo.faults import FAILING, OF_A_COLD_MOVE
from sandbox.system.net import wait_until
from tests.chaos.arena import PLAN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sandbox.platform.local import Site
    from tests.chaos.arena import Arena

END_SECONDS = 240.0
ROLLED_BACK_FROM = "start"
"""The last step that can be rolled back: every undo has something to undo."""
DEAD_LETTERED = """
    SELECT dead_lettered FROM rehome.steps s JOIN rehome.migrations m ON m.id = s.migration_id
    WHERE instance_id = $1 AND step = $2
"""
LONG_SECONDS = 0.12
"""A call that takes longer is also cut off in its middle."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens besides the kill.

    Attributes:
        name: for tables.
        ends: the event it must end with.
        fail: steps that fail for good.
        fixed: an operator fixes the cause of the failure, and replays the dead letter.
        refusals: calls of database-service that fail before one succeeds.
        upgrades: how many times billing publishes the upgrade.
        plan: the plan that is paid for.
        tier: the instance's tier before.
    """

    name: str
    ends: str
    fail: tuple[str, ...] = ()
    fixed: bool = False
    refusals: int = 0
    upgrades: int = 1
    plan: str = PLAN
    tier: str = "standard"

    async def make_site(self, arena: Arena) -> Site:
        """The customer."""
        return await arena.make_site(plan_tier=self.tier)

    @asynccontextmanager
    async def played(self, arena: Arena, site: Site) -> AsyncIterator[None]:
        """Publish, and play the operator where one is needed; the operator is done when the block ends."""
        arena.fail_database_service(self.refusals)
        for _ in range(self.upgrades):
            await arena.billing.upgrade(site.id, self.plan)
        async with asyncio.TaskGroup() as operators:
            if self.fixed:
                operators.create_task(self._fix(arena, site))
            yield

    async def _fix(self, arena: Arena, site: Site) -> None:
        """Once the last of the failing steps has a dead letter, fix the cause; then replay the dead letter."""
        step = self.fail[-1]

        async def dead_lettered() -> bool:
            async with arena.platform() as platform:
                return bool(await platform.fetchval(DEAD_LETTERED, site.id, step))

        await wait_until(dead_lettered, what=f"a dead letter of {step}", limit=END_SECONDS, pause=0.1)
        arena.orders.fix()
        await arena.rehome("dead", "replay", "--all", "--handler", step, "--instance", str(site.id))


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("moved", "migration.completed"),
        Scenario("rolled back", "migration.rolled_back", fail=(ROLLED_BACK_FROM,)),
        Scenario("retried", "migration.completed", refusals=1),
        Scenario("requested twice", "migration.completed", upgrades=2),
        Scenario("resized", "instance.resized", plan="standard-monthly", tier="basic"),
        *(
            Scenario(f"{step} fails", "migration.rolled_back", fail=(step,))
            for step in FAILING
            if step != ROLLED_BACK_FROM
        ),
        Scenario("accept fails", "migration.completed", fail=("accept",), fixed=True),
        Scenario("complete fails", "migration.completed", fail=("complete",), fixed=True),
        Scenario("rollback fails", "migration.rolled_back", fail=(ROLLED_BACK_FROM, "roll_back"), fixed=True),
    )
}
NOT_WARM: Final = frozenset(f"{step} fails" for step in OF_A_COLD_MOVE)
"""Scenarios that a warm move does not meet."""


@dataclass(frozen=True, slots=True)
class Case:
    """What to do to the consumer `later` seconds after its `nth` passage of `boundary`.

    Attributes:
        action: `kill` it (SIGKILL); `freeze` it (SIGSTOP), cut the connections of its claim and to the
            broker, and wake it when another has finished its work, without letting it notice the time;
            `pause` it, the same without cutting anything; `stop` it, the same between a check of its claim and
            the call after it, and let it notice as usual; or `cut` only the connection of its claim.
    """

    scenario: str
    boundary: str
    nth: int = 1
    later: float = 0.0
    action: str = "kill"

    @property
    def step(self) -> str:
        """The step that the boundary belongs to; for a publish the one that emits the event."""
        head, _, rest = self.boundary.partition(".")
        if head != "publish":
            return head
        published = rest.rpartition(".")[0]
        return next(
            (step.name for step in saga.MIGRATION if published in {event.TYPE for event in step.emits}),
            "(failure)",
        )

    @property
    def place(self) -> str:
        """The boundary without its step, and which passage."""
        place = self.boundary if self.boundary.startswith("publish.") else self.boundary.partition(".")[2]
        if self.later:
            place = place.removesuffix(".before") + ".during"
        return place if self.nth == 1 else f"{place} ({self.nth})"


async def record(arena: Arena, scenario: Scenario) -> list[Case]:
    """Play a scenario undisturbed; every boundary that it passes is a case, and the middle of long calls.

    Raises:
        LookupError: its move was to be warm, and was cold: then nothing of a warm move would be tested.
    """
    site = await scenario.make_site(arena)
    await arena.ensure_consumer(site)
    arena.orders.give(None, fail=scenario.fail)
    async with scenario.played(arena, site):
        await arena.subscriber.wait_for(scenario.ends, instance_id=site.id, limit=END_SECONDS)
        await arena.wait_until_quiet()
    _require_strategy(arena, site)
    cases: list[Case] = []
    started: dict[tuple[str, int], float] = {}
    passed: dict[str, int] = {}
    for at, _, boundary in arena.orders.passages():
        nth = passed[boundary] = passed.get(boundary, 0) + 1
        cases.append(Case(scenario.name, boundary, nth))
        call, _, edge = boundary.rpartition(".")
        if edge == "before":
            started[call, nth] = at
        elif edge == "after" and (took := at - started[call, nth]) > LONG_SECONDS:
            cases.append(Case(scenario.name, f"{call}.before", nth, round(took / 2, 3)))
    await arena.dead_letters()
    await arena.remove_site(site)
    return cases


def _require_strategy(arena: Arena, site: Site) -> None:
    if arena.settings.get("REHOME_STRATEGY") != "auto":
        return
    prepared = (one.data for one in arena.subscriber.events if one.type == "migration.prepared")
    if why := [
        one.strategy_reason for one in prepared if one.instance_id == site.id and one.strategy != "warm"
    ]:
        raise LookupError(f"an undisturbed move was cold: {why[0]}")
