"""Third step: the instance is down for sure, and nobody but the administrator reaches its database."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from rehome_consumer.errors import Queued
from rehome_consumer.steps.support.common import (
    TERMINATED,
    Event,
    dump_slot,
    instance_of,
    migration_of,
    recall_fence,
    remember_fence,
    remember_spec,
    server_noted,
    tenant,
    wanted_instance,
)
from rehome_consumer.steps.support.identity import require_alone
from rehome_events.migration import MigrationStopped

if TYPE_CHECKING:
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationStopped:
    """Remember everything a rollback needs, then stop, then fence. Downtime begins here.

    Raises:
        Queued: enough other instances are down for a dump of this server; this one serves meanwhile.
    """
    instance = await wanted_instance(event, ports)
    source = await server_noted(ports, "source")
    if not await ports.facts.acquire_slot(dump_slot(source), ports.policy.dumps_per_server):
        raise Queued(
            f"{ports.policy.dumps_per_server} dumps of {source.name} are under way; waiting for a turn"
        )
    role = (await tenant(ports, instance)).user
    service = await ports.runtime.find(instance)
    replicas = await ports.facts.remember("replicas", service.replicas)
    await remember_spec(ports.facts, service.spec)
    await ports.facts.remember("record", await ports.platform.record(instance.id))
    before = await remember_fence(
        ports.facts, await ports.databases.fence_state(source, instance.database, role)
    )
    stopped_at = await ports.facts.remember("stopped_at", ports.clock.now().isoformat())
    await ports.platform.set_status(instance.id, "maintenance")
    await ports.runtime.stop(instance)
    await ports.databases.end_sessions(source, migration_of(event)[0])
    await ports.databases.fence(source, instance.database, role, ports.policy.fence_limit)
    # What it made elsewhere until now could act for it: from here on it makes nothing any more.
    require_alone(
        instance.database, await ports.databases.role_facts(source, role, instance.database), source
    )
    await ports.databases.database_facts(source, instance.database, role)  # nor anything that cannot be moved
    return MigrationStopped(
        instance_id=instance.id,
        replicas=replicas,
        stopped_at=datetime.fromisoformat(stopped_at),
        fenced_at=ports.clock.now(),
        connections_ended=before.ended,
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Unfence the source and start the instance on it again, as many replicas as before.

    Runs last of all undos but prepare's: by now nothing of the tenant is writable on the dedicated server.
    """
    before = await recall_fence(ports.facts)
    if before is None:
        return ()
    instance = await instance_of(event, ports)
    source = await server_noted(ports, "source")
    role = (await tenant(ports, instance)).user
    await ports.databases.end_sessions(source, migration_of(event)[0])  # a lost run of `run` may be at it
    await ports.databases.unfence(source, instance.database, role, before)
    record = await ports.facts.recall("record")
    replicas = int(await ports.facts.recall("replicas") or 0)
    if instance.status == TERMINATED:  # the customer has left: nobody starts it again
        replicas, record = 0, {**record, "status": TERMINATED} if record else None
    if replicas:
        healthy = await ports.runtime.start(instance, replicas, None)
        await ports.facts.remember("up_again_at", healthy.at.isoformat())
    if record:
        await ports.platform.restore_record(instance.id, record)
    return ()
