"""Fifth step: the tenant's role (without login) and an empty scratch database on the dedicated server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rehome_consumer.facts import FENCE
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps.support import leaving, warm
from rehome_events.migration import MigrationProvisioned

if TYPE_CHECKING:
    from rehome_consumer.model import DatabaseFacts, Fence
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation


async def run(move: Move) -> MigrationProvisioned:
    """Role and scratch database; an instance that someone restarts by hand finds nothing to connect to."""
    instance = await move.active_instance()
    target = await move.target()
    facts = await unfenced_facts(move) if await warm.is_kept(move) else await make(move)
    return MigrationProvisioned(
        instance_id=instance.id,
        target=target.ref,
        scratch_database=await move.scratch_name(),
        role=(await move.new_tenant()).user,
        encoding=facts.encoding,
        collation=facts.collation,
        ctype=facts.ctype,
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (f"would make role and scratch database on {now.target_name}", now.target_line())


async def undo(move: Move) -> tuple[str, ...]:
    """Nothing of the tenant stays on the dedicated server: no login, no database of this migration."""
    names = (await move.scratch_name(), (await move.instance()).database)
    return await leaving.from_target(move, *names, role=(await move.new_tenant()).user)


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    if now.target is None:
        return "nothing: there is no dedicated server"
    names = ", ".join(one.name for one in now.own_databases)
    dropped = f"drop {names}" if names else "drop no database (there is none of this migration's)"
    return f"close role {now.target_role} on {now.target}; {dropped}"


async def make(move: Move) -> DatabaseFacts:
    """Make the role and an empty scratch database; a half filled one of this migration is replaced."""
    target, credentials = await move.target(), await move.new_tenant()
    facts = await unfenced_facts(move)
    await move.databases.end_sessions(target, move.migration_id)
    await move.databases.make_role(target, credentials, facts.role, facts.grantees)
    await move.databases.make_scratch(
        target,
        await move.scratch_name(),
        facts,
        credentials.user,
        OwnershipTag(move.migration_id, move.attempt, "scratch"),
    )
    return facts


async def unfenced_facts(move: Move) -> DatabaseFacts:
    """The source's facts as they were before the fence: the copy is not fenced."""
    instance, source, user = await move.instance(), await move.source(), (await move.tenant()).user
    facts = await move.databases.database_facts(source, instance.database, user)
    before = await move.facts.recall(FENCE)
    return as_before(before, facts, user)


def as_before(before: Fence | None, facts: DatabaseFacts, user: str) -> DatabaseFacts:
    """A fenced database's facts with the privileges of before; what its owner had is the tenant's."""
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
