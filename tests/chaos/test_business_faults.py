"""Changes by billing and the platform at the wrong moment: they wait, or are rejected with a reason."""

import pytest

from tests.chaos.moving import END_SECONDS, Move, hold

STATUS = "UPDATE instances SET status = $2 WHERE id = $1"


async def set_status(move: Move, status: str) -> None:
    async with move.arena.platform() as platform:
        await platform.execute(STATUS, move.site.id, status)


@pytest.mark.representative
async def test_an_upgrade_waits_while_another_service_maintains_the_instance(move: Move) -> None:
    await move.begin(publish=False)
    await set_status(move, "maintenance")
    await move.publish()
    await move.until_recorded("another process is at work on it")
    await set_status(move, "running")
    await move.must_end("migration.completed")


@pytest.mark.parametrize(
    "where", [pytest.param("back_up.claimed", marks=pytest.mark.representative), "start.claimed"]
)
async def test_an_instance_terminated_during_the_move_is_not_started_again(where: str, move: Move) -> None:
    await move.begin(order=hold(where))
    await move.until_reached()
    await set_status(move, "terminated")
    move.release()
    assert "was terminated during the migration" in await move.failure()
    await move.arena.subscriber.wait_for("migration.rolled_back", instance_id=move.site.id, limit=END_SECONDS)
    await move.arena.wait_until_quiet()
    service = await move.arena.local.supervisor.show(move.site.service)
    assert service["spec"]["replicas"] == 0
    assert (await move.arena.local.platform.fetch_instance(move.site.id))["status"] == "terminated"
    # when the platform sets it to running again, the instance serves from the complete source
    await set_status(move, "running")
    await move.arena.local.supervisor.change(move.site.service, replicas=1)
    await move.arena.local.wait_until_serving(move.site)
    await move.must_end("migration.rolled_back")


async def test_a_downgrade_during_the_move_waits_for_its_end_and_is_rejected(move: Move) -> None:
    await move.begin(order=hold("back_up.claimed"))
    await move.until_reached()
    await move.arena.billing.upgrade(move.site.id, "standard-monthly")
    move.release()
    subscriber = move.arena.subscriber
    await subscriber.wait_for("migration.completed", instance_id=move.site.id, limit=END_SECONDS)
    rejected = await subscriber.wait_for("migration.rejected", instance_id=move.site.id, limit=END_SECONDS)
    assert rejected.data.reason == "move_to_shared"
    assert subscriber.types(move.site.id)[-2:] == ["migration.completed", "migration.rejected"]
    record = await move.arena.local.platform.fetch_instance(move.site.id)
    assert (record["db_type"], record["plan_tier"], record["status"]) == ("dedicated", "premium", "running")


async def test_an_upgrade_of_a_dedicated_instance_moves_nothing(move: Move) -> None:
    await move.begin()
    await move.must_end("migration.completed")
    before = move.arena.subscriber.types(move.site.id)
    await move.publish()
    await move.until_recorded("on the dedicated server")
    await move.arena.wait_until_quiet()
    assert move.arena.subscriber.types(move.site.id) == before
