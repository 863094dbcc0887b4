"""A customer who leaves during the move: it is undone, the instance is not started again, the record stays."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig


def leave(rig: Rig) -> None:
    (row,) = rig.site.platform.instances.values()
    row["status"] = "terminated"


@pytest.mark.parametrize(
    "step", ["prepare", "stop", "back_up", "provision", "rewrite_conf", "restore", "start"]
)
async def test_a_move_of_a_terminated_instance_is_undone_and_the_instance_is_not_started(step: str) -> None:
    rig = Rig()
    event = rig.upgraded()
    instance = rig.instance(event)
    before = rig.site.snapshot(instance)
    rig.at[f"{step}.claimed"] = [lambda: leave(rig)]
    await rig.run()
    assert rig.row(event).state == "rolled_back"
    assert "was terminated during the migration" in rig.events("migration.failed")[0].data.message
    after = rig.site.snapshot(instance)
    assert after["record"] == {**before["record"], "status": "terminated"}
    never_stopped = step in {"prepare", "stop"}
    assert after["running"] == (before["running"] if never_stopped else 0)
    for part in ("files", "source", "login", "backups", "servers"):
        assert after[part] == before[part], part


async def test_a_rollback_passes_over_a_service_that_was_removed_with_the_customer() -> None:
    rig = Rig()
    event = rig.upgraded()

    def leave_with_the_service() -> None:
        leave(rig)
        rig.site.runtime.services.clear()

    rig.at["start.claimed"] = [leave_with_the_service]
    await rig.run()
    assert rig.row(event).state == "rolled_back"


async def test_a_termination_after_the_start_is_not_overwritten() -> None:
    rig = Rig()
    event = rig.upgraded()
    rig.at["complete.claimed"] = [lambda: leave(rig)]
    await rig.run()
    assert rig.row(event).state == "completed"
    (row,) = rig.site.platform.instances.values()
    assert row["status"] == "terminated"
