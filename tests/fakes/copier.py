"""Backups and restores that are copies in memory, made table by table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from rehome_consumer.context import current_migration
from rehome_consumer.errors import (
    ChildFailed,
    Conflict,
    Incompatible,
    NotFound,
    NotOurs,
    NotReady,
    Refused,
    Unreachable,
)
from rehome_consumer.model import EVERYTHING, Backup
from tests.fakes.world import FakeBackup, copied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehome_consumer.adapters.postgres.ownership_tags import TagComment
    from rehome_consumer.model import Scope, Server
    from rehome_consumer.ports.steps import Facts
    from tests.fakes.world import FakeDatabase, Visit, World

ROOT = Path("/srv/backups")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class FakeCopier:
    """Port `Copier` on a `World`."""

    world: World

    async def client_version(self) -> int:
        if self.world.client is None:
            raise NotReady("there is no pg_dump")
        return self.world.client

    async def require_dumpable(self, server: Server, database: str) -> None:
        self.world.database(server, database)

    async def free_bytes(self) -> int:
        if self.world.free is None:
            raise NotReady(f"the backup place {ROOT} cannot be written to")
        return self.world.free

    async def require_place(self, mark: UUID | None) -> UUID:
        await self.free_bytes()
        if mark is None:
            self.world.mark = self.world.mark or UUID(int=1, version=4)
        if self.world.mark is None:
            raise NotReady(f"the backup place {ROOT} has no file .rehome-place")
        if mark is not None and self.world.mark != mark:
            raise NotReady(f"the backup place {ROOT} is another one than the consumers have used")
        return self.world.mark

    async def dump(
        self,
        server: Server,
        database: str,
        tenant: str,
        backup_id: str,
        facts: Facts,
        scope: Scope = EVERYTHING,
    ) -> None:
        _check(backup_id)
        found = self.world.backups.get(backup_id)
        if found is not None and found.sealed:
            return
        self.world.backups.pop(backup_id, None)
        await self.free_bytes()
        await self.client_version()
        async with (
            self.world.short_lived_role(server, "copier.dump", tenant, "dump") as user,
            self.world.visit(server, "copier.dump", database, user) as visit,
        ):
            content = copied(self.world.seen(visit, scope.snapshot))
            if not scope.rows:
                content.tables = {name: [] for name in content.tables}
            total = len(content.tables)
            for done, _ in enumerate(content.tables, 1):
                await _copying(visit, "table")
                await facts.progress(done, total)
            self.world.backups[backup_id] = FakeBackup(content, visit.there.version)

    async def seal(self, backup_id: str, rows: Mapping[str, int], versions: Mapping[str, str]) -> Backup:
        _check(backup_id)
        await self.world.pause("copier.seal")
        found = self.world.backups.get(backup_id)
        if found is None:
            raise Conflict(f"there is no complete dump of backup {backup_id} to seal")
        if found.sealed is None:
            manifest = repr((sorted(rows.items()), sorted(versions.items()), found.content.tables))
            found.sealed = Backup(
                id=backup_id,
                place=ROOT / backup_id,
                bytes=found.content.bytes,
                files=len(found.content.tables) + 1,
                manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
                started_at=WHEN,
                ended_at=WHEN,
            )
        return found.sealed

    async def backup(self, backup_id: str) -> Backup | None:
        _check(backup_id)
        await self.world.pause("copier.backup")
        found = self.world.backups.get(backup_id)
        if found is None or found.sealed is None:
            return None
        if found.damaged:
            raise Refused(f"backup {backup_id}: file {found.damaged} was altered since it was sealed")
        return found.sealed

    async def restore(
        self,
        server: Server,
        database: str,
        backup: Backup,
        role: str,
        facts: Facts,
        *,
        jobs: int | None = None,
        nice: int = 0,
        vacuum: bool = False,
    ) -> None:
        if backup.id not in self.world.backups:
            raise NotFound(f"backup {backup.id} is no longer at the backup place")
        await self.free_bytes()
        await self.client_version()
        source = self.world.backups[backup.id]
        async with self.world.visit(server, "copier.restore", database) as visit:
            target = visit.session.database
            label = _require_scratch(target, server)
            if label.restored:
                return
            if not target.empty:
                raise Conflict(f"database {database} on {server.name} is not empty")
            missing = sorted(source.content.extensions.items() - visit.there.offers.items())
            if missing:
                raise Incompatible(f"{server.name} does not offer extension {missing[0]}")
            content = copied(source.content)
            target.extensions |= content.extensions
            if strays := content.strays:
                raise Incompatible(f"extensions of {content.name} hold what they do not bring: {strays}")
            async with (
                self.world.short_lived_role(server, "copier.restore", role, "restore") as user,
                self.world.visit(server, "copier.restore", database, user) as inside,
            ):
                for done, (name, rows) in enumerate(content.tables.items(), 1):
                    await _copying(inside, "table")
                    target.tables[name] = rows
                    await facts.progress(done, len(content.tables))
                await _copying(inside, "rest")
                if refused := content.unrestorable:
                    raise Incompatible(f"{inside.what}: ERROR: {refused[0]}")
                target.sequences |= content.sequences
                target.objects |= content.objects
                target.identities |= content.identities
            visit.require_session()
            if "owner" in target.objects:
                target.objects["owner"] = dict.fromkeys(target.objects["owner"], role)
            target.label = replace(label, restored=True)

    async def discard(self, backup_id: str) -> None:
        _check(backup_id)
        await self.world.pause("copier.discard")
        await self.free_bytes()
        self.world.backups.pop(backup_id, None)


def _require_scratch(database: FakeDatabase, server: Server) -> TagComment:
    """Its tag, if it is this migration's scratch database."""
    label = database.label
    if label is None or label.tag.state != "scratch":
        state = label.tag.state if label else "without a tag"
        raise NotOurs(
            f"database {database.name} on {server.name} is {state}, not a scratch database of this migration"
        )
    if current_migration.get() not in (None, label.tag.migration_id):
        raise NotOurs(f"database {database.name} on {server.name} is another migration's")
    return label


async def _copying(visit: Visit, name: str) -> None:
    """A step of a client program: a lost connection is its failure."""
    try:
        await visit.step(name)
    except Unreachable as error:
        raise ChildFailed(f"{visit.what}: the client program ended: {error}") from None


def _check(backup_id: str) -> None:
    if not backup_id or not backup_id.replace("-", "").replace("_", "").isalnum():
        raise Refused(f"{backup_id!r} is no backup id")
