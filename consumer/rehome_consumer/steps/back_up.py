"""Fourth step: a complete, sealed backup of the fenced source."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rehome_consumer.facts import BACKUP_BYTES, BACKUP_MANIFEST_SHA256, SOURCE
from rehome_consumer.steps.support.common import (
    Event,
    backup_id,
    dump_slot,
    migration_of,
    require_fence,
    server_of,
    tenant,
    wanted_instance,
)
from rehome_events.migration import MigrationBackedUp

if TYPE_CHECKING:
    from rehome_consumer.model import Backup, Server
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationBackedUp:
    """Dump and count at the same time (the source stands still), then seal with a manifest."""
    instance = await wanted_instance(event, ports)
    source = await server_of(ports, SOURCE)
    await require_fence(ports, instance, source)
    name = backup_id(event)
    backup = await ports.copier.backup(name)
    if backup is None:
        await ports.databases.end_sessions(source, migration_of(event)[0])
        role = (await tenant(ports, instance)).user
        backup = await _back_up(ports, source, instance.database, role, name)
    await ports.facts.remember(BACKUP_BYTES, backup.bytes)
    await ports.facts.remember(BACKUP_MANIFEST_SHA256, backup.manifest_sha256)
    await ports.facts.release_slot(dump_slot(source))
    return MigrationBackedUp(
        instance_id=instance.id,
        backup_id=backup.id,
        place=str(backup.place),
        format="directory",
        bytes=backup.bytes,
        files=backup.files,
        manifest_sha256=backup.manifest_sha256,
        started_at=backup.started_at,
        ended_at=backup.ended_at,
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """The source is whole, so the backup of it is not needed."""
    await ports.copier.discard(backup_id(event))
    return ()


async def _back_up(ports: Ports, source: Server, database: str, role: str, name: str) -> Backup:
    facts = await ports.databases.server_facts(source)
    versions = {"server": str(facts.version), "client": str(await ports.copier.client_version())}
    async with asyncio.TaskGroup() as together:
        together.create_task(ports.copier.dump(source, database, role, name, ports.facts))
        counting = together.create_task(ports.verifier.row_counts(source, database, role))
    return await ports.copier.seal(name, counting.result(), versions)
