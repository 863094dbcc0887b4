"""Fifth step: the tenant's role (without login) and an empty scratch database on the dedicated server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rehome_consumer.errors import NotFound, NotOurs, TimedOut, Unreachable
from rehome_consumer.facts import FENCE, SOURCE, TARGET
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps.support.common import (
    Event,
    instance_of,
    migration_of,
    new_tenant,
    scratch_name,
    server_of,
    tenant,
    wanted_instance,
)
from rehome_events.migration import MigrationProvisioned

if TYPE_CHECKING:
    from rehome_consumer.model import DatabaseFacts, Fence, Instance, Server
    from rehome_consumer.ports.steps import Ports


async def run(event: Event, ports: Ports) -> MigrationProvisioned:
    """Role and scratch database; an instance restarted by somebody else finds nothing to connect to."""
    instance = await wanted_instance(event, ports)
    target = await server_of(ports, TARGET)
    facts = await make(event, ports, instance, target)
    return MigrationProvisioned(
        instance_id=instance.id,
        target=target.ref,
        scratch_database=scratch_name(event, instance.database),
        role=(await new_tenant(ports, instance)).user,
        encoding=facts.encoding,
        collation=facts.collation,
        ctype=facts.ctype,
    )


async def make(event: Event, ports: Ports, instance: Instance, target: Server) -> DatabaseFacts:
    """Make the role and an empty scratch database; a half filled one of this migration is replaced."""
    migration, attempt = migration_of(event)
    source = await server_of(ports, SOURCE)
    credentials = await new_tenant(ports, instance)
    facts = await unfenced_facts(ports, instance, source)
    await ports.databases.end_sessions(target, migration)
    await ports.databases.make_role(target, credentials, facts.grantees)
    await ports.databases.make_scratch(
        target,
        scratch_name(event, instance.database),
        facts,
        credentials.user,
        OwnershipTag(migration, attempt, "scratch"),
    )
    return facts


async def unfenced_facts(ports: Ports, instance: Instance, source: Server) -> DatabaseFacts:
    """The source's facts as they were before the fence, whose doors are not the copy's."""
    user = (await tenant(ports, instance)).user
    facts = await ports.databases.database_facts(source, instance.database, user)
    before = await ports.facts.recall(FENCE)
    return as_before(before, facts, user)


def as_before(before: Fence | None, facts: DatabaseFacts, user: str) -> DatabaseFacts:
    """A fenced database's facts with the doors of before; everything that was its owner's is the tenant's."""
    if before is None or not before.owner:
        return replace(facts, owner=user)
    owners = {before.owner, user}
    others = {grant.grantee for grant in before.grants or ()} - owners - {""}
    return replace(
        facts,
        owner=user,
        connection_limit=before.connection_limit,
        grantees=tuple(sorted({*facts.grantees, *others})),
        acl=tuple(
            (user if one.grantee in owners else one.grantee, one.privilege, one.grantable)
            for one in before.grants or ()
        ),
    )


async def undo(event: Event, ports: Ports) -> tuple[str, ...]:
    """Nothing of the tenant stays on the dedicated server: no login, no database of this migration."""
    instance = await instance_of(event, ports)
    try:
        target = await server_of(ports, TARGET)
    except NotFound:
        return ()
    migration, _ = migration_of(event)
    try:
        await ports.databases.close_role(target, (await new_tenant(ports, instance)).user)
        await ports.databases.end_sessions(target, migration)
        for name in (scratch_name(event, instance.database), instance.database):
            await ports.databases.drop(target, name, migration)
    except NotOurs as error:
        return (f"left alone on {target.name}: {error}",)
    except (Unreachable, TimedOut) as error:
        # The customer does not wait for a dead server: odoo.conf and record point to the pool again.
        return (f"what is left of {instance.database} on {target.name} could not be removed: {error}",)
    return ()
