"""Last step: proof that the instance uses the dedicated server and nothing uses the old one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rehome_consumer.errors import Conflict, Transient
from rehome_consumer.steps.support.common import (
    TERMINATED,
    Event,
    backup_id,
    instance_of,
    new_tenant,
    server_noted,
    tag_of,
    tenant,
)
from rehome_events.migration import MigrationCompleted

if TYPE_CHECKING:
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationCompleted:
    """Count connections on both sides, tidy up, close the record, tell the summary."""
    instance = await instance_of(event, ports)
    source = await server_noted(ports, "source")
    target = await server_noted(ports, "target")
    replicas = int(await ports.facts.recall("replicas") or 0)
    if not await ports.facts.recall("connections_checked"):
        await _check_connections(ports, instance, source, target)
        await ports.facts.remember("connections_checked", value=True)
    await ports.filestore.archive(instance, backup_id(event))
    if not replicas:  # the customer had it stopped before the move; it was up only to prove the new database
        await ports.runtime.stop(instance)
    await ports.odoo_conf.remove_backup(instance, tag_of(event))
    if instance.status != TERMINATED:  # the customer may have left since it was started
        await ports.platform.set_status(instance.id, "running" if replicas else "stopped")
    size = await ports.databases.database_size(target, instance.database)
    stopped_at = datetime.fromisoformat(await ports.facts.recall("stopped_at"))
    healthy_at = datetime.fromisoformat(await ports.facts.recall("healthy_at"))
    retained = await ports.facts.remember(
        "source_retained_until", (ports.clock.now() + ports.policy.retention).isoformat()
    )
    return MigrationCompleted(
        instance_id=instance.id,
        customer_id=instance.customer_id,
        plan_tier=str(await ports.facts.recall("plan_tier")),
        source=source.ref,
        target=target.ref,
        strategy="cold",
        downtime_seconds=(healthy_at - stopped_at).total_seconds(),
        seconds=dict(await ports.facts.seconds_per_step()),
        database_bytes=size,
        backup_bytes=int(await ports.facts.recall("backup_bytes") or 0),
        verification_digest=(await ports.facts.recall("verified"))["digest"],
        source_retained_until=datetime.fromisoformat(retained),
    )


async def _check_connections(ports: Ports, instance: Instance, source: Server, target: Server) -> None:
    """None on the source, at least one on the dedicated server.

    Raises:
        Conflict: somebody reaches the old database past the fence.
        Transient: the instance has not connected to the new one yet.
    """
    old_role = (await tenant(ports, instance)).user
    on_source = await ports.databases.connections(source, instance.database, old_role)
    if on_source:
        raise Conflict(
            f"{on_source} connection(s) to {instance.database} on {source.name}, which is fenced: who is it?"
        )
    new_role = (await new_tenant(ports, instance)).user
    if not await ports.databases.connections(target, instance.database, new_role):
        raise Transient(
            f"the instance answers, but has no connection to {instance.database} on {target.name} yet"
        )
