"""An upgrade that keeps the kind of database: CPU, memory and storage are applied, nothing is moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.facts import LIMITS_BEFORE_RESIZE, TASKS_BEFORE_RESIZE
from rehome_events.migration import InstanceResized

if TYPE_CHECKING:
    from rehome_consumer.model import Instance
    from rehome_consumer.ports.steps import Ports
    from rehome_consumer.steps.support.common import Event
    from rehome_events.parts import Limits


async def run(event: Event, ports: Ports, instance: Instance, limits: Limits) -> InstanceResized:
    """Apply the limits to the running service, then write them into the record."""
    service = await ports.runtime.find(instance)
    held = service.limits.model_copy(update={"storage_limit": instance.limits.storage_limit})
    before = await ports.facts.remember(LIMITS_BEFORE_RESIZE, held)
    tasks = await ports.facts.remember(TASKS_BEFORE_RESIZE, tuple(task.id for task in service.running))
    warnings = await ports.runtime.resize(instance, limits)
    after = await ports.runtime.find(instance)
    await ports.platform.set_limits(instance.id, limits, plan_tier=event.data.plan_tier)
    return InstanceResized(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        to_plan=event.data.to_plan,
        plan_tier=event.data.plan_tier,
        limits=limits,
        before=before,
        restarted=set(tasks) != {task.id for task in after.running},
        warnings=warnings,
    )


async def is_applied(ports: Ports, instance: Instance, limits: Limits, plan_tier: str) -> bool:
    """Whether record and service have these limits already (what the plan leaves open counts as applied)."""
    service = await ports.runtime.find(instance)
    wanted = limits.model_dump(exclude_none=True)
    record = instance.limits.model_dump()
    held = {**wanted, **service.limits.model_dump(exclude_none=True)}
    return (
        instance.plan_tier == plan_tier
        and all(record[name] == value for name, value in wanted.items())
        and all(held[name] == value for name, value in wanted.items() if name != "storage_limit")
    )
