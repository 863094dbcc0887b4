"""Seventh step: the data goes to the dedicated server and is verified before anyone may use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rehome_consumer.errors import NotFound, NotOurs, Refused, VerificationFailed
from rehome_consumer.facts import BACKUP_MANIFEST_SHA256, SOURCE, TARGET, VERIFIED
from rehome_consumer.fingerprint import summary
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps import provision
from rehome_consumer.steps.support import open_access
from rehome_consumer.steps.support.common import (
    Event,
    backup_id,
    migration_of,
    new_tenant,
    recorded,
    require_fence,
    scratch_name,
    server_of,
    tenant,
    wanted_instance,
)
from rehome_consumer.steps.support.comparing import Side, differences
from rehome_events.migration import MigrationRestored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehome_consumer.model import DatabaseFacts, Instance, Server
    from rehome_consumer.ports.steps import Ports
    from rehome_events.parts import Verified

SHOWN = 10
"""Differences named in the error; the rest is counted."""


async def run(event: Event, ports: Ports) -> MigrationRestored:
    """Restore into the scratch database, compare with the fenced source, rename, let the role in."""
    instance = await wanted_instance(event, ports)
    target = await server_of(ports, TARGET)
    if not await _is_promoted(event, ports, instance, target):
        verified = await _restore_verified(event, ports, instance, target)
        await ports.facts.remember(VERIFIED, verified)
    await open_access.run(event, ports, instance, target)
    size = await ports.databases.database_size(target, instance.database)
    return MigrationRestored(
        instance_id=instance.id,
        target=target.ref,
        database=instance.database,
        database_bytes=size,
        verified=await recorded(ports, VERIFIED),
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Nobody uses the copy any more, and nothing was written to it (else refused: a person decides)."""
    return await open_access.undo(event, ports)


async def _is_promoted(event: Event, ports: Ports, instance: Instance, target: Server) -> bool:
    """Whether an earlier run got as far as the rename; a foreign database of that name is refused."""
    migration, attempt = migration_of(event)
    tag = await ports.databases.ownership_tag(target, instance.database)
    if tag is not None and tag != OwnershipTag(migration, attempt, "verified"):
        raise NotOurs(
            f"database {instance.database} on {target.name} belongs to migration {tag.migration_id} "
            f"attempt {tag.attempt}: look at it, then drop or rename it and replay"
        )
    return tag is not None


async def _restore_verified(event: Event, ports: Ports, instance: Instance, target: Server) -> Verified:
    """Restore afresh and compare; the source is read while the target is written."""
    source = await server_of(ports, SOURCE)
    backup = await ports.copier.backup(backup_id(event))
    if backup is None:
        raise NotFound(f"backup {backup_id(event)} is gone from the backup place")
    sealed = await ports.facts.recall(BACKUP_MANIFEST_SHA256)
    if sealed is not None and backup.manifest_sha256 != sealed:
        raise Refused(
            f"backup {backup.id}: its manifest is not the one that was sealed (SHA-256 {backup.manifest_sha256}, the "
            f"journal says {sealed}): somebody altered the backup place. Nothing is restored from it"
        )
    await require_fence(ports, instance, source)
    like = await provision.make(event, ports, instance, target)
    scratch = scratch_name(event, instance.database)
    old_role = (await tenant(ports, instance)).user
    new_role = (await new_tenant(ports, instance)).user
    async with asyncio.TaskGroup() as together:
        together.create_task(ports.copier.restore(target, scratch, backup, new_role, ports.facts))
        reading = together.create_task(ports.verifier.fingerprint(source, instance.database, old_role))
    before, after = reading.result(), await ports.verifier.fingerprint(target, scratch, new_role)
    found = await differences(
        ports.verifier,
        Side(source, instance.database, old_role, before),
        Side(target, scratch, new_role, after),
    )
    made = await ports.databases.database_facts(target, scratch, new_role)
    found += _privileges(like, made)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise VerificationFailed(
            f"the copy on {target.name} differs from {source.name}: {'; '.join(found[:SHOWN])}{more}"
        )
    return summary(before)


def _privileges(source: DatabaseFacts, target: DatabaseFacts) -> Iterator[str]:
    """Privileges on the database itself that are not the same: the source's as they were before the fence."""
    before, after = (
        {(grantee, privilege, grantable) for grantee, privilege, grantable in one.acl if grantee != one.owner}
        for one in (source, target)
    )
    for grantee, privilege, _ in sorted(before ^ after):
        where = (
            "missing on the target"
            if (grantee, privilege) in {one[:2] for one in before - after}
            else "only there"
        )
        yield f"privilege {privilege} on the database for {grantee or 'PUBLIC'}: {where}"
