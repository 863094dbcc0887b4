"""What a step is given: looked up once per run, and again by each undo."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rehome_consumer.errors import NotFound, Refused, RehomeError
from rehome_consumer.facts import HEALTHY_AT, SOURCE
from rehome_consumer.move import Move
from tests.support.events import upgrade
from tests.support.rig import Rig
from tests.support.steps import StepRig

if TYPE_CHECKING:
    from uuid import UUID


class Counting:
    """A port whose calls are counted."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.port, name)


async def test_instance_servers_and_logins_are_looked_up_once() -> None:
    rig = StepRig()
    await rig.until("back_up")
    move = await rig.move("back_up")
    platform, facts = Counting(move.platform), Counting(move.facts)
    move = Move(move.event, replace(move.ports, platform=platform, facts=facts))
    for _ in range(2):
        assert (await move.active_instance()).id == rig.instance
        assert (await move.source()).id == rig.site.pool.id
        assert (await move.target()).kind == "dedicated"
        assert (await move.tenant()).user == (await move.new_tenant()).user == "odoo_acme"
    assert platform.calls == {"instance": 1, "server": 2}
    once = facts.calls.copy()
    await move.new_tenant()
    await move.target()
    assert facts.calls == once


async def test_what_is_not_there_is_named() -> None:
    rig = StepRig()
    await rig.opened()
    move = await rig.move("accept")
    with pytest.raises(NotFound, match=r"the source server \(none was recorded\) is not in"):
        await move.source()
    with pytest.raises(RehomeError, match="the fact healthy_at"):
        await move.recorded(HEALTHY_AT)
    missing: UUID = rig.instance
    await move.facts.remember(SOURCE, missing)
    with pytest.raises(NotFound, match=f"the source server {missing} is not in"):
        await move.source()
    rig.site.platform.instances.clear()
    with pytest.raises(NotFound, match="no longer in the platform's table `instances`"):
        await move.instance()


async def test_only_an_instance_whose_customer_is_still_there_is_moved() -> None:
    rig = StepRig()
    await rig.opened()
    rig.record["status"] = "terminated"
    move = await rig.move("accept")
    assert (await move.instance()).status == "terminated"
    with pytest.raises(Refused, match="terminated during the migration"):
        await move.active_instance()


def test_an_event_without_a_migration_is_no_move() -> None:
    rig = StepRig()
    facts: Any = None
    with pytest.raises(RehomeError, match="without a migration"):
        Move(upgrade(rig.instance), rig.site.ports(facts))


def leave(rig: Rig) -> None:
    (row,) = rig.site.platform.instances.values()
    row["status"] = "terminated"


@pytest.mark.parametrize("boundary", ["databases.close_role.after", "verifier.fingerprint.after"])
async def test_an_instance_whose_customer_leaves_during_the_rollback_is_not_started(boundary: str) -> None:
    rig = Rig()
    event = rig.upgraded()
    rig.fail("start.runtime.start.before", Refused("no"))
    rig.at[f"roll_back.{boundary}"] = [lambda: leave(rig)]
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    after = rig.site.snapshot(rig.instance(event))
    assert (after["running"], after["record"]["status"]) == (0, "terminated")


async def test_an_instance_whose_customer_leaves_during_the_archive_stays_terminated() -> None:
    rig = Rig()
    event = rig.upgraded()
    rig.at["complete.filestore.archive.after"] = [lambda: leave(rig)]
    await rig.run()
    assert rig.row(event).state == "completed"
    assert rig.site.snapshot(rig.instance(event))["record"]["status"] == "terminated"
