"""A consumer that lacks something: its deliveries wait, and no customer's upgrade ends because of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rehome_consumer import saga
from rehome_consumer.errors import Incompatible, NotReady
from rehome_consumer.ports.readiness import EVERYTHING, Cause
from rehome_events.migration import MigrationCompleted, MigrationFailed, MigrationRolledBack
from tests.support.events import migration_of
from tests.support.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from rehome_consumer.ports.engine import StepRow
    from rehome_consumer.ports.readiness import Part

USED: dict[str, set[Part]] = {
    "copier": {"client_programs", "backup_place"},
    "filestore": {"backup_place", "data_root"},
    "odoo_conf": {"data_root"},
    "runtime": {"runtime"},
    "database_service": {"database_service"},
    "platform": {"platform"},
}
NOT_WAITED_FOR = {
    ("roll_back", "copier"),  # a backup that cannot be removed is reported
    ("roll_back", "database_service"),  # a server that cannot be given back is reported
}


class World:
    """Port `Readiness` of a consumer that looks at the fakes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.seen: tuple[Cause, ...] = ()
        self.overdue = False

    async def causes(self, needs: Collection[Part], *, max_age: float | None = None) -> tuple[Cause, ...]:
        if max_age is not None:
            self.seen = await self._look()
        return tuple(cause for cause in self.seen if cause.part in needs)

    def is_overdue(self, needs: Collection[Part]) -> bool:
        return self.overdue and any(cause.part in needs for cause in self.seen)

    async def _look(self) -> tuple[Cause, ...]:
        site, found = self.rig.site, []
        if site.world.client is None:
            found.append(Cause("client_programs", "there is no vacuumdb"))
        if not site.runtime.reachable:
            found.append(Cause("runtime", "it does not answer"))
        return tuple(found)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def world(rig: Rig) -> World:
    made = World(rig)
    rig.engine = rig.new_engine(readiness=made)
    return made


def row(rig: Rig, migration: UUID, step: str) -> StepRow | None:
    return rig.journal.steps.get((migration, 1, step))


async def test_a_step_is_not_started_on_a_consumer_that_lacks_something(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    rig.site.world.client = None
    # nothing is stopped that could not go on
    await rig.handle_next("stop")
    assert row(rig, migration_of(event), "stop") is None
    assert rig.site.runtime.services[rig.site.instance(rig.instance(event)).service].running
    rig.site.world.client = 15
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_a_program_that_is_removed_in_mid_move_costs_no_try_and_the_move_goes_on_afterwards(
    rig: Rig, world: World
) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    rig.site.world.client = None
    for _ in range(20):
        await rig.handle_next("back_up")
        rig.node.pass_delays()
    found = row(rig, migration_of(event), "back_up")
    assert found is not None
    assert (found.state, found.tries, found.deaths) == ("waiting", 0, 0)
    assert "this consumer is not ready: client_programs: there is no vacuumdb" in (found.error or "")
    assert MigrationFailed.TYPE not in rig.published()
    rig.site.world.client = 15
    world.seen = ()
    await rig.run()
    assert rig.published()[-1] == MigrationCompleted.TYPE


async def test_any_failure_of_a_step_is_blamed_on_the_consumer_while_it_lacks_what_the_step_needs(
    rig: Rig, world: World
) -> None:
    event = rig.upgraded()
    await rig.run(until="restore")
    calls = rig.site.world

    def gets_lost() -> None:
        calls.client = None
        raise Incompatible("vacuumdb: error while loading shared libraries")

    rig.at["restore.copier.restore.before"] = [gets_lost]
    await rig.handle_next("restore")
    found = row(rig, migration_of(event), "restore")
    assert found is not None
    assert (found.state, found.tries) == ("waiting", 0)
    assert "(the step ended with: vacuumdb: error while loading" in (found.error or "")


async def test_a_failure_is_not_blamed_on_a_part_that_the_step_does_not_need(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="provision")
    rig.site.world.client = None
    rig.fail("provision.databases.make_role.before", Incompatible("no such role"))
    await rig.handle_next("provision")
    found = row(rig, migration_of(event), "provision")
    assert found is not None
    assert found.state == "failed"


async def test_what_a_consumer_only_says_it_lacks_is_an_error_that_passes(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    rig.fail("back_up.copier.dump.before", NotReady("there was no pg_dump a moment ago"))
    await rig.handle_next("back_up")
    found = row(rig, migration_of(event), "back_up")
    assert found is not None
    assert (found.state, found.tries) == ("waiting", 1)
    await rig.run()
    assert rig.row(event).state == "completed"


async def test_after_too_long_a_customer_who_is_down_is_rolled_back(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    rig.site.world.client = None
    await world.causes(EVERYTHING, max_age=0)
    world.overdue = True
    await rig.run()
    assert rig.published()[-2:] == [MigrationFailed.TYPE, MigrationRolledBack.TYPE]
    assert rig.site.runtime.services[rig.site.instance(rig.instance(event)).service].running


async def test_a_customer_who_is_up_waits_for_ever(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="stop")
    rig.site.world.client = None
    world.overdue = True
    for _ in range(20):
        await rig.handle_next("stop")
        rig.node.pass_delays()
    assert rig.row(event).state == "prepared"
    assert row(rig, migration_of(event), "stop") is None


async def test_nobody_is_rolled_back_while_that_is_impossible_too(rig: Rig, world: World) -> None:
    event = rig.upgraded()
    await rig.run(until="back_up")
    rig.site.world.client = None
    rig.site.runtime.reachable = False
    await world.causes(EVERYTHING, max_age=0)
    world.overdue = True
    for _ in range(5):
        await rig.handle_next("back_up")
        rig.node.pass_delays()
    assert rig.row(event).state == "stopped"


async def test_a_rollback_does_not_wait_for_the_backup_place(rig: Rig) -> None:
    event = rig.upgraded()
    await rig.run(until="provision")
    rig.fail("provision.databases.make_role.before", Incompatible("no such role"))
    rig.site.world.free = None
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    (leftover,) = rig.events(MigrationRolledBack.TYPE)[-1].data.leftovers
    assert "could not be removed: the backup place" in leftover


async def test_a_step_needs_what_it_uses(rig: Rig) -> None:
    rig.upgraded("acme")
    await rig.run()
    rig.upgraded("brie")
    rig.fail("start.runtime.start.before", Incompatible("no room"))
    await rig.run()
    used: dict[str, set[Part]] = {step.name: set() for step in saga.MIGRATION}
    for boundary in rig.seen:
        step, _, rest = boundary.partition(".")
        port = rest.partition(".")[0]
        if rest.endswith(".before") and port in USED and (step, port) not in NOT_WAITED_FOR:
            used[step] |= USED[port]
    assert used["restore"] >= {"client_programs"}
    lacking = {step.name: used[step.name] - step.needs for step in saga.MIGRATION}
    assert {name: parts for name, parts in lacking.items() if parts} == {}
