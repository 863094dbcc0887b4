"""Eighth step: the record points to the dedicated server and the instance serves from it.

When this step is done the point of no return is passed: the customer's users write to the new database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.errors import NotFound, Refused
from consumer.fingerprint import differences
from consumer.steps.common import Event, instance_of, new_tenant, require_fence, server_noted, tenant
from events.migration import MigrationStarted
from events.parts import Limits

if TYPE_CHECKING:
    from consumer.model import Instance, Server
    from consumer.ports import Ports


async def run(event: Event, ports: Ports) -> MigrationStarted:
    """Flip the record, then start with the new limits (one update, one start) and wait until it serves."""
    instance = await instance_of(event, ports)
    target = await server_noted(ports, "target")
    await require_fence(ports, instance, await server_noted(ports, "source"))
    limits = Limits(**(await ports.notes.recall("limits") or {}))
    await ports.platform.flip(
        instance.id,
        target,
        db_user=(await new_tenant(ports, instance)).user,
        plan_tier=str(await ports.notes.recall("plan_tier")),
        limits=limits,
    )
    await ports.notes.remember("starting", value=True)
    replicas = int(await ports.notes.recall("replicas") or 0)
    healthy = await ports.runtime.start(instance, max(replicas, 1), limits)
    await ports.platform.set_service(
        instance.id,
        service_id=healthy.service_id,
        internal_url=healthy.internal_url,
        external_url=healthy.external_url,
    )
    healthy_at = await ports.notes.remember("healthy_at", healthy.at.isoformat())
    return MigrationStarted(
        instance_id=instance.id, target=target.ref, url=healthy.url, healthy_at=healthy_at, limits=limits
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Stop the instance, make sure that nothing was written to the new database, put the record back.

    Raises:
        Refused: users have written to the new database. Going back would lose that, so a person decides.
    """
    instance = await instance_of(event, ports)
    record = await ports.notes.recall("record")
    if record is not None:
        await ports.runtime.stop(instance)
    if await ports.notes.recall("starting"):
        await _nothing_written(ports, instance, await server_noted(ports, "target"))
    if record is not None:
        await ports.platform.put_back(instance.id, {**record, "status": "maintenance"})
    return ()


async def _nothing_written(ports: Ports, instance: Instance, target: Server) -> None:
    """Compare the new database with the source: it was equal when the instance was let in."""
    source = await server_noted(ports, "source")
    new_role = (await new_tenant(ports, instance)).user
    await ports.databases.close_role(target, new_role)
    try:
        after = await ports.verifier.fingerprint(target, instance.database, new_role)
    except NotFound:
        return  # dropped by an earlier run of this rollback, after the same look
    before = await ports.verifier.fingerprint(source, instance.database, (await tenant(ports, instance)).user)
    written = differences(before, after)
    if written:
        raise Refused(
            f"the instance wrote to its new database on {target.name} before it failed ({'; '.join(written[:5])}): "
            "going back would lose that. Mend the instance and replay the dead letter of step start, "
            "or decide by hand; the source is fenced and whole"
        )
