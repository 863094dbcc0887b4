"""Copies that follow their source in memory: what was written since arrives when it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from rehome_consumer.adapters.postgres import replication_parts as parts
from rehome_consumer.adapters.postgres.replicator import APPLIES_AS_OWNER_SINCE
from rehome_consumer.errors import ClaimLost, FellBehind, RehomeError, TableInUse
from tests.fakes.world import FakeRole, FakeSlot, FakeSubscription, copied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from rehome_consumer.model import Followed, Server, Written
    from tests.fakes.world import FakeDatabase, FakeServer, Visit, World

T = TypeVar("T")

FULL, OWN = "f", ("d", "n")
"""Replica identities of tables without a key, as in `FakeDatabase.identities`."""


@dataclass(frozen=True)
class FakeReplicator:
    """Port `Replicator` on a `World`."""

    world: World

    async def obstacles(
        self, source: Server, database: str, tenant: str, target: Server | None
    ) -> tuple[str, ...]:
        async with self.world.visit(source, "replicator.obstacles", database) as visit:
            found = [*visit.there.cannot_stream, *visit.session.database.unfollowable]
        if target is not None:
            async with self.world.visit(target, "replicator.obstacles") as visit:
                if visit.there.version // 10000 < APPLIES_AS_OWNER_SINCE:
                    found.append(f"{target.name} runs PostgreSQL {visit.there.version // 10000}: too old")
        return tuple(found)

    async def keyless(self, source: Server, database: str) -> tuple[str, ...]:
        async with self.world.visit(source, "replicator.keyless", database) as visit:
            return tuple(_without_key(visit.session.database))

    async def reclaim(self, source: Server, database: str, migration_id: UUID) -> None:
        async with self.world.visit(source, "replicator.reclaim") as visit:
            others = [
                role.name
                for role in visit.there.roles.values()
                if role.name != parts.sync_role(migration_id)
                and any(name == database for name, _ in role.lent)
            ]
        for reader in others:
            await self.remove(source, UUID(reader.split("_")[1]))

    async def with_slot(self, followed: Followed, limit: timedelta, work: Callable[[str], Awaitable[T]]) -> T:
        name, reader = parts.name_of(followed.migration_id), parts.sync_role(followed.migration_id)
        working = False
        try:
            async with self.world.visit(followed.source, "replicator.with_slot", followed.database) as visit:
                there, database = visit.there, visit.session.database
                _require_missing(name in there.slots or reader in there.roles, name)
                there.roles[reader] = FakeRole(reader, None, attributes=("REPLICATION",))
                for table, identity in _without_key(database).items():
                    there.roles[reader].lent[followed.database, table] = identity
                for table in _without_key(database):
                    await visit.step("identities_remembered")
                    _require_free(database, table)
                    if database.identities.get(table) in OWN:
                        database.identities[table] = FULL
                await visit.step("published")
                database.publications.add(name)
                await visit.step("witness_made")
                there.slots[parts.witness_of(followed.migration_id)] = FakeSlot(
                    followed.database, since=copied(database)
                )
                await visit.step("slot_made")
                there.slots[name] = FakeSlot(followed.database)
                snapshot = f"{visit.session.pid:08X}-2"
                self.world.snapshots[snapshot] = copied(database)
                working = True
                try:
                    return await work(snapshot)
                finally:
                    del self.world.snapshots[snapshot]
        except ClaimLost:
            raise
        except RehomeError as error:
            if working:
                raise
            raise FellBehind(str(error)) from None

    async def restore_identities(self, followed: Followed, snapshot: str) -> None:
        try:
            async with self.world.visit(followed.source, "replicator.restore_identities") as visit:
                lent, then = _lent(visit.there, followed), self.world.snapshots[snapshot]
                own = {table: lent[table] for table in lent if then.identities.get(table) == FULL}
            async with self.world.visit(
                followed.target, "replicator.restore_identities", followed.copy
            ) as visit:
                await visit.step("set")
                visit.session.database.identities.update(own)
        except ClaimLost:
            raise
        except RehomeError as error:
            raise FellBehind(str(error)) from None

    async def lent(self, followed: Followed) -> tuple[str, ...]:
        async with self.world.visit(followed.source, "replicator.lent", followed.database) as visit:
            now = visit.session.database.identities
            return tuple(table for table in _lent(visit.there, followed) if now.get(table) == FULL)

    async def follow(self, followed: Followed, limit: timedelta) -> None:
        owner = parts.apply_role(followed.migration_id)
        try:
            async with self.world.visit(followed.source, "replicator.follow") as visit:
                role = visit.there.roles.get(parts.sync_role(followed.migration_id))
                if role is None:
                    raise FellBehind("there is nobody who could read the slot")
                role.password = "known to the target alone"
            async with self.world.visit(followed.target, "replicator.follow", followed.copy) as visit:
                _require_missing(owner in visit.there.roles, owner)
                visit.there.roles[owner] = FakeRole(owner, None, member_of=(followed.role,))
                await visit.step("apply_role_made")
                if followed.source.host in visit.there.cannot_reach:
                    raise FellBehind(f"{followed.target.name} does not reach {followed.source.name}")
                await visit.step("subscribed")
                visit.session.database.follows = FakeSubscription(
                    parts.name_of(followed.migration_id),
                    (followed.source.host, followed.source.port),
                    followed.database,
                )
        except ClaimLost:
            raise
        except RehomeError as error:
            raise FellBehind(str(error)) from None

    async def reach(self, followed: Followed, limit: timedelta, keep: int) -> timedelta:
        name = parts.name_of(followed.migration_id)
        async with (
            self.world.visit(followed.source, "replicator.reach", followed.database) as here,
            self.world.visit(followed.target, "replicator.reach") as there,
        ):
            copy = there.there.databases.get(followed.copy)
            subscription = copy.follows if copy else None
            slot = here.there.slots.get(name)
            witness = here.there.slots.get(parts.witness_of(followed.migration_id))
            if witness is not None and witness.kept > keep:
                del here.there.slots[parts.witness_of(followed.migration_id)]
            if copy is None or subscription is None or subscription.name != name:
                raise FellBehind(f"there is no subscription {name}")
            if subscription.broken:
                raise FellBehind("a change could not be applied")
            if slot is None:
                raise FellBehind(f"there is no slot {name}")
            if slot.kept > keep:
                raise FellBehind(f"slot {name} keeps {slot.kept} bytes of WAL")
            await there.step("waited")
            here.require_session()
            if slot.behind > limit:
                raise FellBehind(f"not there after {limit.total_seconds():g} s")
            for table in copy.tables:
                if table in here.session.database.tables:
                    copy.tables[table] = list(here.session.database.tables[table])
            return slot.behind

    async def written(self, followed: Followed) -> Written:
        async with self.world.visit(followed.source, "replicator.written", followed.database) as visit:
            slot, now = visit.there.slots.get(parts.witness_of(followed.migration_id)), visit.session.database
            await visit.step("read")
            if slot is None or slot.since is None:
                raise FellBehind("there is no witness")
            before, after = ((one.objects, one.tables.keys(), one.identities) for one in (slot.since, now))
            if before != after:
                raise FellBehind("something was made or changed")
            return {name: None for name, rows in now.tables.items() if rows != slot.since.tables[name]}

    async def strays(self, followed: Followed, written: Written) -> tuple[str, ...]:
        async with self.world.visit(followed.target, "replicator.strays", followed.copy) as visit:
            return tuple(sorted(visit.session.database.meddled - written.keys()))

    async def detach(self, followed: Followed) -> None:
        await self.remove(followed.target, followed.migration_id)

    async def settle(self, followed: Followed) -> None:
        async with (
            self.world.short_lived_role(
                followed.source, "replicator.settle", followed.tenant, "hold"
            ) as reader,
            self.world.short_lived_role(
                followed.target, "replicator.settle", followed.role, "restore"
            ) as writer,
            self.world.visit(followed.source, "replicator.settle", followed.database, reader) as here,
            self.world.visit(followed.target, "replicator.settle", followed.copy, writer) as there,
        ):
            await there.step("settled")
            for name in there.session.database.sequences:
                there.session.database.sequences[name] = here.session.database.sequences[name]

    async def remove(self, server: Server, migration_id: UUID) -> bool:
        name = parts.name_of(migration_id)
        async with self.world.visit(server, "replicator.remove") as visit:
            there = visit.there
            found = _remove_subscriptions(there, name)
            await visit.step("unsubscribed")
            for slot in (name, parts.witness_of(migration_id)):
                found |= there.slots.pop(slot, None) is not None
            await visit.step("slot_dropped")
            for database in there.databases.values():
                database.publications.discard(name)
            await visit.step("unpublished")
            await _put_back(visit, parts.sync_role(migration_id))
            for role in (parts.sync_role(migration_id), parts.apply_role(migration_id)):
                found |= there.roles.pop(role, None) is not None
            return found


def _without_key(database: FakeDatabase) -> dict[str, str]:
    return {table: identity for table, identity in database.identities.items() if identity in OWN}


def _lent(there: FakeServer, followed: Followed) -> dict[str, str]:
    role = there.roles.get(parts.sync_role(followed.migration_id))
    lent = role.lent if role else {}
    return {table: one for (database, table), one in lent.items() if database == followed.database}


def _require_free(database: FakeDatabase, table: str) -> None:
    if table in database.in_use:
        raise TableInUse(f"table {table} is in use")


def _require_unpublished(database: FakeDatabase, table: str) -> None:
    if database.publications:
        raise TableInUse(f"a copy of another migration follows {table}")


async def _put_back(visit: Visit, reader: str) -> None:
    role = visit.there.roles.get(reader)
    failed: TableInUse | None = None
    for (name, table), identity in role.lent.items() if role else ():
        await visit.step("identity_put_back")
        database = visit.there.databases.get(name)
        if database is None or database.identities.get(table) != FULL:
            continue
        try:
            _require_free(database, table)
            _require_unpublished(database, table)
        except TableInUse as error:
            failed = error
        else:
            database.identities[table] = identity
    if failed:
        raise failed


def _remove_subscriptions(there: FakeServer, name: str) -> bool:
    found = False
    for database in there.databases.values():
        if database.follows and database.follows.name == name:
            database.follows, found = None, True
    return found


def _require_missing(there: bool, name: str) -> None:
    if there:
        raise FellBehind(f"{name} is there already")
