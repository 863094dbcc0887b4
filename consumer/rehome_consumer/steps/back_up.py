"""Fourth step: a complete, sealed backup of the fenced source; in a warm move it is made later, by `complete`.

Nothing is copied from that backup. Until `complete` has made it, there are the fenced source and the dump that the
copy began with.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rehome_consumer.facts import BACKUP_BYTES, BACKUP_MANIFEST_SHA256
from rehome_consumer.steps.support import leaving, warm
from rehome_consumer.steps.support.fences import require_fence
from rehome_consumer.steps.support.slots import dump_slot
from rehome_events.migration import MigrationBackedUp

if TYPE_CHECKING:
    from rehome_consumer.model import Backup
    from rehome_consumer.move import Move
    from rehome_consumer.steps.support.situation import Situation


async def run(move: Move) -> MigrationBackedUp:
    """Dump and count rows at the same time (nothing changes the source), then seal with a manifest."""
    instance = await move.active_instance()
    await require_fence(move)
    base = await move.copier.backup(move.rehearsal_id) if await warm.is_warm(move) else None
    backup = base or await made(move)
    await move.facts.release_slots((dump_slot(await move.source()),))
    return MigrationBackedUp(
        instance_id=instance.id,
        content="before_stop" if base else "fenced_source",
        backup_id=backup.id,
        place=str(backup.place),
        format="directory",
        bytes=backup.bytes,
        files=backup.files,
        manifest_sha256=backup.manifest_sha256,
        started_at=backup.started_at,
        ended_at=backup.ended_at,
    )


def describe(now: Situation) -> tuple[str, ...]:
    """What running it again would do."""
    if now.sealed:
        what = f"would check backup {now.backup}, which is sealed, and use it"
    else:
        partial = "; an incomplete one is removed" if now.partial else ""
        what = f"would dump the source into backup {now.backup}{partial}"
    return (what, now.source_line())


async def undo(move: Move) -> tuple[str, ...]:
    """The source is complete, so the backup of it is removed. A customer who is down does not wait for that."""
    return await leaving.from_backup_place(move, move.backup_id)


def describe_undo(now: Situation) -> str:
    """What undoing it would do."""
    if not now.stored:
        return "nothing: there is no backup"
    return f"remove {', '.join(now.stored)} from the backup place"


async def made(move: Move) -> Backup:
    """The backup of the fenced source; made now, unless it is there."""
    backup = await move.copier.backup(move.backup_id)
    if backup is None:
        await move.databases.end_sessions(await move.source(), move.migration_id)
        backup = await _back_up(move)
    await move.facts.remember(BACKUP_BYTES, backup.bytes)
    await move.facts.remember(BACKUP_MANIFEST_SHA256, backup.manifest_sha256)
    return backup


async def _back_up(move: Move) -> Backup:
    source, database = await move.source(), (await move.instance()).database
    role = (await move.tenant()).user
    facts = await move.databases.server_facts(source)
    versions = {"server": str(facts.version), "client": str(await move.copier.client_version())}
    async with asyncio.TaskGroup() as together:
        together.create_task(move.copier.dump(source, database, role, move.backup_id, move.facts))
        counting = together.create_task(move.verifier.row_counts(source, database, role))
    return await move.copier.seal(move.backup_id, counting.result(), versions)
