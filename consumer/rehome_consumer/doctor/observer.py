"""Reads everything about an instance, or about all of them, into a snapshot; changes nothing.

A read that fails does not stop the others: it is recorded as a `Trouble`. Only the state database must answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rehome_consumer import saga
from rehome_consumer.doctor.snapshot import InstanceSnapshot, ServerSnapshot, Snapshot, Trouble
from rehome_consumer.errors import RehomeError
from rehome_consumer.facts import NEW_USER, SOURCE, TARGET, TENANT_USER, RecordedFacts
from rehome_consumer.model import TERMINATED
from rehome_consumer.ports.readiness import EVERYTHING
from rehome_consumer.rabbitmq.topology import DEAD, queue_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from uuid import UUID

    from rehome_consumer.facts import Fact
    from rehome_consumer.model import Instance, Server
    from rehome_consumer.ports.operators import (
        BackupEntry,
        BackupInventory,
        ConfBackups,
        DatabaseState,
        DeadLetterRecord,
        Inspector,
        Inventory,
        JournalViews,
        MigrationView,
        PlatformRecords,
        QueueInspector,
    )
    from rehome_consumer.ports.readiness import Readiness
    from rehome_consumer.ports.steps import Clock, Runtime

T = TypeVar("T")
X = TypeVar("X")

LOOK_AGE: Final = 60.0
"""Seconds that a look at the consumer itself may be old."""
AT_A_TIME: Final = 8
"""Instances or servers that are read concurrently."""
MOST: Final = 10_000
"""Open migrations that are read."""


@dataclass(slots=True)
class _Attempted:
    """Reads that may fail."""

    troubles: list[Trouble] = field(default_factory=list)

    async def __call__(self, what: str, read: Awaitable[T]) -> T | None:
        try:
            return await read
        except RehomeError as error:
            self.troubles.append(Trouble(what, str(error)))
            return None


@dataclass(frozen=True, slots=True)
class Observer:
    """Reads through these ports. Without `queues` the broker is left out, without `readiness` the consumer itself.

    `host` is the name of the machine that readiness is about.
    """

    clock: Clock
    views: JournalViews
    records: PlatformRecords
    inspector: Inspector
    conf: ConfBackups
    runtime: Runtime
    inventory: BackupInventory
    queues: QueueInspector | None = None
    readiness: Readiness | None = None
    host: str = ""

    async def instance(self, instance_id: UUID, migration: MigrationView | None = None) -> InstanceSnapshot:
        """One instance, and a migration of it: by default the last that moved something."""
        if migration is None:
            migration = next(iter(await self.views.newest_moves(instance_id)), None)
        tried = _Attempted()
        stored = await tried("the backup place", self.inventory.entries()) or []
        snapshot = await self._instance(instance_id, migration, stored, {})
        return replace(snapshot, troubles=(*snapshot.troubles, *tried.troubles))

    async def everything(
        self, instance_id: UUID | None = None, dead_letters: tuple[DeadLetterRecord, ...] | None = None
    ) -> Snapshot:
        """All instances that migrations moved or move, or one; all servers, with rehome's own things on them.

        Args:
            instance_id: only this instance.
            dead_letters: those in the queue, if they were read.

        Raises:
            RehomeError: the state database does not answer.
        """
        tried = _Attempted()
        moves: dict[UUID, MigrationView | None] = {} if instance_id is None else {instance_id: None}
        moves |= {view.instance_id: view for view in await self.views.newest_moves(instance_id)}
        opened = await self.views.migrations(instance_id, MOST, ended=False)
        stored = tuple(await tried("the backup place", self.inventory.entries()) or ())
        listed = await tried("db_servers", self.records.tenant_servers()) or []
        servers = await _concurrently(self._server, listed)
        inventories = {one.server.id: one.inventory for one in servers if one.inventory}

        async def read(move: tuple[UUID, MigrationView | None]) -> InstanceSnapshot:
            return await self._instance(*move, stored, inventories)

        instances = await _concurrently(read, moves.items())
        unsent = tuple(await self.views.unsent())
        ids = {view.id for view in (*moves.values(), *opened) if view is not None}
        named = [one.migration_id for one in stored] + [one.migration_id for one in dead_letters or ()]
        ids |= {one.migration_id for one in unsent} | {one for one in named if one}
        ids |= {one for inventory in inventories.values() for one in _owners(inventory)}
        migrations = {view.id: view for view in await self.views.by_ids(ids)}
        return Snapshot(
            now=self.clock.now(),
            instances=tuple(instances),
            servers=tuple(servers),
            migrations=migrations,
            steps={view.id: await self.views.steps(view.id) for view in opened},
            holders=await self.views.holders({view.instance_id for view in migrations.values()}),
            unsent=unsent,
            dead_letters=dead_letters,
            recorded_dead_letters=tuple(await self.views.dead_letters()),
            queues=await tried("the broker's queues", self._queues()),
            stored=stored,
            troubles=tuple(tried.troubles),
            not_ready=await self.readiness.causes(EVERYTHING, max_age=LOOK_AGE) if self.readiness else (),
            host=self.host,
        )

    async def _queues(self) -> Any:
        names = [DEAD, *(queue_of(step.name) for step in saga.MIGRATION)]
        return await self.queues.queues(names) if self.queues else None

    async def _server(self, server: Server) -> ServerSnapshot:
        try:
            return ServerSnapshot(server, await self.inspector.inventory(server))
        except RehomeError as error:
            return ServerSnapshot(server, trouble=str(error))

    async def _instance(
        self,
        instance_id: UUID,
        migration: MigrationView | None,
        stored: Iterable[BackupEntry],
        inventories: Mapping[UUID, Inventory],
    ) -> InstanceSnapshot:
        tried = _Attempted()
        facts = await self.views.facts(migration.id, migration.attempt) if migration else RecordedFacts()
        instance = await tried("the record", self.records.instance(instance_id))
        snapshot = InstanceSnapshot(
            instance_id,
            migration=migration,
            facts=facts,
            instance=instance,
            holder=(await self.views.holders([instance_id])).get(instance_id),
            stored=tuple(one for one in stored if migration and one.migration_id == migration.id),
        )
        if instance is not None:
            snapshot = await self._around(tried, snapshot, instance, inventories)
        return replace(snapshot, troubles=tuple(tried.troubles))

    async def _around(
        self,
        tried: _Attempted,
        snapshot: InstanceSnapshot,
        instance: Instance,
        inventories: Mapping[UUID, Inventory],
    ) -> InstanceSnapshot:
        """What belongs to an instance: servers, files, service."""
        home = await tried("the home server", self.records.home(instance))
        source = await self._recorded_server(tried, snapshot, SOURCE) or home
        target = await self._recorded_server(tried, snapshot, TARGET)
        target = target or await tried("the dedicated server", self.records.dedicated_server(instance.id))
        if source and target and source.id == target.id:
            target = None
        conf, files, service = None, None, None
        if instance.status != TERMINATED:
            conf = await tried("odoo.conf", self.conf.read(instance))
            files = await tried("the directory of odoo.conf", self.conf.conf_backups(instance))
            service = await tried("the service", self.runtime.find(instance))
        role = snapshot.facts.get(TENANT_USER) or instance.db_user or (conf and conf.credentials.user) or ""
        new_role = snapshot.facts.get(NEW_USER) or role
        same_login: list[Instance] | None = None
        if source and role:
            looking = self.records.others_with_login(instance.id, source, str(role))
            same_login = await tried(f"who else logs in as {role}", looking)
        return replace(
            snapshot,
            home=home,
            source=source,
            target=target,
            source_state=await self._state(tried, source, instance, role),
            target_state=await self._state(tried, target, instance, new_role),
            on_target=await self._on_target(tried, target, snapshot.migration, inventories),
            same_login=tuple(same_login or ()),
            conf=conf,
            files=files or (),
            service=service,
        )

    async def _recorded_server(
        self, tried: _Attempted, snapshot: InstanceSnapshot, fact: Fact[UUID]
    ) -> Server | None:
        server_id = snapshot.facts.get(fact)
        return await tried(f"the {fact.name} server", self.records.server(server_id)) if server_id else None

    async def _state(
        self, tried: _Attempted, server: Server | None, instance: Instance, role: str
    ) -> DatabaseState | None:
        if server is None:
            return None
        what = f"{instance.database} on {server.name}"
        return await tried(what, self.inspector.database_state(server, instance.database, str(role)))

    async def _on_target(
        self,
        tried: _Attempted,
        target: Server | None,
        migration: MigrationView | None,
        inventories: Mapping[UUID, Inventory],
    ) -> Any:
        if target is None or migration is None:
            return ()
        found = inventories.get(target.id)
        found = found or await tried(f"databases on {target.name}", self.inspector.inventory(target))
        databases = found.databases if found else ()
        return tuple(one for one in databases if one.tag and one.tag.migration_id == migration.id)


def _owners(inventory: Inventory) -> Iterable[UUID]:
    """Migrations that something on a server belongs to."""
    for database in inventory.databases:
        owner = database.tag.migration_id if database.tag else database.maker
        if owner is not None:
            yield owner
    yield from (one.migration_id for one in inventory.sessions)
    yield from inventory.short_lived


async def _concurrently(read: Callable[[X], Awaitable[T]], things: Iterable[X]) -> list[T]:
    """Read each thing, a few at a time; results in their order."""
    slots = asyncio.Semaphore(AT_A_TIME)

    async def one(thing: X) -> T:
        async with slots:
            return await read(thing)

    try:
        async with asyncio.TaskGroup() as together:
            tasks = [together.create_task(one(thing)) for thing in things]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return [task.result() for task in tasks]
