"""Seventh step: the data goes to the dedicated server and is verified before anyone may use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rehome_consumer.errors import NotFound, NotOurs, Refused, VerificationFailed
from rehome_consumer.facts import BACKUP_MANIFEST_SHA256, VERIFIED
from rehome_consumer.fingerprint import summary
from rehome_consumer.model import OwnershipTag
from rehome_consumer.steps import back_up, provision
from rehome_consumer.steps.support import open_access, warm
from rehome_consumer.steps.support.comparing import Fingerprinted, differences, fact_differences, named
from rehome_consumer.steps.support.fences import require_fence
from rehome_events.migration import MigrationRestored

if TYPE_CHECKING:
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation
    from rehome_events.parts import Verified


async def run(move: Move) -> MigrationRestored:
    """Restore into the scratch database, compare with the fenced source, rename, allow the role to log in.

    The role may log in only when nothing of the instance runs any more (`Policy.cutover`).
    """
    instance = await move.active_instance()
    target = await move.target()
    if await _is_promoted(move):
        await _until_stopped(move)
    else:
        await require_fence(move)
        async with asyncio.TaskGroup() as together:
            together.create_task(_until_stopped(move))
            finishing = together.create_task(warm.finished(move, await provision.unfenced_facts(move)))
        verified = finishing.result() or await _restore_verified(move)
        await move.facts.remember(VERIFIED, verified)
    await open_access.run(move)
    size = await move.databases.database_size(target, instance.database)
    return MigrationRestored(
        instance_id=instance.id,
        target=target.ref,
        database=instance.database,
        database_bytes=size,
        verified=await move.recorded(VERIFIED),
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    return (
        f"would restore the backup on {now.target_name}, compare it with the source, and let the role log in",
        f"backup {now.backup}: {'sealed' if now.sealed else 'not there'}",
        now.source_line(),
        now.target_line(),
    )


async def undo(move: Move) -> tuple[str, ...]:
    """Nobody uses the copy any more, and nothing was written to it (else refused: a person decides)."""
    await open_access.undo(move)
    return ()


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    return f"close role {now.target_role} on {now.target_name}; nothing written there is discarded"


async def _is_promoted(move: Move) -> bool:
    """Whether an earlier run got as far as the rename; a foreign database of that name is refused."""
    instance, target = await move.instance(), await move.target()
    tag = await move.databases.ownership_tag(target, instance.database)
    if tag is not None and tag != OwnershipTag(move.migration_id, move.attempt, "verified"):
        raise NotOurs(
            f"database {instance.database} on {target.name} belongs to migration {tag.migration_id} "
            f"attempt {tag.attempt}: look at it, then drop or rename it and replay"
        )
    return tag is not None


async def _until_stopped(move: Move) -> None:
    """Careful: nothing of the instance runs any more. Quick: what is left of it ends by itself, behind the fence."""
    if move.policy.cutover == "careful":
        await move.runtime.stop(await move.instance())


async def _restore_verified(move: Move) -> Verified:
    """Restore from the start and compare; the source is read while the target is written.

    Meanwhile the last task of the instance ends, for which `stop` has only asked: afterwards a task may write to the
    copy, and it must be one that `start` started.
    """
    instance, source, target = await move.instance(), await move.source(), await move.target()
    backup = await move.copier.backup(move.backup_id)
    sealed = await move.facts.recall(BACKUP_MANIFEST_SHA256)
    if backup is None and sealed is None:  # the move was to be warm
        await require_fence(move)
        backup = await back_up.made(move)
    if backup is None:
        raise NotFound(f"backup {move.backup_id} is no longer at the backup place")
    if sealed is not None and backup.manifest_sha256 != sealed:
        raise Refused(
            f"backup {backup.id}: its manifest is not the one that was sealed (SHA-256 {backup.manifest_sha256}, the "
            f"journal says {sealed}): someone altered the backup place. Nothing is restored from it"
        )
    await require_fence(move)
    like = await provision.make(move)
    scratch = await move.scratch_name()
    old_role = (await move.tenant()).user
    new_role = (await move.new_tenant()).user
    async with asyncio.TaskGroup() as together:
        together.create_task(move.copier.restore(target, scratch, backup, new_role, move.facts))
        reading = together.create_task(move.verifier.fingerprint(source, instance.database, old_role))
        together.create_task(_until_stopped(move))
    before, after = reading.result(), await move.verifier.fingerprint(target, scratch, new_role)
    found = await differences(
        move.verifier,
        Fingerprinted(source, instance.database, old_role, before),
        Fingerprinted(target, scratch, new_role, after),
    )
    made = await move.databases.database_facts(target, scratch, new_role)
    found += fact_differences(like, made)
    if found:
        raise VerificationFailed(f"the copy on {target.name} differs from {source.name}: {named(found)}")
    return summary(before)
