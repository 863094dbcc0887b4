"""Eighth step: the record points to the dedicated server and the instance serves from it.

When this step is done the point of no return is passed: the customer's users write to the new database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.facts import HEALTHY_AT, LIMITS, PLAN_TIER, PLATFORM_RECORD, REPLICAS
from rehome_consumer.model import TERMINATED
from rehome_consumer.steps.support import open_access
from rehome_consumer.steps.support.fences import require_fence
from rehome_consumer.steps.support.slots import DOWN
from rehome_events.migration import MigrationStarted
from rehome_events.parts import Limits

if TYPE_CHECKING:
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation


async def run(move: Move) -> MigrationStarted:
    """Point the record to the new server, start with the new limits (one update), wait until it serves."""
    instance = await move.active_instance()
    target = await move.target()
    await require_fence(move)
    await move.databases.end_sessions(target, move.migration_id)
    await open_access.run(move)  # a rollback that was given up has closed its role
    limits = await move.facts.recall(LIMITS) or Limits()
    await move.platform.point_record_to(
        instance.id,
        target,
        db_user=(await move.new_tenant()).user,
        plan_tier=await move.recorded(PLAN_TIER),
        limits=limits,
    )
    replicas = await move.facts.recall(REPLICAS) or 0
    beside = move.policy.cutover == "quick"
    healthy = await move.runtime.start(instance, max(replicas, 1), limits, beside=beside)
    await move.platform.set_service(
        instance.id,
        service_id=healthy.service_id,
        internal_url=healthy.internal_url,
        external_url=healthy.external_url,
    )
    healthy_at = await move.facts.remember(HEALTHY_AT, healthy.at)
    if move.policy.down_at_once is not None:
        await move.facts.release_slots((DOWN,))
    return MigrationStarted(
        instance_id=instance.id, target=target.ref, url=healthy.url, healthy_at=healthy_at, limits=limits
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (
        f"would point the record to {now.target_name} and start service {now.service}",
        now.conf_line(),
        now.source_line(),
        now.target_line(),
    )


async def undo(move: Move) -> tuple[str, ...]:
    """Stop the instance, make sure that nothing was written to the new database, restore the record.

    Raises:
        Refused: users have written to the new database. Going back would lose that, so a person decides.
    """
    await open_access.undo(move)
    record = await move.facts.recall(PLATFORM_RECORD)
    if record is not None:
        instance = await move.instance_now()  # the customer may have left while the databases were compared
        status = TERMINATED if instance.status == TERMINATED else "maintenance"
        await move.platform.restore_record(instance.id, {**record, "status": status})
    return ()


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    return (
        f"stop service {now.service}; go no further if someone wrote to the new database; "
        f"point the record back to {now.source_name}"
    )
