"""Eighth step: the record points to the dedicated server and the instance serves from it.

When this step is done the point of no return is passed: the customer's users write to the new database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehome_consumer.steps.support import open_access
from rehome_consumer.steps.support.common import (
    TERMINATED,
    Event,
    instance_of,
    migration_of,
    new_tenant,
    require_fence,
    server_noted,
    wanted_instance,
)
from rehome_events.migration import MigrationStarted
from rehome_events.parts import Limits

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationStarted:
    """Flip the record, then start with the new limits (one update, one start) and wait until it serves."""
    instance = await wanted_instance(event, ports)
    target = await server_noted(ports, "target")
    await require_fence(ports, instance, await server_noted(ports, "source"))
    await ports.databases.end_sessions(target, migration_of(event)[0])
    await open_access.run(event, ports, instance, target)  # a rollback that was given up has closed its role
    limits = Limits(**(await ports.facts.recall("limits") or {}))
    await ports.platform.point_record_to(
        instance.id,
        target,
        db_user=(await new_tenant(ports, instance)).user,
        plan_tier=str(await ports.facts.recall("plan_tier")),
        limits=limits,
    )
    replicas = int(await ports.facts.recall("replicas") or 0)
    healthy = await ports.runtime.start(instance, max(replicas, 1), limits)
    await ports.platform.set_service(
        instance.id,
        service_id=healthy.service_id,
        internal_url=healthy.internal_url,
        external_url=healthy.external_url,
    )
    healthy_at = await ports.facts.remember("healthy_at", healthy.at.isoformat())
    return MigrationStarted(
        instance_id=instance.id, target=target.ref, url=healthy.url, healthy_at=healthy_at, limits=limits
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Stop the instance, make sure that nothing was written to the new database, put the record back.

    Raises:
        Refused: users have written to the new database. Going back would lose that, so a person decides.
    """
    instance = await instance_of(event, ports)
    await open_access.undo(event, ports)
    record = await ports.facts.recall("record")
    if record is not None:
        status = TERMINATED if instance.status == TERMINATED else "maintenance"
        await ports.platform.restore_record(instance.id, {**record, "status": status})
    return ()
