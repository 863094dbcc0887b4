"""An upgrade that keeps the kind of database: CPU, memory and storage are applied, nothing is moved."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rehome_consumer.facts import LIMITS_BEFORE_RESIZE, TASKS_BEFORE_RESIZE
from rehome_events.migration import InstanceResized

if TYPE_CHECKING:
    from rehome_consumer.model import Instance
    from rehome_consumer.move import Move
    from rehome_events.parts import Limits

log = logging.getLogger(__name__)


async def run(move: Move, instance: Instance, limits: Limits) -> InstanceResized:
    """Apply the limits to the running service, then write them into the platform's record.

    Raises:
        Incompatible, Transient: no task could run with them; the service was not touched.
    """
    service = await move.runtime.find(instance)
    held = service.limits.model_copy(update={"storage_limit": instance.limits.storage_limit})
    before = await move.facts.remember(LIMITS_BEFORE_RESIZE, held)
    tasks = await move.facts.remember(TASKS_BEFORE_RESIZE, tuple(task.id for task in service.running))
    for warning in await move.runtime.require_can_run(instance, limits):
        log.warning("resize.warning instance=%s warning=%s", instance.id, warning)
    warnings = await move.runtime.resize(instance, limits)
    after = await move.runtime.find(instance)
    await move.platform.set_limits(instance.id, limits, plan_tier=move.data.plan_tier)
    return InstanceResized(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        to_plan=move.data.to_plan,
        plan_tier=move.data.plan_tier,
        limits=limits,
        before=before,
        restarted=set(tasks) != {task.id for task in after.running},
        warnings=warnings,
    )


async def is_applied(move: Move, instance: Instance, limits: Limits) -> bool:
    """Whether record and service have these limits already (what the plan leaves open counts as applied)."""
    service = await move.runtime.find(instance)
    wanted = limits.model_dump(exclude_none=True)
    record = instance.limits.model_dump()
    held = {**wanted, **service.limits.model_dump(exclude_none=True)}
    return (
        instance.plan_tier == move.data.plan_tier
        and all(record[name] == value for name, value in wanted.items())
        and all(held[name] == value for name, value in wanted.items() if name != "storage_limit")
    )
